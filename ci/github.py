"""What is told on GitHub: a comment for each stack of a pull request, an issue for each stack that drifts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

_PER_PAGE = 100
_TIMEOUT = 30.0
_WRITER = "github-actions[bot]"
"""Who writes with the token of a workflow's job. Only such texts are written over: whoever has written a text
may change it afterwards, and would have the report in a comment of theirs."""


class GithubError(Exception):
    """GitHub was not told; the text says why and what to do, and holds no token."""


@dataclass(frozen=True)
class Repository:
    """A repository on GitHub; each method raises GithubError."""

    api: str
    """Base URL without trailing slash."""
    name: str
    """`owner/name`."""
    token: str = field(repr=False)

    @classmethod
    def of_the_run(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The repository whose workflow runs, from the variables that the runner sets, and GITHUB_TOKEN."""
        missing = [name for name in ("GITHUB_REPOSITORY", "GITHUB_TOKEN") if not environment.get(name)]
        if missing:
            raise GithubError(
                f"{' and '.join(missing)} not set: this runs in a workflow, or with a token of yours"
            )
        api = environment.get("GITHUB_API_URL") or "https://api.github.com"
        return cls(api.rstrip("/"), environment["GITHUB_REPOSITORY"], environment["GITHUB_TOKEN"])

    def comment(self, pull_request: int, marker: str, text: str) -> str:
        """Writes the comment that begins with `marker`, over the one of an earlier run; returns its URL.

        Needs the permission `pull-requests: write`.
        """
        for comment in self._all(f"/issues/{pull_request}/comments"):
            if _is_ours(comment, marker):
                return self._send("PATCH", f"/issues/comments/{comment['id']}", {"body": text})
        return self._send("POST", f"/issues/{pull_request}/comments", {"body": text})

    def issue(self, title: str, marker: str, text: str) -> str:
        """Opens an issue that begins with `marker`, or writes over the open one of an earlier run.

        Returns its URL. Needs the permission `issues: write`.
        """
        for issue in self._all("/issues", state="open"):
            if "pull_request" not in issue and _is_ours(issue, marker):
                return self._send("PATCH", f"/issues/{issue['number']}", {"body": text})
        return self._send("POST", "/issues", {"title": title, "body": text})

    def _all(self, path: str, **params: str) -> Iterator[Mapping[str, Any]]:
        page = 1
        while True:
            things = self._call("GET", path, params={**params, "per_page": str(_PER_PAGE), "page": str(page)})
            yield from things
            if len(things) < _PER_PAGE:
                return
            page += 1

    def _send(self, method: str, path: str, body: Mapping[str, str]) -> str:
        return str(self._call(method, path, json=body)["html_url"])

    def _call(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        url = f"{self.api}/repos/{self.name}{path}"
        try:
            answer = httpx.request(method, url, headers=headers, timeout=_TIMEOUT, **options)
        except httpx.HTTPError as error:
            raise GithubError(f"{method} {url}: {error}") from error
        if answer.is_success:
            try:
                return answer.json()
            except ValueError:
                raise GithubError(f"{method} {url}: the answer is no JSON: {answer.text[:300]}") from None
        hint = " (does the job have the permission?)" if answer.status_code in (403, 404) else ""
        raise GithubError(f"{method} {url}: HTTP {answer.status_code}{hint}: {answer.text[:300]}")


def _is_ours(written: Mapping[str, Any], marker: str) -> bool:
    author = written.get("user") or {}
    return author.get("login") == _WRITER and str(written.get("body")).startswith(marker)
