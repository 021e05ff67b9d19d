"""Dashboards with live data as one HTML page, for those who have no Grafana at hand."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from dashboards.page import document, grafana
from dashboards.page.document import Page
from dashboards.page.grafana import Answer, Dashboard, Query, Window
from dashboards.page.prometheus import Prometheus, QueryError
from dashboards.page.variables import Value

__all__ = ["Page", "render"]

_AT_ONCE = 8
"""Queries in flight; Prometheus' own limit is 20."""


def render(
    dashboards: Mapping[str, str],
    prometheus_url: str,
    *,
    seconds: float | None = None,
    end: float | None = None,
    scrape_seconds: float = 15,
) -> Page:
    """The page of some dashboards (file name to Grafana's JSON) with the data of a running Prometheus.

    It shows `seconds` up to `end` (unix seconds): unless given, as long as each dashboard says, up to now.
    `scrape_seconds` is the scrape interval that Grafana's datasource is told. A query that Prometheus refuses
    is an error of its panel; ValueError means that a text is no dashboard, or that its variables cannot be
    had; httpx.TransportError that there is no Prometheus.
    """
    made = time.time() if end is None else end
    with Prometheus(prometheus_url) as prometheus, ThreadPoolExecutor(_AT_ONCE) as pool:
        reports = []
        newest: dict[str, list[float]] = {}
        for name, text in dashboards.items():
            board = Dashboard(_definition(name, text))
            window = Window(made - (seconds or board.seconds), made, scrape_seconds)
            values = _values(board, window, prometheus)
            queries = board.queries(window, values)
            answers = dict(
                zip(queries, pool.map(lambda query: _answer(prometheus, query), queries), strict=True)
            )
            reports.append(board.report(window, values, answers))
            newest |= board.newest(window, values, answers)
    return replace(document.page(reports, made), answers=newest)


def _definition(name: str, text: str) -> dict[str, Any]:
    try:
        definition = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    if not isinstance(definition, dict) or "title" not in definition:
        raise ValueError(f"{name} is no dashboard: it has no title")
    return definition


def _values(board: Dashboard, window: Window, prometheus: Prometheus) -> dict[str, Value]:
    """What the dashboard's variables stand for; one may use those before it."""
    values: dict[str, Value] = {}
    for variable in board.variables:
        label, match = grafana.lookup(variable, values)
        found = prometheus.label_values(label, match, window.start, window.end)
        values[variable.name] = variable.value(found)
    return values


def _answer(prometheus: Prometheus, query: Query) -> Answer:
    try:
        if query.step:
            return prometheus.range(query.expression, query.start, query.end, query.step)
        return prometheus.instant(query.expression, query.end)
    except QueryError as error:
        return error
