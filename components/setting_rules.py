"""Rules between settings, each with what a user is told who breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr
from pydantic.alias_generators import to_camel

from components.ai_deploy.spec import ContainerUpdates, DeploymentStrategy, Probe, Volume
from components.flavors import FLAVORS
from components.setting_types import AlertRoutes, Receiver, ServiceLevelObjectives, gibibytes, seconds
from dashboards import objectives


@dataclass(frozen=True)
class Rule:
    """A rule between fields: `check` gets their values and returns what is wrong about `key`, or None."""

    key: str
    fields: tuple[str, ...]
    check: Callable[..., str | None]
    printed: bool = True
    """Whether the value of `key` may be shown; a mistake may be a secret in the wrong place."""


def _replica_bounds(minimum: int, maximum: int) -> str | None:
    return f"must not exceed maxReplicas ({maximum})" if minimum > maximum else None


def _replica_gpus(count: int, flavor: str) -> str | None:
    most = FLAVORS[flavor].max
    return f"a replica of {flavor} may have at most {most} GPUs" if count > most else None


def _probe_port(probe: Probe, port: int) -> str | None:
    return f"port {probe.port} must be that of vLLM, port ({port})" if probe.port != port else None


def _gpu_quota(maximum: int, count: int, quota: int, updates: ContainerUpdates) -> str | None:
    support = "have OVHcloud's support raise the quota"
    if maximum * count > quota:
        return (
            f"with gpuCount {count} this needs {maximum * count} GPUs, the project may use {quota} "
            f"(gpuQuota); lower one of them or {support}"
        )
    # Where no old replica may go before a new one is ready, an update without room for a new one never ends.
    # Fewer replicas than the maximum need no more: the surge is of one as long as none may be missing.
    surge, unavailable = DeploymentStrategy().limits(maximum)
    if updates == "restart" or unavailable or (maximum + surge) * count <= quota:
        return None
    return (
        f"with gpuCount {count}, {maximum} replica{'s' if maximum > 1 else ''} cannot be updated: a new one "
        f"starts before an old one goes, which needs {(maximum + surge) * count} GPUs, and the project may "
        f"use {quota} (gpuQuota); lower maxReplicas or gpuCount, {support}, or set containerUpdates: restart "
        "(down meanwhile)"
    )


def _source_ranges(ranges: list[str], access: str) -> str | None:
    if access == "load-balancer" and not ranges:
        return "a load balancer needs the ranges that may reach it, for example 203.0.113.0/24"
    return None


def _reserved_address(reserved: bool, access: str) -> str | None:
    return "needs grafanaAccess load-balancer" if reserved and access != "load-balancer" else None


def _kept_address(keep: bool, reserved: bool) -> str | None:
    return "needs grafanaReservedAddress true" if keep and not reserved else None


def _certificate_pair(certificate: str, secret: SecretStr) -> str | None:
    pem = secret.get_secret_value()
    if bool(certificate) != bool(pem):
        return "grafanaCertificate and grafanaPrivateKey go together, or neither"
    if not pem:
        return None
    # Here, since cryptography would cost every preview 30 ms.
    from components.certificate import is_key_of

    try:
        fits = is_key_of(pem, certificate)
    except ValueError:
        return "must be the text of a PEM file with a private key and no passphrase"
    return None if fits else "does not belong to the first certificate of grafanaCertificate"


def _scrape_timeout(timeout: str, interval: str) -> str | None:
    return f"must not exceed scrapeInterval ({interval})" if seconds(timeout) > seconds(interval) else None


_OBJECTIVES_PERIOD = "7d"


def _retention(retention: str) -> str | None:
    # What is shorter is an objective over something else, without a word.
    if seconds(retention) < seconds(_OBJECTIVES_PERIOD):
        return f"must be at least {_OBJECTIVES_PERIOD}, the period of serviceLevelObjectives"
    return None


def _retention_size(size: str, volume: int) -> str | None:
    limit = 0.85 * volume
    if not gibibytes(size):
        return "must be greater than 0, which Prometheus reads as no limit"
    if gibibytes(size) <= limit:
        return None
    return f"must be at most 85 % of prometheusStorageGiB ({limit:g}GiB): the write-ahead log comes on top"


def _secrets_in_clear(environment: dict[str, str]) -> str | None:
    # Whole words: TOKENIZERS_PARALLELISM is none.
    words = r"(^|_)(TOKEN|SECRET|PASSWORD|API_?KEY)(_|$)"
    names = [name for name in environment if re.search(words, name, re.IGNORECASE)]
    return f"{', '.join(names)}: secrets do not belong here (use huggingFaceToken)" if names else None


def _objectives(wanted: ServiceLevelObjectives) -> str | None:
    problems = objectives.problems(wanted.objectives)
    return "; ".join(f"{_objective_key(field)}: {message}" for field, message in problems) or None


def _objective_key(field: str) -> str:
    """Where the user wrote the value of a field of `Objectives`, which holds ratios instead of percents."""
    objective, _, part = field.partition(".")
    return f"{to_camel(objective)}.{part if part == 'seconds' else 'percent'}"


RECEIVER_KEYS: dict[Receiver, str] = {
    "webhook": "alertWebhookUrl",
    "slack": "alertSlackUrl",
    "email": "alertEmailTo",
    "pagerduty": "alertPagerDutyKey",
}
"""The key that sets each receiver."""


def receivers_of(webhook: SecretStr, slack: SecretStr, email: str, pager_duty: SecretStr) -> list[Receiver]:
    """The receivers that are set."""
    # In the order of RECEIVER_KEYS; the length of a secret tells whether there is one.
    given = (len(webhook), len(slack), len(email), len(pager_duty))
    return [receiver for receiver, length in zip(RECEIVER_KEYS, given, strict=True) if length]


def _routes(
    routes: AlertRoutes, webhook: SecretStr, slack: SecretStr, email: str, pager_duty: SecretStr
) -> str | None:
    there = receivers_of(webhook, slack, email, pager_duty)
    missing = [
        f"{severity} names {receiver}, which needs {RECEIVER_KEYS[receiver]}"
        for severity, receivers in routes.items()
        for receiver in receivers
        if receiver not in there
    ]
    return "; ".join(missing) or None


def _slack_channel(channel: str, url: SecretStr) -> str | None:
    return "needs alertSlackUrl" if channel and not len(url) else None


def _sender(sender: str, to: str) -> str | None:
    if to and not sender:
        return "is missing: alertEmailTo needs a sender such as alerts@example.com"
    return "needs alertEmailTo" if sender and not to else None


def _mail_server(host: str, to: str) -> str | None:
    if to and not host:
        return "is missing: alertEmailTo needs a mail server such as smtp.example.com:587"
    return "needs alertEmailTo" if host and not to else None


def _mail_user(user: str, password: SecretStr, host: str) -> str | None:
    if bool(user) != bool(len(password)):
        return "alertSmtpUser and alertSmtpPassword go together, or neither"
    return "needs alertSmtpHost" if user and not host else None


_OTHER_PLACES = {
    "--model": "is the key model",
    "--port": "is the key port",
    "--hf-token": "is the key huggingFaceToken",
    "--api-key": "would refuse every call: AI Deploy's gateway checks the Bearer token",
}
"""Arguments of vLLM that are set elsewhere, or not at all."""


def _arguments(arguments: list[str]) -> str | None:
    # vLLM takes --api_key for --api-key.
    names = [argument.partition("=")[0].replace("_", "-") for argument in arguments]
    wrong = [f"{name} {_OTHER_PLACES[name]}" for name in names if name in _OTHER_PLACES]
    return "; ".join(wrong) or None


def _mount_paths(volumes: list[Volume]) -> str | None:
    paths = [volume.mount_path for volume in volumes]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    return f"{', '.join(twice)}: more than one volume has this path" if twice else None


def _liveness(probe: Probe) -> str | None:
    return "successThreshold must be 1" if probe.success_threshold != 1 else None


RULES: tuple[Rule, ...] = (
    Rule("minReplicas", ("min_replicas", "max_replicas"), _replica_bounds),
    Rule("livenessProbe", ("liveness_probe", "port"), _probe_port),
    Rule("readinessProbe", ("readiness_probe", "port"), _probe_port),
    Rule("gpuCount", ("gpu_count", "gpu_flavor"), _replica_gpus),
    Rule("maxReplicas", ("max_replicas", "gpu_count", "gpu_quota", "container_updates"), _gpu_quota),
    Rule("grafanaSourceRanges", ("grafana_source_ranges", "grafana_access"), _source_ranges),
    Rule("grafanaReservedAddress", ("grafana_reserved_address", "grafana_access"), _reserved_address),
    Rule("grafanaKeepAddress", ("grafana_keep_address", "grafana_reserved_address"), _kept_address),
    Rule("grafanaPrivateKey", ("grafana_certificate", "grafana_private_key"), _certificate_pair),
    Rule("scrapeTimeout", ("scrape_timeout", "scrape_interval"), _scrape_timeout),
    Rule("prometheusRetention", ("prometheus_retention",), _retention),
    Rule("serviceLevelObjectives", ("service_level_objectives",), _objectives),
    Rule(
        "alertRoutes",
        ("alert_routes", "alert_webhook_url", "alert_slack_url", "alert_email_to", "alert_pager_duty_key"),
        _routes,
    ),
    Rule("alertSlackChannel", ("alert_slack_channel", "alert_slack_url"), _slack_channel),
    Rule("alertEmailFrom", ("alert_email_from", "alert_email_to"), _sender),
    Rule("alertSmtpHost", ("alert_smtp_host", "alert_email_to"), _mail_server),
    Rule("alertSmtpUser", ("alert_smtp_user", "alert_smtp_password", "alert_smtp_host"), _mail_user),
    Rule("prometheusRetentionSize", ("prometheus_retention_size", "prometheus_storage"), _retention_size),
    Rule("vllmEnvironment", ("vllm_environment",), _secrets_in_clear),
    Rule("vllmArguments", ("vllm_arguments",), _arguments, printed=False),
    Rule("volumes", ("volumes",), _mount_paths),
    Rule("livenessProbe", ("liveness_probe",), _liveness),
)
"""All of them."""
