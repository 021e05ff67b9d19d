"""A stack's mistakes are all reported at once, before anything is bought."""

from __future__ import annotations

import json
from collections.abc import Container
from decimal import Decimal

import pytest
from cryptography.hazmat.primitives import serialization

from components.generated import SelfSignedCertificateProvider
from components.setting_types import gibibytes, seconds
from components.settings import KEYS, AlertSettings, Settings, SettingsError, load
from tests.components.stacks import SERVICE, configuration, declared

ENVIRONMENT = {"OVH_CLOUD_PROJECT_SERVICE": SERVICE}


def settings(stack: str, changes: dict[str, str] | None = None, secrets: Container[str] = ()) -> Settings:
    values = configuration(stack) | (changes or {})
    return load(values, secret=lambda key: key in secrets, environment=ENVIRONMENT, stack=stack)


def mistakes(changes: dict[str, str], stack: str = "prod") -> str:
    with pytest.raises(SettingsError) as error:
        settings(stack, changes)
    return str(error.value)


def test_every_setting_is_declared_in_the_project_file_with_type_and_description() -> None:
    keys = declared()
    assert set(keys) == KEYS
    assert all(entry.get("type") and entry.get("description") for entry in keys.values())


@pytest.mark.parametrize("stack", ["dev", "prod", "sandbox"])
def test_the_tracked_stacks_are_valid(stack: str) -> None:
    assert settings(stack).general.service_name == SERVICE


def test_prod_holds_the_reference_architecture() -> None:
    prod = settings("prod")
    endpoint, cluster, monitoring = prod.endpoint, prod.cluster, prod.monitoring
    assert endpoint.app_name == "vllm-ministral-14B-autoscaling-custom-metric"
    assert endpoint.image == "vllm/vllm-openai:v0.13.0"
    assert (endpoint.gpu_flavor, endpoint.gpu_count) == ("h100-1-gpu", 1)
    assert (endpoint.min_replicas, endpoint.max_replicas) == (1, 3)
    assert (endpoint.scaling_metric, endpoint.scaling_target) == (
        "vllm:num_requests_running",
        Decimal(50),
    )
    assert (cluster.cluster_region, cluster.node_flavor, cluster.node_count) == ("GRA11", "b2-15", 3)
    assert (monitoring.prometheus_storage, monitoring.prometheus_retention) == (50, "15d")
    assert (monitoring.alertmanager_storage, monitoring.grafana_storage) == (10, 10)
    assert monitoring.grafana_access == "load-balancer"


