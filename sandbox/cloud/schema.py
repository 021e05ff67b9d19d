"""Bodies of the AI Deploy API: `cloud.project.ai.*` of the published OpenAPI, checked strictly.

Unknown keys, floats where integers belong and values outside an enum are refused. Bounds come from the
API's texts; those that only the control panel enforces are marked.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from sandbox.interfaces import JsonObject

PLATFORM_LABELS = "ovh/"
"""Prefix of the labels that the platform owns."""

Port = Annotated[int, Field(ge=1, le=65535)]
Window = Annotated[int, Field(ge=0, le=3600)]


class Body(BaseModel):
    """A JSON object with camelCase keys; values are never coerced nor repeated in an error."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=to_camel, hide_input_in_errors=True
    )

    def json_object(self) -> JsonObject:
        """The object with the API's key names, unset fields as null."""
        dumped: JsonObject = self.model_dump(by_alias=True)
        return dumped


def _amount(value: str) -> str:
    if not re.fullmatch(r"\d+%?", value):
        raise ValueError("a count or a percentage is needed, e.g. '1' or '25%'")
    return value


def selector(value: str) -> str:
    """Checks a label selector `name=value`; how several pairs are written is not documented."""
    if not re.fullmatch(r"[^=,\s]+=[^=,\s]+", value):
        raise ValueError("a label selector has the form name=value")
    return value


class EnvVar(Body):
    """An environment variable of the container."""

    name: Annotated[str, Field(min_length=1)]
    value: str = Field(repr=False)


class EnvPatch(Body):
    """A change of an environment variable; an empty or null value removes it."""

    name: Annotated[str, Field(min_length=1)]
    value: str | None = Field(default=None, repr=False)


class ProbeSpec(Body):
    """`ProbeInput`: when a container counts as ready (`probe`) or has to be restarted (`livenessProbe`)."""

    path: str | None = None
    port: Port | None = None
    initial_delay_seconds: Annotated[int, Field(ge=0)] | None = None
    period_seconds: Annotated[int, Field(ge=1)] | None = None
    timeout_seconds: Annotated[int, Field(ge=1)] | None = None
    failure_threshold: Annotated[int, Field(ge=1)] | None = None
    success_threshold: Annotated[int, Field(ge=1)] | None = None


def _liveness(probe: ProbeSpec) -> ProbeSpec:
    if probe.success_threshold not in (None, 1):
        raise ValueError("successThreshold must be 1 for a liveness probe")
    return probe


LivenessSpec = Annotated[ProbeSpec, AfterValidator(_liveness)]


class DeploymentStrategy(Body):
    """How an update replaces replicas; unset fields have the API's defaults 25%, 25%, 600, 30."""

    max_surge: Annotated[str, AfterValidator(_amount)] | None = None
    max_unavailable: Annotated[str, AfterValidator(_amount)] | None = None
    progress_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    termination_grace_period_seconds: Annotated[int, Field(ge=0)] | None = None


class FixedStrategy(Body):
    """A constant number of replicas (1 to 10 after the guides)."""

    replicas: Annotated[int, Field(ge=1, le=10)]


class CustomMetrics(Body):
    """Scaling on a number that the app, or another server, publishes."""

    api_url: Annotated[str, Field(pattern=r"^https?://.+")]
    format: Literal["JSON", "XML", "YAML", "PROMETHEUS"] = "JSON"
    value_location: Annotated[str, Field(min_length=1)]
    target_value: Annotated[float, Field(gt=0)]
    aggregation_type: Literal["AVERAGE", "MIN", "MAX", "SUM"] = "AVERAGE"


class AutomaticStrategy(Body):
    """A varying number of replicas; at most 10 (a limit of the control panel, taken for the API's)."""

    replicas_min: Annotated[int, Field(ge=0, le=10)]
    replicas_max: Annotated[int, Field(ge=1, le=10)]
    resource_type: Literal["CPU", "RAM"] | None = None
    average_usage_target: Annotated[int, Field(ge=0, le=100)] | None = None
    custom_metrics: CustomMetrics | None = None
    cooldown_period_seconds: Window | None = None
    scale_up_stabilization_window_seconds: Window | None = None
    scale_down_stabilization_window_seconds: Window | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.replicas_min > self.replicas_max:
            raise ValueError(f"replicasMin {self.replicas_min} is above replicasMax {self.replicas_max}")
        return self


