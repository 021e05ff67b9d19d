"""Starts the dynamic provider as the engine does, on a fast clock: `python provider.py -v=3 … ADDRESS`.

Nothing of the product is changed: the class attribute that holds the clock is set, and timeouts of HTTP
are shortened at the bottom of httpx, so that the code that asks for 60 s is the code that runs.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import runpy
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

SPEED = 100.0
"""Seconds that pass for the provider in one second."""
SABOTAGE = "PROVE_SABOTAGE"
"""Environment variable that breaks the provider in one of the ways of `_SABOTAGES`, for the walk to see."""


def _be_forgetful() -> None:
    """No app is ever found by a label: neither a lost answer nor what a crash has left behind."""
    from components.ai_deploy.api import AiDeploy

    def nothing(*_: object) -> list[Any]:
        return []

    AiDeploy.apps = nothing  # type: ignore[method-assign,assignment]


def _be_talkative() -> None:
    """Nothing is taken out of texts."""
    from components.ai_deploy import client

    def everything(text: str, _secrets: object = ()) -> str:
        return text

    client.redact = everything  # type: ignore[attr-defined,assignment]


def _be_deaf() -> None:
    """Changes are made for engines that have ended, too."""
    from components.ai_deploy.engine import Engine

    def nothing(*_: object) -> None:
        return None

    Engine.require = nothing  # type: ignore[method-assign,assignment]


_SABOTAGES: dict[str, Callable[[], None]] = {
    "forgetful": _be_forgetful,
    "talkative": _be_talkative,
    "deaf": _be_deaf,
}


def _share_certificates() -> None:
    """Reads the certificate authorities once: every HTTP client does, and nothing here speaks TLS."""
    shared = ssl.create_default_context()

    def context(*_: object, **__: object) -> ssl.SSLContext:
        return shared

    ssl.create_default_context = context


def _hurry() -> None:
    from components.ai_deploy.providers import _CloudProvider
    from components.ai_deploy.waiting import Clock

    _CloudProvider.clock = Clock(
        lambda: time.monotonic() * SPEED, lambda seconds: time.sleep(max(0.0, seconds) / SPEED)
    )
    handle = httpx.HTTPTransport.handle_request

    def handle_in_a_hurry(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            key: None if seconds is None else seconds / SPEED for key, seconds in timeouts.items()
        }
        return handle(self, request)

    httpx.HTTPTransport.handle_request = handle_in_a_hurry  # type: ignore[method-assign]


def main() -> None:
    """Becomes `python -m pulumi.dynamic` with the arguments of this script."""
    found = importlib.util.find_spec("pulumi.dynamic.__main__")
    assert found is not None and found.origin is not None
    # The provider finds its engine in the command line that the engine gives it.
    sys.argv[0] = found.origin
    # What the process would say at its most talkative is looked at for secrets.
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    if sabotage := os.environ.get(SABOTAGE):
        _SABOTAGES[sabotage]()
    _share_certificates()
    _hurry()
    runpy.run_module("pulumi.dynamic", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
