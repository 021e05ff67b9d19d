"""Endpoints on the real engine: made, scaled by the platform, changed in place, changed by hand and put back.

All cases live in one fleet, so that each of them costs a share of a few runs of the engine; a fixture is one
chapter of its life and needs the chapter before.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from components.ai_deploy.plan import Call
from sandbox.cloud.apps import Apps
from sandbox.toolchain import Toolchain
from tests.engine.fleet import CANARY, Fleet, fleets
from tests.sandbox_cloud.fakes import FakeReplicas
from tests.waiting import until

Json = dict[str, Any]

HAND = "hf_by_hand"
"""Value of a variable that somebody has set in the control panel."""
IMAGE = "vllm/vllm-openai:v0.13.0"
NEWER = "vllm/vllm-openai:v0.14.0"
NEWEST = "vllm/vllm-openai:v0.15.0"
PACE = 10
"""Seconds of waiting that pass for the providers in one."""
SPEED = 50
"""Platform seconds in one: replicas are probed all the time, forty apps of them cost something."""


def automatic(**changes: Any) -> Json:
    """Scaling on vLLM's own metric, as the API gets it."""
    metric = {
        "apiUrl": "http://<SELF>:8000/metrics",
        "format": "PROMETHEUS",
        "valueLocation": "vllm:num_requests_running",
        "targetValue": 8,
        "aggregationType": "AVERAGE",
    }
    strategy = {
        "replicasMin": 1,
        "replicasMax": 3,
        "cooldownPeriodSeconds": 300,
        "scaleUpStabilizationWindowSeconds": 0,
        "scaleDownStabilizationWindowSeconds": 300,
        "customMetrics": metric | {key: value for key, value in changes.items() if key in metric},
    }
    return {"automatic": strategy | {key: value for key, value in changes.items() if key not in metric}}


def usage(target: int) -> Json:
    """Scaling on CPU usage, as the API gets it."""
    strategy = automatic(resourceType="CPU", averageUsageTarget=target)["automatic"]
    del strategy["customMetrics"]
    return {"automatic": strategy}


def probe(**changes: Any) -> Json:
    """A probe as the API gets it."""
    defaults = {
        "path": "/v1/models",
        "port": 8000,
        "initialDelaySeconds": 0,
        "periodSeconds": 10,
        "timeoutSeconds": 1,
        "failureThreshold": 3,
        "successThreshold": 1,
    }
    return defaults | changes


@dataclass(frozen=True)
class Change:
    """What becomes of one setting of an app, and what that has to cause."""

    before: Json
    """Settings of the app before, beside those of every app of the fleet."""
    after: Json
    path: str
    """Path of the calls that make it, behind that of the app."""
    bodies: tuple[Json, ...]
    """Their bodies; values of variables are hidden."""
    member: str
    """The one member of the live app's spec that gets another value."""
    shown: frozenset[str]
    """What a preview marks as changed, beside the number of starts."""

    @property
    def containers(self) -> bool:
        """Whether it gives the replicas new containers."""
        return self.path == "" and self.member != "deploymentStrategy"


def scaling(before: Json, after: Json, *shown: str) -> Change:
    return Change(
        {"scaling_strategy": before},
        {"scaling_strategy": after},
        "/scalingstrategy",
        (after,),
        "scalingStrategy",
        frozenset({"scaling_strategy", *shown}),
    )


def update(before: Json, after: Json, body: Json, member: str, *shown: str) -> Change:
    return Change(before, after, "", (body,), member, frozenset(shown))


