"""EndpointMonitoring: what a cluster with the monitoring stack needs to watch one vLLM endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

from components.cluster_objects import secret
from components.platform_exporter import MODULE, PlatformExporter
from components.prices import flavor_eur_per_hour
from components.setting_types import seconds
from components.settings import EndpointSettings, MonitoringSettings, Settings
from dashboards import bundle, recording, rules
from dashboards.target import Target

TOKEN_SECRET = "vllm-auth-token"  # noqa: S105 (the name of a Secret)

_RUNBOOKS = "docs/runbooks"
"""Where the pages on alerts are when nothing says where this project is published."""


def endpoint_target(settings: Settings) -> Target:
    """The endpoint as rules and dashboards know it."""
    endpoint, monitoring = settings.endpoint, settings.monitoring
    unit = flavor_eur_per_hour(endpoint.gpu_flavor)
    return Target(
        job=f"vllm-{endpoint.model_label}",
        labels={
            "service": "vllm",
            "model": endpoint.model_label,
            "environment": settings.general.environment,
        },
        min_replicas=endpoint.min_replicas,
        max_replicas=endpoint.max_replicas,
        running_target=_running_target(endpoint),
        replica_eur_per_hour=None if unit is None else unit * endpoint.gpu_count,
        prometheus_bytes=monitoring.prometheus_storage * 2**30,
        objectives=monitoring.service_level_objectives.objectives,
        runbooks=monitoring.runbook_url.rstrip("/") or _RUNBOOKS,
        platform_metrics=monitoring.platform_metrics,
    )


def _running_target(endpoint: EndpointSettings) -> float | None:
    per_replica = (endpoint.scaling_metric, endpoint.scaling_aggregation) == (
        "vllm:num_requests_running",
        "AVERAGE",
    )
    return float(endpoint.scaling_target) if per_replica else None


class EndpointMonitoring(pulumi.ComponentResource):
    """Scrapes, rules and dashboards of one endpoint.

    Its one address answers with any of the replicas, so several samplers ask it; each is a job of its own,
    with connections of its own. The rules tell the replicas apart.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        settings: MonitoringSettings,
        *,
        namespace: pulumi.Input[str],
        release: pulumi.Resource,
        host: pulumi.Input[str],
        token: pulumi.Input[str],
        app: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        """Declares the objects in `namespace`; `release` brings the kinds ScrapeConfig and PrometheusRule.

        `host` is where the endpoint listens, `app` the address at which the platform tells of it; both should
        become known only when the endpoint has answered. `token` opens both.
        """
        super().__init__("ovh-vllm:components:EndpointMonitoring", name, None, opts)
        self._inside = pulumi.ResourceOptions(parent=self)
        self._name = name
        self._target = target
        self._settings = settings
        self._namespace = namespace
        self._release = release
        bearer = secret(
            f"{name}-token",
            TOKEN_SECRET,
            namespace,
            {"token": token},
            opts=self._inside,
        )
        kubernetes.core.v1.ConfigMap(
            f"{name}-dashboards",
            metadata={
                "name": "vllm-dashboard",
                "namespace": namespace,
                "labels": {"grafana_dashboard": "1"},
            },
            data=dict(bundle.dashboards(target)),
            opts=self._inside,
        )
        jobs = [
            self._scrape(str(index), self._sampler(str(index), host), [bearer])
            for index in range(recording.samplers(target))
        ]
        if settings.platform_metrics:
            exporter = PlatformExporter(
                f"{name}-exporter",
                namespace=namespace,
                image=settings.platform_exporter_image,
                token=bearer,
                opts=self._inside,
            )
            jobs.append(self._scrape("platform", self._platform(exporter, app), []))
        self._custom(
            "PrometheusRule",
            "monitoring.coreos.com/v1",
            f"{name}-rules",
            target.job,
            rules.spec(bundle.groups(target), target.runbooks),
            # Not before there is something to scrape: an alert says that nothing is.
            jobs,
        )
        self.register_outputs({})

    def _sampler(self, index: str, host: pulumi.Input[str]) -> dict[str, Any]:
        """A job that scrapes the endpoint as the others do, over a connection of its own."""
        return {
            "jobName": self._target.job,
            "scheme": "HTTPS",
            "metricsPath": "/metrics",
            "scrapeInterval": recording.SAMPLER_INTERVAL,
            "scrapeTimeout": min(self._settings.scrape_timeout, recording.SAMPLER_INTERVAL, key=seconds),
            # One connection for many requests would meet one replica where connections are balanced.
            "enableHTTP2": False,
            # A gateway that drops the content type must not cost the scrape (Prometheus 3 is strict).
            "fallbackScrapeProtocol": "PrometheusText0.0.4",
            "authorization": {
                "type": "Bearer",
                "credentials": {"name": TOKEN_SECRET, "key": "token"},
            },
            "staticConfigs": [{"targets": [host], "labels": {**self._target.labels, "sampler": index}}],
            "metricRelabelings": [dict(relabeling) for relabeling in recording.METRIC_RELABELINGS],
        }

    def _platform(self, exporter: PlatformExporter, app: pulumi.Input[str]) -> dict[str, Any]:
        """The job that asks the platform, through the exporter."""
        return {
            "jobName": self._target.platform_job,
            "scheme": "HTTP",
            "metricsPath": "/probe",
            "params": {"module": [MODULE], "target": [app]},
            "scrapeInterval": self._settings.scrape_interval,
            "scrapeTimeout": self._settings.scrape_timeout,
            "staticConfigs": [{"targets": [exporter.address], "labels": dict(self._target.labels)}],
        }

    def _scrape(self, suffix: str, spec: Mapping[str, Any], needs: list[pulumi.Resource]) -> pulumi.Resource:
        return self._custom(
            "ScrapeConfig",
            "monitoring.coreos.com/v1alpha1",
            f"{self._name}-scrape-{suffix}",
            f"{self._target.job}-{suffix}",
            spec,
            needs,
        )

    def _custom(
        self,
        kind: str,
        api_version: str,
        name: str,
        object_name: str,
        spec: Mapping[str, Any],
        needs: list[pulumi.Resource],
    ) -> pulumi.Resource:
        return kubernetes.apiextensions.CustomResource(
            name,
            api_version=api_version,
            kind=kind,
            metadata={"name": object_name, "namespace": self._namespace},
            spec=spec,
            opts=self._inside.merge(pulumi.ResourceOptions(depends_on=[self._release, *needs])),
        )
