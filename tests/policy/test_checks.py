"""Each policy: what it lets pass, what it refuses, and that it says what to change."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.bill import bill
from components.prices import prices
from components.settings import KEYS
from policy import checks, costs, facts
from policy.facts import UNKNOWN, Resource, Secret, leaves
from tests.components import mocks
from tests.policy.stacks import RULES, STACKS, declared, spoiled, violations

POLICIES = [rule.name for rule in RULES]


def said(policy: str, resources: list[Resource], **config: Any) -> list[str]:
    return [str(violation) for violation in violations(policy, resources, **config)]


@pytest.mark.parametrize("preview", [False, True], ids=["update", "preview"])
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_tracked_stacks_keep_every_policy(policy: str, stack: str, preview: bool) -> None:
    assert said(policy, [*declared(stack, preview=preview)]) == []


def test_every_key_that_is_named_exists() -> None:
    text = Path(checks.__file__).read_text(encoding="utf-8")
    calls = re.findall(r"_keys?\(([^)]*)\)", text)
    named = {key for call in calls for key in re.findall(r"""["'](\w+)["']""", call)}
    named |= {key for _, key in checks._REGIONS.values()}
    assert len(named) > 10
    assert named <= KEYS


def test_an_app_without_token_is_refused() -> None:
    resources = spoiled(declared("prod"), facts.APP, lambda app: app.update(unsecure_http=True))
    assert said("restricted-access", resources) == [
        "unsecure_http of vllm = true: must be false: everybody could call the model"
    ]


@pytest.mark.parametrize("image", ["vllm/vllm-openai", "vllm/vllm-openai:latest", None])
def test_an_image_that_moves_is_refused(image: str | None) -> None:
    resources = spoiled(declared("prod"), facts.APP, lambda app: app.update(image=image))
    (violation,) = said("pinned-images", resources)
    assert violation.startswith("ovh-vllm:image")
    assert "must name a tag other than latest, or a digest" in violation


def test_a_digest_pins_an_image() -> None:
    image = "vllm/vllm-openai@sha256:" + "0" * 64
    resources = spoiled(declared("prod"), facts.APP, lambda app: app.update(image=image))
    assert said("pinned-images", resources) == []


def test_images_of_workloads_are_pinned_too() -> None:
    def change(deployment: dict[str, Any]) -> None:
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "exporter:latest"

    def other(deployment: dict[str, Any]) -> None:
        change(deployment)
        deployment["metadata"]["name"] = "other"

    (violation,) = said("pinned-images", spoiled(declared("prod"), mocks.DEPLOYMENT, change))
    assert violation.startswith("ovh-vllm:platformExporterImage = exporter:latest: ")
    (violation,) = said("pinned-images", spoiled(declared("prod"), mocks.DEPLOYMENT, other))
    assert violation.startswith("spec.template.spec.containers.0.image of vllm-exporter = exporter:latest: ")


@pytest.mark.parametrize("version", [None, "88.x", ">=88"])
def test_a_chart_without_exact_version_is_refused(version: str | None) -> None:
    resources = spoiled(declared("prod"), facts.RELEASE, lambda release: release.update(version=version))
    (violation,) = said("pinned-images", resources)
    assert violation.startswith("ovh-vllm:chartVersion")


def test_missing_probes_are_refused() -> None:
    resources = spoiled(
        declared("prod"),
        facts.APP,
        lambda app: app.update(readiness_probe=None, liveness_probe=None),
    )
    resources = spoiled(
        resources,
        mocks.DEPLOYMENT,
        lambda item: item["spec"]["template"]["spec"]["containers"][0].pop("livenessProbe"),
    )
    assert said("probes-present", resources) == [
        "ovh-vllm:readinessProbe: is missing: set path and port",
        "ovh-vllm:livenessProbe: is missing: set path and port",
        "spec.template.spec.containers.0.livenessProbe of vllm-exporter: is missing",
    ]


def test_replicas_are_bounded_whatever_the_strategy() -> None:
    assert said("bounded-replicas", [*declared("prod")], maxReplicas=3.0) == []
    assert said("bounded-replicas", [*declared("prod")], maxReplicas=2.0) == [
        "ovh-vllm:maxReplicas = 3: at most 2"
    ]
    fixed = {"fixed": {"replicas": 5.0}}
    resources = spoiled(declared("prod"), facts.APP, lambda app: app.update(scaling_strategy=fixed))
    assert said("bounded-replicas", resources) == ["ovh-vllm:maxReplicas = 5: at most 4"]


def test_gpus_are_counted_over_all_replicas() -> None:
    resources = spoiled(declared("prod"), facts.APP, lambda app: app.update(gpu=2.0))
    assert said("gpu-quota", resources, maxGpus=6.0) == []
    assert said("gpu-quota", resources) == [
        "ovh-vllm:maxReplicas = 3: with ovh-vllm:gpuCount = 2 this needs 6 GPUs; at most 4, unless "
        "OVHcloud's support has raised the quota"
    ]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("preview", [False, True], ids=["update", "preview"])
def test_the_resources_cost_what_the_bill_of_the_settings_says(stack: str, preview: bool) -> None:
    assert costs.bill(declared(stack, preview=preview)).ceiling == bill(mocks.settings(stack)).ceiling


@pytest.mark.parametrize(("size", "count"), [("500Mi", 1), ("2Ti", 2048), ("10 elephants", None)])
def test_a_volume_is_paid_for_by_the_started_gib(size: str, count: int | None) -> None:
    values = {"persistence": {"accessModes": ["ReadWriteOnce"], "size": size}}
    (item,) = costs.bill([Resource(facts.RELEASE, "chart", "", {"values": values})]).items
    assert (item.most if item.price else None) == count


def test_a_stack_that_costs_more_than_agreed_is_refused() -> None:
    (violation,) = said("bounded-cost", [*declared("prod")], maxEurPerHour=9.0)
    assert violation.startswith(
        "cost per hour = 9.71 EUR: at most 9 EUR; most of it are 3 replicas, 1 x h100-1-gpu (9.30), "
        "3 nodes, b2-15 (0.39); change ovh-vllm:maxReplicas, "
    )


@pytest.mark.parametrize(
    ("type_", "change", "name"),
    [
        (facts.APP, {"flavor": "z9-1-gpu"}, "3 replicas, 1 x z9-1-gpu"),
        (facts.APP, {"scaling_strategy": UNKNOWN}, "app vllm, whose size is not known"),
        (facts.NODE_POOL, {"flavorName": "x9-99"}, "3 nodes, x9-99"),
        (facts.CLUSTER, {"plan": "standard"}, "cluster, standard plan"),
    ],
)
def test_what_has_no_price_is_named_and_does_not_count_as_free(
    type_: str, change: dict[str, Any], name: str
) -> None:
    resources = spoiled(declared("prod"), type_, lambda item: item.update(change))
    (violation,) = said("bounded-cost", resources)
    assert violation.startswith(f"price of {name}: nobody knows it: change ")


def test_prices_of_one_zone_are_not_taken_for_regions_with_three() -> None:
    resources = spoiled(declared("prod"), facts.CLUSTER, lambda item: item.update(region="EU-WEST-PAR"))
    (violation,) = said("bounded-cost", resources)
    assert "3 nodes, b2-15" in violation
    assert "h100-1-gpu" not in violation


def test_a_service_that_the_program_makes_costs_a_load_balancer_and_one_of_a_release_is_in_its_values() -> (
    None
):
    def service(**annotations: str) -> Resource:
        metadata = {"name": "s", "annotations": annotations}
        return Resource(facts.SERVICE, "s", "", {"spec": {"type": "LoadBalancer"}, "metadata": metadata})

    before = costs.bill(declared("prod")).known[1]
    small, gateway, address = prices().load_balancers["small"], prices().gateway, prices().floating_ip
    expected = sum(price.eur_per_hour or 0 for price in (small, gateway, address))
    assert costs.bill([*declared("prod"), service()]).known[1] == pytest.approx(before + expected)
    of_release = service(**{"meta.helm.sh/release-name": "monitoring"})
    assert costs.bill([*declared("prod"), of_release]).known[1] == before


@pytest.mark.parametrize(
    ("type_", "path", "where"),
    [
        (facts.APP, ("env", "HF_TOKEN"), "env.HF_TOKEN of vllm"),
        (mocks.AI + ":Readiness", ("token",), "token of vllm-ready"),
        (mocks.KUBERNETES, ("kubeconfig",), "kubeconfig of monitoring-kubernetes"),
        (facts.OPENSTACK, ("password",), "password of monitoring-openstack"),
    ],
)
def test_a_secret_that_travels_in_plain_text_is_refused_and_not_printed(
    type_: str, path: tuple[str, ...], where: str
) -> None:
    def change(properties: dict[str, Any]) -> None:
        *parents, last = path
        for parent in parents:
            properties = properties[parent]
        assert isinstance(properties[last], Secret)
        properties[last] = "canary"

    (violation,) = said("secret-properties", spoiled(declared("prod"), type_, change))
    assert violation.startswith(f"{where}: is in plain text: ")


def test_everything_in_a_secret_of_kubernetes_is_secret() -> None:
    resources = spoiled(
        declared("prod"),
        facts.SECRET,
        lambda item: item.update(data=item["data"].value, stringData={"a": "b"}),
    )
    refused = violations("secret-properties", resources)
    assert {"data.token of vllm-token", "data.tls.key of monitoring-grafana-tls"} <= {
        violation.where for violation in refused
    }
    assert "stringData.a of vllm-token" in {violation.where for violation in refused}


def test_a_secret_variable_of_a_container_is_refused() -> None:
    def change(deployment: dict[str, Any]) -> None:
        deployment["spec"]["template"]["spec"]["containers"][0]["env"] = [
            {"name": "API_KEY", "value": "canary"},
            {"name": "OTHER_KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
            {"name": "LEVEL", "value": "info"},
        ]

    (violation,) = said("secret-properties", spoiled(declared("prod"), mocks.DEPLOYMENT, change))
    assert violation.startswith("spec.template.spec.containers.0.env.API_KEY of vllm-exporter: is in plain")


def test_what_runs_before_the_containers_is_looked_at_and_what_ends_needs_no_probe() -> None:
    job = {
        "spec": {"template": {"spec": {"initContainers": [{"image": "a"}], "containers": [{"image": "b:1"}]}}}
    }
    (violation,) = said("pinned-images", [Resource("kubernetes:batch/v1:Job", "job", "", job)])
    assert violation.startswith("spec.template.spec.initContainers.0.image of job = a: ")
    assert said("probes-present", [Resource("kubernetes:batch/v1:Job", "job", "", job)]) == []


def test_what_is_made_in_the_cloud_has_to_be_kept_as_a_secret() -> None:
    resources = spoiled(declared("prod"), facts.TOKEN, lambda _: None, secret_outputs=frozenset())
    assert {violation.where for violation in violations("secret-properties", resources)} == {
        "value of vllm-client-token-1",
        "value of vllm-scraper-token-1",
    }


def test_a_secret_that_reaches_a_property_of_any_name_is_found() -> None:
    command = ["bash", "-c", f"vllm --token-of-mine {mocks.HUGGING_FACE_TOKEN}"]
    resources = spoiled(declared("prod"), facts.APP, lambda app: app.update(command=command))
    (violation,) = violations("no-secret-in-clear", resources)
    assert violation.where == "command.2 of vllm"
    assert violation.urn.endswith("App::vllm")


def test_a_secret_in_a_plain_setting_is_found_by_its_key() -> None:
    arguments = f'["--secret={mocks.HUGGING_FACE_TOKEN}"]'
    resources = spoiled(
        declared("prod"),
        facts.PYTHON_PROVIDER,
        lambda settings: settings.update({"ovh-vllm:vllmArguments": arguments}),
    )
    assert said("no-secret-in-clear", resources) == [
        "ovh-vllm:vllmArguments: holds a secret in plain text: take it out"
    ]


def test_an_output_that_is_called_a_token_is_a_secret() -> None:
    resources = spoiled(
        declared("prod"),
        facts.STACK,
        lambda outputs: outputs.update(client_token="canary", kubeconfig=UNKNOWN),
    )
    (violation,) = said("no-secret-in-clear", resources)
    assert violation.startswith("client_token of ovh-vllm-prod: is in plain text")


def test_no_violation_prints_a_secret() -> None:
    def opened(value: Any) -> Any:
        match value:
            case Secret():
                return opened(value.value)
            case dict():
                return {key: opened(item) for key, item in value.items()}
            case list():
                return [opened(item) for item in value]
            case _:
                return value

    resources = [*declared("prod")]
    for type_ in {resource.type for resource in resources}:
        resources = spoiled(resources, type_, lambda item: item.update(opened(item)))
    texts = [text for policy in POLICIES for text in said(policy, resources)]
    assert len(texts) > 10
    assert not [text for text in texts for secret in mocks.SECRETS if secret in text]


NETWORKS = st.one_of(
    st.tuples(st.just("0.0.0.0"), st.integers(0, 32), st.just(8)),  # noqa: S104
    st.tuples(st.just("::"), st.integers(0, 128), st.just(16)),
)


@given(NETWORKS)
def test_a_range_that_is_nearly_everybody_is_refused(network: tuple[str, int, int]) -> None:
    address, prefix, shortest = network

    def change(release: dict[str, Any]) -> None:
        release["values"]["grafana"]["service"]["loadBalancerSourceRanges"] = [f"{address}/{prefix}"]

    refused = said("source-ranges", spoiled(declared("prod"), facts.RELEASE, change))
    assert [text.split(" = ")[0] for text in refused] == ["ovh-vllm:grafanaSourceRanges"] * (
        prefix < shortest
    )


def test_what_is_no_range_is_refused() -> None:
    spec = {"type": "LoadBalancer", "loadBalancerSourceRanges": ["everybody"]}
    (violation,) = said("source-ranges", [Resource(facts.SERVICE, "open", "", {"spec": spec})])
    assert violation.startswith(
        "spec.loadBalancerSourceRanges of open = everybody: must be a range of your own"
    )


def test_a_load_balancer_without_ranges_is_refused_wherever_it_is_made() -> None:
    spec = {"type": "LoadBalancer"}
    internal = {"service.beta.kubernetes.io/openstack-internal-load-balancer": "true"}
    services = [
        Resource(facts.SERVICE, "open", "", {"spec": spec}),
        Resource(facts.SERVICE, "inside", "", {"spec": spec, "metadata": {"annotations": internal}}),
        Resource(facts.SERVICE, "in-cluster", "", {"spec": {"type": "ClusterIP"}}),
        Resource(facts.RELEASE, "chart", "", {"values": {"prometheus": {"service": spec}}}),
        Resource(facts.RELEASE, "off", "", {"values": {"prometheus": {"enabled": False, "service": spec}}}),
    ]
    assert [violation.where for violation in violations("source-ranges", services)] == [
        "spec.loadBalancerSourceRanges of open",
        "values.prometheus.service.loadBalancerSourceRanges of chart",
    ]


@pytest.mark.parametrize(("type_", "word"), [(facts.APP, "app"), (facts.CLUSTER, "cluster")])
def test_production_without_protection_is_refused(type_: str, word: str) -> None:
    resources = spoiled(declared("prod"), type_, lambda _: None, protect=False)
    (violation,) = violations("production-protected", resources)
    assert str(violation).startswith("ovh-vllm:protect = [")
    assert f"must name {word} while ovh-vllm:environment is production" in violation.allowed


def test_which_environments_are_protected_is_configurable() -> None:
    assert len(said("production-protected", [*declared("dev")], environments=["development"])) == 2


@pytest.mark.parametrize(
    "region",
    ["GRA", "GRA11", "GRA5", "SBG5", "DE1", "WAW1", "RBX-A", "EU-WEST-RBX", "EU-WEST-PAR", "EU-SOUTH-MIL"],
)
def test_regions_of_the_union_are_let_pass(region: str) -> None:
    resources = spoiled(declared("prod"), facts.CLUSTER, lambda item: item.update(region=region))
    assert said("european-regions", resources) == []


@pytest.mark.parametrize(
    "region", ["BHS5", "UK1", "AP-SOUTH-MUM", "US-EAST-VA-1", "GRAZ1", "EU-WEST-LZ-LON-A"]
)
def test_regions_elsewhere_are_refused(region: str) -> None:
    resources = spoiled(declared("prod"), facts.CLUSTER, lambda item: item.update(region=region))
    (violation,) = said("european-regions", resources)
    assert violation.startswith(f"ovh-vllm:clusterRegion = {region}: must be in one of GRA, ")


def test_an_app_in_canada_is_refused() -> None:
    resources = spoiled(declared("prod"), facts.APP, lambda app: app.update(region="BHS"))
    assert said("european-regions", resources)[0].startswith("ovh-vllm:region = BHS: ")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"role": "ai_training_operator"}, "role of vllm-client-token-1"),
        ({"label_selector": None}, "label_selector of vllm-client-token-1"),
        ({"label_selector": ""}, "label_selector of vllm-client-token-1"),
        ({"label_selector": "team"}, "label_selector of vllm-client-token-1"),
    ],
)
def test_a_token_that_may_do_more_is_refused(change: dict[str, Any], where: str) -> None:
    resources = spoiled(declared("prod"), facts.TOKEN, lambda token: token.update(change))
    assert violations("scoped-tokens", resources)[0].where == where


