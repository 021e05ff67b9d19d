"""The values that stacks send, with everything a stack can switch on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.monitoring_values import chart_values
from components.settings import AlertSettings, MonitoringSettings
from tests.components.mocks import RECEIVER_KEYS, RECEIVERS, settings

ADDRESS = "203.0.113.10"
DIGEST = "digest-of-the-certificate"


SECRETS = {key: RECEIVERS[key] for key in RECEIVER_KEYS}
"""Settings that must be in no object of the release."""


@dataclass(frozen=True)
class Variant:
    """A tracked stack with some keys changed."""

    stack: str
    changes: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None
    """A reserved floating IP."""

    @property
    def settings(self) -> MonitoringSettings:
        """The settings of its monitoring."""
        return settings(self.stack, **self.changes).monitoring

    @property
    def alerts(self) -> AlertSettings:
        """The settings of who is told."""
        return settings(self.stack, **self.changes).alerts

    @property
    def kubernetes(self) -> str:
        """Version of its cluster, such as `1.34`."""
        return settings(self.stack, **self.changes).cluster.kubernetes_version

    def values(self) -> dict[str, Any]:
        """What the release gets."""
        return chart_values(
            self.settings, self.alerts, certificate_digest=DIGEST, load_balancer_address=self.address
        )


_INSIDE = {"grafanaAccess": "port-forward", "grafanaReservedAddress": "false", "grafanaKeepAddress": "false"}
VARIANTS = {
    "dev": Variant("dev"),
    "prod": Variant("prod", address=ADDRESS),
    "sandbox": Variant("sandbox", address=ADDRESS),
    "any-address": Variant("prod"),
    "external-url": Variant("prod", {"prometheusExternalUrl": "https://prometheus.example"}),
    "port-forward": Variant("prod", _INSIDE),
    "without-exporters": Variant("prod", {"nodeExporter": "false", "kubeStateMetrics": "false"}),
    "all-receivers": Variant("prod", RECEIVERS | {"alertSlackChannel": "#alerts"}, ADDRESS),
    "routes": Variant(
        "prod",
        RECEIVERS
        | {"alertRoutes": '{"critical": ["pagerduty", "slack"], "warning": ["slack"], "info": ["email"]}'},
    ),
    "one-receiver": Variant("dev", {"alertWebhookUrl": SECRETS["alertWebhookUrl"]}),
}
