"""Prometheus' HTTP API, as far as a dashboard asks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

_SECONDS = 60.0


class QueryError(ValueError):
    """Prometheus, or what is before it, refused a query; the text is its own."""


class Prometheus:
    """A running Prometheus; usable from several threads. Raises httpx.TransportError when none answers."""

    def __init__(self, url: str) -> None:
        # Its address is a local one or a tunnel's: nothing for a proxy.
        self._client = httpx.Client(base_url=url.rstrip("/"), timeout=_SECONDS, trust_env=False)

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def instant(self, expression: str, time: float) -> list[Any]:
        """Samples of an expression at a time (unix seconds)."""
        return self._result("/api/v1/query", {"query": expression, "time": time})

    def range(self, expression: str, start: float, end: float, step: float) -> list[Any]:
        """Series of an expression between two times, a value each `step` seconds."""
        parameters = {"query": expression, "start": start, "end": end, "step": step}
        return self._result("/api/v1/query_range", parameters)

    def label_values(self, label: str, match: str | None, start: float, end: float) -> list[str]:
        """Values that a label has in series of the selector `match` (None: in all)."""
        parameters: dict[str, str | float] = {"start": start, "end": end}
        if match:
            parameters["match[]"] = match
        values: list[str] = self._data(self._client.get(f"/api/v1/label/{label}/values", params=parameters))
        return values

    def _result(self, path: str, parameters: Mapping[str, Any]) -> list[Any]:
        # Posted: an expression may be longer than an address.
        data = self._data(self._client.post(path, data=parameters))
        if data["resultType"] in ("vector", "matrix"):
            result: list[Any] = data["result"]
            return result
        # A scalar is a sample without labels, as Grafana shows it.
        return [{"metric": {}, "value": data["result"]}]

    def _data(self, response: httpx.Response) -> Any:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise QueryError(f"{response.url} answers {response.status_code} {response.text[:200]}")
        if answer.get("status") != "success":
            raise QueryError(f"{answer.get('errorType')}: {answer.get('error')}")
        return answer["data"]