def test_an_unknown_storage_class_is_refused() -> None:
    def change(release: dict[str, Any]) -> None:
        release["values"]["grafana"]["persistence"]["storageClassName"] = "standard"

    (violation,) = said("known-storage-classes", spoiled(declared("prod"), facts.RELEASE, change))
    assert violation.startswith("ovh-vllm:storageClass = standard: must be one of csi-cinder-high-speed, ")
    claim = {"spec": {"storageClassName": "standard", "accessModes": ["ReadWriteOnce"]}}
    (violation,) = said(
        "known-storage-classes", [Resource("kubernetes:core/v1:PersistentVolumeClaim", "claim", "", claim)]
    )
    assert violation.startswith("spec.storageClassName of claim = standard: ")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("token", True),
        ("HF_TOKEN", True),
        ("client_token", True),
        ("adminPassword", True),
        ("grafana-admin-password", True),
        ("kubeconfig", True),
        ("vllmAPIKey", True),
        ("key_pem", True),
        ("token_ids", False),
        ("passwordKey", False),
        ("existingSecret", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("credentials_file", False),
        ("monkey", False),
        ("", False),
    ],
)
def test_a_name_tells_whether_it_is_that_of_a_secret(name: str, secret: bool) -> None:
    assert checks.names_a_secret(name) is secret


