"""Apps that people made by hand, taken over by their id by the real engine.

All cases live in one fleet; a fixture is one chapter of its life and needs the chapter before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.engine import EngineError
from sandbox.toolchain import Toolchain
from tests.engine.fleet import CANARY, STACK, Fleet, fleets

IMAGE = "vllm/vllm-openai:v0.13.0"
OTHER = "hf_token_of_somebody_else"

TAKEN_OVER: dict[str, dict[str, Any]] = {
    "agreeing": {},
    "replaced-later": {},
    "replaced-at-once": {"gate": False},
    "not-ready": {"model": "somebody/elses-model", "timeout_seconds": 30},
    "forgotten": {"gate": False},
}
"""Endpoints, each of which takes over an app of its name."""


@dataclass(frozen=True)
class Seen:
    """How things stood after an update."""

    by_hand: dict[str, str]
    """By endpoint, the id of the app that somebody had made."""
    apps: dict[str, list[str]]
    """By endpoint, the apps that state holds."""
    calls: list[str]
    """All that has been changed in the cloud so far."""
    said: str

    def changes(self, name: str) -> list[str]:
        """Calls that have changed the app that somebody had made."""
        return [call for call in self.calls if f"/app/{self.by_hand[name]}" in call]


def test_an_app_that_agrees_is_taken_over_by_labels_alone(fleet: Fleet, taken_over: Seen) -> None:
    id_ = taken_over.by_hand["agreeing"]
    assert taken_over.apps["agreeing"] == [id_]
    assert set(taken_over.changes("agreeing")) == {f"PUT /app/{id_}/label"}
    names = [body["name"] for body in fleet.sky.bodies("PUT", f"/app/{id_}/label")]
    # Confirmed before it is ours: the other way round it would be a leftover of a crash in between.
    assert names[:2] == ["deploy-nonce", "deploy-confirmed"]
    assert sorted(names[2:]) == ["deploy-identity", "deploy-ready", "deploy-resource"]


def test_a_preview_names_each_setting_that_disagrees(disagreeing: Seen) -> None:
    id_ = disagreeing.by_hand["disagreeing"]
    for line in (
        'image: "vllm/vllm-openai:v0.12.0" → "vllm/vllm-openai:v0.13.0"',
        "env.HF_TOKEN: (hidden) → (hidden)",
        'readiness_probe.path: "/health" → "/v1/models"',
        'labels.team: "a" → (none)',
    ):
        assert f"app {id_}: {line}" in disagreeing.said
    assert disagreeing.said.count(f"app {id_}: ") % 4 == 0, "and nothing else"
    assert CANARY not in disagreeing.said
    assert OTHER not in disagreeing.said


def test_an_update_takes_over_no_app_that_disagrees(disagreeing: Seen) -> None:
    assert disagreeing.changes("disagreeing") == []
    assert disagreeing.apps == {}


def test_an_app_whose_gate_fails_after_the_take_over_is_kept_and_goes_on(
    taken_over: Seen, gone_on: Seen
) -> None:
    id_ = taken_over.by_hand["not-ready"]
    assert f"app {id_} is not ready" in taken_over.said
    assert taken_over.apps["not-ready"] == gone_on.apps["not-ready"] == [id_]
    assert set(gone_on.changes("not-ready")) == {f"PUT /app/{id_}/label"}


def test_an_app_whose_take_over_was_lost_is_taken_over_again(gone_on: Seen) -> None:
    """A crash between the label and state."""
    id_ = gone_on.by_hand["forgotten"]
    assert gone_on.apps["forgotten"] == [id_]
    assert gone_on.changes("forgotten") == [f"PUT /app/{id_}/label"] * 2


def test_replaced_on_demand_an_app_that_was_taken_over_leaves_one_new_one(gone_on: Seen) -> None:
    [app] = gone_on.apps["replaced-later"]
    assert app != gone_on.by_hand["replaced-later"]


def test_replaced_on_demand_before_the_gate_the_same_app_is_taken_over_anew(gone_on: Seen) -> None:
    assert gone_on.apps["replaced-at-once"] == [gone_on.by_hand["replaced-at-once"]]


def test_afterwards_nothing_is_left_to_do_with_the_id_in_the_program_or_without(
    fleet: Fleet, gone_on: Seen
) -> None:
    del fleet.endpoints["agreeing"]["adopt"]
    fleet.converged()


def test_destroy_deletes_what_was_taken_over(fleet: Fleet, gone_on: Seen) -> None:
    fleet.destroy()
    assert (fleet.sky.apps, fleet.sky.tokens, fleet.sky.billed) == ([], [], [])


# The chapters


@pytest.fixture(scope="module")
def fleet(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleets(toolchain, tmp_path_factory.mktemp("adoption"), pace=10, speed=50) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def disagreeing(fleet: Fleet) -> Seen:
    probe = {"path": "/health", "port": 8000}
    id_ = by_hand(
        fleet,
        "disagreeing",
        image="vllm/vllm-openai:v0.12.0",
        envVars=[{"name": "HF_TOKEN", "value": OTHER}],
        probe=probe,
        labels={"team": "a"},
    )
    fleet.endpoints = {"disagreeing": {"adopt": id_}}
    with pytest.raises(EngineError) as caught:
        fleet.preview()
    with pytest.raises(EngineError, match=f"app {id_}: image"):
        fleet.up()
    fleet.endpoints = {}
    return Seen({"disagreeing": id_}, fleet.apps_in_state(), fleet.sky.calls(), str(caught.value))


@pytest.fixture(scope="module")
def taken_over(fleet: Fleet, disagreeing: Seen) -> Seen:
    fleet.sky.api.delete_app(disagreeing.by_hand["disagreeing"], force=True)
    ids = {name: by_hand(fleet, name) for name in TAKEN_OVER}
    fleet.endpoints = {
        name: {"timeout_seconds": 600, "adopt": ids[name], **fields} for name, fields in TAKEN_OVER.items()
    }
    with pytest.raises(EngineError) as caught:
        fleet.up()
    return Seen(ids, fleet.apps_in_state(), fleet.sky.calls(), str(caught.value))


@pytest.fixture(scope="module")
def gone_on(fleet: Fleet, taken_over: Seen) -> Seen:
    del fleet.endpoints["not-ready"]["model"]
    fleet.endpoints["not-ready"]["timeout_seconds"] = 600
    fleet.command("state", "delete", urn("forgotten"), "--yes")
    said = fleet.up("--replace", urn("replaced-later"), "--replace", urn("replaced-at-once"))
    return Seen(taken_over.by_hand, fleet.apps_in_state(), fleet.sky.calls(), said)


# How they are told


def urn(name: str) -> str:
    return f"urn:pulumi:{STACK}::ovh-vllm::pulumi-python:dynamic/ai-deploy:App::{name}"


def by_hand(fleet: Fleet, name: str, **fields: Any) -> str:
    """An app as somebody makes it in the control panel, who leaves most to the platform."""
    body = {
        "name": name,
        "region": "GRA",
        "image": IMAGE,
        "resources": {"flavor": "l4-1-gpu", "gpu": 1},
        "defaultHttpPort": 8000,
        "envVars": [{"name": "HF_TOKEN", "value": CANARY}],
        "probe": {"path": "/v1/models", "port": 8000},
        **fields,
    }
    app = fleet.sky.api.create_app(body)
    fleet.sky.in_state(app.id, "RUNNING")
    return app.id
