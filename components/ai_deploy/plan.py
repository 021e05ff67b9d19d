"""From (what an app has, what it shall have) to the calls that lead there, or to a replacement.

Pure functions. An app's settings are the plain JSON that `AppSpec.settings` gives and Pulumi's state holds;
old settings may come from a refresh and need not be valid. Which call changes what is documented by the API:
`UpdateInput` of `PUT /app/{id}`, `PUT /app/{id}/scalingstrategy`, `PUT /app/{id}/label`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from components.ai_deploy.spec import (
    LABEL_CONFIRMED,
    LABEL_NONCE,
    LABEL_READY,
    MANAGED_LABELS,
    PLATFORM_LABEL_PREFIX,
    AppSpec,
    AutomaticScaling,
    CustomMetrics,
    DeploymentStrategy,
    FixedScaling,
    Probe,
)

Settings = Mapping[str, Any]
"""Settings of an app as plain JSON, by field of `AppSpec`; a field that is absent is not set."""

_IMMUTABLE = ("name", "region", "volumes", "unsecure_http", "partner_id")
"""No endpoint takes these fields of a living app."""

_UPDATE = {
    "image": "url",
    "command": "command",
    "flavor": "flavor",
    "gpu": "gpu",
    "cpu": "cpu",
    "default_http_port": "defaultHttpPort",
    "grpc_port": "grpcPort",
    "readiness_probe": "probe",
    "liveness_probe": "livenessProbe",
    "deployment_strategy": "deploymentStrategy",
}
"""Field of an app to the name it has in `UpdateInput`, where the image is called `url`."""

_PASSING_LABELS = (LABEL_NONCE, LABEL_CONFIRMED, LABEL_READY)
"""Labels that only create and the readiness gate write."""

_RESOURCES = ("flavor", "gpu", "cpu")
"""Fields that say what a replica runs on, the same in `UpdateInput`."""

_RESTARTING = (
    "image",
    "command",
    "env",
    "flavor",
    "gpu",
    "cpu",
    "default_http_port",
    "grpc_port",
    "readiness_probe",
    "liveness_probe",
)
"""Fields of the containers themselves: a change of one gives each replica a new container."""

_UNREADABLE_WHEN_ABSENT = (
    "cooldownPeriodSeconds",
    "scaleUpStabilizationWindowSeconds",
    "scaleDownStabilizationWindowSeconds",
)
"""Recent additions to the API that an answer may lack."""


@dataclass(frozen=True)
class Call:
    """One request of an update: `PUT /app/{id}` + `path`, with a JSON body."""

    path: str
    body: Mapping[str, Any] = field(repr=False)
    """May hold secrets of the environment."""


@dataclass(frozen=True)
class Plan:
    """What to do about a difference. Nothing, when `changed` is empty."""

    changed: tuple[str, ...]
    """Fields of `AppSpec` that differ."""
    replaced: tuple[str, ...]
    """Those of them that only a new app can change; with any of them there are no calls."""
    calls: tuple[Call, ...]
    """Requests that make all changes in place, in order."""


def plan(old: Settings, new: Settings) -> Plan:
    """How an app that has `old` comes to have `new`.

    The calls are fit to be sent when `new` comes from `AppSpec.settings`. In a preview it may hold values
    that are not known yet; they count as changed.
    """
    changed = _changed(old, new, AppSpec.model_fields)
    replaced = tuple(field for field in changed if _only_anew(field, old.get(field), new.get(field)))
    return Plan(changed, replaced, () if replaced else tuple(_calls(old, new, changed)))


def observed(wanted: Settings, live: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a living app, read from the `spec` of its answer, in the form of `AppSpec.settings`.

    Left as in `wanted`: what no call can change on a living app, optional parts that were never asked for,
    and what the answer does not show. Left out: what the platform fills in or moves (resources that follow
    from the flavor, `ovh/` labels) and labels that only this package's own create and gate write.
    """
    resources = live.get("resources") or {}
    unit = "gpu" if wanted.get("gpu") else "cpu"
    return {
        **wanted,
        "image": live.get("image") or wanted.get("image"),
        "flavor": resources.get("flavor") or wanted.get("flavor"),
        unit: resources.get(unit) or wanted.get(unit),
        "command": list(live.get("command") or ()),
        "env": {item["name"]: item["value"] for item in live.get("envVars") or ()},
        "labels": {
            name: value
            for name, value in (live.get("labels") or {}).items()
            if not name.startswith(PLATFORM_LABEL_PREFIX) and name not in _PASSING_LABELS
        },
        "default_http_port": live.get("defaultHttpPort") or wanted.get("default_http_port"),
        "grpc_port": live.get("grpcPort") if wanted.get("grpc_port") else None,
        "readiness_probe": _part(wanted.get("readiness_probe"), live.get("probe")),
        "liveness_probe": _part(wanted.get("liveness_probe"), live.get("livenessProbe")),
        "deployment_strategy": _part(wanted.get("deployment_strategy"), live.get("deploymentStrategy") or {}),
        "scaling_strategy": _scaling(wanted.get("scaling_strategy") or {}, live.get("scalingStrategy") or {}),
    }


def restarting(old: Settings, new: Settings) -> tuple[str, ...]:
    """Changed fields that give the replicas new containers."""
    return _changed(old, new, _RESTARTING)


