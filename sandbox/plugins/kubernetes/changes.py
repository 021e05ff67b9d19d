"""Old objects against new ones as Pulumi's detailed diff. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from sandbox.plugins.framework import PropertyChange
from sandbox.plugins.kubernetes.api import Manifest
from sandbox.plugins.values import has_unknown

Path = tuple[str | int, ...]

_TEMPLATE_SELECTOR: Final = ("spec.selector",)
_POD: Final = (  # noqa: SIM905
    "affinity automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks hostAliases hostIPC "
    "hostNetwork hostPID hostname imagePullSecrets nodeName nodeSelector overhead preemptionPolicy priority "
    "priorityClassName readinessGates restartPolicy runtimeClassName schedulerName securityContext "
    "serviceAccount serviceAccountName shareProcessNamespace subdomain terminationGracePeriodSeconds volumes"
).split()
_CONTAINER: Final = (  # noqa: SIM905
    "args command env image imagePullPolicy lifecycle livenessProbe ports readinessProbe resources "
    "securityContext stdin stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices "
    "volumeMounts workingDir"
).split()

_REPLACES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("apps/v1", "DaemonSet"): _TEMPLATE_SELECTOR,
    ("apps/v1", "Deployment"): _TEMPLATE_SELECTOR,
    ("apps/v1", "StatefulSet"): (
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    ("batch/v1", "Job"): ("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): ("roleRef",),
    ("storage.k8s.io/v1", "StorageClass"): ("parameters", "provisioner"),
    ("v1", "PersistentVolumeClaim"): (
        "spec.accessModes",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeName",
    ),
    ("v1", "Pod"): (
        *(f"spec.{key}" for key in _POD),
        *(f"spec.{kind}.*.{key}" for kind in ("containers", "initContainers") for key in _CONTAINER),
    ),
    ("v1", "ResourceQuota"): ("spec.scopes",),
    ("v1", "Service"): ("spec.clusterIP",),
}
"""Properties whose change makes a new object (provider/pkg/provider/diff.go of pulumi-kubernetes 4.34)."""

_CORE_DATA: Final = {"Secret": ("type", "stringData", "data"), "ConfigMap": ("binaryData", "data")}


def replacing(manifest: Manifest, mutable_secrets: bool, mutable_config_maps: bool) -> list[Path]:
    """Paths of `manifest`'s kind whose change makes a new object.

    Secrets and ConfigMaps are replaced for new data, unless the provider is told that they are mutable
    (`enableSecretMutable`, `enableConfigMapMutable`) and the object is not marked `immutable`.
    """
    paths = ["metadata.name", "metadata.namespace"]
    api_version, kind = manifest["apiVersion"], manifest["kind"]
    if api_version == "v1" and kind in _CORE_DATA:
        mutable = mutable_secrets if kind == "Secret" else mutable_config_maps
        if not mutable or manifest.get("immutable") is True:
            paths += _CORE_DATA[kind]
        elif kind == "Secret":
            paths.append("type")
    paths += _REPLACES.get((api_version, kind), ())
    return [tuple(path.split(".")) for path in paths]


def compare(old: Manifest, new: Manifest, force_new: Sequence[Path]) -> dict[Path, PropertyChange]:
    """Changes from `old` to `new`: the deepest paths that differ, an added or removed part as a whole.

    A change at, below or above one of the paths `force_new` replaces (above: if the new value has the path).
    """
    found: dict[Path, PropertyChange] = {}
    _compare((), old, new, force_new, found)
    return found


def _compare(
    path: Path, old: Any, new: Any, force_new: Sequence[Path], found: dict[Path, PropertyChange]
) -> None:
    pairs: list[tuple[str | int, tuple[Any, ...], tuple[Any, ...]]]
    if isinstance(old, dict) and isinstance(new, dict):
        # A pair holds the old and the new value, each as a tuple of one, or empty when it is not there.
        keys = list(old) + [key for key in new if key not in old]
        pairs = [(key, _one(old, key), _one(new, key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list):
        longest = max(len(old), len(new))
        pairs = [
            (index, tuple(old[index : index + 1]), tuple(new[index : index + 1])) for index in range(longest)
        ]
    else:
        if _differ(old, new):
            found[path] = PropertyChange("update", _forces(path, new, force_new), input_diff=False)
        return
    for key, before, after in pairs:
        below = (*path, key)
        if before and after:
            _compare(below, before[0], after[0], force_new, found)
        elif after:
            found[below] = PropertyChange("add", _forces(below, after[0], force_new), input_diff=False)
        else:
            found[below] = PropertyChange("delete", _forces(below, None, force_new), input_diff=True)


def _one(source: dict[str, Any], key: str) -> tuple[Any, ...]:
    return (source[key],) if key in source else ()


def _differ(old: Any, new: Any) -> bool:
    # True == 1 in Python; an unknown value may be anything.
    return has_unknown(new) or old != new or isinstance(old, bool) != isinstance(new, bool)


def _forces(path: Path, value: Any, force_new: Sequence[Path]) -> bool:
    return any(_touches(path, value, forced) for forced in force_new)


def _touches(path: Path, value: Any, forced: Path) -> bool:
    common = min(len(path), len(forced))
    if any(want not in ("*", have) for have, want in zip(path[:common], forced[:common], strict=True)):
        return False
    return len(path) >= len(forced) or _has(value, forced[common:])


def _has(value: Any, path: Path) -> bool:
    if not path:
        return True
    key, below = path[0], path[1:]
    if key == "*":
        return isinstance(value, list) and any(_has(item, below) for item in value)
    return isinstance(value, dict) and key in value and _has(value[key], below)


def without_ignored(
    changes: dict[Path, PropertyChange], ignored: Sequence[str]
) -> dict[Path, PropertyChange]:
    """The changes that no property path of `ignored` (the option `ignore_changes`) covers."""
    paths = [parse_path(text) for text in ignored]
    return {path: change for path, change in changes.items() if not any(covers(each, path) for each in paths)}


def covers(pattern: Path, path: Path) -> bool:
    """Whether `path` is at or below `pattern`, in which `*` stands for any key or index."""
    return len(pattern) <= len(path) and all(
        want in ("*", have) for want, have in zip(pattern, path, strict=False)
    )


_SEGMENT: Final = re.compile(r'\.?([^.\[\]"]+)|\[(\d+)\]|\[\*\]|\["((?:[^"\\]|\\.)*)"\]')


def parse_path(text: str) -> Path:
    r"""Parses a property path: `spec.ports[0]["a.b"]` → ("spec", "ports", 0, "a.b"); `[*]` → "*"."""
    path: list[str | int] = []
    position = 0
    while position < len(text):
        match = _SEGMENT.match(text, position)
        if match is None:
            raise ValueError(f"invalid property path {text!r} at character {position}")
        name, index, quoted = match.groups()
        if index is not None:
            path.append(int(index))
        elif quoted is not None:
            path.append(quoted.replace('\\"', '"'))
        else:
            path.append(name or "*")
        position = match.end()
    return tuple(path)


def format_path(path: Path) -> str:
    """The inverse of `parse_path`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.search(r'[."\[\]]', part):
            escaped = part.replace('"', '\\"')
            text += f'["{escaped}"]'
        else:
            text += f".{part}" if text else part
    return text


def merge_patch(old: Manifest, new: Manifest) -> Manifest:
    """The JSON merge patch (RFC 7386) that makes `new` of `old`."""
    patch: Manifest = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(old[key], dict) and isinstance(value, dict):
            if below := merge_patch(old[key], value):
                patch[key] = below
        elif _differ(old[key], value):
            patch[key] = value
    return patch