CHANGES = {
    "bounds": scaling(
        automatic(), automatic(replicasMin=2, replicasMax=4), "automatic", "replicasMin", "replicasMax"
    ),
    "target": scaling(automatic(), automatic(targetValue=12.5), "automatic", "customMetrics", "targetValue"),
    "metric": scaling(
        automatic(),
        automatic(valueLocation="vllm:num_requests_waiting"),
        "automatic",
        "customMetrics",
        "valueLocation",
    ),
    "aggregation": scaling(
        automatic(), automatic(aggregationType="MAX"), "automatic", "customMetrics", "aggregationType"
    ),
    "windows": scaling(
        automatic(),
        automatic(scaleUpStabilizationWindowSeconds=60, scaleDownStabilizationWindowSeconds=600),
        "automatic",
        "scaleUpStabilizationWindowSeconds",
        "scaleDownStabilizationWindowSeconds",
    ),
    "usage": scaling(usage(75), usage(60), "automatic", "averageUsageTarget"),
    "replicas": scaling({"fixed": {"replicas": 1}}, {"fixed": {"replicas": 2}}, "fixed", "replicas"),
    "fixed-to-automatic": scaling(
        {"fixed": {"replicas": 1}},
        automatic(),
        "fixed",
        "replicas",
        "automatic",
        "customMetrics",
        *automatic()["automatic"],
        *automatic()["automatic"]["customMetrics"],
    ),
    "automatic-to-fixed": scaling(
        automatic(),
        {"fixed": {"replicas": 1}},
        "fixed",
        "replicas",
        "automatic",
        "customMetrics",
        *automatic()["automatic"],
        *automatic()["automatic"]["customMetrics"],
    ),
    "labels": Change(
        {"labels": {"team": "a", "cost": "x", "old": "z"}},
        {"labels": {"team": "a", "cost": "y", "new": "z"}},
        "/label",
        ({"name": "cost", "value": "y"}, {"name": "new", "value": "z"}, {"name": "old", "value": None}),
        "labels",
        frozenset({"labels", "cost", "new", "old"}),
    ),
    "variables": update(
        {"env": {"HF_HOME": "hf_old", "REMOVED": "hf_removed", "KEPT": "hf_kept"}},
        {"env": {"HF_HOME": "hf_new", "ADDED": "hf_added", "KEPT": "hf_kept"}},
        {
            "envVars": [
                {"name": "ADDED", "value": "***"},
                {"name": "HF_HOME", "value": "***"},
                {"name": "REMOVED", "value": None},
            ]
        },
        "envVars",
        # The engine hides both values of HF_HOME before it compares them: the provider says that it changes.
        "env",
        "ADDED",
        "REMOVED",
    ),
    "image": update({}, {"image": NEWER}, {"url": NEWER}, "image", "image"),
    "command": update(
        {"command": ["serve"]},
        {"command": ["serve", "--verbose"]},
        {"command": ["serve", "--verbose"]},
        "command",
        "command",
    ),
    "command-reset": update({"command": ["serve"]}, {"command": []}, {"command": []}, "command", "command"),
    "port": update(
        {"readiness_probe": None},
        {"readiness_probe": None, "default_http_port": 8001},
        {"defaultHttpPort": 8001},
        "defaultHttpPort",
        "default_http_port",
    ),
    "grpc-port": update(
        {"grpc_port": 9000}, {"grpc_port": 9001}, {"grpcPort": 9001}, "grpcPort", "grpc_port"
    ),
    "readiness-probe": update(
        {},
        {"readiness_probe": probe(periodSeconds=5)},
        {"probe": probe(periodSeconds=5)},
        "probe",
        "readiness_probe",
        "periodSeconds",
    ),
    "liveness-probe": update(
        {"liveness_probe": probe()},
        {"liveness_probe": probe(failureThreshold=120)},
        {"livenessProbe": probe(failureThreshold=120)},
        "livenessProbe",
        "liveness_probe",
        "failureThreshold",
    ),
    "liveness-probe-added": update(
        {},
        {"liveness_probe": probe()},
        {"livenessProbe": probe()},
        "livenessProbe",
        "liveness_probe",
        *probe(),
    ),
    "flavor": update({}, {"flavor": "h100-1-gpu"}, {"flavor": "h100-1-gpu", "gpu": 1}, "resources", "flavor"),
    "gpu": update({}, {"gpu": 2}, {"flavor": "l4-1-gpu", "gpu": 2}, "resources", "gpu"),
    "cpu": update(
        {"flavor": "ai1-1-cpu", "gpu": None, "cpu": 2},
        {"flavor": "ai1-1-cpu", "gpu": None, "cpu": 4},
        {"flavor": "ai1-1-cpu", "cpu": 4},
        "resources",
        "cpu",
    ),
    "deployment-strategy": update(
        {},
        {"deployment_strategy": {"progressDeadlineSeconds": 3600}},
        {
            "deploymentStrategy": {
                "maxSurge": "25%",
                "maxUnavailable": "25%",
                "progressDeadlineSeconds": 3600,
                "terminationGracePeriodSeconds": 30,
            }
        },
        "deploymentStrategy",
        "deployment_strategy",
        "progressDeadlineSeconds",
    ),
}
"""One setting each, by the name of the endpoint that it is changed on."""

