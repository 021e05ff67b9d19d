"""Apps that are replaced by the real engine: which one serves when, and that one is left in the end.

All cases live in one fleet; a fixture is one chapter of its life and needs the chapter before.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.cloud.apps import Apps
from sandbox.engine import EngineError
from sandbox.toolchain import Toolchain
from tests.engine.fleet import STACK, Fleet, fleets

APP = "pulumi-python:dynamic/ai-deploy:App"
GOOD = "vllm/vllm-openai:v0.13.0"
BAD = "vllm/vllm-openai:no-such-tag"

REPLACING: dict[str, dict[str, Any]] = {
    "name": {"name": "name-2"},
    "region": {"region": "BHS"},
    "volumes": {"volumes": ["standalone:/hub:rw"]},
    "access-mode": {"unsecure_http": True},
}
"""Settings of which no call changes one, each on the endpoint of its name."""

ON_DEMAND: dict[str, dict[str, Any]] = {
    "confirmed": {},
    "not-ready": {"image": BAD},
    "never-confirmed": {"gate": False},
}
"""Endpoints for `up --replace`."""

PATIENT = {"timeout_seconds": 600}


@dataclass(frozen=True)
class Seen:
    """How things stood after an update."""

    apps: dict[str, list[str]]
    """By endpoint, the apps that state holds."""
    states: dict[str, str]
    """By app that exists."""
    outputs: dict[str, str]
    """By endpoint, the address that callers are told."""
    calls: list[str]
    """What the update has changed, in order."""
    said: str

    def old(self, name: str, before: Seen) -> str:
        """The one app of an endpoint that was there before, and still is in state."""
        [id_] = set(self.apps[name]) & set(before.apps[name])
        return id_

    def new(self, name: str, before: Seen) -> str:
        """The one app of an endpoint that was not there before."""
        [id_] = set(self.apps[name]) - set(before.apps[name])
        return id_


@pytest.mark.parametrize("name", REPLACING)
def test_the_old_app_goes_when_the_new_one_has_passed_the_gate(made: Seen, replaced: Seen, name: str) -> None:
    [old], new = made.apps[name], replaced.new(name, made)
    passed = [place for place, call in enumerate(replaced.calls) if call == f"PUT /app/{new}/label"]
    assert len(passed) == 2, "confirmed, then ready"
    assert max(passed) < replaced.calls.index(f"PUT /app/{old}/stop")
    assert replaced.apps[name] == [new]
    assert replaced.states[new] == "RUNNING"
    assert old not in replaced.states


@pytest.mark.parametrize("name", REPLACING)
def test_callers_are_told_the_new_address_by_the_update_that_replaces(
    fleet: Fleet, made: Seen, replaced: Seen, name: str
) -> None:
    assert replaced.outputs[name] != made.outputs[name]


@pytest.mark.parametrize("name", ON_DEMAND)
def test_replaced_on_demand_one_running_app_is_left(made: Seen, replaced: Seen, name: str) -> None:
    [old], new = made.apps[name], replaced.new(name, made)
    assert replaced.apps[name] == [new]
    assert replaced.states[new] == "RUNNING"
    assert old not in replaced.states


@pytest.mark.parametrize("name", ["bad-image", "taken-back"])
def test_while_the_new_app_is_not_ready_the_old_one_serves_and_is_what_callers_are_told(
    made: Seen, replaced: Seen, failed_again: Seen, failed_at_once: Seen, name: str
) -> None:
    """However often the gate fails, and whether or not the engine goes on after an error."""
    for seen in (replaced, failed_again, failed_at_once):
        old, new = seen.old(name, made), seen.new(name, made)
        assert (seen.states[old], seen.states[new]) == ("RUNNING", "FAILED")
        assert seen.outputs[name] == made.outputs[name]
        assert re.search(
            r"app \S+ is not ready: .* image \S+:no-such-tag cannot be pulled", seen.said, re.DOTALL
        )


def test_the_update_that_mends_the_new_app_goes_on_with_it(made: Seen, replaced: Seen, mended: Seen) -> None:
    new = replaced.new("bad-image", made)
    assert mended.apps["bad-image"] == [new]
    assert mended.states[new] == "RUNNING"
    assert mended.outputs["bad-image"] != made.outputs["bad-image"]


def test_taking_the_failed_replacement_back_leaves_one_app_too(
    made: Seen, replaced: Seen, mended: Seen
) -> None:
    [app] = mended.apps["taken-back"]
    assert app not in replaced.apps["taken-back"]
    assert not mended.states.keys() & set(replaced.apps["taken-back"])


def test_after_all_that_nothing_is_left_to_do(fleet: Fleet, mended: Seen) -> None:
    fleet.converged()


def test_where_quota_forbids_both_the_old_app_can_go_first(mended: Seen, at_quota: Seen) -> None:
    [old], new = mended.apps["old-first"], at_quota.new("old-first", mended)
    gone, made = at_quota.calls.index(f"DELETE /app/{old}"), at_quota.calls.index(f"PUT /app/{new}/label")
    assert gone < made
    assert at_quota.states[new] == "RUNNING"


def test_without_that_setting_quota_refuses_and_the_old_app_serves_on(mended: Seen, at_quota: Seen) -> None:
    assert re.search(r"QuotaExceeded.*Wanted: 1 replica with 2 GPU", at_quota.said, re.DOTALL)
    assert at_quota.apps["at-quota"] == mended.apps["at-quota"]
    assert at_quota.states[at_quota.apps["at-quota"][0]] == "RUNNING"


def test_a_protected_app_is_neither_replaced_nor_destroyed(
    fleet: Fleet, at_quota: Seen, protected: Seen
) -> None:
    assert protected.apps["protected"] == at_quota.apps["protected"]
    assert f"unable to replace resource {urn('protected')!r}".replace("'", '"') in protected.said
    with pytest.raises(EngineError, match="protected"):
        fleet.command("destroy", "--yes")
    assert set(fleet.sky.apps) == set(protected.states), "the preview stops it before anything is gone"


def test_two_documented_steps_replace_a_protected_app(fleet: Fleet, protected: Seen) -> None:
    fleet.command("state", "unprotect", urn("protected"), "--yes")
    fleet.up()
    [app] = fleet.apps_in_state()["protected"]
    assert app not in protected.states
    fleet.converged()


def test_destroyed_in_the_middle_of_a_replacement_nothing_is_left(fleet: Fleet, protected: Seen) -> None:
    """One app is gone by hand already; two are in state for one endpoint."""
    fleet.endpoints["name"] = {**PATIENT, "name": "name-3", "image": BAD}
    with pytest.raises(EngineError, match="is not ready"):
        fleet.up()
    apps = fleet.apps_in_state()
    assert len(apps["name"]) == 2
    fleet.sky.api.delete_app(apps["region"][0], force=True)
    fleet.command("state", "unprotect", urn("protected"), "--yes")
    fleet.destroy()
    assert (fleet.sky.apps, fleet.sky.tokens, fleet.sky.billed) == ([], [], [])
    assert fleet.export()["deployment"].get("resources") is None


# The chapters


@pytest.fixture(scope="module")
def fleet(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder, images = tmp_path_factory.mktemp("replacement"), frozenset({GOOD})
    with fleets(toolchain, folder, pace=5, checkpoints=False, speed=50, pullable_images=images) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def made(fleet: Fleet) -> Seen:
    others: dict[str, dict[str, Any]] = {
        "bad-image": {},
        "taken-back": {},
        "old-first": {"delete_before_replace": True},
        "at-quota": {"gpu": 2},
        "protected": {"protect": True},
    }
    plain: dict[str, dict[str, Any]] = {name: {} for name in REPLACING}
    fleet.endpoints = {name: {**PATIENT, **fields} for name, fields in (plain | ON_DEMAND | others).items()}
    return update(fleet, fails=True)


@pytest.fixture(scope="module")
def replaced(fleet: Fleet, made: Seen) -> Seen:
    for name, fields in REPLACING.items():
        fleet.endpoints[name] |= fields
    for name in ("bad-image", "taken-back"):
        fleet.endpoints[name] |= {"name": f"{name}-2", "image": BAD}
    fleet.endpoints["not-ready"]["image"] = GOOD
    return update(fleet, *(part for name in ON_DEMAND for part in ("--replace", urn(name))), fails=True)


@pytest.fixture(scope="module")
def failed_again(fleet: Fleet, replaced: Seen) -> Seen:
    return update(fleet, fails=True)


@pytest.fixture(scope="module")
def failed_at_once(fleet: Fleet, failed_again: Seen) -> Seen:
    """As who does not tell the engine to go on after an error."""
    return update(fleet, "--continue-on-error=false", fails=True)


@pytest.fixture(scope="module")
def mended(fleet: Fleet, failed_at_once: Seen) -> Seen:
    fleet.endpoints["bad-image"]["image"] = GOOD
    fleet.endpoints["taken-back"] = PATIENT
    return update(fleet)


@pytest.fixture(scope="module")
def at_quota(fleet: Fleet, mended: Seen) -> Seen:
    """Every GPU of the project is in use."""
    apps = fleet.sky.cloud.apps
    assert isinstance(apps, Apps)
    settings = apps._settings
    apps._settings = dataclasses.replace(settings, gpu_quota=apps.gpus_in_use)
    for name in ("old-first", "at-quota"):
        fleet.endpoints[name]["name"] = f"{name}-2"
    try:
        return update(fleet, fails=True)
    finally:
        apps._settings = settings


@pytest.fixture(scope="module")
def protected(fleet: Fleet, at_quota: Seen) -> Seen:
    fleet.endpoints["protected"]["name"] = "protected-2"
    return update(fleet, fails=True)


# How they are told


def urn(name: str) -> str:
    return f"urn:pulumi:{STACK}::ovh-vllm::{APP}::{name}"


def update(fleet: Fleet, *arguments: str, fails: bool = False) -> Seen:
    known = len(fleet.sky.calls())
    try:
        said = fleet.up(*arguments)
    except EngineError as error:
        assert fails, str(error)
        said = str(error)
    else:
        assert not fails, said
    calls = fleet.sky.calls()[known:]
    states = {id_: fleet.sky.app(id_).state for id_ in fleet.sky.apps}
    apps, outputs = state(fleet)
    return Seen(apps, states, outputs, calls, said)


def state(fleet: Fleet) -> tuple[dict[str, list[str]], dict[str, str]]:
    """By endpoint the ids of its apps, and the address that callers are told."""
    apps: dict[str, list[str]] = {}
    outputs: dict[str, str] = {}
    for resource in fleet.export()["deployment"]["resources"]:
        _, _, name = resource["urn"].rpartition("::")
        if resource["type"] == APP:
            apps.setdefault(name, []).append(resource["id"])
        if resource["type"] == "pulumi:pulumi:Stack":
            outputs = resource["outputs"]
    return apps, outputs