class ScalingStrategy(Body):
    """Exactly one of a fixed and an automatic strategy."""

    fixed: FixedStrategy | None = None
    automatic: AutomaticStrategy | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.fixed is None) == (self.automatic is None):
            raise ValueError("exactly one of 'fixed' and 'automatic' must be given")
        return self


class Resources(Body):
    """`ResourcesInput`; bytes and bytes per second. The platform fills in the rest from the flavor."""

    flavor: str | None = None
    flavor_count: Annotated[int, Field(ge=1)] | None = None
    gpu: Annotated[int, Field(ge=0)] | None = None
    cpu: Annotated[int, Field(ge=0)] | None = None
    memory: int | None = None
    ephemeral_storage: int | None = None
    gpu_brand: str | None = None
    gpu_model: str | None = None
    gpu_memory: int | None = None
    private_network: int | None = None
    public_network: int | None = None


class Standalone(Body):
    """A volume without a source."""

    name: str | None = None


class DataStore(Body):
    """A container of object storage."""

    alias: str
    container: str
    prefix: str | None = None
    archive: str | None = None
    internal: bool | None = None


class PublicUrl(Body):
    """A public git repository or Swift container."""

    url: str


class VolumeSource(Body):
    """Where a volume's content comes from: one of these."""

    standalone: Standalone | None = None
    data_store: DataStore | None = None
    public_git: PublicUrl | None = None
    public_swift: PublicUrl | None = None


class VolumeTarget(Body):
    """Where a volume's content goes to."""

    target_data_store: DataStore | None = None


class Volume(Body):
    """A mounted volume; the API's deprecated keys beside `volumeSource` are refused."""

    mount_path: Annotated[str, Field(pattern=r"^/")]
    permission: Literal["RO", "RW", "RWD"]
    cache: bool | None = None
    volume_source: VolumeSource | None = None
    volume_target: VolumeTarget | None = None


class AppSpec(Body):
    """`AppSpecInput`, and the spec part of an app."""

    image: Annotated[str, Field(min_length=1)]
    region: str
    resources: Resources
    name: Annotated[str, Field(min_length=1)] | None = None
    command: list[str] | None = None
    env_vars: list[EnvVar] | None = None
    labels: dict[str, str] | None = None
    default_http_port: Port | None = None
    grpc_port: Port | None = None
    probe: ProbeSpec | None = None
    liveness_probe: LivenessSpec | None = None
    scaling_strategy: ScalingStrategy | None = None
    deployment_strategy: DeploymentStrategy | None = None
    unsecure_http: bool | None = None
    volumes: list[Volume] | None = None
    partner_id: str | None = None


class AppUpdate(Body):
    """`UpdateInput`; a field that is absent or null stays as it is."""

    url: Annotated[str, Field(min_length=1)] | None = None
    """The image."""
    command: list[str] | None = None
    """An empty list resets to the image's own command."""
    env_vars: list[EnvPatch] | None = None
    flavor: str | None = None
    gpu: Annotated[int, Field(ge=1)] | None = None
    cpu: Annotated[int, Field(ge=1)] | None = None
    default_http_port: Port | None = None
    grpc_port: Port | None = None
    probe: ProbeSpec | None = None
    liveness_probe: LivenessSpec | None = None
    deployment_strategy: DeploymentStrategy | None = None


class ImageUpdate(Body):
    """Body of `PUT …/image`."""

    url: Annotated[str, Field(min_length=1)]


class LabelUpdate(Body):
    """Body of `PUT …/label`: one label; null deletes it."""

    name: Annotated[str, Field(min_length=1)]
    value: str | None = None


class TokenSpec(Body):
    """Body of `POST …/token`."""

    name: Annotated[str, Field(min_length=1)]
    region: str
    role: Literal["ai_training_operator", "ai_training_read", "quantum_operator", "quantum_reader"]
    label_selector: Annotated[str, AfterValidator(selector)] | None = None
