"""Which chart is modelled, and what its values are made of: sections, and shapes that recur."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

CHART = "kube-prometheus-stack"
VERSION = "88.5.3"
APP_VERSION = "v0.93.1"
"""Version of the operator, the chart's `appVersion`."""

Free = dict[str, Any]
"""A map that takes any keys, as every map that is empty by default in the chart does."""


class ChartError(ValueError):
    """The chart cannot be rendered; the message holds every mistake, a line each."""


class Section(BaseModel):
    """A map of the chart with known keys."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,  # for the defaults of the model; `parse` takes the chart's names only
        validate_by_alias=True,
    )


class Enabled(Section):
    """A switch."""

    enabled: bool = True


class ServiceAccount(Section):
    """A ServiceAccount to create or to use."""

    create: bool = True
    name: str = ""
    annotations: Free = {}
    automount_service_account_token: bool = True


class ImageName(Section):
    """A container image without its pull policy."""

    registry: str = "quay.io"
    repository: str = ""
    tag: str = ""
    sha: str = ""

    def reference(self, registry: str, default_tag: str = "") -> str:
        """The image as a pod names it; `registry` (of `global.imageRegistry`) wins when it is not empty."""
        tag = self.tag or default_tag
        digest = f"@sha256:{self.sha}" if self.sha else ""
        return f"{registry or self.registry}/{self.repository}{':' + tag if tag else ''}{digest}"


class Image(ImageName):
    """A container image."""

    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class Monitor(Section):
    """What every ServiceMonitor of the chart can be told."""

    interval: str = ""
    additional_labels: Free = {}
    sample_limit: int = 0
    metric_relabelings: list[Any] = []
    relabelings: list[Any] = []
