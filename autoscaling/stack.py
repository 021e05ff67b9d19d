"""A stack file as a rehearsal's inputs: what would be deployed, on what, for which price and objectives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from autoscaling import arguments, calibrate
from autoscaling.cold_start import ColdStart
from autoscaling.engine import EngineParameters
from autoscaling.fleet import Fleet
from autoscaling.hardware import (
    GPUS,
    OutOfMemoryError,
    engine_parameters,
    known_model,
    max_model_len,
    weights_bytes,
)
from autoscaling.policy import ScalerSettings
from components.prices import flavor_eur_per_hour
from components.settings import PROJECT, EndpointSettings, Settings, SettingsError, load
from dashboards.target import Objectives

CHECKOUT = Path(__file__).resolve().parents[1]
"""Where the stack files are."""


class StackError(Exception):
    """A stack that cannot be rehearsed; the text says why and what to do."""


@dataclass(frozen=True)
class Stack:
    """What is rehearsed."""

    name: str
    fleet: Fleet
    objectives: Objectives
    model: str
    gpu_flavor: str
    eur_per_replica_hour: float | None
    """None while the price of the flavor is unknown."""
    most_replicas: int
    """The highest maxReplicas that the stack file may have as it is otherwise, at most 10."""
    speed: str
    """Where the figures of the engine are from."""
    known_model: bool
    """Whether the size of the model is published, and not guessed from its name."""
    unheeded: tuple[str, ...] = ()
    """Arguments of vLLM that change its speed and that the engine does not model."""


_OBJECTIVES = "serviceLevelObjectives"
_UNREAD = {"huggingFaceToken", "vllmEnvironment"}
"""Keys of the endpoint that change nothing here and are, or may hold, secrets."""
_NEEDED = {field.alias or name for name, field in EndpointSettings.model_fields.items()} - _UNREAD | {
    _OBJECTIVES
}


def read(stack: str, *, calibration: Path | None = None, folder: Path = CHECKOUT) -> Stack:
    """A stack as its file is now; `calibration` is a file whose figures replace the published ones.

    Needs no passphrase: what is encrypted is not read. Raises StackError for a file that is missing or that
    cannot be rehearsed, SettingsError for mistakes in it.
    """
    values = _values(stack, folder)
    found = _load(stack, values)
    endpoint = found.endpoint
    price = flavor_eur_per_hour(endpoint.gpu_flavor)
    try:
        given = arguments.parse(["--model", endpoint.model, *endpoint.vllm_arguments])
        parameters, speed = _engine(endpoint, given, calibration)
        fleet = Fleet(
            parameters=parameters,
            cold_start=tuple(ColdStart().phases(weights_bytes(endpoint.model)).items()),
            readiness=endpoint.readiness_probe,
            liveness=endpoint.liveness_probe,
            scaler=ScalerSettings(
                replicas_min=endpoint.min_replicas,
                replicas_max=endpoint.max_replicas,
                target_value=float(endpoint.scaling_target),
                aggregation=endpoint.scaling_aggregation,
                scale_up_stabilization_seconds=endpoint.scale_up_stabilization_seconds,
                scale_down_stabilization_seconds=endpoint.scale_down_stabilization_seconds,
            ),
            metric=endpoint.scaling_metric,
            gpus_per_replica=endpoint.gpu_count,
            gpu_quota=endpoint.gpu_quota,
            longest=min(max_model_len(given), parameters.kv_tokens),
        )
    except arguments.ArgumentsError as error:
        raise StackError(f"Pulumi.{stack}.yaml cannot be rehearsed: vllmArguments: {error}") from None
    except ValueError as error:
        raise StackError(f"Pulumi.{stack}.yaml cannot be rehearsed: {error}") from None
    return Stack(
        name=stack,
        fleet=fleet,
        objectives=found.monitoring.service_level_objectives.objectives,
        model=endpoint.model,
        gpu_flavor=endpoint.gpu_flavor,
        eur_per_replica_hour=None if price is None else price * endpoint.gpu_count,
        most_replicas=_most_replicas(stack, values, endpoint),
        speed=speed,
        known_model=known_model(endpoint.model) is not None,
        unheeded=tuple(arguments.unheeded(endpoint.vllm_arguments)),
    )


def _engine(
    endpoint: EndpointSettings, given: arguments.ServerArguments, calibration: Path | None
) -> tuple[EngineParameters, str]:
    """The engine, and where its figures are from."""
    if given.tensor_parallel_size > endpoint.gpu_count:
        raise ValueError(
            f"vllmArguments: --tensor-parallel-size {given.tensor_parallel_size} needs as many GPUs, "
            f"gpuCount is {endpoint.gpu_count}"
        )
    try:
        published = engine_parameters(given, endpoint.gpu_flavor)
    except OutOfMemoryError as error:
        raise ValueError(
            f"model {endpoint.model}, gpuFlavor {endpoint.gpu_flavor}: {error}, of which vLLM uses "
            f"{given.gpu_memory_utilization:.0%} (--gpu-memory-utilization); take a larger GPU, more of them "
            "(gpuCount and --tensor-parallel-size), or a quantized model"
        ) from None
    if calibration is None:
        return published, f"published figures of {GPUS[endpoint.gpu_flavor].name}"
    measured = calibrate.read(calibration)
    if measured.model not in given.served_model_names:
        raise ValueError(
            f"{calibration} is of the model {measured.model}, and this stack serves "
            f"{', '.join(given.served_model_names)}"
        )
    return measured.applied(published), f"measured on {measured.date} ({calibration.name})"


def _values(stack: str, folder: Path) -> dict[str, str]:
    """Configuration of a stack as Pulumi hands it over, but with the defaults for what is not needed here."""
    path = folder / f"Pulumi.{stack}.yaml"
    if not path.is_file():
        known = sorted(
            file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in folder.glob("Pulumi.*.yaml")
        )
        raise StackError(f"stack {stack}: there is no {path.name}; the stacks are {', '.join(known)}")
    declared = _config(folder / "Pulumi.yaml")
    defaults = {key: entry["default"] for key, entry in declared.items() if "default" in entry}
    prefix = f"{PROJECT}:"
    written = {
        key.removeprefix(prefix): value for key, value in _config(path).items() if key.startswith(prefix)
    }
    # A key of another part may be encrypted, and rules between such keys cannot be checked then.
    taken = {key: value for key, value in written.items() if key in _NEEDED or key not in defaults}
    hidden = sorted(key for key, value in taken.items() if _is_secret(value))
    if hidden:
        raise StackError(
            f"{path.name}: {', '.join(hidden)} is encrypted, and a rehearsal needs it; "
            f"`pulumi config set --plaintext {hidden[0]} … -s {stack}` sets it in plain text"
        )
    values = {key: _text(value) for key, value in {**defaults, **taken}.items()}
    return {**values, "serviceName": "0" * 32}  # no project is asked


def _load(stack: str, values: Mapping[str, str]) -> Settings:
    return load(values, secret=lambda key: False, environment={}, stack=stack)


_MOST = 10
"""AI Deploy's limit."""


def _most_replicas(stack: str, values: Mapping[str, str], endpoint: EndpointSettings) -> int:
    """The highest maxReplicas that the rules between settings allow, which know the quota."""
    for count in range(_MOST, endpoint.max_replicas, -1):
        try:
            _load(stack, {**values, "maxReplicas": str(count)})
        except SettingsError:
            continue
        return count
    return endpoint.max_replicas


def _config(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        found = content.get("config") or {}
        keys = list(found.items())
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise StackError(
            f"{path}: a YAML file of keys with values, with such a section `config`, is needed ({error})"
        ) from None
    return dict(keys)


def _is_secret(value: Any) -> bool:
    """Whether a value of a stack file is encrypted, or a part of it."""
    if isinstance(value, Mapping):
        return "secure" in value or any(map(_is_secret, value.values()))
    return isinstance(value, list) and any(map(_is_secret, value))


def _text(value: Any) -> str:
    """A value as Pulumi hands it to the program: lists and objects as JSON, all others as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
