"""The seam to the sandbox's model of kube-prometheus-stack: where the chart is from, what it renders to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from sandbox.cluster import chart as model
from sandbox.plugins.framework import PluginError
from sandbox.plugins.kubernetes.api import Manifest

_REPOSITORY: Final = "https://prometheus-community.github.io/helm-charts"
_OCI: Final = "oci://ghcr.io/prometheus-community/charts/"
_HOOK: Final = "helm.sh/hook"


class ChartError(PluginError):
    """A chart that cannot be had, or values that it does not take."""


@dataclass(frozen=True)
class Rendered:
    """A chart's objects, as Helm tells them apart; each list in the order of an installation."""

    definitions: list[Manifest]
    """CustomResourceDefinitions of the `crds/` folders: created once, never changed or removed by Helm."""
    hooks: list[Manifest]
    """Objects with a `helm.sh/hook` annotation: made at their event, no part of the release."""
    manifest: list[Manifest]
    """The release itself, with the marks by which Helm knows its own."""


def locate(chart: str, version: str, repository: str) -> None:
    """Raises `ChartError` unless chart, version and repository are the ones that the sandbox models."""
    try:
        model.check_chart(chart, version or None)
    except model.ChartError as error:
        raise ChartError(str(error)) from error
    source = chart.removesuffix(model.CHART) or repository.rstrip("/")
    if source not in (_REPOSITORY, _OCI):
        raise ChartError(
            f"chart {chart!r} of repository {repository!r}: the sandbox is a stand-in for {_REPOSITORY!r} "
            f"and {_OCI + model.CHART!r} only"
        )


def render(values: Mapping[str, Any], release: str, namespace: str) -> Rendered:
    """The chart's objects for a release; raises `ChartError` with every wrong value."""
    try:
        objects = cast("list[Manifest]", model.render(values, release, namespace))
    except model.ChartError as error:
        raise ChartError(str(error)) from error
    rendered = Rendered([], [], [])
    for manifest in objects:
        if manifest["kind"] == "CustomResourceDefinition":
            rendered.definitions.append(manifest)
        elif model.hook_events(manifest):
            rendered.hooks.append(manifest)
        else:
            rendered.manifest.append(manifest)
    return rendered


def weight(hook: Manifest) -> int:
    """Place of a hook among those of its event; lower runs earlier."""
    return int(hook["metadata"]["annotations"].get(f"{_HOOK}-weight", "0"))


def delete_policies(hook: Manifest) -> list[str]:
    """When a hook's object is removed: `before-hook-creation`, `hook-succeeded`, `hook-failed`."""
    text = hook["metadata"]["annotations"].get(f"{_HOOK}-delete-policy", "before-hook-creation")
    return [policy.strip() for policy in text.split(",")]
