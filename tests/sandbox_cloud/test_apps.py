"""Apps over HTTP: types, states, quota, updates, scaling, tokens."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.cloud.settings import Delays
from tests.sandbox_cloud.conftest import MakeWorld, World
from tests.sandbox_cloud.fakes import PROJECT, app_spec, until

PROBE = {"path": "/v1/models", "port": 8000, "initialDelaySeconds": 300}
LIVENESS = {"path": "/health", "port": 8000, "initialDelaySeconds": 300}


def automatic(**changes: Any) -> dict[str, Any]:
    metric = {
        "apiUrl": "http://<SELF>:8000/metrics",
        "format": "PROMETHEUS",
        "valueLocation": "vllm:num_requests_running",
        "targetValue": 50,
        "aggregationType": "AVERAGE",
    }
    return {"automatic": {"replicasMin": 1, "replicasMax": 3, "customMetrics": metric, **changes}}


async def test_an_app_walks_through_its_states_and_gets_its_url_on_the_way(world: World) -> None:
    created = await world.client.project("POST", "/ai/app", app_spec(probe=PROBE, livenessProbe=LIVENESS))
    assert created["status"]["state"] == "QUEUED"
    assert created["status"]["url"] is None
    assert created["status"]["availableReplicas"] == 0
    app = await world.in_state(created["id"], "RUNNING")
    status = app["status"]
    assert [entry["state"] for entry in status["history"]] == ["QUEUED", "INITIALIZING", "SCALING", "RUNNING"]
    assert status["lastTransitionDate"] == status["history"][-1]["date"]
    assert status["info"]["code"] == "APP_RUNNING"
    assert status["url"].startswith("https://127.0.0.1:")
    assert status["availableReplicas"] == len(world.cloud.apps.ready_replicas(app["id"])) == 1


async def test_the_platform_fills_in_hardware_labels_and_defaults(world: World) -> None:
    spec = app_spec(labels={"team": "ml", "ovh/id": "forged"}, resources={"flavor": "h100-1-gpu", "gpu": 2})
    del spec["defaultHttpPort"]
    app = await world.client.project("POST", "/ai/app", spec)
    resources = app["spec"]["resources"]
    assert (resources["gpu"], resources["cpu"], resources["gpuModel"]) == (2, 56, "H100")
    assert resources["memory"] == 700 * 2**30
    assert app["spec"]["labels"] == {"team": "ml", "ovh/id": app["id"], "ovh/type": "app"}
    assert app["spec"]["scalingStrategy"] == {"fixed": {"replicas": 1}, "automatic": None}
    assert (app["spec"]["defaultHttpPort"], app["spec"]["unsecureHttp"]) == (8080, False)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"defaultHttpPort": 8000.0}, "defaultHttpPort"),
        ({"probe": {**PROBE, "port": 8000.0}}, "probe.port"),
        ({"probe": {**PROBE, "periodSeconds": "10"}}, "probe.periodSeconds"),
        ({"livenessProbe": {**LIVENESS, "successThreshold": 2}}, "livenessProbe"),
        ({"replicas": 2}, "replicas"),
        ({"unsecureHttp": "false"}, "unsecureHttp"),
        ({"region": "GRA11"}, "region"),
        ({"resources": {"flavor": "h100", "gpu": 1}}, "resources.flavor"),
        ({"resources": {"flavor": "l4-1-gpu", "gpu": 5}}, "resources.gpu"),
        ({"resources": {"flavor": "l4-1-gpu", "gpu": True}}, "resources.gpu"),
        ({"volumes": [{"mountPath": "hub", "permission": "RW"}]}, "volumes.0.mountPath"),
        ({"volumes": [{"mountPath": "/hub", "permission": "rw"}]}, "volumes.0.permission"),
        ({"scalingStrategy": {}}, "scalingStrategy"),
        ({"scalingStrategy": {"fixed": None, "automatic": None}}, "scalingStrategy"),
        ({"scalingStrategy": {"fixed": {"replicas": 1}, **automatic()}}, "scalingStrategy"),
        ({"scalingStrategy": {"fixed": {"replicas": 1.0}}}, "scalingStrategy.fixed.replicas"),
        ({"scalingStrategy": automatic(replicasMin=3, replicasMax=2)}, "scalingStrategy.automatic"),
        ({"scalingStrategy": automatic(resourceType="GPU")}, "scalingStrategy.automatic.resourceType"),
        ({"envVars": [{"name": "HF_HOME"}]}, "envVars.0.value"),
        ({"deploymentStrategy": {"maxSurge": 1}}, "deploymentStrategy.maxSurge"),
    ],
)
async def test_a_body_that_the_types_do_not_allow_is_refused_by_field(
    world: World, change: dict[str, Any], named: str
) -> None:
    answer = await world.client.refused("POST", "/ai/app", app_spec(**change))
    assert (answer.status, answer.body["class"]) == (400, "Client::BadRequest")
    assert f"{named}:" in answer.body["message"]
    assert await world.client.project("GET", "/ai/app") == []


async def test_a_missing_field_is_named(world: World) -> None:
    answer = await world.client.refused("POST", "/ai/app", {"region": "GRA"})
    assert "image: Field required" in answer.body["message"]
    assert "resources: Field required" in answer.body["message"]


async def test_the_gpu_quota_refuses_a_fifth_gpu_and_frees_it_on_stop(world: World) -> None:
    three = app_spec(scalingStrategy={"fixed": {"replicas": 3}})
    first = await world.client.project("POST", "/ai/app", three)
    two = app_spec(resources={"flavor": "l4-1-gpu", "gpu": 2})
    refusal = await world.client.refused("POST", "/ai/app", two)
    assert refusal.status == 403
    assert "asks for 2 GPU(s), 3 of the project's 4" in refusal.body["message"]
    await world.client.project("PUT", f"/ai/app/{first['id']}/stop")
    await world.in_state(first["id"], "STOPPED")
    second = await world.client.project("POST", "/ai/app", two)
    assert (await world.client.refused("PUT", f"/ai/app/{first['id']}/start")).status == 403
    await world.client.project("DELETE", f"/ai/app/{second['id']}?force=true")
    await world.gone(f"/ai/app/{second['id']}")
    await world.client.project("PUT", f"/ai/app/{first['id']}/start")
    app = await world.in_state(first["id"], "RUNNING")
    assert app["status"]["availableReplicas"] == 3


async def test_what_a_queued_app_has_reserved_is_not_in_its_own_way(make_world: MakeWorld) -> None:
    delays = Delays(queued=0, initializing=0, image_pull=1000)
    world = await make_world(speed=1, gpu_quota=3, delays=delays)
    app = await world.client.project("POST", "/ai/app", app_spec(scalingStrategy={"fixed": {"replicas": 3}}))
    scaling = await world.in_state(app["id"], "SCALING")
    assert "quota" not in scaling["status"]["info"]["message"]
    assert world.cloud.resources()[0]["detail"] == {"state": "SCALING", "replicas": 3}


async def test_stop_and_start_keep_id_and_url(world: World) -> None:
    app = await world.client.project("POST", "/ai/app", app_spec())
    url = (await world.in_state(app["id"], "RUNNING"))["status"]["url"]
    await world.client.project("PUT", f"/ai/app/{app['id']}/stop")
    await world.in_state(app["id"], "STOPPED")
    assert (await world.client.refused("PUT", f"/ai/app/{app['id']}/stop")).status == 400
    await world.client.project("PUT", f"/ai/app/{app['id']}/start")
    assert (await world.in_state(app["id"], "RUNNING"))["status"]["url"] == url
    assert world.gateway.opened == [app["id"]]


async def test_a_running_app_is_deleted_by_force_only_and_leaves_nothing(world: World) -> None:
    app = await world.client.project("POST", "/ai/app", app_spec())
    await world.in_state(app["id"], "RUNNING")
    refusal = await world.client.refused("DELETE", f"/ai/app/{app['id']}")
    assert (refusal.status, "force" in refusal.body["message"]) == (400, True)
    await world.client.project("DELETE", f"/ai/app/{app['id']}?force=true")
    await world.gone(f"/ai/app/{app['id']}")
    assert world.gateway.opened == []
    assert await world.kinds() == []
    assert not any(replica.listens for replica in world.replicas.made)


async def test_a_slow_download_loops_with_the_bare_probes_and_fails(world: World) -> None:
    world.replicas.startup = 1_000_000
    app = await world.client.project("POST", "/ai/app", app_spec(probe=PROBE, livenessProbe=LIVENESS))
    failed = await world.in_state(app["id"], "FAILED")
    assert failed["status"]["info"]["code"] == "APP_FAILED"
    assert "liveness probe /health failed 3 times" in failed["status"]["info"]["message"]
    assert world.replicas.made[0].starts >= 2
    assert not world.cloud.apps.ready_replicas(app["id"])


async def test_a_slow_download_comes_up_with_patient_probes(world: World) -> None:
    world.replicas.startup = 900
    patient = {**LIVENESS, "timeoutSeconds": 5, "failureThreshold": 120}
    spec = app_spec(probe=PROBE, livenessProbe=patient, deploymentStrategy={"progressDeadlineSeconds": 3600})
    app = await world.client.project("POST", "/ai/app", spec)
    await world.in_state(app["id"], "RUNNING")
    assert [replica.starts for replica in world.replicas.made] == [1]


async def test_environment_is_patched_by_name(world: World) -> None:
    variables = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}]
    app = await world.client.project("POST", "/ai/app", app_spec(envVars=variables))
    patch = [{"name": "A", "value": "new"}, {"name": "B", "value": ""}, {"name": "C", "value": None}]
    updated = await world.client.project(
        "PUT", f"/ai/app/{app['id']}", {"envVars": [*patch, {"name": "D", "value": "4"}]}
    )
    assert updated["spec"]["envVars"] == [{"name": "A", "value": "new"}, {"name": "D", "value": "4"}]


async def test_labels_change_one_by_one_without_a_restart(world: World) -> None:
    app = await world.client.project("POST", "/ai/app", app_spec(labels={"a": "1", "b": "2"}))
    path = f"/ai/app/{app['id']}"
    await world.in_state(app["id"], "RUNNING")
    assert await world.client.project("PUT", f"{path}/label", {"name": "a", "value": "9"}) is None
    await world.client.project("PUT", f"{path}/label", {"name": "b", "value": None})
    labels = (await world.app(app["id"]))["spec"]["labels"]
    assert labels == {"a": "9", "ovh/id": app["id"], "ovh/type": "app"}
    refusal = await world.client.refused("PUT", f"{path}/label", {"name": "ovh/id", "value": "x"})
    assert refusal.status == 400
    found = await world.client.project("GET", "/ai/app?labelSelector=a=9")
    assert [found_app["id"] for found_app in found] == [app["id"]]
    assert await world.client.project("GET", "/ai/app?labelSelector=a=1") == []
    assert len(world.replicas.made) == 1


async def test_a_new_command_rolls_and_an_equal_one_does_not(world: World) -> None:
    app = await world.client.project("POST", "/ai/app", app_spec(command=["vllm"]))
    path = f"/ai/app/{app['id']}"
    await world.in_state(app["id"], "RUNNING")
    await world.client.project("PUT", path, {"command": ["vllm"]})
    await world.client.project("PUT", path, {"command": ["vllm", "--quiet"]})

    async def rolled() -> bool:
        ready = world.cloud.apps.ready_replicas(app["id"])
        assert ready, "an update must not interrupt the service"
        return world.replicas.made[-1] in ready and len(ready) == 1

    await until(rolled, "the new replica alone")
    await world.in_state(app["id"], "RUNNING")
    assert [replica.spec["command"] for replica in world.replicas.made] == [["vllm"], ["vllm", "--quiet"]]


async def test_an_update_can_be_made_to_need_a_restart(make_world: MakeWorld) -> None:
    world = await make_world(update_mode="restart-required")
    app = await world.client.project("POST", "/ai/app", app_spec())
    path = f"/ai/app/{app['id']}"
    await world.in_state(app["id"], "RUNNING")
    answer = await world.client.project("PUT", f"{path}/image", {"url": "vllm/vllm-openai:v0.14.0"})
    assert "v0.14.0" in answer["message"]
    change = {"envVars": [{"name": "A", "value": "1"}], "flavor": "h100-1-gpu", "probe": PROBE}
    updated = await world.client.project("PUT", path, change)
    assert updated["spec"]["resources"]["flavor"] == "h100-1-gpu"
    assert updated["status"]["state"] == "RUNNING"
    await world.client.project("PUT", f"{path}/scalingstrategy", {"fixed": {"replicas": 2}})

    async def two() -> bool:
        return len(world.cloud.apps.ready_replicas(app["id"])) == 2

    await until(two, "two replicas")
    assert {replica.spec["image"] for replica in world.replicas.made} == {"vllm/vllm-openai:v0.13.0"}
    assert {replica.spec["envVars"] for replica in world.replicas.made} == {None}
    await world.client.project("PUT", f"{path}/stop")
    await world.in_state(app["id"], "STOPPED")
    await world.client.project("PUT", f"{path}/start")
    await world.in_state(app["id"], "RUNNING")
    spec: Any = world.replicas.made[-1].spec
    assert spec["image"] == "vllm/vllm-openai:v0.14.0"
    assert (spec["envVars"], spec["probe"]["path"]) == (change["envVars"], PROBE["path"])
    assert world.cloud.resources()[0]["eurPerHour"] == 2 * 3.10


async def test_the_scaler_adds_replicas_under_load_and_removes_them_afterwards(world: World) -> None:
    spec = app_spec(scalingStrategy=automatic(scaleDownStabilizationWindowSeconds=30))
    app = await world.client.project("POST", "/ai/app", spec)
    await world.in_state(app["id"], "RUNNING")
    world.replicas.load(120)

    async def replicas(count: int) -> bool:
        status = (await world.app(app["id"]))["status"]
        return bool(status["availableReplicas"] == count and status["state"] == "RUNNING")

    await until(lambda: replicas(3), "three replicas")
    world.replicas.load(1)
    await until(lambda: replicas(1), "one replica")
    states = [entry["state"] for entry in (await world.app(app["id"]))["status"]["history"]]
    assert states[3:] == ["RUNNING", "SCALING", "RUNNING", "SCALING", "RUNNING"]


async def test_a_metric_that_the_sandbox_cannot_read_is_told_in_the_log(world: World) -> None:
    strategy = automatic()
    strategy["automatic"]["customMetrics"]["apiUrl"] = "http://<SELF>:9000/metrics"
    app = await world.client.project("POST", "/ai/app", app_spec(scalingStrategy=strategy))

    async def told() -> bool:
        log = await world.client.project("GET", f"/ai/app/{app['id']}/log")
        return any("http://<SELF>:9000/metrics" in line["content"] for line in log["logs"])

    await until(told, "the complaint")


async def test_the_log_has_pages_from_the_newest_line(world: World) -> None:
    strategy = {"fixed": {"replicas": 3}}
    app = await world.client.project("POST", "/ai/app", app_spec(scalingStrategy=strategy))
    await world.in_state(app["id"], "RUNNING")
    path = f"/ai/app/{app['id']}/log"
    lines = [line["content"] for line in (await world.client.project("GET", path))["logs"]]
    assert len(lines) == 3
    newest = await world.client.project("GET", f"{path}?size=2")
    assert [line["content"] for line in newest["logs"]] == lines[1:]
    older = await world.client.project("GET", f"{path}?size=2&page=2")
    assert [line["content"] for line in older["logs"]] == lines[:1]
    name = world.replicas.made[0].name
    mine = await world.client.project("GET", f"{path}?replica={name}")
    assert [line["content"] for line in mine["logs"]] == [f"{name} says hello"]


async def test_gpu_minutes_are_billed_per_started_minute_and_replica(world: World) -> None:
    strategy = {"fixed": {"replicas": 2}}
    spec = app_spec(scalingStrategy=strategy, resources={"flavor": "h100-1-gpu", "gpu": 1})
    app = await world.client.project("POST", "/ai/app", spec)
    await world.in_state(app["id"], "RUNNING")
    things = (await world.client.plain("GET", "/sandbox/resources")).body
    assert [(thing["kind"], thing["eurPerHour"]) for thing in things] == [("ai-app", 6.2)]
    await world.client.project("DELETE", f"/ai/app/{app['id']}?force=true")
    await world.gone(f"/ai/app/{app['id']}")
    bill = (await world.client.plain("GET", "/sandbox/bill")).body
    assert [item["unit"] for item in bill["items"]] == ["minute", "minute"]
    assert bill["perHour"] == 0
    expected = sum(item["units"] for item in bill["items"]) * 3.10 / 60
    assert bill["total"] == pytest.approx(expected, abs=1e-3)


async def test_tokens_open_the_apps_that_their_selector_names(world: World) -> None:
    app = await world.client.project("POST", "/ai/app", app_spec(labels={"deploy-identity": "abc"}))
    body = {"name": "reader", "region": "GRA", "role": "ai_training_read"}
    values = {}
    changes: dict[str, dict[str, Any]] = {
        "by label": {"labelSelector": "deploy-identity=abc"},
        "by id": {"labelSelector": f"ovh/id={app['id']}"},
        "all": {"labelSelector": None},
        "other label": {"labelSelector": "deploy-identity=abcd"},
        "other region": {"region": "BHS"},
    }
    for key, change in changes.items():
        values[key] = (await world.client.project("POST", "/ai/token", body | change))["status"]["value"]
    opening = {key for key, value in values.items() if world.cloud.apps.may_call(app["id"], value)}
    assert opening == {"by label", "by id", "all"}
    assert not world.cloud.apps.may_call(app["id"], "made up")
    assert not world.cloud.apps.may_call("no app", values["all"])


async def test_an_unsecure_app_needs_no_token(world: World) -> None:
    app = await world.client.project("POST", "/ai/app", app_spec(unsecureHttp=True))
    assert world.cloud.apps.may_call(app["id"], "")


async def test_a_token_shows_its_value_once_and_loses_it_on_renewal(world: World) -> None:
    app = await world.client.project("POST", "/ai/app", app_spec())
    body = {"name": "reader", "region": "GRA", "role": "ai_training_read"}
    token = await world.client.project("POST", "/ai/token", body)
    value, path = token["status"]["value"], f"/ai/token/{token['id']}"
    assert (await world.client.project("GET", path))["status"] == {"value": None, "version": 1}
    assert [shown["id"] for shown in await world.client.project("GET", "/ai/token")] == [token["id"]]
    renewed = await world.client.project("POST", f"{path}/renew")
    assert renewed["status"]["version"] == 2
    assert not world.cloud.apps.may_call(app["id"], value)
    assert world.cloud.apps.may_call(app["id"], renewed["status"]["value"])
    assert await world.client.project("DELETE", path) is None
    assert not world.cloud.apps.may_call(app["id"], renewed["status"]["value"])
    assert (await world.client.refused("GET", path)).status == 404
    for change in ({"role": "operator"}, {"labelSelector": "a=b,c=d"}, {"region": "GRA11"}):
        assert (await world.client.refused("POST", "/ai/token", body | change)).status == 400


async def test_capabilities_name_regions_flavors_and_quota(world: World) -> None:
    regions = await world.client.project("GET", "/ai/capabilities/region")
    assert "GRA" in [region["id"] for region in regions]
    flavors = await world.client.project("GET", "/ai/capabilities/region/GRA/flavor")
    h100 = next(flavor for flavor in flavors if flavor["id"] == "h100-1-gpu")
    assert (h100["type"], h100["gpuInformation"]["gpuModel"], h100["max"]) == ("gpu", "H100", 4)
    assert (await world.client.project("GET", "/ai/capabilities/quota"))["resources"]["GPU"] == 4
    assert (await world.client.refused("GET", "/ai/capabilities/region/GRA11/flavor")).status == 404
    assert await world.client.project("GET", "/ai/authorization") == {"authorized": True}


async def test_an_unknown_app_is_not_found(world: World) -> None:
    answer = await world.client.call("GET", f"/cloud/project/{PROJECT}/ai/app/none")
    assert (answer.status, answer.body["class"]) == (404, "Client::NotFound::AppNotFound")
