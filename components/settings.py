"""Typed settings of a stack, read from its configuration; every mistake is reported at once.

`Pulumi.yaml` declares each key with type, default and description; a field here is the same key in snake
case. Defaults stand there alone. `load` is pure; `from_pulumi` reads the running program's configuration.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_origin

import pulumi
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from components.ai_deploy.spec import (
    ContainerUpdates,
    Port,
    Probe,
    Volume,
    Window,
    environment_variables,
    user_labels,
)
from components.flavors import ai_api_url
from components.setting_rules import RULES, receivers_of
from components.setting_types import (
    AiRegion,
    AlertRoutes,
    Certificate,
    ChartVersion,
    ClusterRegion,
    Duration,
    Gibibytes,
    GpuFlavor,
    HostPort,
    Image,
    KubernetesVersion,
    LabelValue,
    Mailbox,
    Mailboxes,
    MetricSelector,
    Network,
    NodePoolName,
    OptionalAppId,
    OptionalUrl,
    PagerDutyKey,
    PlatformUrl,
    Receiver,
    ScrapeInterval,
    SecretUrl,
    ServiceLevelObjectives,
    ServiceName,
    Size,
    SlackChannel,
    SlackUrl,
    SmtpPassword,
    SmtpUser,
    Target,
    Text,
    Url,
    Word,
)
from dashboards.rules import Severity

PROJECT = "ovh-vllm"
"""Name of the Pulumi project, the namespace of its configuration keys."""


@dataclass(frozen=True)
class Mistake:
    """One wrong setting: key, what is written there (None when nothing is, or a secret), and the remedy."""

    key: str
    value: str | None
    allowed: str

    def __str__(self) -> str:
        """`ovh-vllm:key = value: what is allowed`."""
        written = f" = {self.value}" if self.value else ""
        return f"{PROJECT}:{self.key}{written}: {self.allowed}"


class SettingsError(pulumi.RunError):
    """The configuration of a stack holds mistakes; the text names them all, Pulumi prints no traceback."""

    def __init__(self, stack: str, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        lines = "\n".join(f"  - {mistake}" for mistake in mistakes)
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        super().__init__(f"{count} in the configuration (Pulumi.{stack}.yaml):\n{lines}")


class _Group(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class EndpointSettings(_Group):
    """What `InferenceEndpoint` needs: the model, its GPUs and how they scale."""

    app_name: Text
    region: AiRegion
    model: Word
    model_label: LabelValue
    image: Image
    vllm_arguments: list[str]
    vllm_environment: Annotated[dict[str, str], AfterValidator(environment_variables)]
    hugging_face_token: SecretStr
    gpu_flavor: GpuFlavor
    gpu_count: Annotated[int, Field(ge=1)]
    gpu_quota: Annotated[int, Field(ge=1)]
    volumes: list[Volume]
    port: Port
    liveness_probe: Probe
    readiness_probe: Probe
    progress_deadline_seconds: Annotated[int, Field(ge=60)]
    min_replicas: Annotated[int, Field(ge=0, le=10)]
    max_replicas: Annotated[int, Field(ge=1, le=10)]
    scaling_metric: MetricSelector
    scaling_target: Target
    scaling_aggregation: Literal["AVERAGE", "MIN", "MAX", "SUM"]
    scale_up_stabilization_seconds: Window
    scale_down_stabilization_seconds: Window
    container_updates: ContainerUpdates
    delete_before_replace: bool
    adopt_app_id: OptionalAppId
    app_labels: Annotated[dict[str, str], AfterValidator(user_labels)]
    token_generation: Annotated[int, Field(ge=1)]
    keep_previous_tokens: bool
    ready_timeout_seconds: Annotated[int, Field(ge=60)]


class ClusterSettings(_Group):
    """What `MonitoringCluster` needs."""

    cluster_name: Text
    cluster_region: ClusterRegion
    kubernetes_version: KubernetesVersion
    cluster_update_policy: Literal["ALWAYS_UPDATE", "MINIMAL_DOWNTIME", "NEVER_UPDATE"]
    node_pool_name: NodePoolName
    node_flavor: Word
    node_count: Annotated[int, Field(ge=1, le=100)]
    api_server_ranges: list[Network]


class MonitoringSettings(_Group):
    """What `MonitoringStack` needs: the chart, storage, scraping and how users reach Grafana."""

    chart_version: ChartVersion
    chart_repository: Url
    storage_class: Word
    prometheus_storage: Annotated[Gibibytes, Field(alias="prometheusStorageGiB")]
    prometheus_retention: Duration
    prometheus_retention_size: Size
    scrape_interval: ScrapeInterval
    scrape_timeout: Duration
    service_level_objectives: ServiceLevelObjectives
    platform_metrics: bool
    ai_api_url: PlatformUrl
    platform_exporter_image: Image
    runbook_url: OptionalUrl
    prometheus_external_url: OptionalUrl
    alertmanager_storage: Annotated[Gibibytes, Field(alias="alertmanagerStorageGiB")]
    node_exporter: bool
    kube_state_metrics: bool
    grafana_storage: Annotated[Gibibytes, Field(alias="grafanaStorageGiB")]
    grafana_access: Literal["port-forward", "load-balancer"]
    grafana_port: Port
    grafana_source_ranges: list[Network]
    grafana_load_balancer_flavor: Literal["small", "medium", "large", "xl"]
    grafana_reserved_address: bool
    grafana_keep_address: bool
    grafana_certificate: Certificate
    grafana_private_key: SecretStr


class AlertSettings(_Group):
    """Who is told of alerts."""

    alert_webhook_url: SecretUrl
    alert_slack_url: SlackUrl
    alert_slack_channel: SlackChannel
    alert_pager_duty_key: PagerDutyKey
    alert_email_to: Mailboxes
    alert_email_from: Mailbox
    alert_smtp_host: HostPort
    alert_smtp_user: SmtpUser
    alert_smtp_password: SmtpPassword
    alert_routes: AlertRoutes

    @property
    def receivers(self) -> list[Receiver]:
        """The receivers that are set."""
        return receivers_of(
            self.alert_webhook_url, self.alert_slack_url, self.alert_email_to, self.alert_pager_duty_key
        )

    def route(self, severity: Severity) -> list[Receiver]:
        """The receivers of a severity's alerts, each once."""
        default = [] if severity == "info" else self.receivers
        return list(dict.fromkeys(self.alert_routes.get(severity, default)))


