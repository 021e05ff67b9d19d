"""What a user sets on an AI Deploy app, as typed models, and the request bodies made of them.

The models mirror the schemas of OVHcloud API v1 (`cloud.project.ai.app.*`): python names in snake case, wire
names in camel case. They hold no Pulumi type and do no I/O. Everything that the platform would fill in by a
documented default is filled in here and always sent, so that a value read back is either ours or drift.

Numbers arrive from the Pulumi engine as floats: the models turn 8000.0 into 8000 and refuse 8000.5.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

LABEL_IDENTITY = "deploy-identity"
"""Label of every app: the random id of the deployment it belongs to. Tokens select on it."""
LABEL_RESOURCE = "deploy-resource"
"""Label of every app: the name of the Pulumi resource that manages it."""
LABEL_NONCE = "deploy-nonce"
"""Label of every app: fresh for each create, so that a lost answer can be found again."""
LABEL_CONFIRMED = "deploy-confirmed"
"""Label of an app that the readiness gate has seen ("true"); an app without it is a leftover of a crash."""
LABEL_READY = "deploy-ready"
"""Label of an app that has passed the readiness gate once ("true")."""
MANAGED_LABELS = frozenset({LABEL_IDENTITY, LABEL_RESOURCE, LABEL_NONCE, LABEL_CONFIRMED, LABEL_READY})
"""Labels that this package owns; users cannot set them."""
PLATFORM_LABEL_PREFIX = "ovh/"
"""Labels under this prefix belong to the platform, which adds `ovh/id` and `ovh/type`."""

ContainerUpdates = Literal["roll", "restart"]
"""How a change of the containers gets to a running app; OVHcloud's guides contradict each other.

`roll`: the platform replaces the containers itself, old ones serve meanwhile (guide "capabilities").
`restart`: the app is stopped and started (guide "update a custom Docker image"), and answers nobody until it
is up again. The first is the safer one: where it is wrong the old containers go on serving and the user is
told; where the second is wrong an endpoint goes down for nothing, and its GPUs may be gone when it is to come
back.
"""

# There is no "no probe", "no gRPC port" in an update: null means "leave as it is" there [inferred from the
# API's remark that an empty list resets the command]. Taking one of them away is a replacement.


class _Model(BaseModel):
    # hide_input_in_errors: a validation error of an environment variable must not print its value.
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    def wire(self) -> dict[str, Any]:
        """The model as JSON of the API: camel case, absent where nothing is set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""


class Probe(_Model):
    """A health check of each replica: HTTP GET, 200 is healthy (`ProbeInput`).

    Defaults are the platform's, documented for its native API. The API has no startup probe: a container
    that is not live `initial_delay_seconds + failure_threshold * period_seconds` after its start is
    restarted.
    """

    path: Annotated[str, Field(pattern=r"^/")] = "/"
    port: Port
    initial_delay_seconds: Annotated[int, Field(ge=0)] = 0
    """Seconds between the start of the container and the first check."""
    period_seconds: Annotated[int, Field(ge=1)] = 10
    timeout_seconds: Annotated[int, Field(ge=1)] = 1
    failure_threshold: Annotated[int, Field(ge=1)] = 3
    """Failed checks in a row that make a replica unhealthy."""
    success_threshold: Annotated[int, Field(ge=1)] = 1
    """Passed checks in a row that make it healthy again; must be 1 for liveness."""


def rollout_limits(max_surge: str, max_unavailable: str, desired: int) -> tuple[int, int]:
    """(replicas above, replicas below) the desired number while a change rolls out; never both zero.

    Counts, or percentages of which a surge is rounded up and the other down: the rules of Kubernetes'
    Deployments, which are assumed to be those of AI Deploy.
    """

    def share(value: str, rounding: Callable[[float], int]) -> int:
        return rounding(desired * int(value[:-1]) / 100) if value.endswith("%") else int(value)

    surge, unavailable = share(max_surge, math.ceil), share(max_unavailable, math.floor)
    return surge, unavailable if surge or unavailable else 1


