"""What is tested: a stack of Pulumi, or any URL; and what else is known about it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from components.ai_deploy.credentials import CredentialsError, find_credentials
from components.flavors import ai_api_url
from components.setting_types import is_address
from components.settings import Settings, SettingsError
from loadtest.client import TargetError
from loadtest.replicas import Source, native_api, platform_api
from loadtest.results import Objective
from stacks.cli import Cli, PulumiError
from stacks.stack import Stack

TOKEN_VARIABLES = ("LOADTEST_TOKEN", "OPENAI_API_KEY")

_APP_HOST = re.compile(r"https://(?P<id>[0-9a-f-]{36})\.app\.(?P<region>\w+)\.ai\.cloud\.ovh\.net(?:/|$)")
_PROJECT = "OVH_CLOUD_PROJECT_SERVICE"
_NO_PROJECT = "0" * 32


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
    if not is_address(base_url):
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
        sources.append(native_api(ai_api_url(app["region"]), token, app["id"]))
    return Target(base_url, token, model, replicas=tuple(sources))


def stack(name: str, environment: Mapping[str, str] = os.environ) -> Target:
    """The endpoint of a stack, by the stack's outputs and settings; raises TargetError."""
    # Who tests an endpoint need not know the project that it is in.
    project = environment.get(_PROJECT) or _NO_PROJECT
    try:
        known = Stack.read(name, Cli.find(name))
        settings = known.settings({**environment, _PROJECT: project})
    except (PulumiError, SettingsError) as error:
        raise TargetError(f"stack {name}: {error}") from None
    outputs = known.outputs
    wanted = ("openai_base_url", "model", "client_token", "app_id")
    missing = [key for key in wanted if not outputs.get(key)]
    if missing:
        raise TargetError(
            f"stack {name} has no output {', '.join(missing)}: deploy it first (`pulumi up -s {name}`)"
        )
    objectives = settings.monitoring.service_level_objectives
    return Target(
        outputs["openai_base_url"],
        outputs["client_token"],
        outputs["model"],
        {
            "ttft": objectives.time_to_first_token.seconds,
            "tpot": objectives.inter_token_latency.seconds,
        },
        tuple(_sources(known, settings, environment)),
    )


def _sources(known: Stack, settings: Settings, environment: Mapping[str, str]) -> Iterator[Source]:
    app_id, project = known.outputs["app_id"], settings.general.service_name
    if project != _NO_PROJECT:
        # Without an account's credentials the app's own token may read it, too.
        with suppress(CredentialsError):
            yield platform_api(find_credentials(known.config, environment), project, app_id)
    yield native_api(settings.ai_api_url, known.outputs["client_token"], app_id)
