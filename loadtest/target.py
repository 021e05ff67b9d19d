"""What is tested: the sandbox, a stack of Pulumi, or any URL; and what else is known about it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from components.ai_deploy.credentials import CredentialsError, find_credentials
from loadtest.client import TargetError
from loadtest.replicas import Source, native_api, platform_api
from loadtest.results import Objective

CHECKOUT = Path(__file__).resolve().parents[1]
SANDBOX_ENVIRONMENT = CHECKOUT / ".sandbox" / "env"
"""Shell exports that `make sandbox` writes for other commands."""
TOKEN_VARIABLES = ("LOADTEST_TOKEN", "OPENAI_API_KEY")

_APP_HOST = re.compile(
    r"https://(?P<id>[0-9a-f-]{36})\.app\.(?P<region>\w+)\.(?P<platform>ai\.cloud\.ovh\.\w+)(?:/|$)"
)
_PROJECT = "ovh-vllm"


@dataclass(frozen=True)
class Target:
    """An endpoint to test."""

    base_url: str
    token: str = field(repr=False)
    model: str = ""
    """"" for the first one that the endpoint lists."""
    objectives: Mapping[Objective, float] = field(default_factory=dict)
    """In seconds, from the stack's settings."""
    replicas: tuple[Source, ...] = ()
    """Where to read the replicas, the best first."""


def url(base_url: str, model: str, environment: Mapping[str, str] = os.environ) -> Target:
    """An OpenAI-compatible API; the token is in the environment. Raises TargetError."""
    if re.search(r"[@?#]", base_url):
        # Not repeated: it may hold a password, which would be in the result's files, too.
        raise TargetError(
            "URL: user names, passwords and parameters have no place in it; the token is read from "
            f"{' or '.join(TOKEN_VARIABLES)} in the environment"
        )
    if not _is_address(base_url):
        raise TargetError(
            f"URL {base_url!r}: an http:// or https:// address is needed, such as https://host/v1"
        )
    variable = next((name for name in TOKEN_VARIABLES if environment.get(name)), "")
    token = environment[variable] if variable else ""
    if not re.fullmatch(r"[!-~]*", token):
        raise TargetError(
            f"{variable} holds a space, a line's end or a letter that no token has: copy the token again"
        )
    base_url = re.sub(r"/chat/completions/?$", "", base_url).rstrip("/")
    sources = []
    if token and (app := _APP_HOST.match(base_url)):
        sources.append(native_api(f"https://{app['region']}.{app['platform']}", token, app["id"]))
    return Target(base_url, token, model, replicas=tuple(sources))


def _is_address(text: str) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # brackets, or a port above 65535
        return False


def sandbox(path: Path = SANDBOX_ENVIRONMENT) -> Target:
    """The stack `sandbox` in the sandbox that runs; raises TargetError.

    From then on this process has the sandbox's environment: its certificate authority among other things.
    """
    if not path.exists():
        raise TargetError(
            "no sandbox runs: start one with `make sandbox`, or say what to test with "
            "STACK=prod or URL=https://host/v1"
        )
    os.environ.update(_sourced(path))
    api = os.environ["SANDBOX_API_URL"]
    try:
        httpx.get(f"{api}/sandbox/monitoring", trust_env=False)
    except httpx.TransportError as error:
        raise TargetError(
            f"the sandbox does not run any more ({api}: {error}): start one with `make sandbox`"
        ) from None
    return stack("sandbox")


def _sourced(path: Path) -> dict[str, str]:
    """The environment after a shell has read the file."""
    done = subprocess.run(
        ["sh", "-c", '. "$1" && env -0', "sh", path], capture_output=True, text=True, check=True
    )
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)


def stack(name: str, environment: Mapping[str, str] = os.environ) -> Target:
    """The endpoint of a stack, by the stack's outputs and configuration; raises TargetError."""
    outputs = _pulumi(name, "stack", "output", "--json", "--show-secrets")
    wanted = ("openai_base_url", "model", "client_token", "app_id")
    missing = [key for key in wanted if not outputs.get(key)]
    if missing:
        raise TargetError(
            f"stack {name} has no output {', '.join(missing)}: deploy it first (`pulumi up -s {name}`)"
        )
    config = {
        key: str(entry.get("value") or "")
        for key, entry in _pulumi(name, "config", "--json", "--show-secrets").items()
    }
    return Target(
        outputs["openai_base_url"],
        outputs["client_token"],
        outputs["model"],
        _objectives(config),
        tuple(_sources(outputs, config, environment)),
    )


def _sources(
    outputs: Mapping[str, Any], config: Mapping[str, str], environment: Mapping[str, str]
) -> Iterator[Source]:
    app_id = outputs["app_id"]
    project = config.get(f"{_PROJECT}:serviceName") or environment.get("OVH_CLOUD_PROJECT_SERVICE")
    if project:
        # Without an account's credentials the app's own token may read it, too.
        with suppress(CredentialsError):
            yield platform_api(find_credentials(config, environment), project, app_id)
    region = config.get(f"{_PROJECT}:region", "").lower()
    given = config.get(f"{_PROJECT}:aiApiUrl") or environment.get("OVH_AI_URL")
    if given or region:
        yield native_api(given or f"https://{region}.ai.cloud.ovh.net", outputs["client_token"], app_id)


def _objectives(config: Mapping[str, str]) -> dict[Objective, float]:
    text = config.get(f"{_PROJECT}:serviceLevelObjectives")
    if not text:
        return {}
    given = json.loads(text)
    return {
        "ttft": float(given["timeToFirstToken"]["seconds"]),
        "tpot": float(given["interTokenLatency"]["seconds"]),
    }


def _pulumi(stack: str, *arguments: str) -> dict[str, Any]:
    program = shutil.which("pulumi")
    if program is None:
        raise TargetError(
            f"stack {stack}: there is no pulumi on PATH to read its outputs; install it "
            "(https://www.pulumi.com/docs/install/), or give URL and token instead"
        )
    done = subprocess.run(
        [program, *arguments, "-s", stack], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise TargetError(f"stack {stack}: `pulumi {arguments[0]}` says: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
