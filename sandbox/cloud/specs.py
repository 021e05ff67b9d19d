"""Pure translations of an app's spec: what the platform fills in, what an update changes, what it runs."""

from __future__ import annotations

from dataclasses import dataclass

from autoscaling.policy import ScalerSettings, TargetType
from components.flavors import FLAVORS, Flavor
from components.prices import flavor_eur_per_hour
from sandbox.cloud import app_machine, catalogue
from sandbox.cloud.http import bad_request, not_implemented
from sandbox.cloud.schema import (
    PLATFORM_LABELS,
    AppSpec,
    AppUpdate,
    AutomaticStrategy,
    CustomMetrics,
    EnvPatch,
    EnvVar,
    FixedStrategy,
    ProbeSpec,
    Resources,
    ScalingStrategy,
)

_DEFAULT_PORT = 8080

_CONTAINER_FIELDS = (
    "image",
    "command",
    "env_vars",
    "default_http_port",
    "grpc_port",
    "probe",
    "liveness_probe",
    "resources",
    "volumes",
)


@dataclass(frozen=True)
class Size:
    """Flavor of a replica and how many units of it."""

    flavor: Flavor
    count: int

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.count if self.flavor.is_gpu else 0

    @property
    def eur_per_hour(self) -> float | None:
        """Price of one replica."""
        unit = flavor_eur_per_hour(self.flavor.id)
        return None if unit is None else unit * self.count


def size(resources: Resources) -> Size:
    """The flavor and count that were asked for; raises 400 for what the flavor does not allow."""
    if resources.flavor is None:
        raise not_implemented("an app without resources.flavor (the platform's default is not documented)")
    flavor = FLAVORS.get(resources.flavor)
    if flavor is None:
        known = ", ".join(FLAVORS)
        raise bad_request(f"resources.flavor: {resources.flavor} is unknown; there are {known}")
    if resources.gpu and not flavor.is_gpu:
        raise bad_request(f"resources.gpu: flavor {flavor.id} has no GPU")
    field, asked = ("gpu", resources.gpu) if flavor.is_gpu else ("cpu", resources.cpu)
    count = asked or resources.flavor_count or 1
    if count > flavor.max:
        raise bad_request(f"resources.{field}: {count} is above the maximum of {flavor.id}, {flavor.max}")
    return Size(flavor, count)


def filled(spec: AppSpec, app_id: str) -> AppSpec:
    """The spec of a new app with what the platform adds: hardware, own labels, defaults."""
    labels = {
        name: value for name, value in (spec.labels or {}).items() if not name.startswith(PLATFORM_LABELS)
    }
    return spec.model_copy(
        update={
            "name": spec.name or f"app-{app_id[:8]}",
            "resources": _filled(size(spec.resources)),
            "labels": labels | {"ovh/id": app_id, "ovh/type": "app"},
            "default_http_port": spec.default_http_port or _DEFAULT_PORT,
            "scaling_strategy": spec.scaling_strategy or ScalingStrategy(fixed=FixedStrategy(replicas=1)),
            "unsecure_http": bool(spec.unsecure_http),
        }
    )


def _filled(size: Size) -> Resources:
    return Resources.model_validate(catalogue.hardware(size.flavor, size.count))


def updated(spec: AppSpec, update: AppUpdate) -> AppSpec:
    """The spec after `PUT …/app/{id}`."""
    changes: dict[str, object] = {}
    if update.url is not None:
        changes["image"] = update.url
    if update.command is not None:
        changes["command"] = update.command or None
    if update.env_vars is not None:
        changes["env_vars"] = patched(spec.env_vars or [], update.env_vars)
    for field in ("default_http_port", "grpc_port", "probe", "liveness_probe", "deployment_strategy"):
        if (value := getattr(update, field)) is not None:
            changes[field] = value
    if update.flavor is not None or update.gpu is not None or update.cpu is not None:
        changes["resources"] = _resized(spec.resources, update)
    return spec.model_copy(update=changes)


def _resized(resources: Resources, update: AppUpdate) -> Resources:
    count = size(resources).count
    asked = Resources(
        flavor=update.flavor or resources.flavor,
        flavorCount=None if update.gpu or update.cpu else count,
        gpu=update.gpu,
        cpu=update.cpu,
    )
    return _filled(size(asked))


