"""The command as a user runs it: its exit status, its files, and what must not be in them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from loadtest.__main__ import main
from tests import browser
from tests.loadtest import server
from tests.loadtest.server import TOKEN, Server, serving

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9/v1"
SMALL = ("--traffic", "article:workers=5,requests=4")


async def start(folder: Path, *arguments: str, token: str = TOKEN) -> Process:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OVH_", "SANDBOX_"))},
        "OPENAI_API_KEY": token,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    command = (sys.executable, "-X", "dev", "-m", "loadtest", *arguments)
    return await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE
    )


async def ended(process: Process) -> tuple[int, str]:
    """Exit status and all that the command wrote."""
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode() + errors.decode()


async def run(folder: Path, running: Server, *arguments: str, token: str = TOKEN) -> tuple[int, str]:
    return await ended(await start(folder, "--url", running.base_url, *arguments, token=token))


def files(folder: Path) -> dict[str, str]:
    """Texts by suffix."""
    return {path.suffix: path.read_text() for path in folder.iterdir()}


def result(folder: Path) -> dict[str, Any]:
    """The one result in a folder."""
    read: dict[str, Any] = json.loads(files(folder)[".json"])
    return read


async def test_a_test_writes_its_result_and_a_page(tmp_path: Path) -> None:
    async with serving() as running:
        status, said = await run(tmp_path, running, *SMALL, "--goodput", "ttft:60000")
    assert status == 0, said
    found = result(tmp_path)
    assert (found["completed"], found["failed"], found["partial"]) == (20, 0, None)
    assert found["request_goodput"] == pytest.approx(found["request_throughput"])
    assert "20 succeeded, 0 failed" in said
    assert "TTFT" in said
    assert "replicas: left out" in said
    assert files(tmp_path).keys() == {".json", ".html"}
    assert f"loadtest-{found['date']}.json" in said


async def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        if len(running.requests) == 5:
            process.send_signal(signal.SIGINT)
        if len(running.requests) > 3:
            return await server.silent(request)
        return await server.GOOD(request)

    async with serving(handle) as running:
        process = await start(tmp_path, "--url", running.base_url, *SMALL)
        status, said = await ended(process)
    assert status == 130, said
    found = result(tmp_path)
    assert found["partial"] == "interrupted"
    assert (found["completed"], found["unfinished"]) == (3, 5)
    assert "partial: interrupted" in said
    assert "Traceback" not in said
    assert files(tmp_path).keys() == {".json", ".html"}


async def test_nothing_succeeded(tmp_path: Path) -> None:
    async with serving(server.login_page) as running:
        status, said = await run(tmp_path, running, *SMALL)
    assert status == 1
    assert "20 × not the API: HTTP 200 with text/html; charset=utf-8: <html>Please log in</html>" in said
    assert result(tmp_path)["errors_by_kind"] == {"not the API": 20}


async def test_a_wrong_token_says_what_to_do_and_sends_no_load(tmp_path: Path) -> None:
    async with serving() as running:
        status, said = await run(tmp_path, running, *SMALL, token="the-token-of-yesterday")
        assert running.requests == []
    assert status == 1
    assert "HTTP 401" in said
    assert "does not accept the token" in said
    assert "the-token-of-yesterday" not in said
    assert files(tmp_path) == {}


async def test_a_token_that_expires_meanwhile(tmp_path: Path) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        late = len(running.requests) > 6
        return await (server.plain("{}", 401) if late else server.GOOD)(request)

    async with serving(handle) as running:
        status, said = await run(tmp_path, running, *SMALL)
    assert status == 1
    assert "does not accept the token" in said
    assert result(tmp_path)["partial"] == "the token was refused"


async def test_the_token_is_nowhere(tmp_path: Path) -> None:
    """Not in arguments, nor in what is written, even when the server repeats it."""
    arguments: list[str] = []

    def command_line() -> str:
        return os.fsdecode(Path(f"/proc/{process.pid}/cmdline").read_bytes())

    async def handle(request: web.Request) -> web.StreamResponse:
        arguments.append(command_line())
        if len(running.requests) % 2:
            return await server.plain(json.dumps({"message": f"no: Bearer {TOKEN}"}), 400)(request)
        return await server.GOOD(request)

    async with serving(handle) as running:
        process = await start(tmp_path, "--url", running.base_url, *SMALL)
        status, said = await ended(process)
        assert running.tokens == {f"Bearer {TOKEN}"}
    assert status == 0
    written = files(tmp_path).values()
    assert len(written) == 2
    assert "loadtest" in arguments[0]
    for text in (said, *written, *arguments):
        assert TOKEN not in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--traffic", "poison:rate=1"), "poisson"),
        (("--traffic", "csv:/no/such/file"), "/no/such/file"),
        (("--goodput", "speed:3"), "ttft, tpot, e2el"),
        (("--timeout", "0"), "above 0"),
        (("--timeout", "soon"), "above 0"),
        (("--output", "no/such/folder/result"), "no folder"),
        (("--stack", "prod"), "not allowed with argument --url"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_asked(
    arguments: tuple[str, ...], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["loadtest", "--url", NOWHERE, *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert text in capsys.readouterr().err


def test_files_that_cannot_be_written_are_named_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken.html").mkdir()
    monkeypatch.setattr(sys, "argv", ["loadtest", "--url", NOWHERE, "--output", str(tmp_path / "taken")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "taken.html is a folder" in capsys.readouterr().err


async def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    chromium = browser.find(tmp_path / "profile")
    folder = tmp_path / "result"
    folder.mkdir()

    async def handle(request: web.Request) -> web.StreamResponse:
        failing = len(running.requests) % 7 == 0
        return await (server.plain("{}", 503) if failing else server.GOOD)(request)

    async with serving(handle) as running:
        status, said = await run(
            folder, running, "--traffic", "constant:rate=20,for=3s", "--goodput", "ttft:2500", "tpot:100"
        )
    assert status == 0, said
    page = next(path for path in folder.iterdir() if path.suffix == ".html")
    rendered = await asyncio.to_thread(chromium.render, page)
    assert "data-failures" not in rendered.body
    # No replicas are known of this server.
    assert (rendered.body["data-empty"], rendered.body["data-errors"]) == ("1", "0")
    assert rendered.body["data-panels"] == "9"
    text = rendered.dom
    assert "Time to first token" in text
    assert "HTTP 503" in text