SETTINGS: dict[str, Json] = {
    "scaled": {"scaling_strategy": automatic(), "labels": {"team": "a"}},
    "restarted": {"container_updates": "restart"},
    "unseen": {},
    "by-hand-settings": {"scaling_strategy": automatic(), "labels": {"team": "a"}},
    "by-hand-image": {"container_updates": "restart"},
    "by-hand-variable": {},
    "by-hand-deleted": {},
    "by-hand-stopped": {},
    "failed": {},
    "erred": {},
}
"""Endpoints that the chapters after the first one are about."""


@dataclass(frozen=True)
class Done:
    """What came of one update of the whole fleet."""

    state: str
    """What was in state before, secrets encrypted."""
    preview: str
    said: str
    """What the engine said during the update."""
    calls: Mapping[str, list[tuple[str, Any]]]
    """By endpoint: method and path behind that of its app, and body, of the calls that changed it."""
    before: Mapping[str, Json]
    """By endpoint, the spec of its app."""
    after: Mapping[str, Json]


def test_endpoints_are_made_and_then_nothing_is_left_to_do(made: Fleet) -> None:
    made.preview("--expect-no-changes")


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"restarted"}))
def test_what_the_platform_adds_and_moves_is_no_change(changed: Done, name: str) -> None:
    """Resources that follow from the flavor, labels of its own, replicas between the bounds."""
    assert changed.before[name]["resources"]["memory"]
    assert changed.before[name]["labels"]["ovh/cost-center"] == "42"
    assert marked(changed.preview, name) == set()
    assert changed.calls[name] == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_place_is_made_by_the_documented_call(changed: Done, name: str) -> None:
    change = CHANGES[name]
    assert changed.calls[name] == [(f"PUT {change.path}", body) for body in change.bodies]


@pytest.mark.parametrize("name", CHANGES)
def test_nothing_but_what_was_changed_is_another(changed: Done, name: str) -> None:
    before, after = changed.before[name], changed.after[name]
    assert [key for key in before if before[key] != after[key]] == [CHANGES[name].member]


@pytest.mark.parametrize("name", CHANGES)
def test_a_preview_marks_what_changes_and_nothing_else(changed: Done, name: str) -> None:
    change = CHANGES[name]
    assert marked(changed.preview, name) == change.shown | ({"starts"} if change.containers else set())


@pytest.mark.parametrize("name", CHANGES)
def test_the_gate_runs_again_for_new_containers_and_for_nothing_else(changed: Done, name: str) -> None:
    assert bool(re.search(rf"Readiness {name}-ready updated", changed.said)) == CHANGES[name].containers


def test_a_preview_says_which_variables_change(changed: Done) -> None:
    assert "variables: env.ADDED, env.HF_HOME, env.REMOVED changed" in changed.preview


@pytest.mark.parametrize("name", ["image", "restarted"])
def test_a_preview_says_what_happens_to_running_containers(changed: Done, name: str) -> None:
    assert {
        "image": "image: image changed, the platform rolls new containers out while the old ones serve",
        "restarted": "restarted: image changed, so the app is stopped and started: down until then",
    }[name] in changed.preview


def test_no_value_of_a_variable_is_shown(changed: Done) -> None:
    variables = CHANGES["variables"]
    for value in (CANARY, *variables.before["env"].values(), *variables.after["env"].values()):
        assert value not in changed.preview + changed.said


def test_restart_stops_and_starts_the_app(changed: Done) -> None:
    assert changed.calls["restarted"] == [("PUT ", {"url": NEWER}), ("PUT /stop", None), ("PUT /start", None)]


def test_after_changes_in_place_nothing_is_left_to_do(fleet: Fleet, changed: Done) -> None:
    fleet.converged()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "by-hand-settings",
            {"scaling_strategy", "automatic", "customMetrics", "targetValue", "labels", "team", "by"},
        ),
        ("by-hand-image", {"image", "state", "starts"}),
        ("by-hand-variable", {"env", "ADDED", "state", "starts"}),
        ("by-hand-stopped", {"state", "starts"}),
        ("failed", {"state", "starts"}),
        ("erred", {"state", "starts"}),
    ],
)
def test_what_happened_behind_the_back_of_state_is_found_by_a_refresh(
    put_back: Done, name: str, shown: set[str]
) -> None:
    assert marked(put_back.preview, name) == shown


