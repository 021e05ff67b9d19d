"""Pulumi resources of AI Deploy, made to be used in this order.

    identity = Identity("endpoint", service_name=project)
    token = Token("callers", service_name=project, identity=identity.value, region="GRA")
    sweep = TokenSweep("tokens", service_name=project, identity=identity.value, token_ids=[token.id])
    app = App("vllm", service_name=project, identity=identity.value, name="vllm", region="GRA", …)
    ready = Readiness("vllm", app=app, token=token.value, model="mistralai/…")

Follow `ready.url`, not `app.url`: it moves to a new app only when that one serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import Resource
from pydantic import BaseModel

from components.ai_deploy.providers import (
    AppProvider,
    IdentityProvider,
    ReadinessProvider,
    TokenProvider,
    TokenSweepProvider,
    VerdictProvider,
)
from components.ai_deploy.spec import (
    LABEL_IDENTITY,
    ContainerUpdates,
    DeploymentStrategy,
    Probe,
    ScalingStrategy,
    Volume,
)
from components.ai_deploy.tokens import Role


class Identity(Resource, module="ai-deploy", name="Identity"):
    """A random id of this deployment, on which its apps and tokens are recognized again after a crash.

    Everything else depends on it, so that it is in state before anything that costs money exists, and is
    deleted last, with what a crash has left behind under this id.
    """

    value: Output[str]
    """16 hexadecimal digits."""

    def __init__(
        self, resource_name: str, *, service_name: Input[str], opts: ResourceOptions | None = None
    ) -> None:
        """Declares the identity; `service_name` is the id of the Public Cloud project."""
        super().__init__(
            IdentityProvider(), resource_name, {"service_name": service_name, "value": None}, opts
        )


class App(Resource, module="ai-deploy", name="App"):
    """An AI Deploy app.

    `create` returns when the platform has accepted the app, long before it runs: `Readiness` waits for that.
    `name`, `region`, `volumes`, `unsecure_http` and `partner_id` replace the app when they change, and so
    does taking a probe or the gRPC port away or going from GPUs to CPUs; everything else changes in place. A
    replacement is made before the old app goes and needs the GPUs of both: where quota forbids that, set
    `ResourceOptions(delete_before_replace=True)`. Every app needs a `Readiness`: one that no gate has
    confirmed counts as a leftover of a crash, and is deleted before it is replaced.
    """

    url: Output[str | None]
    """Public address; None when the platform had not given it a minute after it accepted the app."""
    monitoring_url: Output[str | None]
    """The platform's own dashboard of the app."""
    service_name: Output[str]
    identity: Output[str]
    """Id of the deployment that the app belongs to."""
    resource: Output[str]
    """Name of this resource."""
    starts: Output[int]
    """How often changes have made the containers anew, or a resting app was started."""

    def __init__(
        self,
        resource_name: str,
        *,
        service_name: Input[str],
        identity: Input[str],
        name: Input[str],
        region: Input[str],
        image: Input[str],
        flavor: Input[str],
        gpu: Input[int] | None = None,
        cpu: Input[int] | None = None,
        command: Input[Sequence[Input[str]]] = (),
        env: Input[Mapping[str, Input[str]]] | None = None,
        labels: Input[Mapping[str, Input[str]]] | None = None,
        default_http_port: Input[int] = 8080,
        grpc_port: Input[int] | None = None,
        readiness_probe: Input[Probe | Mapping[str, Any]] | None = None,
        liveness_probe: Input[Probe | Mapping[str, Any]] | None = None,
        scaling_strategy: Input[ScalingStrategy | Mapping[str, Any]] | None = None,
        deployment_strategy: Input[DeploymentStrategy | Mapping[str, Any]] | None = None,
        volumes: Input[Sequence[Volume | str | Mapping[str, Any]]] = (),
        unsecure_http: Input[bool] = False,
        partner_id: Input[str] | None = None,
        container_updates: Input[ContainerUpdates] = "roll",
        adopt: Input[str] | None = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Declares the app; the fields mean what they mean in `AppSpec`.

        `service_name` is the id of the Public Cloud project, `identity` the value of `Identity`. The values
        of `env` are kept as secrets. `container_updates` is how changes get to running containers.

        `adopt` is the id of an app that exists already, to be taken over instead of making one (`pulumi
        import` cannot work for dynamic providers). It must have these very settings, else the preview says
        field by field what differs; nothing of it is touched but labels. Once it is taken over the id may
        stay or go; another id replaces the app by that one.
        """
        super().__init__(
            AppProvider(),
            resource_name,
            {
                "service_name": service_name,
                "identity": identity,
                "resource": resource_name,
                "name": name,
                "region": region,
                "image": image,
                "flavor": flavor,
                "gpu": gpu,
                "cpu": cpu,
                "command": _plain(command),
                "env": _secrets(env or {}),
                "labels": labels,
                "default_http_port": default_http_port,
                "grpc_port": grpc_port,
                "readiness_probe": _plain(readiness_probe),
                "liveness_probe": _plain(liveness_probe),
                "scaling_strategy": _plain(scaling_strategy),
                "deployment_strategy": _plain(deployment_strategy),
                "volumes": _plain(volumes),
                "unsecure_http": unsecure_http,
                "partner_id": partner_id,
                "container_updates": container_updates,
                "adopt": adopt,
                "starts": None,
                "url": None,
                "monitoring_url": None,
            },
            opts,
        )


class Readiness(Resource, module="ai-deploy", name="Readiness"):
    """The readiness gate of an app: confirms it, then waits until it runs, lists its model and answers.

    Runs again when the app is another one or its containers were made anew, not when it is scaled or
    labelled. A failure fails the update and leaves the app as it is; the outputs, and what follows them, stay
    at the app that served before. Its progress is shown every 30 s.
    """

    url: Output[str]
    """Public address of the app that serves, without trailing slash."""
    app_id: Output[str]
    """Id of the app that serves."""
    monitoring_url: Output[str | None]
    """The platform's own dashboard of the app that serves."""
    model: Output[str]
    """Name under which the model is listed."""
    failure: Output[str]
    """Why the last run did not get through, "" when it did."""

    def __init__(
        self,
        resource_name: str,
        *,
        app: App,
        token: Input[str],
        model: Input[str],
        timeout_seconds: Input[float] = 3600,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Declares the gate.

        `token` is an AI token that may call the app, `model` the name that its `/v1/models` has to list,
        `timeout_seconds` how long all of it may take: a queue for the GPU, the image, the weights, a probe's
        delay (default one hour); reading the log for a failure comes on top.
        """
        super().__init__(
            ReadinessProvider(),
            resource_name,
            {
                "service_name": app.service_name,
                "app_id": app.id,
                "app_resource": app.resource,
                "identity": app.identity,
                "monitoring_url": app.monitoring_url,
                "starts": app.starts,
                "resource": resource_name,
                "token": Output.secret(token),
                "model": model,
                "timeout_seconds": timeout_seconds,
                "url": None,
                "failure": None,
            },
            opts,
        )
        Verdict(f"{resource_name}-verdict", failure=self.failure, opts=ResourceOptions(parent=self))


class Verdict(Resource, module="ai-deploy", name="Verdict"):
    """Fails the update when a readiness gate did not get through; made by `Readiness` itself."""

    def __init__(
        self, resource_name: str, *, failure: Input[str], opts: ResourceOptions | None = None
    ) -> None:
        """Declares it; `failure` is what it fails with, if it is not empty."""
        super().__init__(VerdictProvider(), resource_name, {"failure": failure}, opts)


class Token(Resource, module="ai-deploy", name="Token"):
    """An AI token: opens apps of one region by a label; never expires, is never changed.

    By default it may call the apps of this deployment, and nothing else.
    """

    value: Output[str]
    """The secret, to be sent as `Authorization: Bearer …`."""
    token_name: Output[str]
    """Name in the control panel."""

    def __init__(
        self,
        resource_name: str,
        *,
        service_name: Input[str],
        identity: Input[str],
        region: Input[str],
        role: Input[Role] = "ai_training_read",
        label_selector: Input[str] | None = None,
        opts: ResourceOptions | None = None,
    ) -> None:
        """Declares the token; `label_selector` (`name=value`) defaults to the deployment's identity."""
        super().__init__(
            TokenProvider(),
            resource_name,
            {
                "service_name": service_name,
                "identity": identity,
                "resource": resource_name,
                "region": region,
                "role": role,
                "label_selector": label_selector or Output.concat(LABEL_IDENTITY, "=", identity),
                "token_name": None,
                "value": None,
            },
            ResourceOptions.merge(ResourceOptions(additional_secret_outputs=["value"]), opts),
        )


class TokenSweep(Resource, module="ai-deploy", name="TokenSweep"):
    """Deletes tokens of this deployment that a crash has left behind, never those of anybody else."""

    def __init__(
        self,
        resource_name: str,
        *,
        service_name: Input[str],
        identity: Input[str],
        token_ids: Input[Sequence[Input[str]]],
        opts: ResourceOptions | None = None,
    ) -> None:
        """Declares the sweep; `token_ids` are the ids of all tokens of the deployment."""
        super().__init__(
            TokenSweepProvider(),
            resource_name,
            {"service_name": service_name, "identity": identity, "token_ids": token_ids},
            opts,
        )


def _secrets(env: Input[Mapping[str, Input[str]]]) -> Any:
    """Every value as a secret of its own, so that a preview names the variables that change."""
    if isinstance(env, Mapping):
        return {name: Output.secret(value) for name, value in env.items()}
    return Output.secret(env)


def _plain(value: Any) -> Any:
    """Models as the JSON that travels to the provider."""
    match value:
        case BaseModel():
            return value.model_dump(mode="json", by_alias=True, exclude_none=True)
        case Output():
            return value.apply(_plain)
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
