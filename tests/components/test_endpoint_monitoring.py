"""What a cluster gets to watch one endpoint: samplers, rules, dashboards, and what the platform says."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
import pytest

from components.endpoint_monitoring import EndpointMonitoring, endpoint_target
from components.platform_exporter import exporter_config
from components.prices import prices
from dashboards import bundle, recording, rules
from tests.components import mocks
from tests.components.mocks import Deployment, Secret, deploy, settings
from tests.dashboards.targets import PROD

TOKEN = "canary-scraper"
HOST = "app-1.app.gra.ai.cloud.ovh.net"
APP = "https://gra.ai.cloud.ovh.net/v1/app/app-1"
RELEASE = "release"


def watched(stack: str = "prod", *, preview: bool = False, **changes: str) -> Deployment:
    def program() -> None:
        provider = kubernetes.Provider("kubernetes")
        given = settings(stack, **changes)
        EndpointMonitoring(
            "vllm",
            endpoint_target(given),
            given.monitoring,
            namespace="monitoring",
            release=kubernetes.core.v1.Namespace(RELEASE, opts=pulumi.ResourceOptions(provider=provider)),
            host=HOST,
            token=pulumi.Output.secret(TOKEN),
            app=APP,
            opts=pulumi.ResourceOptions(provider=provider),
        )

    return deploy(program, preview=preview)


@pytest.fixture(scope="module")
def prod() -> Deployment:
    return watched()


def specification(deployment: Deployment, name: str) -> dict[str, Any]:
    return dict(deployment.named(mocks.SCRAPE_CONFIG, name).inputs["spec"])


def test_everything_is_made_in_the_cluster_of_the_stack(prod: Deployment) -> None:
    provider = prod.one(mocks.KUBERNETES).urn
    assert {item.provider for item in prod.resources if item.type.startswith("kubernetes:")} == {provider}


def test_a_sampler_is_the_scrape_job_of_the_reference_architecture_asked_more_often(prod: Deployment) -> None:
    assert specification(prod, "vllm-ministral-0") == {
        "jobName": "vllm-ministral",
        "scheme": "HTTPS",
        "metricsPath": "/metrics",
        "scrapeInterval": "5s",
        "scrapeTimeout": "5s",
        "enableHTTP2": False,
        "fallbackScrapeProtocol": "PrometheusText0.0.4",
        "authorization": {"type": "Bearer", "credentials": {"name": "vllm-auth-token", "key": "token"}},
        "staticConfigs": [
            {
                "targets": [HOST],
                "labels": {
                    "service": "vllm",
                    "model": "ministral",
                    "environment": "production",
                    "sampler": "0",
                },
            }
        ],
        "metricRelabelings": list(recording.METRIC_RELABELINGS),
    }


@pytest.mark.parametrize("most", [1, 4])
def test_there_are_two_samplers_for_each_replica_that_there_can_be(most: int) -> None:
    """With fewer, replicas go unseen for minutes."""
    scrapes = watched(maxReplicas=str(most)).of(mocks.SCRAPE_CONFIG)
    names = {item.inputs["metadata"]["name"] for item in scrapes}
    assert names == {f"vllm-ministral-{index}" for index in range(2 * most)} | {"vllm-ministral-platform"}


def test_samplers_differ_in_their_label_alone(prod: Deployment) -> None:
    """A series of two samplers would be a mixture again."""
    labels = []
    for index in range(6):
        spec = specification(prod, f"vllm-ministral-{index}")
        labels.append(spec["staticConfigs"][0]["labels"].pop("sampler"))
        first = specification(prod, "vllm-ministral-0")
        first["staticConfigs"][0]["labels"].pop("sampler", None)
        assert spec == first
    assert labels == ["0", "1", "2", "3", "4", "5"]


def test_a_sampler_gives_up_before_its_next_scrape() -> None:
    """The operator rejects a timeout that is longer than the interval."""
    assert specification(watched(scrapeTimeout="10s"), "vllm-ministral-1")["scrapeTimeout"] == "5s"
    assert specification(watched(scrapeTimeout="3s"), "vllm-ministral-1")["scrapeTimeout"] == "3s"


def test_scrapes_follow_the_token_and_the_release_that_brings_their_kind(prod: Deployment) -> None:
    token = prod.named(mocks.SECRET_OBJECT, "vllm-auth-token")
    release = prod.one("kubernetes:core/v1:Namespace")
    for index in range(6):
        needs = prod.named(mocks.SCRAPE_CONFIG, f"vllm-ministral-{index}").needs
        assert {token.urn, release.urn} <= needs
    assert release.urn in prod.named(mocks.SCRAPE_CONFIG, "vllm-ministral-platform").needs


def test_the_rules_are_those_of_the_endpoint(prod: Deployment) -> None:
    target = endpoint_target(settings("prod"))
    rule = prod.one(mocks.PROMETHEUS_RULE)
    assert rule.inputs["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule.inputs["metadata"] == {"name": "vllm-ministral", "namespace": "monitoring"}
    assert rule.inputs["spec"] == json.loads(json.dumps(rules.spec(bundle.groups(target), target.runbooks)))
    # They need what the samplers scrape, and one of them says that nothing is scraped.
    scrapes = {item.urn for item in prod.of(mocks.SCRAPE_CONFIG)}
    assert scrapes <= rule.needs


def test_the_dashboards_are_those_of_the_endpoint(prod: Deployment) -> None:
    config_map = prod.named(mocks.CONFIG_MAP, "vllm-dashboard").inputs
    assert config_map["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert config_map["data"] == bundle.dashboards(endpoint_target(settings("prod")))


def test_objects_stay_below_what_kubernetes_stores(prod: Deployment) -> None:
    """Kubernetes takes 1 MiB for a ConfigMap and about 1.5 MiB for a request."""
    for item in prod.resources:
        assert len(json.dumps(item.inputs, default=repr)) < 900_000, item.name


def test_the_platform_is_asked_through_the_exporter(prod: Deployment) -> None:
    assert specification(prod, "vllm-ministral-platform") == {
        "jobName": "vllm-ministral-platform",
        "scheme": "HTTP",
        "metricsPath": "/probe",
        "params": {"module": ["app"], "target": [APP]},
        "scrapeInterval": "15s",
        "scrapeTimeout": "10s",
        "staticConfigs": [
            {
                "targets": ["ai-deploy-exporter.monitoring:7979"],
                "labels": {"service": "vllm", "model": "ministral", "environment": "production"},
            }
        ],
    }
    assert "app" in json.loads(exporter_config())["modules"]


def test_the_platform_is_not_asked_where_the_settings_say_so(prod: Deployment) -> None:
    without = watched(platformMetrics="false")
    gone = {item.name for item in prod.resources} - {item.name for item in without.resources}
    assert len(gone) == 5
    assert all("exporter" in name or "platform" in name for name in gone)
    rule = json.dumps(without.one(mocks.PROMETHEUS_RULE).inputs)
    assert "ai_deploy_app" not in rule


def test_only_the_scrape_knows_the_app(prod: Deployment) -> None:
    """A replaced app restarts no exporter."""
    knowing = {
        item.inputs["metadata"]["name"]
        for item in prod.resources
        if "metadata" in item.inputs and any("app-1" in text for text in mocks.plain(item.inputs))
    }
    assert knowing == {f"vllm-ministral-{index}" for index in range(6)} | {"vllm-ministral-platform"}


def test_the_token_is_in_its_secret_alone(prod: Deployment) -> None:
    encoded = base64.b64encode(TOKEN.encode()).decode()
    secret = prod.named(mocks.SECRET_OBJECT, "vllm-auth-token")
    assert secret.inputs["data"] == Secret({"token": encoded})
    texts = [text for item in prod.resources for text in mocks.plain(item.inputs)]
    assert not [text for text in texts if TOKEN in text or encoded in text]
    others = [item.name for item in prod.resources if item != secret and "Secret(" in repr(item.inputs)]
    assert others == []


def test_a_first_preview_shows_every_object(prod: Deployment) -> None:
    preview = watched(preview=True)
    assert sorted(item.urn for item in preview.resources) == sorted(item.urn for item in prod.resources)


def test_the_target_is_the_endpoint_of_the_settings() -> None:
    """What the tests of rules and dashboards take for prod is prod."""
    assert endpoint_target(settings("prod")) == PROD
    published = settings("prod", runbookUrl="https://example.com/runbooks/")
    assert endpoint_target(published) == replace(PROD, runbooks="https://example.com/runbooks")


def test_a_replica_costs_what_its_gpus_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    two = settings("prod", gpuCount="2", maxReplicas="2", gpuQuota="6")
    assert endpoint_target(two).replica_eur_per_hour == pytest.approx(6.2)
    unknown = prices().ai_deploy["h100-1-gpu"].model_copy(update={"eur_per_hour": None})
    monkeypatch.setitem(prices().ai_deploy, "h100-1-gpu", unknown)
    assert endpoint_target(two).replica_eur_per_hour is None


@pytest.mark.parametrize(
    "changes", [{"scalingAggregation": "SUM"}, {"scalingMetric": "vllm:num_requests_waiting"}], ids=str
)
def test_only_a_target_of_running_requests_per_replica_is_one(changes: dict[str, str]) -> None:
    assert endpoint_target(settings("prod", **changes)).running_target is None


def test_runbooks_are_those_of_the_repository_when_nothing_says_where_it_is() -> None:
    assert endpoint_target(settings("dev")).runbooks == "docs/runbooks"