def test_dev_is_cheaper_than_prod() -> None:
    dev, prod = settings("dev"), settings("prod")
    assert dev.endpoint.model != prod.endpoint.model
    assert dev.endpoint.gpu_flavor != prod.endpoint.gpu_flavor
    assert dev.endpoint.max_replicas < prod.endpoint.max_replicas
    assert dev.cluster.node_count == 1
    assert dev.monitoring.grafana_access == "port-forward"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"minReplicas": "4"}, "minReplicas = 4: must not exceed maxReplicas (3)"),
        ({"scalingTarget": "0"}, "scalingTarget = 0: must be greater than 0"),
        ({"scalingTarget": "-3"}, "scalingTarget = -3: must be greater than 0"),
        ({"gpuCount": "5"}, "gpuCount = 5: a replica of h100-1-gpu may have at most 4 GPUs"),
        ({"gpuCount": "2"}, "maxReplicas = 3: with gpuCount 2 this needs 6 GPUs, the project may use 4"),
        (
            {"gpuCount": "2", "maxReplicas": "2"},
            "maxReplicas = 2: with gpuCount 2, 2 replicas cannot be updated: a new one starts before an old "
            "one goes, which needs 6 GPUs, and the project may use 4 (gpuQuota); lower maxReplicas or "
            "gpuCount, have OVHcloud's support raise the quota, or set containerUpdates: restart",
        ),
        ({"gpuCount": "4", "maxReplicas": "1"}, "1 replica cannot be updated: a new one starts before"),
        ({"gpuFlavor": "h100"}, "gpuFlavor = h100: is no GPU flavor of AI Deploy; allowed: h100-1-gpu"),
        ({"image": "vllm/vllm-openai"}, "image = vllm/vllm-openai: must name a tag"),
        ({"image": "vllm/vllm-openai:latest"}, "must name a tag other than latest"),
        ({"image": "registry:5000/vllm-openai"}, "must name a tag"),
        ({"grafanaSourceRanges": "[]"}, "grafanaSourceRanges = []: a load balancer needs the ranges"),
        ({"grafanaSourceRanges": '["1.2.3.4/33"]'}, "must be a range in CIDR notation"),
        ({"grafanaSourceRanges": '["10.0.0.1/8"]'}, "has host bits set"),
        ({"clusterRegion": "GRA"}, "clusterRegion = GRA: is a region of the AI products"),
        ({"clusterRegion": "gra"}, "clusterRegion = gra: is a region of the AI products"),
        ({"region": "GRA11"}, "region = GRA11: is no region of the AI products; allowed: GRA, BHS"),
        ({"maxReplica": "3"}, "maxReplica: is not a key of this project; did you mean maxReplicas?"),
        ({"minReplicas": "two"}, "minReplicas = two: should be a valid integer"),
        ({"vllmArguments": "--max-model-len 8192"}, "vllmArguments = --max-model-len 8192: must be a list"),
        ({"volumes": '["standalone:hub"]'}, "volumes"),
        ({"livenessProbe": '{"pth": "/health"}'}, "livenessProbe"),
        ({"port": "9000"}, "port 8000 must be that of vLLM, port (9000)"),
        ({"scrapeTimeout": "20s"}, "scrapeTimeout = 20s: must not exceed scrapeInterval (15s)"),
        ({"scrapeInterval": "15"}, "scrapeInterval = 15: must be a duration such as 15s"),
        ({"prometheusRetentionSize": "50GiB"}, "must be at most 85 % of prometheusStorageGiB"),
        ({"grafanaKeepAddress": "true", "grafanaReservedAddress": "false"}, "needs grafanaReservedAddress"),
        ({"vllmEnvironment": '{"HF_TOKEN": "canary"}'}, "HF_TOKEN: secrets do not belong here"),
        ({"serviceName": "my-project"}, "serviceName = my-project"),
        ({"nodePoolName": "Monitoring_1"}, "must be lower case letters, digits and hyphens"),
        ({"image": "vllm/vllm-openai:"}, "must name a tag"),
        ({"image": "vllm/vllm-openai@sha256:"}, "must name a tag"),
        ({"image": " vllm/vllm-openai:v0.13.0"}, "must name a tag"),
        ({"model": "mistralai/Ministral-3 "}, "model = mistralai/Ministral-3 : "),
        ({"clusterRegion": "gra11"}, "clusterRegion = gra11: must be a region in capitals"),
        ({"clusterRegion": ""}, "must be a region in capitals"),
        # What an unquoted 1.30 of the stack file becomes.
        ({"kubernetesVersion": "1.3"}, "kubernetesVersion = 1.3: must be a minor version in quotes"),
        ({"scalingMetric": "sum(vllm:num_requests_running)"}, "the platform's scaler knows no functions"),
        ({"scrapeInterval": "0s"}, "scrapeInterval = 0s: must be from 5s"),
        ({"scrapeInterval": "4s"}, "scrapeInterval = 4s: must be from 5s"),
        # Alerts look back two minutes and would see nothing between two scrapes.
        ({"scrapeInterval": "2m"}, "scrapeInterval = 2m: must be from 5s"),
        ({"scrapeTimeout": "0s"}, "scrapeTimeout = 0s: must be longer than 0"),
        # The objectives would be about less than they say.
        ({"prometheusRetention": "6d"}, "prometheusRetention = 6d: must be at least 7d"),
        ({"prometheusRetentionSize": "0GiB"}, "which Prometheus reads as no limit"),
        ({"vllmEnvironment": '{"HF_HOME": ""}'}, "HF_HOME is empty"),
        ({"vllmArguments": '["--port", "9000"]'}, "vllmArguments: --port is the key port"),
        ({"vllmArguments": '["--api_key=canary"]'}, "vllmArguments: --api-key would refuse every call"),
        ({"volumes": '["standalone:/hub:rw", "standalone:/hub:ro"]'}, "/hub: more than one volume has"),
        (
            {"livenessProbe": '{"path": "/", "port": 8000, "successThreshold": 2}'},
            "successThreshold must be 1",
        ),
        ({"grafanaCertificate": "certificate.pem"}, "must be the text of a PEM file"),
        ({"prometheusExternalUrl": "https:///graph"}, "must be an address such as https://host/path"),
        ({"prometheusExternalUrl": "prometheus.example"}, "must be an address such as https://host/path"),
        ({"runbookUrl": "http://"}, "runbookUrl = http://: must be an address such as https://host/path"),
        ({"aiApiUrl": "gra.ai.cloud.ovh.net"}, "aiApiUrl = gra.ai.cloud.ovh.net: must be https://host"),
        ({"aiApiUrl": "https://host:port"}, "aiApiUrl = https://host:port: must be an address"),
        # The exporter would send its token in clear.
        ({"aiApiUrl": "http://gra.ai.cloud.ovh.net"}, "must be https://host of the AI platform, without /v1"),
        ({"aiApiUrl": "https://gra.ai.cloud.ovh.net/v1"}, "must be https://host"),
        ({"aiApiUrl": "https://gra.ai.cloud.ovh.net?x=1"}, "must be https://host"),
        ({"aiApiUrl": "https://user@gra.ai.cloud.ovh.net"}, "must be https://host"),
        ({"platformMetrics": "perhaps"}, "platformMetrics = perhaps: should be a valid boolean"),
        (
            {"platformExporterImage": "json-exporter"},
            "platformExporterImage = json-exporter: must name a tag",
        ),
        ({"alertSlackChannel": "alerts"}, 'alertSlackChannel = alerts: must be a channel such as "#alerts"'),
        ({"alertSlackChannel": "#on call"}, "must be a channel such as"),
        ({"alertSlackChannel": "#alerts"}, "alertSlackChannel = #alerts: needs alertSlackUrl"),
        ({"alertEmailTo": "oncall.example.com"}, "must be one or more addresses such as oncall@example.com"),
        ({"alertEmailTo": "a@example.com b@example.com"}, "with commas between them"),
        ({"alertEmailTo": "a@example.com"}, "alertEmailFrom: is missing: alertEmailTo needs a sender"),
        ({"alertEmailTo": "a@example.com"}, "alertSmtpHost: is missing: alertEmailTo needs a mail server"),
        ({"alertEmailFrom": "a@example.com"}, "alertEmailFrom = a@example.com: needs alertEmailTo"),
        ({"alertEmailFrom": "alerts"}, "alertEmailFrom = alerts: must be one address"),
        ({"alertSmtpHost": "smtp.example.com:25"}, "alertSmtpHost = smtp.example.com:25: needs alertEmailTo"),
        ({"alertSmtpHost": "smtp.example.com"}, "must be host:port, such as smtp.example.com:587"),
        ({"alertSmtpHost": "smtp://smtp.example.com:587"}, "must be host:port"),
        ({"alertSmtpHost": "smtp.example.com:587000"}, "must be host:port"),
        ({"alertSmtpUser": "alerts"}, "alertSmtpUser and alertSmtpPassword go together, or neither"),
        ({"alertSmtpUser": "alerts "}, "must not begin or end with white space"),
        ({"alertRoutes": '{"critical": ["slack"]}'}, "critical names slack, which needs alertSlackUrl"),
        ({"alertRoutes": '{"page": []}'}, ": key page: should be 'critical', 'warning' or 'info'"),
        (
            {"alertRoutes": '{"critical": ["slack", "opsgenie"]}'},
            ": critical[1]: should be 'webhook', 'slack', 'email' or",
        ),
        ({"alertRoutes": '{"critical": "slack"}'}, ": critical: must be a list such as [value]"),
        ({"alertRoutes": "slack"}, "alertRoutes = slack: must be a map such as {name: value}"),
        ({"alertRoutes": '"slack"'}, 'alertRoutes = "slack": must be a map such as {name: value}'),
        ({"livenessProbe": "[]"}, "livenessProbe = []: must be a map such as {name: value}"),
    ],
)
def test_a_mistake_names_key_value_and_what_is_allowed(changes: dict[str, str], expected: str) -> None:
    assert expected in mistakes(changes)