def test_a_refresh_finds_nothing_where_nothing_happened(put_back: Done) -> None:
    assert [name for name in CHANGES if put_back.calls[name] or marked(put_back.preview, name)] == []


def test_a_variable_that_a_refresh_found_stays_hidden(put_back: Done) -> None:
    assert "by-hand-variable: env.ADDED, env.HF_TOKEN changed" in put_back.preview
    assert HAND not in put_back.state + put_back.preview + put_back.said


@pytest.mark.parametrize("name", ["by-hand-settings", "by-hand-image", "by-hand-variable"])
def test_what_was_changed_by_hand_is_put_back(put_back: Done, name: str) -> None:
    assert put_back.after[name] == put_back.before[name]


def test_an_image_that_was_put_back_runs(fleet: Fleet, put_back: Done) -> None:
    assert images(fleet, "by-hand-image") == {IMAGE}


def test_an_app_that_was_deleted_is_made_again(fleet: Fleet, put_back: Done) -> None:
    assert [call for call, _ in put_back.calls["by-hand-deleted"]][-3:] == ["PUT /label"] * 2
    assert fleet.sky.app(app_ids(fleet)["by-hand-deleted"]).state == "RUNNING"


@pytest.mark.parametrize("name", ["by-hand-stopped", "failed", "erred"])
def test_an_app_at_rest_is_started_and_the_gate_waits_for_it(put_back: Done, name: str) -> None:
    assert put_back.calls[name] == [("PUT /start", None)]
    assert f"Readiness {name}-ready updated" in put_back.said


def test_a_token_that_was_deleted_is_made_again(fleet: Fleet, put_back: Done) -> None:
    [token] = fleet.tokens_in_state()["by-hand-settings-token"]
    assert token in fleet.sky.tokens


def test_restart_makes_new_containers_where_the_platform_rolls_none_out(fleet: Fleet, put_back: Done) -> None:
    assert images(fleet, "restarted") == {NEWEST}


def test_who_waits_for_a_rollout_that_does_not_come_is_told_of_the_other_way(
    fleet: Fleet, put_back: Done
) -> None:
    assert re.search(
        r"unseen: the change was accepted, but app \S+ has shown no rollout .* `restart`", put_back.said
    )
    assert images(fleet, "unseen") == {IMAGE}


def test_after_everything_was_put_back_nothing_is_left_to_do(fleet: Fleet, put_back: Done) -> None:
    fleet.converged()


# The chapters