def patched(variables: list[EnvVar], patch: list[EnvPatch]) -> list[EnvVar]:
    """Environment after a patch: named ones are set or (empty value) removed, the others stay."""
    values = {variable.name: variable.value for variable in variables}
    for change in patch:
        if change.value:
            values[change.name] = change.value
        else:
            values.pop(change.name, None)
    return [EnvVar(name=name, value=value) for name, value in values.items()]


def container_changed(old: AppSpec, new: AppSpec) -> bool:
    """Whether the two specs make different containers."""
    return any(getattr(old, field) != getattr(new, field) for field in _CONTAINER_FIELDS)


def with_label(spec: AppSpec, name: str, value: str | None) -> AppSpec:
    """The spec after `PUT …/label`; a null value deletes the label."""
    if name.startswith(PLATFORM_LABELS):
        raise bad_request(f"name: label {name} belongs to the platform")
    labels = dict(spec.labels or {})
    if value is None:
        labels.pop(name, None)
    else:
        labels[name] = value
    return spec.model_copy(update={"labels": labels})


def template(spec: AppSpec, revision: int, pullable: bool) -> app_machine.Template:
    """What the containers of the spec are, for the state machine."""
    port = spec.default_http_port
    return app_machine.Template(
        revision, _probe(spec.probe, port), _probe(spec.liveness_probe, port), pullable, spec.image
    )


def _probe(probe: ProbeSpec | None, port: int | None) -> app_machine.Probe | None:
    if probe is None:
        return None
    return app_machine.Probe(
        path=probe.path or "/",
        listens=(probe.port or port) == port,
        initial_delay=probe.initial_delay_seconds or 0,
        period=probe.period_seconds or 10,
        failure_threshold=probe.failure_threshold or 3,
        success_threshold=probe.success_threshold or 1,
    )


def strategy(spec: AppSpec) -> app_machine.Strategy:
    """How updates replace replicas; unset fields have the API's defaults."""
    given, default = spec.deployment_strategy, app_machine.Strategy()
    if given is None:
        return default
    grace = given.termination_grace_period_seconds
    return app_machine.Strategy(
        surge=given.max_surge or default.surge,
        unavailable=given.max_unavailable or default.unavailable,
        progress_deadline=given.progress_deadline_seconds or default.progress_deadline,
        grace=default.grace if grace is None else grace,
    )


def automatic(spec: AppSpec) -> AutomaticStrategy | None:
    """The automatic scaling strategy, if there is one."""
    return None if spec.scaling_strategy is None else spec.scaling_strategy.automatic


def replicas(spec: AppSpec, running: int | None = None) -> int:
    """Replicas to ask for under the spec's strategy; `running` of them run (None: it is a start).

    `replicasMin: 0` counts as 1: scaling to zero is announced but not documented as available.
    """
    strategy = automatic(spec)
    if strategy is None:
        fixed = spec.scaling_strategy and spec.scaling_strategy.fixed
        return fixed.replicas if fixed else 1
    least = max(1, strategy.replicas_min)
    return min(max(running or least, least), strategy.replicas_max)


def scaler_settings(
    strategy: AutomaticStrategy, metric: CustomMetrics, target_type: TargetType
) -> ScalerSettings:
    """Settings of the scaler on a custom metric; what is not given has the policy's defaults."""

    def given(value: int | None, default: float) -> float:
        return default if value is None else value

    return ScalerSettings(
        max(1, strategy.replicas_min),
        strategy.replicas_max,
        metric.target_value,
        metric.aggregation_type,
        target_type,
        given(strategy.scale_up_stabilization_window_seconds, ScalerSettings.scale_up_stabilization_seconds),
        given(
            strategy.scale_down_stabilization_window_seconds, ScalerSettings.scale_down_stabilization_seconds
        ),
        given(strategy.cooldown_period_seconds, ScalerSettings.cooldown_seconds),
    )


def modelled_metric(strategy: AutomaticStrategy, port: int | None) -> CustomMetrics:
    """The metric that the sandbox scales by; raises ValueError that says why it cannot (the count stays).

    It is read from the replicas on the app's own port: another one is no port of the service.
    """
    metric = strategy.custom_metrics
    if metric is None:
        raise ValueError(f"scaling on {strategy.resource_type or 'CPU'} usage is not modelled")
    if metric.format != "PROMETHEUS":
        raise ValueError(f"customMetrics.format {metric.format} is not modelled, only PROMETHEUS")
    expected = f"http://<SELF>:{port}/metrics"
    if metric.api_url != expected:
        raise ValueError(f"customMetrics.apiUrl {metric.api_url} leads nowhere here, only {expected} does")
    return metric