class GeneralSettings(_Group):
    """What concerns every part."""

    service_name: ServiceName
    environment: LabelValue
    protect: list[Literal["app", "cluster", "address"]]


@dataclass(frozen=True)
class Settings:
    """Everything that a stack may set."""

    general: GeneralSettings
    endpoint: EndpointSettings
    cluster: ClusterSettings
    monitoring: MonitoringSettings
    alerts: AlertSettings

    @property
    def ai_api_url(self) -> str:
        """Address of the AI platform's own API, without `/v1` and trailing slash."""
        return self.monitoring.ai_api_url.rstrip("/") or ai_api_url(self.endpoint.region)


_GROUPS: dict[str, type[_Group]] = {
    "general": GeneralSettings,
    "endpoint": EndpointSettings,
    "cluster": ClusterSettings,
    "monitoring": MonitoringSettings,
    "alerts": AlertSettings,
}

KEYS = {field.alias or name for group in _GROUPS.values() for name, field in group.model_fields.items()}
"""Every configuration key, without the project's namespace."""

_SECRETS = {
    field.alias or name
    for group in _GROUPS.values()
    for name, field in group.model_fields.items()
    if field.annotation is SecretStr
}

_FROM_ENVIRONMENT = {
    "serviceName": "OVH_CLOUD_PROJECT_SERVICE",
    "huggingFaceToken": "HF_TOKEN",
    "aiApiUrl": "OVH_AI_URL",
}


def from_pulumi() -> Settings:
    """The settings of the running program's stack; raises SettingsError."""
    raw = pulumi.runtime.config.CONFIG.get()
    prefix = f"{PROJECT}:"
    return load(
        {key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)},
        secret=lambda key: pulumi.runtime.is_config_secret(prefix + key),
        environment=os.environ,
        stack=pulumi.get_stack(),
    )