def lacking(wanted: Settings, live: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields of `wanted` that the `spec` of a living app does not show."""
    return _changed(observed(wanted, live), wanted, AppSpec.model_fields)


def described(old: Settings, new: Settings) -> str:
    """The changed fields that give the replicas new containers, in words; variables by name, no values.

    The engine shows no difference between two secrets, so this is where a user sees which variables change.
    """
    words: list[str] = []
    for name in restarting(old, new):
        before, after = old.get(name) or {}, new.get(name) or {}
        # A map that is not known yet is a text.
        known = name == "env" and isinstance(before, Mapping) and isinstance(after, Mapping)
        words += [f"env.{variable}" for variable, _ in _patch(before, after)] if known else [name]
    return ", ".join(words)


def differences(wanted: Settings, live: Mapping[str, Any]) -> list[str]:
    """What the `spec` of a living app has otherwise than `wanted`: lines `field: live → wanted`.

    All fields count, also those that no call changes; values of the environment, which may be secrets, are
    not shown, and what the platform fills in or the autoscaler moves is no difference.
    """
    port = live.get("defaultHttpPort") or 8080
    has = {
        **observed(wanted, live),
        "name": live.get("name"),
        "region": live.get("region"),
        "volumes": [_volume(volume) for volume in live.get("volumes") or ()],
        "unsecure_http": bool(live.get("unsecureHttp")),
        "partner_id": live.get("partnerId"),
        "grpc_port": live.get("grpcPort"),
        # What nobody has set is as the platform has it by default.
        "default_http_port": port,
        "readiness_probe": _probe(wanted.get("readiness_probe"), live.get("probe"), port),
        "liveness_probe": _probe(wanted.get("liveness_probe"), live.get("livenessProbe"), port),
        "deployment_strategy": _part(DeploymentStrategy().wire(), live.get("deploymentStrategy") or {}),
    }
    has["labels"] = {name: value for name, value in has["labels"].items() if name not in MANAGED_LABELS}
    before, after = dict(_leaves("", has)), dict(_leaves("", wanted))
    return [
        f"{path}: {_shown(path, before.get(path))} → {_shown(path, after.get(path))}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def _given(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item is not None}


def _probe(wanted: Any, live: Mapping[str, Any] | None, port: int) -> dict[str, Any] | None:
    if live is None:
        return None
    defaults = Probe(port=port).wire()
    given = {key: live[key] for key in defaults if live.get(key) is not None}
    # Of a probe that nobody wants, what somebody has set says enough.
    return given if wanted is None else defaults | given


def _volume(live: Mapping[str, Any]) -> dict[str, Any]:
    # The source may still stand in the volume itself, which is deprecated.
    source = live.get("volumeSource") or {
        key: live.get(key) for key in ("standalone", "dataStore", "publicGit", "publicSwift")
    }
    known = {key: live.get(key) for key in ("mountPath", "permission", "cache")}
    return {
        "cache": False,
        **_given(known),
        "volumeSource": {key: _given(value) for key, value in _given(source).items()},
    }


def _leaves(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}" if path else key, item)
    elif value is not None:
        yield path, value


def _shown(path: str, value: Any) -> str:
    if value is None:
        return "(none)"
    return "(hidden)" if path.startswith("env.") else json.dumps(value, ensure_ascii=False)


def _changed(old: Settings, new: Settings, fields: Iterable[str]) -> tuple[str, ...]:
    return tuple(field for field in fields if old.get(field) != new.get(field))


def _only_anew(field: str, old: Any, new: Any) -> bool:
    # An update knows no way to take an optional part away (null leaves it as it is), nor from GPUs to CPUs.
    return field in _IMMUTABLE or (field in _UPDATE and old is not None and new is None)


def _calls(old: Settings, new: Settings, changed: tuple[str, ...]) -> Iterable[Call]:
    update = {_UPDATE[name]: new[name] for name in changed if name in _UPDATE}
    if update.keys() & _RESOURCES:
        # What a flavor alone would make of the count is not documented: both always go together.
        update |= {name: new[name] for name in _RESOURCES if new.get(name) is not None}
    if "env" in changed:
        # A patch: what is not named stays, null takes a variable away.
        update["envVars"] = [
            {"name": name, "value": value} for name, value in _patch(old.get("env"), new.get("env"))
        ]
    if update:
        yield Call("", update)
    if "scaling_strategy" in changed:
        yield Call("/scalingstrategy", new["scaling_strategy"])
    for name, value in _patch(old.get("labels"), new.get("labels")):
        yield Call("/label", {"name": name, "value": value})


def _patch(old: Mapping[str, str] | None, new: Mapping[str, str] | None) -> Iterable[tuple[str, str | None]]:
    before, after = old or {}, new or {}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, after.get(name)


def _part(wanted: Mapping[str, Any] | None, live: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The fields of `wanted` as they live; None when nothing is there, or nothing was asked for."""
    if wanted is None or live is None:
        return None
    return {key: value if live.get(key) is None else live[key] for key, value in wanted.items()}


def _scaling(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    if live.get("fixed"):
        return {"fixed": _known(FixedScaling, live["fixed"])}
    if not live.get("automatic"):
        return dict(wanted)
    before = wanted.get("automatic") or {}
    automatic = {key: before[key] for key in _UNREADABLE_WHEN_ABSENT if key in before}
    automatic |= _known(AutomaticScaling, live["automatic"])
    if "customMetrics" in automatic:
        automatic["customMetrics"] = _known(CustomMetrics, automatic["customMetrics"])
        automatic.pop("resourceType", None)
        automatic.pop("averageUsageTarget", None)
    return {"automatic": automatic}


def _known(
    model: type[FixedScaling | AutomaticScaling | CustomMetrics], live: Mapping[str, Any]
) -> dict[str, Any]:
    names = {field.alias for field in model.model_fields.values()}
    return {key: value for key, value in live.items() if key in names and value is not None}