@pytest.fixture(scope="module")
def fleet(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("lifecycle")
    with fleets(toolchain, folder, pace=PACE, checkpoints=False, speed=SPEED) as fleet:
        before = {name: change.before for name, change in CHANGES.items()}
        fleet.endpoints = endpoints(before | SETTINGS)
        yield fleet


@pytest.fixture(scope="module")
def made(fleet: Fleet) -> Fleet:
    fleet.up()
    return fleet


@pytest.fixture(scope="module")
def moved(made: Fleet) -> Fleet:
    """The platform has scaled up whatever it scales on the metric, and labelled apps for itself."""
    replicas(made).load(50)
    for app in platform(made).all():
        app.spec = app.spec.model_copy(update={"labels": {**app.labels, "ovh/cost-center": "42"}})
    scaled = app_ids(made)["scaled"]
    until(lambda: made.sky.app(scaled).status["availableReplicas"] == 3, "the scaler moved the replicas")
    made.refresh()
    return made


@pytest.fixture(scope="module")
def changed(moved: Fleet) -> Done:
    replicas(moved).load(0)
    after = {name: change.after for name, change in CHANGES.items()}
    moved.endpoints = endpoints(after | SETTINGS | {"restarted": {**SETTINGS["restarted"], "image": NEWER}})
    return done(moved)


@pytest.fixture(scope="module")
def put_back(fleet: Fleet, changed: Done) -> Done:
    """What people and the platform did to the apps was found and mended.

    Meanwhile the platform has changed its mind and rolls nothing out any more.
    """
    sky, apps = fleet.sky, app_ids(fleet)
    before = {name: dict(sky.app(id_).spec) for name, id_ in apps.items()}
    by_hand = [
        ("settings", Call("/scalingstrategy", automatic(targetValue=99))),
        ("settings", Call("/label", {"name": "team", "value": "b"})),
        ("settings", Call("/label", {"name": "by", "value": "hand"})),
        ("image", Call("", {"url": "somebody/else:1"})),
        (
            "variable",
            Call("", {"envVars": [{"name": name, "value": HAND} for name in ("HF_TOKEN", "ADDED")]}),
        ),
    ]
    for name, call in by_hand:
        sky.api.change_app(apps[f"by-hand-{name}"], call)
    until(lambda: sky.app(apps["by-hand-image"]).state == "RUNNING", "the image of somebody else runs")
    sky.api.delete_app(apps["by-hand-deleted"], force=True)
    sky.api.stop_app(apps["by-hand-stopped"])
    sky.api.delete_token(fleet.tokens_in_state()["by-hand-settings-token"][0])
    for name, state in (("failed", "FAILED"), ("erred", "ERROR")):
        end = {"name": f"^{name}$", "state": state, "message": "node lost"}
        httpx.post(f"{sky.url.removesuffix('/1.0')}/sandbox/end", json=end).raise_for_status()
    sky.in_state(apps["by-hand-stopped"], "STOPPED")
    until(lambda: apps["by-hand-deleted"] not in sky.apps, "the deleted app is gone")
    cloud = platform(fleet)
    cloud._settings = dataclasses.replace(cloud._settings, update_mode="restart-required")
    fleet.endpoints["restarted"]["image"] = NEWEST
    fleet.endpoints["unseen"]["image"] = NEWEST
    fleet.refresh()
    return dataclasses.replace(done(fleet), before=before)


# How they are told


def endpoints(settings: Mapping[str, Json]) -> dict[str, Json]:
    return {name: {"timeout_seconds": 600, **fields} for name, fields in settings.items()}


def platform(fleet: Fleet) -> Apps:
    """The apps of the emulator, for what no call does."""
    apps = fleet.sky.cloud.apps
    assert isinstance(apps, Apps)
    return apps


def app_ids(fleet: Fleet) -> dict[str, str]:
    """The apps that exist, by name of their endpoint."""
    return {app.name: app.id for app in platform(fleet).all()}


def replicas(fleet: Fleet) -> FakeReplicas:
    factory = platform(fleet)._factory
    assert isinstance(factory, FakeReplicas)
    return factory


def images(fleet: Fleet, name: str) -> set[str]:
    """What the containers of an app run."""
    serving = fleet.sky.cloud.apps.ready_replicas(app_ids(fleet)[name])
    made = {replica.name: replica for replica in replicas(fleet).made}
    return {str(made[replica.name].spec["image"]) for replica in serving}


def done(fleet: Fleet) -> Done:
    """Previews and updates."""
    state = str(fleet.export())
    before = {name: dict(fleet.sky.app(id_).spec) for name, id_ in app_ids(fleet).items()}
    # What the provider says goes to standard error, which only this takes in.
    looking = fleet.start("preview", "--diff")
    assert looking.process.wait() == 0, looking.said
    known = len(recorded(fleet))
    said = fleet.up()
    new = app_ids(fleet)
    calls: dict[str, list[tuple[str, Any]]] = {name: [] for name in fleet.endpoints}
    owner = {id_: name for name, id_ in new.items()}
    for call in recorded(fleet)[known:]:
        _, _, path = call["path"].partition("/ai/app/")
        id_, slash, rest = path.partition("/")
        if call["method"] != "GET" and id_ in owner:
            calls[owner[id_]].append((f"{call['method']} {slash}{rest}", call["body"]))
    after = {name: dict(fleet.sky.app(id_).spec) for name, id_ in new.items()}
    return Done(state, looking.said, said, calls, before, after)


def recorded(fleet: Fleet) -> list[Json]:
    """Every call that the API has got."""
    url = f"{fleet.sky.url.removesuffix('/1.0')}/sandbox/calls"
    calls: list[Json] = httpx.get(url).raise_for_status().json()
    return calls


def marked(preview: str, name: str) -> set[str]:
    """Names of the properties of an app that `preview --diff` marks as added, changed or removed."""
    _, found, rest = preview.partition(f"ai-deploy:App::{name}]\n")
    section = re.split(r"\n    [~+-]", rest, maxsplit=1)[0] if found else ""
    return set(re.findall(r"^\s*[~+-] ([\w-]+)\s*:", section, re.MULTILINE))