def test_all_mistakes_are_in_one_message() -> None:
    text = mistakes(
        {"minReplicas": "4", "image": "vllm/vllm-openai", "clusterRegion": "BHS", "nodes": "3"}, stack="dev"
    )
    assert text.startswith("4 mistakes in the configuration (Pulumi.dev.yaml):")
    assert all(key in text for key in ("minReplicas", "image", "clusterRegion", "ovh-vllm:nodes"))


RECEIVER_SECRETS = {
    "alertWebhookUrl": "https://example.com/canary",
    "alertSlackUrl": "https://hooks.slack.com/services/T0/B0/canary",
    "alertPagerDutyKey": "canary0canary0canary0canary0cana",
    "alertSmtpPassword": "canary",
}
MAIL = {
    "alertEmailTo": "oncall@example.com, lead@example.com",
    "alertEmailFrom": "alerts@example.com",
    "alertSmtpHost": "smtp.example.com:465",
    "alertSmtpUser": "alerts",
}


def encrypted(changes: dict[str, str]) -> AlertSettings:
    return settings("prod", changes, secrets=RECEIVER_SECRETS).alerts


def test_every_receiver_can_be_set() -> None:
    alerts = encrypted(RECEIVER_SECRETS | MAIL)
    assert alerts.receivers == ["webhook", "slack", "email", "pagerduty"]
    assert alerts.route("critical") == alerts.route("warning") == alerts.receivers
    assert alerts.route("info") == []
    assert "canary" not in repr(alerts)