@given(st.sampled_from(["_", "-", "."]), st.lists(st.sampled_from(["my", "other", "x1"]), max_size=3))
def test_every_way_of_writing_a_name_is_read_alike(separator: str, before: list[str]) -> None:
    words = [*before, "api", "key"]
    spellings = [separator.join(words), separator.join(words).upper()]
    spellings.append(words[0] + "".join(word.capitalize() for word in words[1:]))
    assert all(checks.names_a_secret(spelling) for spelling in spellings)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@given(st.data())
def test_no_check_gives_up_on_a_value_that_it_does_not_expect(data: st.DataObject) -> None:
    """A check that raises ends the preview, with a traceback and without a word on what to change."""
    resource = data.draw(st.sampled_from([item for item in declared("prod") if len(str(item)) < 20_000]))
    properties = copy.deepcopy(dict(resource.properties))
    path = data.draw(st.sampled_from([*places(properties)] or [("nothing",)]))
    parent: Any = properties
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = data.draw(st.sampled_from([UNKNOWN, None, "", "text", 3.5, True, [], {}, Secret("x")]))
    for policy in POLICIES:
        said(policy, [replace(resource, properties=properties)])


def test_a_secret_shows_itself_to_nobody() -> None:
    resource = Resource("a", "b", "c", {"token": Secret("canary")})
    assert "canary" not in f"{resource} {Secret('canary')!r}"
    assert [value for _, value in leaves(resource.properties)] == [Secret("canary")]
