"""Alertmanager's configuration, as a pure function of the settings: who is told of which alert."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from components.setting_types import Receiver
from components.settings import AlertSettings
from dashboards.rules import Severity

RECEIVERS_SECRET = "alertmanager-receivers"  # noqa: S105 (the name of a Secret)
"""Holds what `secrets` returns, mounted into Alertmanager's pod."""

_DIRECTORY = f"/etc/alertmanager/secrets/{RECEIVERS_SECRET}"
"""Where the operator mounts a Secret of `alertmanagerSpec.secrets`."""
_REPEAT: dict[Severity, str] = {"critical": "4h", "warning": "12h", "info": "24h"}
"""After how long an alert that goes on is sent again."""
_SLACK_TEXT = (
    "{{ range .Alerts }}*{{ .Annotations.summary }}*\n"
    "{{ .Annotations.description }}\n"
    "{{ .Annotations.runbook_url }}\n"
    "{{ end }}"
)
"""Slack's default template says the alert's name and nothing else."""


def secrets(alerts: AlertSettings) -> dict[str, str]:
    """What the receivers must not show: file name to content, of those that are set."""
    files = {
        "webhook-url": alerts.alert_webhook_url,
        "slack-url": alerts.alert_slack_url,
        "pagerduty-key": alerts.alert_pager_duty_key,
        "smtp-password": alerts.alert_smtp_password,
    }
    return {name: value.get_secret_value() for name, value in files.items() if len(value)}


def config(alerts: AlertSettings) -> dict[str, Any]:
    """`alertmanager.config` of the chart, which adds `global` and `templates`.

    Each severity with receivers is a route and a receiver of its own, so that nothing has to fall through.
    Everything else ends in the receiver `null`: alerts without a severity of ours, and Watchdog, which always
    fires.
    """
    routed: list[Severity] = [severity for severity in get_args(Severity) if alerts.route(severity)]
    watchdog = {"receiver": "null", "matchers": ['alertname = "Watchdog"']}
    return {
        "inhibit_rules": list(_inhibitions()),
        "route": {
            "receiver": "null",
            # The series of vLLM come from outside of the cluster: they have no namespace to group by.
            "group_by": ["alertname", "job"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": [watchdog, *(_route(severity) for severity in routed)],
        },
        "receivers": [{"name": "null"}, *(_receiver(severity, alerts) for severity in routed)],
    }


def _route(severity: Severity) -> dict[str, Any]:
    return {
        "receiver": severity,
        "matchers": [f'severity = "{severity}"'],
        "repeat_interval": _REPEAT[severity],
    }


def _receiver(severity: Severity, alerts: AlertSettings) -> dict[str, Any]:
    kinds = {f"{kind}_configs": [_integration(kind, severity, alerts)] for kind in alerts.route(severity)}
    return {"name": severity, **kinds}


def _inhibitions() -> Iterator[dict[str, Any]]:
    """Which alerts silence which; a label that both sides lack counts as equal."""
    # The chart's own four. With its `equal` (namespace, alertname) the page of one objective would hide the
    # ticket of another.
    same = ["namespace", "alertname", "job", "slo"]
    yield _inhibition(["severity = critical"], ["severity =~ warning|info"], same)
    yield _inhibition(["severity = warning"], ["severity = info"], same)
    # Alerts of severity info are sent only while something else fires in their namespace.
    yield _inhibition(["alertname = InfoInhibitor"], ["severity = info"], ["namespace"])
    yield {"target_matchers": ["alertname = InfoInhibitor"]}
    # Ours: one message about one thing that is wrong.
    yield _inhibition(
        ["severity = critical", 'slo != ""'], ["severity = warning", 'slo != ""'], ["job", "slo"]
    )
    yield _inhibition(
        ["alertname = VllmScrapeDown"],
        [
            # The chart's, on any job of which scrapes fail.
            "alertname =~ Vllm.+|TargetDown",
            # What may be the cause, and what has another one.
            "alertname !~ VllmAppNotRunning|VllmPrometheus.+|VllmRules.+",
            "severity =~ warning|info",
        ],
        ["job"],
    )
    # It goes on alone where scrapes are answered again and the budget still burns.
    yield _inhibition(
        ["alertname =~ VllmScrapeDown|VllmTokenRejected"], ["alertname = VllmAvailabilityBurnsFast"], ["job"]
    )
    yield _inhibition(
        ["alertname = VllmTokenRejected"],
        ["alertname =~ VllmScrapeDown|VllmPlatformStatusUnknown"],
        ["job"],
    )


def _inhibition(source: list[str], target: list[str], equal: list[str]) -> dict[str, Any]:
    return {"source_matchers": source, "target_matchers": target, "equal": equal}


def _integration(kind: Receiver, severity: Severity, alerts: AlertSettings) -> dict[str, Any]:
    """The settings of a receiver; secrets are read from files, each time that something is sent."""
    settings: dict[str, Any]
    match kind:
        case "webhook":
            settings = {"url_file": f"{_DIRECTORY}/webhook-url"}
        case "slack":
            settings = {"api_url_file": f"{_DIRECTORY}/slack-url", "text": _SLACK_TEXT}
            if alerts.alert_slack_channel:
                settings["channel"] = alerts.alert_slack_channel
        case "pagerduty":
            settings = {"routing_key_file": f"{_DIRECTORY}/pagerduty-key", "severity": severity}
        case "email":
            settings = {
                "to": alerts.alert_email_to,
                "from": alerts.alert_email_from,
                "smarthost": alerts.alert_smtp_host,
            }
            if alerts.alert_smtp_user:
                settings["auth_username"] = alerts.alert_smtp_user
                settings["auth_password_file"] = f"{_DIRECTORY}/smtp-password"
    return settings | {"send_resolved": True}