def load(
    config: Mapping[str, str],
    *,
    secret: Callable[[str], bool],
    environment: Mapping[str, str],
    stack: str,
) -> Settings:
    """Reads settings from configuration values as Pulumi hands them over (lists and objects as JSON).

    `config` has keys without namespace, `secret` tells whether a key is encrypted in the stack file,
    `environment` fills an empty project id, Hugging Face token and address of the AI API. Raises
    SettingsError with every mistake.
    """
    mistakes = [Mistake(key, None, _unknown(key)) for key in config if key not in KEYS]
    mistakes += [
        Mistake(
            key,
            None,
            f"is in plain text; replace the secret and `pulumi config set --secret {key} -s {stack}`",
        )
        for key in sorted(_SECRETS)
        if config.get(key) and not secret(key)
    ]
    values = dict(config)
    for key, variable in _FROM_ENVIRONMENT.items():
        # A line break at the end comes along easily, and no header can hold it.
        values[key] = values.get(key, "").strip() or environment.get(variable, "").strip()
    if not values["serviceName"]:
        mistakes.append(
            Mistake(
                "serviceName", None, "is missing; set it or OVH_CLOUD_PROJECT_SERVICE to the project's id"
            )
        )
        values["serviceName"] = "0" * 32

    unprinted = _UNPRINTED | {key for key in config if secret(key)}
    valid: dict[str, Any] = {}
    for group in _GROUPS.values():
        for name, field in group.model_fields.items():
            key = field.alias or name
            if key not in values:
                mistakes.append(Mistake(key, None, "is missing"))
                continue
            # A TypeAdapter of the field alone lets the other fields be checked whatever this one says.
            annotated: Any = Annotated[field.annotation, Field(), *field.metadata]
            try:
                valid[name] = TypeAdapter(annotated).validate_python(_decode(field.annotation, values[key]))
            except (ValidationError, ValueError) as error:
                mistakes.append(Mistake(key, None if key in unprinted else values[key], _explain(error)))
    mistakes += _broken_rules(valid, values, unprinted)
    if mistakes:
        raise SettingsError(stack, mistakes)
    groups = {
        attribute: group.model_construct(**{name: valid[name] for name in group.model_fields})
        for attribute, group in _GROUPS.items()
    }
    return Settings(**groups)  # type: ignore[arg-type]


def _unknown(key: str) -> str:
    nearest = difflib.get_close_matches(key, KEYS, n=1)
    return f"is not a key of this project{f'; did you mean {nearest[0]}?' if nearest else ''}"


def _decode(annotation: Any, text: str) -> Any:
    """Pulumi hands over lists and objects as JSON, everything else as text."""
    structured = get_origin(annotation) in (list, dict) or (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )
    if not structured:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise ValueError(_SHAPES["list_type" if get_origin(annotation) is list else "dict_type"]) from None


_SHAPES = {
    "dict_type": "must be a map such as {name: value}",
    "model_type": "must be a map such as {name: value}",
    "list_type": "must be a list such as [value]",
    "missing": "is missing",
    "extra_forbidden": "is not known here",
}
"""What a user is told of the errors that pydantic words for Python programmers."""


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        (f"{place}: " if (place := _place(detail["loc"])) else "")
        + _SHAPES.get(detail["type"], detail["msg"].removeprefix("Value error, ").removeprefix("Input "))
        for detail in error.errors()
    )


def _place(location: tuple[int | str, ...]) -> str:
    """Where in a setting something is wrong: `critical[0]`, or `key Critical` for a key itself."""
    if location[-1:] == ("[key]",):
        return f"key {_place(location[:-1])}"
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


_UNPRINTED = _SECRETS | {"vllmEnvironment"}
"""Keys whose values no message shows, besides those that the stack file encrypts."""


def _broken_rules(
    valid: Mapping[str, Any], values: Mapping[str, str], unprinted: set[str]
) -> Iterator[Mistake]:
    """Mistakes between fields; a rule whose fields are not all valid is left for the next run."""
    for rule in RULES:
        if all(name in valid for name in rule.fields):
            problem = rule.check(*(valid[name] for name in rule.fields))
            if problem is not None:
                shown = rule.printed and rule.key not in unprinted
                yield Mistake(rule.key, values[rule.key] if shown else None, problem)