class DeploymentStrategy(_Model):
    """How a change rolls out over the replicas (`DeploymentStrategy`); defaults are the platform's."""

    max_surge: Annotated[str, Field(pattern=r"^\d+%?$")] = "25%"
    """Replicas above the wanted number during a rollout; with one replica 25 % is one more GPU of quota."""
    max_unavailable: Annotated[str, Field(pattern=r"^\d+%?$")] = "25%"
    progress_deadline_seconds: Annotated[int, Field(ge=1)] = 600
    """Seconds without progress after which a rollout counts as failed. A start pulls an image and downloads
    the weights: those of tens of GB need far more than the default."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0)] = 30

    def limits(self, desired: int) -> tuple[int, int]:
        """`rollout_limits` of this strategy."""
        return rollout_limits(self.max_surge, self.max_unavailable, desired)


class CustomMetrics(_Model):
    """A metric of the app itself that drives the autoscaler (`customMetrics`, KEDA's metrics-api scaler)."""

    api_url: Annotated[str, Field(pattern=r"^https?://.+")]
    """Where the metric is read; `<SELF>` stands for the app. Its port must be the app's HTTP port."""
    format: Literal["JSON", "XML", "YAML", "PROMETHEUS"] = "JSON"
    value_location: Annotated[str, Field(min_length=1)]
    """For PROMETHEUS a metric selector such as `vllm:num_requests_running`; no functions."""
    target_value: Annotated[float, Field(gt=0)]
    """Value per replica that the autoscaler aims at; 0 or less would scale to zero."""
    aggregation_type: Literal["AVERAGE", "MIN", "MAX", "SUM"] = "AVERAGE"


class FixedScaling(_Model):
    """A fixed number of replicas."""

    replicas: Annotated[int, Field(ge=1)]


Window = Annotated[int, Field(ge=0, le=3600)]
"""Seconds of a stabilization window."""


class AutomaticScaling(_Model):
    """Replicas between two bounds, moved by a custom metric, or by CPU or RAM usage (`automatic`).

    Defaults of windows and cooldown are those of OVHcloud's control panel, which sends them as well.
    """

    replicas_min: Annotated[int, Field(ge=0)]
    replicas_max: Annotated[int, Field(ge=1)]
    resource_type: Literal["CPU", "RAM"] | None = None
    average_usage_target: Annotated[int, Field(ge=1, le=100)] | None = None
    """Usage in percent that the autoscaler aims at, with `resource_type`."""
    custom_metrics: CustomMetrics | None = None
    cooldown_period_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """Seconds without a request before the app is scaled to zero; at least 60 when `replicas_min` is 0."""
    scale_up_stabilization_window_seconds: Window = 0
    scale_down_stabilization_window_seconds: Window = 300

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.replicas_max < self.replicas_min:
            raise ValueError(f"replicasMax {self.replicas_max} is less than replicasMin {self.replicas_min}")
        if self.replicas_min == 0 and self.cooldown_period_seconds < 60:
            raise ValueError("cooldownPeriodSeconds must be at least 60 when replicasMin is 0")
        usage = (self.resource_type, self.average_usage_target)
        if (self.custom_metrics is None) == (None in usage) or (self.custom_metrics and any(usage)):
            raise ValueError("give either customMetrics, or resourceType with averageUsageTarget")
        return self


class ScalingStrategy(_Model):
    """Exactly one of a fixed number of replicas and automatic scaling (`ScalingStrategyInput`)."""

    fixed: FixedScaling | None = None
    automatic: AutomaticScaling | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.fixed is None) == (self.automatic is None):
            raise ValueError("give either fixed or automatic")
        return self

    @property
    def most_replicas(self) -> int:
        """The number of replicas that the app may grow to."""
        return self.fixed.replicas if self.fixed else self.automatic.replicas_max if self.automatic else 0


class Standalone(_Model):
    """A volume without a data source, empty at the start; gives uid 42420 a place to write."""

    name: str | None = None


class DataStore(_Model):
    """A container of an object store known to the project under `alias`."""

    alias: str
    container: str
    prefix: str | None = None


class PublicUrl(_Model):
    """A public git repository or Swift container."""

    url: str


class VolumeSource(_Model):
    """Exactly one source of a volume's content."""

    standalone: Standalone | None = None
    data_store: DataStore | None = None
    public_git: PublicUrl | None = None
    public_swift: PublicUrl | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give one of standalone, dataStore, publicGit, publicSwift")
        return self


_Variables = TypeVar("_Variables", bound=Mapping[str, str])

_VOLUME = re.compile(
    r"(?:standalone|(?P<container>[^@:/]+)@(?P<alias>[^@:/]+)(?:/(?P<prefix>[^:]+))?)"
    r":(?P<mount>/[^:]*)(?::(?P<permission>ro|rw|rwd))?(?::(?P<cache>cache|no-cache))?",
    re.IGNORECASE,
)


class Volume(_Model):
    """A volume of each replica (`Volume`).

    Also read from the text form of OVHcloud's CLI, `standalone:/hub:rw` or
    `container@alias/prefix:/data:ro:cache` (permission `rw` when it is left out). The JSON form of
    `standalone:…` is inferred, not documented.
    """

    mount_path: Annotated[str, Field(pattern=r"^/")]
    permission: Literal["RO", "RW", "RWD"] = "RW"
    cache: bool = False
    """Whether the content is kept between starts; not for standalone volumes and public git."""
    volume_source: VolumeSource

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _VOLUME.fullmatch(value)
        if match is None:
            raise ValueError(
                f"volume {value!r}: write standalone:/path:rw or container@alias/prefix:/path:ro:cache"
            )
        source = (
            {"dataStore": {key: match[key] for key in ("alias", "container", "prefix")}}
            if match["container"]
            else {"standalone": {}}
        )
        return {
            "mountPath": match["mount"],
            "permission": (match["permission"] or "rw").upper(),
            "cache": (match["cache"] or "").lower() == "cache",
            "volumeSource": source,
        }


