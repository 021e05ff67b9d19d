"""One comment for each stack, one issue for each stack: written over, not piled up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ci.github import GithubError, Repository
from tests.ai_deploy.servers import Answer, Request, serving

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "ghs_canary0123456789"
BOT = {"login": "github-actions[bot]", "type": "Bot"}
DONE = Answer(body={"html_url": "https://github.com/owner/name/1"})


class Github:
    """A repository with some comments and issues on it."""

    def __init__(self, listed: list[dict[str, Any]]) -> None:
        self.listed = listed
        self.changes: list[tuple[str, str, Any]] = []

    def answer(self, request: Request) -> Answer:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        url = urlsplit(request.path)
        if request.method == "GET":
            page, size = (int(parse_qs(url.query)[name][0]) for name in ("page", "per_page"))
            return Answer(body=self.listed[(page - 1) * size : page * size])
        self.changes.append((request.method, url.path, request.json))
        return DONE


def told(github: Github, what: str) -> None:
    with serving(github.answer) as server:
        repository = Repository(server.url, "owner/name", TOKEN)
        if what == "comment":
            repository.comment(7, "<!-- mark -->", "<!-- mark -->\nnew")
        else:
            repository.issue("Drift of dev", "<!-- mark -->", "<!-- mark -->\nnew")


def test_the_first_comment_is_made() -> None:
    github = Github([{"id": 1, "body": "LGTM <!-- mark -->", "user": BOT}])
    told(github, "comment")
    assert github.changes == [("POST", "/repos/owner/name/issues/7/comments", {"body": "<!-- mark -->\nnew"})]


def test_the_next_one_is_written_over_it_even_on_a_long_page() -> None:
    others = [{"id": number, "body": None} for number in range(250)]
    github = Github([*others, {"id": 1000, "body": "<!-- mark -->\nold", "user": BOT}])
    told(github, "comment")
    assert github.changes == [
        ("PATCH", "/repos/owner/name/issues/comments/1000", {"body": "<!-- mark -->\nnew"})
    ]


def test_an_issue_is_opened_once() -> None:
    github = Github([{"number": 3, "body": "<!-- mark -->", "pull_request": {}, "user": BOT}])
    told(github, "issue")
    body = {"title": "Drift of dev", "body": "<!-- mark -->\nnew"}
    assert github.changes == [("POST", "/repos/owner/name/issues", body)]


def test_an_open_issue_is_renewed() -> None:
    github = Github([{"number": 4, "body": "<!-- mark -->\nold", "user": BOT}])
    told(github, "issue")
    assert github.changes == [("PATCH", "/repos/owner/name/issues/4", {"body": "<!-- mark -->\nnew"})]


@pytest.mark.parametrize("what", ["comment", "issue"])
def test_what_somebody_else_wrote_is_not_taken_for_ours(what: str) -> None:
    # Its writer could change it afterwards, with the workflow's report in it.
    forged = {"body": "<!-- mark -->\nold", "user": {"login": "somebody", "type": "User"}}
    github = Github([{"id": 5, "number": 5, **forged}])
    told(github, what)
    assert [method for method, _, _ in github.changes] == ["POST"]


def test_a_refusal_names_the_permission_and_no_token() -> None:
    refusal = Answer(403, {"message": "Resource not accessible"})
    with serving(lambda request: refusal) as server, pytest.raises(GithubError, match="permission") as error:
        Repository(server.url, "owner/name", TOKEN).comment(7, "mark", "text")
    assert TOKEN not in str(error.value)


def test_outside_of_a_workflow_it_says_what_is_missing() -> None:
    with pytest.raises(GithubError, match="GITHUB_TOKEN"):
        Repository.of_the_run({"GITHUB_REPOSITORY": "owner/name"})


def test_the_steps_of_the_workflows_put_a_file_where_it_belongs(tmp_path: Path) -> None:
    github, file = Github([]), tmp_path / "text.md"
    file.write_text("<!-- ovh-vllm preview of dev -->\n")
    with serving(github.answer) as server:
        environment = {
            **os.environ,
            "GITHUB_API_URL": server.url,
            "GITHUB_REPOSITORY": "owner/name",
            "GITHUB_TOKEN": TOKEN,
        }
        for target in ("comment", "issue"):
            command = ["make", target, "STACK=dev", f"COMMENT={file}", "PULL_REQUEST=7"]
            subprocess.run(command, cwd=ROOT, env=environment, check=True)
    body = {"body": file.read_text()}
    assert github.changes == [
        ("POST", "/repos/owner/name/issues/7/comments", body),
        ("POST", "/repos/owner/name/issues", {"title": "Drift of dev", **body}),
    ]