def test_by_default_nobody_is_told() -> None:
    assert settings("prod").alerts.receivers == []


@pytest.mark.parametrize("key", RECEIVER_SECRETS)
def test_white_space_that_came_along_with_a_secret_is_dropped(key: str) -> None:
    from_file = {**RECEIVER_SECRETS, **MAIL, key: f" {RECEIVER_SECRETS[key]}\n"}
    field = {
        "alertWebhookUrl": "alert_webhook_url",
        "alertSlackUrl": "alert_slack_url",
        "alertPagerDutyKey": "alert_pager_duty_key",
        "alertSmtpPassword": "alert_smtp_password",
    }[key]
    assert getattr(encrypted(from_file), field).get_secret_value() == RECEIVER_SECRETS[key]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("alertWebhookUrl", "https:///canary", "must be an address such as https://host/path"),
        ("alertWebhookUrl", "https://example.com/can ary", "must be an address"),
        ("alertSlackUrl", "hooks.slack.com/services/canary", "must be an address"),
        ("alertSlackUrl", "https://slack.com/api/canary", "must be an incoming webhook"),
        ("alertPagerDutyKey", "canary", "must be an integration key of the Events API v2"),
        ("alertSmtpPassword", "canary\ncanary", "must be one line"),
    ],
)
def test_a_wrong_secret_is_explained_and_not_repeated(key: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as error:
        encrypted({key: value})
    assert f"ovh-vllm:{key}: " in str(error.value)
    assert "anary" not in str(error.value)


OBJECTIVES = {
    "timeToFirstToken": {"seconds": 2.5, "percent": 95},
    "interTokenLatency": {"seconds": 0.1, "percent": 95},
    "success": {"percent": 99.9},
    "availability": {"percent": 99.5},
}


def objectives(**changes: object) -> dict[str, str]:
    return {"serviceLevelObjectives": json.dumps({**OBJECTIVES, **changes})}


def test_percents_become_the_ratios_that_were_meant() -> None:
    made = settings("prod", objectives()).monitoring.service_level_objectives.objectives
    assert (made.success, made.availability) == (0.999, 0.995)
    assert (made.time_to_first_token.seconds, made.time_to_first_token.ratio) == (2.5, 0.95)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"success": {"percent": 100}}, "success.percent: should be less than or equal to 99.9999"),
        ({"success": {"percent": 99.999999999}}, "success.percent: should be less than or equal to"),
        ({"success": {"percent": 0}}, "success.percent: should be greater than 0"),
        ({"success": {}}, "success.percent: is missing"),
        ({"success": {"ratio": 0.99}}, "success.ratio: is not known here"),
        ({"success": 99}, "success: must be a map such as {name: value}"),
        ({"latency": {"percent": 99}}, "latency: is not known here"),
        # Between two buckets of the histogram nobody counts.
        (
            {"timeToFirstToken": {"seconds": 2.4, "percent": 95}},
            "timeToFirstToken.seconds: 2.4 s is no bucket",
        ),
        # Such an objective could never be missed fast enough for an alert.
        ({"interTokenLatency": {"seconds": 0.1, "percent": 50}}, "interTokenLatency.percent: "),
        ({"availability": {"percent": 20}}, "availability.percent: "),
    ],
)
def test_an_objective_that_cannot_be_watched_is_refused(changes: dict[str, object], expected: str) -> None:
    text = mistakes(objectives(**changes))
    assert "serviceLevelObjectives = {" in text
    assert expected in text


