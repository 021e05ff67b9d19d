"""What the commands of the sandbox say when something goes wrong."""

from __future__ import annotations

import sys

import httpx
import pytest

import sandbox.__main__ as commands


def test_an_error_of_the_local_cloud_is_told_with_its_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        request = httpx.Request("GET", "http://127.0.0.1:1/sandbox/resources")
        httpx.Response(500, request=request).raise_for_status()

    monkeypatch.setattr(commands, "status", fail)
    monkeypatch.setattr(sys, "argv", ["sandbox", "status"])
    assert commands.main() == 1
    assert "http://127.0.0.1:1/sandbox/resources" in capsys.readouterr().err