def environment_variables(value: _Variables) -> _Variables:
    """`value`, if an app can be created and updated with it; else ValueError."""
    for name, text in value.items():
        if not name or "=" in name:
            raise ValueError(f"{name!r} is no name of an environment variable")
        if not text:
            # An update with an empty value takes the variable away (documented patch semantics).
            raise ValueError(f"{name} is empty, which the platform reads as 'remove'; leave it out")
    return value


def user_labels(value: _Variables) -> _Variables:
    """`value`, if a user may set these labels; else ValueError."""
    for name in value:
        if not name:
            raise ValueError("a label has no name")
        if name.startswith(PLATFORM_LABEL_PREFIX):
            raise ValueError(f"{name!r}: labels under {PLATFORM_LABEL_PREFIX} belong to the platform")
        if name in MANAGED_LABELS:
            raise ValueError(f"{name!r} is written by the program itself")
    return value


class AppSpec(_Model):
    """Everything that can be set on an app (`AppSpecInput`).

    `name`, `region`, `volumes`, `unsecure_http` and `partner_id` cannot be changed on a living app.
    """

    name: Annotated[str, Field(min_length=1)]
    region: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9-]*$")]
    """Region of AI Deploy in upper case, such as `GRA`."""
    image: Annotated[str, Field(min_length=1)]
    flavor: Annotated[str, Field(min_length=1)]
    """Flavor id such as `h100-1-gpu`; CPU, memory and disk follow from it and the count."""
    gpu: Annotated[int, Field(ge=1)] | None = None
    """GPUs of each replica, for a GPU flavor."""
    cpu: Annotated[int, Field(ge=1)] | None = None
    """CPUs of each replica, for a CPU flavor."""
    command: tuple[str, ...] = ()
    """Replaces the command of the image; empty means the image's own."""
    env: Annotated[Mapping[str, str], AfterValidator(environment_variables)] = Field(
        default_factory=dict, repr=False
    )
    """Environment variables. The API shows their values to everybody who may read the app."""
    labels: Annotated[Mapping[str, str], AfterValidator(user_labels)] = Field(default_factory=dict)
    default_http_port: Port = 8080
    """The one port behind the app's URL."""
    grpc_port: Port | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    scaling_strategy: ScalingStrategy = ScalingStrategy(fixed=FixedScaling(replicas=1))
    deployment_strategy: DeploymentStrategy = DeploymentStrategy()
    volumes: tuple[Volume, ...] = ()
    unsecure_http: bool = False
    """True lets everybody call the app without a token."""
    partner_id: str | None = None
    """Partner of a catalogue image."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.gpu is None) == (self.cpu is None):
            raise ValueError("give gpu for a GPU flavor, or cpu for a CPU flavor")
        if self.liveness_probe and self.liveness_probe.success_threshold != 1:
            raise ValueError("livenessProbe: successThreshold must be 1")
        paths = [volume.mount_path for volume in self.volumes]
        if len(paths) != len(set(paths)):
            raise ValueError("volumes: two volumes have the same mountPath")
        return self

    def settings(self) -> dict[str, Any]:
        """Every field as plain JSON, defaults filled in: the form that Pulumi's state holds.

        Keys are the names of the fields, values in their wire form. This is what plans compare.
        """
        wire = self.wire()
        return {name: wire.get(to_camel(name)) for name in AppSpec.model_fields}


def create_body(spec: AppSpec) -> dict[str, Any]:
    """The body of `POST /app`; what is not set is left out."""
    body: dict[str, Any] = {
        "name": spec.name,
        "region": spec.region,
        "image": spec.image,
        "resources": {"flavor": spec.flavor} | ({"gpu": spec.gpu} if spec.gpu else {"cpu": spec.cpu}),
        "command": list(spec.command) or None,
        "envVars": [{"name": name, "value": value} for name, value in sorted(spec.env.items())] or None,
        "labels": dict(spec.labels) or None,
        "defaultHttpPort": spec.default_http_port,
        "grpcPort": spec.grpc_port,
        "probe": spec.readiness_probe and spec.readiness_probe.wire(),
        "livenessProbe": spec.liveness_probe and spec.liveness_probe.wire(),
        "scalingStrategy": spec.scaling_strategy.wire(),
        "deploymentStrategy": spec.deployment_strategy.wire(),
        "volumes": [volume.wire() for volume in spec.volumes] or None,
        "unsecureHttp": spec.unsecure_http,
        "partnerId": spec.partner_id,
    }
    return {key: value for key, value in body.items() if value is not None}
