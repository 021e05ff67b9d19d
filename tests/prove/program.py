"""The program that the walk deploys: one endpoint, its inputs as `resources.py` of the product gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.ai_deploy.providers import (
    AppProvider,
    IdentityProvider,
    ReadinessProvider,
    TokenProvider,
    TokenSweepProvider,
    VerdictProvider,
)
from tests.ai_deploy.clouds import MODEL
from tests.prove.engine import Goal, Resource
from tests.sandbox_cloud.fakes import CREDENTIALS, PROJECT

IDENTITY, SWEEP, APP = "vllm-identity", "vllm-token-sweep", "vllm"
READY, VERDICT = "vllm-ready", "vllm-ready-verdict"
GATE_SECONDS = 240.0
"""How long the readiness gate may take."""
ROLLOUT = {"progressDeadlineSeconds": 100_000}
"""50 s of wall clock: a machine that stutters must not make an app FAILED."""
HF_TOKEN = "hf_canaryCanaryCanary0123456789"
ENV_SECRET = "canary-of-the-environment"
NEW_ENV_SECRET = "canary-of-the-new-environment"
CANARIES = (HF_TOKEN, ENV_SECRET, NEW_ENV_SECRET, CREDENTIALS.application_secret, CREDENTIALS.consumer_key)
"""Values that no text may hold."""

Known = Mapping[str, Resource]


@dataclass(frozen=True)
class Settings:
    """What a user sets on the endpoint."""

    region: str = "GRA"
    name: str = "vllm"
    image: str = "vllm/vllm-openai:v0.13.0"
    env: Mapping[str, str] = field(default_factory=lambda: {"HF_TOKEN": HF_TOKEN, "SETTING": ENV_SECRET})
    replicas: int = 1
    labels: Mapping[str, str] = field(default_factory=lambda: {"team": "a"})
    container_updates: str = "roll"
    adopt: str | None = None
    token_generations: tuple[int, ...] = (1,)
    """The newest first."""
    delete_before_replace: bool = False


def tokens(settings: Settings) -> list[str]:
    """Names of the tokens; the first one is what the gate calls the app with."""
    return [
        f"vllm-{user}-token-{generation}"
        for generation in settings.token_generations
        for user in ("client", "scraper")
    ]


def program(settings: Settings) -> list[Goal]:
    """The endpoint's resources in the order of `InferenceEndpoint`."""
    names = tokens(settings)

    def token(name: str) -> Goal:
        def inputs(known: Known) -> dict[str, Any]:
            identity = known[IDENTITY].outputs["value"]
            return {
                "service_name": PROJECT,
                "identity": identity,
                "resource": name,
                "region": settings.region,
                "role": "ai_training_read",
                "label_selector": f"deploy-identity={identity}",
            }

        return Goal(name, TokenProvider, inputs, (IDENTITY,))

    def sweep(known: Known) -> dict[str, Any]:
        return {
            "service_name": PROJECT,
            "identity": known[IDENTITY].outputs["value"],
            "token_ids": [known[name].id for name in names],
        }

    def app(known: Known) -> dict[str, Any]:
        return {
            "service_name": PROJECT,
            "identity": known[IDENTITY].outputs["value"],
            "resource": APP,
            "name": settings.name,
            "region": settings.region,
            "image": settings.image,
            "flavor": "h100-1-gpu",
            "gpu": 1,
            "command": [],
            "env": dict(settings.env),
            "labels": dict(settings.labels),
            "default_http_port": 8000,
            "readiness_probe": {"path": "/v1/models", "port": 8000},
            "scaling_strategy": {"fixed": {"replicas": settings.replicas}},
            "deployment_strategy": ROLLOUT,
            "volumes": [],
            "unsecure_http": False,
            "container_updates": settings.container_updates,
            "adopt": settings.adopt,
        }

    def ready(known: Known) -> dict[str, Any]:
        endpoint = known[APP]
        return {
            "service_name": endpoint.outputs["service_name"],
            "app_id": endpoint.id,
            "app_resource": endpoint.outputs["resource"],
            "identity": endpoint.outputs["identity"],
            "starts": endpoint.outputs["starts"],
            "resource": READY,
            "token": known[names[0]].outputs["value"],
            "model": MODEL,
            "timeout_seconds": GATE_SECONDS,
        }

    return [
        Goal(IDENTITY, IdentityProvider, lambda _known: {"service_name": PROJECT}),
        *(token(name) for name in names),
        Goal(SWEEP, TokenSweepProvider, sweep, (IDENTITY, *names)),
        Goal(APP, AppProvider, app, (IDENTITY, *names), settings.delete_before_replace),
        Goal(READY, ReadinessProvider, ready, (APP, names[0])),
        Goal(VERDICT, VerdictProvider, lambda known: {"failure": known[READY].outputs["failure"]}, (READY,)),
    ]
