"""Whatever would stop an update is a problem with a remedy; what nobody answers is unknown, not fine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.settings import Settings, load
from doctor import checks, rights
from doctor.answers import Access, Answer, GpuUse, Quota
from doctor.finding import Finding, table
from tests.components.stacks import SERVICE, configuration

SILENT = Answer(trouble="GET /x: no answer")
CALLS = rights.needed(reserved_address=True)
FLAVORS = Answer([{"name": "b2-15", "vCPUs": 4, "ram": 15, "state": "available"}])


def settings(stack: str = "prod", **changes: Any) -> Settings:
    values = configuration(stack) | {"serviceName": SERVICE}
    values |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in changes.items()}
    return load(values, secret=lambda key: True, environment={}, stack=stack)


OURS = "0123456789abcdef"


def app(name: str, gpus: int, identity: str = "") -> GpuUse:
    return GpuUse(f"id-of-{name}", name, identity, gpus)


def quotas(**parts: dict[str, int]) -> Answer:
    return Answer([{"region": "BHS5"}, {"region": "GRA11", **parts}])


def only(findings: Any) -> Finding:
    (finding,) = findings
    assert isinstance(finding, Finding)
    return finding


PROD = settings()


@pytest.mark.parametrize(
    ("limit", "apps", "level", "told"),
    [
        (4, [], "ok", "4 at once"),
        (
            4,
            [app(PROD.endpoint.app_name, 1, OURS), app("it replaces", 1, OURS)],
            "ok",
            "none in use by other",
        ),
        (
            4,
            [app(PROD.endpoint.app_name, 1, "of another stack")],
            "problem",
            f"{PROD.endpoint.app_name} (id-of-",
        ),
        (4, [app(PROD.endpoint.app_name, 1)], "problem", "an update needs 4"),
        (4, [app("stopped", 0)], "ok", "none in use by other"),
        (2, [], "problem", "gpuQuota is 4, the project may use 2"),
        (4, [app("notebook", 1)], "problem", "with maxReplicas running an update needs 4"),
        (4, [app("a", 1), app("a", 1)], "problem", "this stack needs up to 4"),
        (None, [], "unknown", "does not tell"),
    ],
)
def test_the_gpu_quota_has_room_for_the_stack_and_its_updates(
    limit: int | None, apps: list[GpuUse], level: str, told: str
) -> None:
    finding = checks.gpu_quota(Answer(limit), Answer(apps), PROD.endpoint, {OURS})
    assert finding.level == level
    assert told in finding.text


def test_the_app_that_a_stack_takes_over_is_its_own() -> None:
    endpoint = settings(adoptAppId="01234567-89ab-cdef-0123-456789abcdef").endpoint
    apps = Answer([GpuUse(endpoint.adopt_app_id, "made by hand", "", 1)])
    assert checks.gpu_quota(Answer(4), apps, endpoint, set()).level == "ok"


REGIONS = Answer([{"id": "GRA"}])


@pytest.mark.parametrize(
    ("flavors", "changes", "told"),
    [
        ([{"id": "h100-1-gpu", "max": 4}], {}, ""),
        ([{"id": "l4-1-gpu", "max": 4}], {}, "h100-1-gpu is not offered in GRA"),
        ([{"id": "h100-1-gpu", "max": 1}], {"gpuCount": 2, "maxReplicas": 1}, "at most 1 GPU"),
        ([{"id": "h100-1-gpu", "max": 4}], {"region": "BHS"}, "region BHS has no AI products"),
    ],
)
def test_the_gpu_flavor_is_offered(flavors: list[Any], changes: dict[str, Any], told: str) -> None:
    finding = checks.gpu_flavor(REGIONS, Answer(flavors), settings(**changes).endpoint)
    assert finding.level == ("problem" if told else "ok")
    assert told in finding.text


@pytest.mark.parametrize(
    ("regions", "versions", "levels"),
    [
        (["GRA11"], ["1.34"], ["ok", "ok"]),
        (["GRA7"], ["1.34"], ["problem", "ok"]),
        (["GRA11"], ["1.36"], ["ok", "problem"]),
    ],
)
def test_region_and_version_of_the_cluster_are_offered(
    regions: list[str], versions: list[str], levels: list[str]
) -> None:
    findings = checks.kubernetes(Answer(regions), Answer(versions), PROD.cluster)
    assert [finding.level for finding in findings] == levels


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        ({"maxInstances": 3, "usedInstances": 0, "maxCores": 12, "maxRam": 46080}, ""),
        ({"maxInstances": -1, "maxCores": -1, "maxRam": -1}, ""),
        ({"maxInstances": 10, "usedInstances": 8}, "3 instances needed, 2 of 10 free"),
        ({"maxCores": 20, "usedCores": 10}, "12 vCPU needed, 10 of 20 free"),
        ({"maxRam": 40960, "usedRAM": 0}, "46080 MiB of memory needed, 40960 of 40960 free"),
        ({"maxInstances": None, "usedInstances": None}, ""),
    ],
)
def test_the_project_has_room_for_the_nodes(instance: dict[str, int], told: str) -> None:
    flavor, room = checks.nodes(FLAVORS, quotas(instance=instance), PROD.cluster, deployed=False)
    assert flavor.level == "ok"
    assert room.level == ("problem" if told else "ok")
    assert told in room.text


def test_one_of_a_thing_is_not_called_several() -> None:
    one = settings("dev", nodeCount="1").cluster
    quota = quotas(instance={"maxInstances": 0})
    flavor = Answer([{"name": one.node_flavor, "vCPUs": 2, "ram": 7, "state": "available"}])
    *_, room = checks.nodes(flavor, quota, one, deployed=False)
    assert "1 instance needed" in room.text


def test_what_a_deployed_stack_uses_itself_is_no_problem() -> None:
    full = quotas(instance={"maxInstances": 3, "usedInstances": 3})
    *_, room = checks.nodes(FLAVORS, full, PROD.cluster, deployed=True)
    assert room.level == "unknown"


def test_a_node_flavor_that_is_sold_out_is_a_problem() -> None:
    sold_out = Answer([{"name": "b2-15", "state": "unavailable"}, {"name": "b3-16", "state": "available"}])
    finding = only(checks.nodes(sold_out, quotas(), PROD.cluster, deployed=False))
    assert (finding.level, finding.remedy) == ("problem", "nodeFlavor: one of b3-16")


def test_there_is_room_for_the_volumes() -> None:
    small = quotas(volume={"maxGigabytes": 100, "usedGigabytes": 50, "maxVolumeCount": 100, "volumeCount": 0})
    finding = only(checks.storage(small, PROD.cluster, PROD.monitoring, deployed=False))
    assert (finding.level, "70 GiB needed, 50 of 100 free" in finding.text) == ("problem", True)


def test_a_load_balancer_needs_a_vrack() -> None:
    room = quotas(loadbalancer={"maxLoadbalancers": 1, "usedLoadbalancers": 0})
    nowhere = Answer(trouble="GET …/vrack: HTTP 404", status=404)
    vrack, balancers = checks.network(nowhere, room, PROD.cluster, PROD.monitoring, deployed=False)
    assert (vrack.level, balancers.level) == ("problem", "ok")
    dev = settings("dev")
    assert list(checks.network(nowhere, room, dev.cluster, dev.monitoring, deployed=False)) == []


@pytest.mark.parametrize(
    ("access", "level", "told"),
    [
        (Access(200, "", None), "ok", "without a token"),
        (Access(200, "", True), "ok", "may be downloaded"),
        (Access(401, "", False), "problem", "does not know the token"),
        (Access(200, "", False), "problem", "does not know the token"),
        (Access(401, "GatedRepo", None), "problem", "there is no token"),
        (Access(403, "GatedRepo", True), "problem", "the token's account has no access"),
        (Access(404, "RepoNotFound", True), "problem", "there is no"),
        (Access(401, "", None), "problem", "there is no"),
        (Access(403, "", True), "problem", "may not read"),
        (Access(500, "", True), "unknown", "500"),
    ],
)
def test_a_model_that_cannot_be_downloaded_says_why(access: Access, level: str, told: str) -> None:
    finding = checks.model(Answer(access), "google/gemma-3-27b-it", "https://huggingface.co")
    assert finding.level == level
    assert told in finding.text


RIGHTS = [rights.IAM_PREFIX + call.action for call in CALLS]
EVERYTHING = {"method": "GET", "path": "/*"}


@pytest.mark.parametrize(
    ("routes", "levels"),
    [
        (None, ["ok"]),
        ([{"method": method, "path": "/*"} for method in ("GET", "POST", "PUT", "DELETE")], ["ok", "ok"]),
        (
            [
                {"method": method, "path": f"/cloud/project/{SERVICE}/*"}
                for method in ("GET", "POST", "PUT", "DELETE")
            ],
            ["ok", "ok"],
        ),
        ([{"method": "GET", "path": "/*"}], ["problem", "ok"]),
        ([{"method": "GET", "path": "/cloud/project/other/*"}], ["problem", "ok"]),
    ],
)
def test_a_consumer_key_allows_every_call(routes: Any, levels: list[str]) -> None:
    checked = Answer({"authorizedActions": RIGHTS, "unauthorizedActions": []})
    findings = checks.rights(Answer({"allowedRoutes": routes}), checked, CALLS, SERVICE)
    assert [finding.level for finding in findings] == levels


def test_missing_actions_are_named() -> None:
    checked = Answer({"authorizedActions": RIGHTS[:-1], "unauthorizedActions": RIGHTS[-1:]})
    finding = only(checks.rights(Answer({}), checked, CALLS, SERVICE))
    assert (finding.level, finding.text) == ("problem", f"missing: {CALLS[-1].action}")


@pytest.mark.parametrize(("status", "level"), [("ok", "ok"), ("suspended", "problem")])
def test_the_project_is_in_use(status: str, level: str) -> None:
    assert checks.project(Answer({"status": status}), SERVICE).level == level


def test_a_project_that_cannot_be_seen_is_a_problem() -> None:
    assert checks.project(Answer(trouble="HTTP 404", status=404), SERVICE).level == "problem"


@pytest.mark.parametrize(("authorized", "level"), [(True, "ok"), (False, "problem")])
def test_the_ai_service_is_authorised(authorized: bool, level: str) -> None:
    assert checks.ai_service(Answer({"authorized": authorized})).level == level


@pytest.mark.parametrize(("found", "level"), [(True, "ok"), (False, "problem")])
def test_the_chart_is_in_its_repository(found: bool, level: str) -> None:
    assert checks.chart(Answer(found), PROD.monitoring).level == level


def test_without_answers_nothing_is_fine_and_nothing_fails() -> None:
    names = (
        *("rights", "project", "authorization", "ai regions", "ai flavors", "gpu quota", "apps"),
        *("kube regions", "kube flavors", "kube versions", "quotas", "vrack"),
    )
    answers = dict.fromkeys(names, SILENT) | {"details": Answer({})}
    findings = list(checks.everything(answers, PROD, CALLS, identities=()))
    assert {finding.level for finding in findings} == {"unknown"}
    assert all(finding.remedy for finding in findings)


@pytest.mark.parametrize(
    "value", [{}, [{}], [{"region": 7}], [{"region": "GRA11", "instance": []}], "no", None]
)
def test_an_answer_of_another_shape_is_unknown(value: Any) -> None:
    answer = Answer(value).shaped(list[Quota], "GET /quota")
    assert answer.trouble.startswith("GET /quota: not the documented shape")
    assert not answer.known


def test_what_no_shape_names_does_not_matter() -> None:
    quota = {"region": "GRA11", "instance": {"maxInstances": 3, "new": []}, "keymanager": 1}
    assert Answer([quota]).shaped(list[Quota], "GET /quota").value == [
        {"region": "GRA11", "instance": {"maxInstances": 3}}
    ]


@pytest.mark.parametrize(("status", "level"), [(403, "problem"), (503, "unknown"), (None, "unknown")])
def test_credentials_that_nobody_has_refused_are_not_wrong(status: int | None, level: str) -> None:
    assert checks.credentials(Answer(trouble="no answer", status=status)).level == level


def test_the_table_has_each_remedy_below_its_finding() -> None:
    findings = [Finding("ok", "GPU quota", "4"), Finding("problem", "model", "gated", "accept the terms")]
    assert table(findings).splitlines() == [
        "ok       GPU quota  4",
        "problem  model      gated",
        "                    → accept the terms",
        "1 ok, 1 problem, 0 unknown",
    ]