def test_an_objective_that_is_left_out_is_missing() -> None:
    text = mistakes({"serviceLevelObjectives": json.dumps({"success": {"percent": 99}})})
    assert "timeToFirstToken: is missing; interTokenLatency: is missing; availability: is missing" in text


@pytest.mark.parametrize("interval", ["5s", "1m", "60s"])
def test_the_bounds_of_the_scrape_interval_are_taken(interval: str) -> None:
    result = settings("prod", {"scrapeInterval": interval, "scrapeTimeout": "5s"})
    assert result.monitoring.scrape_interval == interval


def test_the_platform_has_an_address_in_each_region() -> None:
    assert settings("prod").ai_api_url == "https://gra.ai.cloud.ovh.net"
    assert settings("prod", {"region": "BHS"}).ai_api_url == "https://bhs.ai.cloud.ovh.net"
    assert settings("prod", {"aiApiUrl": "https://ai.example/"}).ai_api_url == "https://ai.example"


def test_the_environment_says_where_the_platform_is_when_the_stack_does_not() -> None:
    environment = {**ENVIRONMENT, "OVH_AI_URL": "https://127.0.0.1:8443"}
    result = load(configuration("dev"), secret=lambda key: False, environment=environment, stack="dev")
    assert result.ai_api_url == "https://127.0.0.1:8443"
    with pytest.raises(
        SettingsError, match=r"aiApiUrl = http://127\.0\.0\.1: must be https://host .* OVH_AI_URL"
    ):
        load(
            configuration("dev"),
            secret=lambda key: False,
            environment={**ENVIRONMENT, "OVH_AI_URL": "http://127.0.0.1"},
            stack="dev",
        )


@pytest.mark.parametrize("key", ["huggingFaceToken", "grafanaPrivateKey", *RECEIVER_SECRETS])
def test_a_secret_in_plain_text_is_refused_and_not_repeated(key: str) -> None:
    text = mistakes({key: "canary"})
    assert f"ovh-vllm:{key}: is in plain text" in text
    assert f"--secret {key} -s prod`" in text
    assert "canary" not in text


