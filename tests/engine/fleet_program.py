"""The Pulumi program of a fleet: declares the endpoints that the file named by FLEET describes.

Each is an object of fields of `App`, and of what `ENDPOINT` lists.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pulumi

from components.ai_deploy.resources import App, Identity, Readiness, Token, TokenSweep

ENDPOINT: dict[str, Any] = {
    "gate": True,
    "model": "mistralai/Ministral-3-14B-Instruct-2512",
    "timeout_seconds": 60,
    "protect": False,
    "delete_before_replace": False,
}
"""What an endpoint has beside the fields of its app."""

APP: dict[str, Any] = {
    "region": "GRA",
    "image": "vllm/vllm-openai:v0.13.0",
    "flavor": "l4-1-gpu",
    "gpu": 1,
    "default_http_port": 8000,
    "readiness_probe": {"path": "/v1/models", "port": 8000},
}
"""Fields of an app that are set unless the endpoint says otherwise."""


def declare(name: str, fields: dict[str, Any], service_name: str, canary: str) -> None:
    """One endpoint: identity, token, sweep, app and gate, as the component makes them."""
    options = {key: fields.pop(key, default) for key, default in ENDPOINT.items()}
    app_fields = {**APP, "name": name, **fields}
    identity = Identity(f"{name}-identity", service_name=service_name)
    token = Token(
        f"{name}-token",
        service_name=service_name,
        identity=identity.value,
        region=app_fields["region"],
    )
    TokenSweep(f"{name}-sweep", service_name=service_name, identity=identity.value, token_ids=[token.id])
    app = App(
        name,
        service_name=service_name,
        identity=identity.value,
        env={"HF_TOKEN": pulumi.Output.secret(canary), **app_fields.pop("env", {})},
        opts=pulumi.ResourceOptions(
            protect=options["protect"],
            delete_before_replace=options["delete_before_replace"] or None,
            depends_on=[token],
        ),
        **app_fields,
    )
    if not options["gate"]:
        pulumi.export(name, app.url)
        return
    ready = Readiness(
        f"{name}-ready",
        app=app,
        token=token.value,
        model=options["model"],
        timeout_seconds=options["timeout_seconds"],
    )
    pulumi.export(name, ready.url)


def main() -> None:
    """Declares all endpoints."""
    endpoints = json.loads(Path(os.environ["FLEET"]).read_text())
    for name, fields in endpoints.items():
        declare(name, fields, os.environ["OVH_CLOUD_PROJECT_SERVICE"], os.environ["HF_TOKEN"])
