"""Whatever is killed in the middle: the way back leads to one app per endpoint, known to state, nothing lost.

Calls wait at a barrier before the cloud gets them, so that engine or provider die at a known place.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.toolchain import Toolchain
from tests.engine.fleet import Fleet, Run, fleets
from tests.waiting import until

NEW_IMAGE = {"image": "vllm/vllm-openai:v0.14.0"}
NEVER_LISTED = {"model": "somebody/else"}
UP = ("up", "--yes", "--skip-preview", "--continue-on-error")


@pytest.fixture
def fleet(toolchain: Toolchain, tmp_path: Path) -> Iterator[Fleet]:
    with fleets(toolchain, tmp_path) as fleet:
        yield fleet


def held(fleet: Fleet, run: Run, count: int) -> None:
    """Waits until so many calls are under way."""

    def arrived() -> bool:
        assert run.process.poll() is None, run.said
        return len(fleet.sky.barrier.waiting) == count

    until(arrived, f"{count} calls under way")


def let_through(fleet: Fleet) -> None:
    """Calls that were under way reach the cloud after all; providers whose engine is gone get the answers."""
    fleet.sky.run(fleet.sky.barrier.open())


def named(fleet: Fleet, name: str) -> set[str]:
    """Ids of the apps of that name that the cloud has and is not deleting."""
    return fleet.sky.in_states("QUEUED", "INITIALIZING", "SCALING", "RUNNING", name=name)


def test_an_engine_killed_while_it_creates_and_changes_is_recovered(fleet: Fleet) -> None:
    fleet.endpoints = {"changed": {}, "gated": {}}
    fleet.up()
    before = fleet.apps_in_state()
    fleet.endpoints = {
        "unanswered": {},
        "lost": {},
        "changed": NEW_IMAGE,
        "gated": NEW_IMAGE | NEVER_LISTED,
    }
    (changed,) = before["changed"]
    # `lost` has been made, its answer is lost, and nobody but it looks for an app by its nonce meanwhile.
    fleet.sky.fault("POST", r"/ai/app$", about="^lost$", lost_answer=True)
    fleet.sky.barrier.close(
        rf'POST \S+/ai/app .*"name":"unanswered"|PUT \S+/app/{changed} |GET \S+=deploy-nonce'
    )
    run = fleet.start(*UP)
    held(fleet, run, 3)
    until(lambda: "gated-ready: " in run.said, "the gate is at work")
    run.kill()
    assert {"unanswered", "lost", "changed", "gated-ready"} <= set(fleet.pending())
    assert not fleet.apps_in_state().keys() & {"unanswered", "lost"}

    let_through(fleet)
    until(lambda: named(fleet, "unanswered") and named(fleet, "lost"), "apps that no state knows")
    fleet.endpoints["gated"] = NEW_IMAGE
    fleet.recover()
    fleet.converged()
    after = fleet.apps_in_state()
    assert [after["changed"], after["gated"]] == [before["changed"], before["gated"]]
    image = next(app.spec["image"] for app in fleet.sky.api.all_apps() if app.id == changed)
    assert image == NEW_IMAGE["image"]


def test_an_engine_killed_while_it_deletes_is_recovered(fleet: Fleet) -> None:
    fleet.endpoints = {"stays": {}, "stopped": {}, "deleted": {}}
    fleet.up()
    stopped, deleted = (fleet.apps_in_state()[name][0] for name in ("stopped", "deleted"))
    fleet.endpoints = {"stays": {}}
    fleet.sky.barrier.close(rf"PUT \S+/app/{stopped}/stop|DELETE \S+/app/{deleted}")
    run = fleet.start(*UP)
    held(fleet, run, 2)
    run.kill()
    let_through(fleet)
    until(lambda: deleted not in fleet.sky.apps, "what was under way")
    fleet.recover()
    fleet.converged()


def begin_to_create(fleet: Fleet) -> Run:
    """An engine that waits for the answers to the creation of an app and of a token of another endpoint."""
    fleet.endpoints = {"app": {}, "token": {}}
    fleet.sky.barrier.close(r'POST \S+/ai/app .*"name":"app"|POST \S+/ai/token .*"name":"token-token-')
    run = fleet.start(*UP)
    held(fleet, run, 2)
    return run


def orphan(fleet: Fleet) -> None:
    """Lets the app and the token come into being of which no state knows."""
    let_through(fleet)
    until(lambda: named(fleet, "app") and len(fleet.sky.tokens) == 2, "an app and a token")
    assert not fleet.apps_in_state()
    assert fleet.tokens_in_state().keys() == {"app-token"}


def test_destroy_right_after_a_killed_creation_leaves_nothing(fleet: Fleet) -> None:
    run = begin_to_create(fleet)
    run.kill()
    orphan(fleet)
    fleet.cancel()
    fleet.destroy()
    assert (fleet.sky.apps, fleet.sky.tokens, fleet.sky.billed) == ([], [], [])


def test_a_killed_provider_is_made_good_by_the_next_update(fleet: Fleet) -> None:
    run = begin_to_create(fleet)
    (provider,) = [process for process in fleet.running() if "pulumi.dynamic" in process.command]
    os.kill(provider.id, signal.SIGKILL)
    assert run.process.wait(60) != 0
    orphan(fleet)
    fleet.up()
    fleet.converged()


def test_one_interrupt_lets_the_gate_end_by_its_deadline(fleet: Fleet) -> None:
    fleet.endpoints = {"gated": {**NEVER_LISTED, "timeout_seconds": 4}}
    run = fleet.start(*UP)
    until(lambda: "gives up in 4 s" in run.said, "a line of progress that names the time left")
    run.interrupt()
    assert run.process.wait(60) != 0
    assert "is not ready: gave up after 4 s" in run.said
    assert fleet.pending() == []
    fleet.endpoints = {"gated": {}}
    kept = fleet.apps_in_state()
    fleet.up()
    fleet.converged()
    assert fleet.apps_in_state() == kept


def test_a_second_interrupt_is_recovered_like_a_kill(fleet: Fleet) -> None:
    run = begin_to_create(fleet)
    run.interrupt()
    until(lambda: "^C received; cancelling" in run.said, "the engine has taken the first interrupt")
    run.interrupt()
    assert run.process.wait(60) != 0
    orphan(fleet)
    fleet.recover()
    fleet.converged()