@pytest.mark.parametrize(
    ("key", "value"), [("alertEmailTo", "canary"), ("alertEmailFrom", "canary@example.com")]
)
def test_a_value_that_the_stack_file_encrypts_is_not_repeated(key: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"ovh-vllm:{key}: ") as error:
        settings("prod", {key: value}, secrets={key})
    assert "canary" not in str(error.value)


def test_a_secret_in_the_vllm_environment_is_not_repeated() -> None:
    assert "canary" not in mistakes({"vllmEnvironment": '{"HF_TOKEN": "canary"}'})


def test_a_secret_in_the_arguments_is_not_repeated() -> None:
    assert "canary" not in mistakes({"vllmArguments": '["--api-key", "canary"]'})


def test_a_variable_that_only_sounds_like_a_secret_is_taken() -> None:
    result = settings("prod", {"vllmEnvironment": '{"TOKENIZERS_PARALLELISM": "false"}'})
    assert result.endpoint.vllm_environment == {"TOKENIZERS_PARALLELISM": "false"}


@pytest.mark.parametrize("image", ["registry:5000/vllm-openai:v1", f"vllm-openai@sha256:{'0' * 64}"])
def test_an_image_with_a_tag_or_a_digest_is_taken(image: str) -> None:
    assert settings("prod", {"image": image}).endpoint.image == image


def test_a_certificate_and_the_key_of_another_one_are_refused() -> None:
    ours, other = (
        SelfSignedCertificateProvider().create(
            {"dns_names": ["grafana.example"], "ip_addresses": [], "validity_days": 90}
        )
        for _ in range(2)
    )
    assert ours.outs and other.outs
    pair = {
        "grafanaCertificate": ours.outs["certificate_pem"],
        "grafanaPrivateKey": ours.outs["key_pem"],
    }
    assert settings("prod", pair, secrets=pair).monitoring.grafana_certificate == pair["grafanaCertificate"]
    private = serialization.load_pem_private_key(ours.outs["key_pem"].encode(), password=None)
    locked = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    ).decode()
    for key, remedy in (
        (other.outs["key_pem"], "does not belong to"),
        ("canary", "must be the text of"),
        (locked, "no passphrase"),
    ):
        with pytest.raises(SettingsError, match=remedy) as error:
            settings("prod", pair | {"grafanaPrivateKey": key}, secrets=pair)
        assert key not in str(error.value)


def test_a_line_break_after_the_token_is_dropped() -> None:
    result = load(
        configuration("dev"),
        secret=lambda key: False,
        environment={**ENVIRONMENT, "HF_TOKEN": "from-environment\n"},
        stack="dev",
    )
    assert result.endpoint.hugging_face_token.get_secret_value() == "from-environment"


def test_an_encrypted_token_is_taken_and_hidden() -> None:
    result = settings("prod", {"huggingFaceToken": "canary"}, secrets={"huggingFaceToken"})
    assert result.endpoint.hugging_face_token.get_secret_value() == "canary"
    assert "canary" not in repr(result)


def test_the_environment_gives_the_token_when_the_stack_has_none() -> None:
    environment = {**ENVIRONMENT, "HF_TOKEN": "from-environment"}
    result = load(configuration("dev"), secret=lambda key: False, environment=environment, stack="dev")
    assert result.endpoint.hugging_face_token.get_secret_value() == "from-environment"


def test_a_missing_project_id_tells_where_to_set_it() -> None:
    with pytest.raises(SettingsError, match="serviceName: is missing; set it or OVH_CLOUD_PROJECT_SERVICE"):
        load(configuration("dev"), secret=lambda key: False, environment={}, stack="dev")


def test_durations_and_sizes_are_those_of_prometheus() -> None:
    assert (seconds("15s"), seconds("5m"), seconds("15d")) == (15, 300, 1296000)
    assert (gibibytes("40GiB"), gibibytes("1TiB")) == (40, 1024)
    for wrong in ("15", "s", "-5s", "1h30m ", "1.5h"):
        with pytest.raises(ValueError, match="duration"):
            seconds(wrong)
