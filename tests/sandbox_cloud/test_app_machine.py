"""The life of an app on virtual time: every duration here is exact."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from components.settings import SettingsError
from sandbox.cloud import app_machine
from sandbox.cloud.app_machine import Machine, Pod, Probe, State, Strategy, Template, Verb, World
from tests.components.mocks import settings

HEALTH = Probe("/health", initial_delay=300)
MODELS = Probe("/v1/models", initial_delay=300)
ARTICLE = Template(1, readiness=MODELS, liveness=HEALTH)


@dataclass
class Simulation:
    """Runs a machine from event to event."""

    machine: Machine
    probe: Callable[[Simulation, Pod, str], int]
    quota: int = 4
    now: float = 0
    history: list[tuple[float, State]] = field(default_factory=list)
    done: list[tuple[float, Verb, str]] = field(default_factory=list)
    fewest: int = 1000
    """Fewest replicas that served at any moment since it was set."""
    names: itertools.count[int] = field(default_factory=itertools.count)

    def world(self) -> World:
        return World(
            probe=lambda pod, path: self.probe(self, pod, path),
            new_name=lambda: f"pod-{next(self.names)}",
            room=self.quota - len(self.machine.pods),
            queued=5,
            initializing=10,
            image_pull=60,
            deletion=5,
        )

    def run(self, until: float) -> None:
        while True:
            before = self.machine.state
            self.machine, actions = app_machine.advance(self.machine, self.now, self.world())
            if self.machine.state is not before:
                self.history.append((self.now, self.machine.state))
            self.done += [(self.now, action.verb, action.pod.name) for action in actions]
            self.fewest = min(self.fewest, self.machine.available)
            due = app_machine.next_event(self.machine, self.now, self.world())
            if due is None or due > until:
                self.now = until
                return
            self.now = max(self.now, due)

    def times(self, verb: Verb) -> list[float]:
        return [time for time, done, _ in self.done if done is verb]


def downloads(seconds: float) -> Callable[[Simulation, Pod, str], int]:
    """A server that answers `seconds` after its process started."""

    def probe(simulation: Simulation, pod: Pod, _path: str) -> int:
        assert pod.started is not None
        return 200 if simulation.now >= pod.started + seconds else 0

    return probe


def simulate(
    template: Template,
    probe: Callable[[Simulation, Pod, str], int],
    deadline: float = 600,
    replicas: int = 1,
) -> Simulation:
    """An app that is queued at time 0."""
    strategy = Strategy(progress_deadline=deadline)
    return Simulation(app_machine.queue(template, strategy, replicas, 0), probe)


@pytest.mark.parametrize(
    ("replicas", "count", "quota"),
    [
        (replicas, count, quota)
        # From four replicas on one of them may go first.
        for replicas, count in itertools.product((1, 3, 4), (1, 2))
        for quota in range(replicas * count, replicas * count + 3)
    ],
)
def test_settings_are_refused_when_their_quota_would_hold_up_an_update(
    replicas: int, count: int, quota: int
) -> None:
    """The rule of `gpuQuota` says what happens to an app that has all its replicas when the update comes."""
    simulation = simulate(ARTICLE, downloads(0), replicas=replicas, deadline=10_000)
    simulation.quota = quota // count
    simulation.run(2000)
    assert simulation.machine.available == replicas
    simulation.machine = app_machine.roll_out(simulation.machine, replace(ARTICLE, revision=2), 2000)
    simulation.run(9000)
    done = {pod.template.revision for pod in simulation.machine.pods} == {2}
    changes = {"maxReplicas": replicas, "minReplicas": 1, "gpuCount": count, "gpuQuota": quota}
    given = {key: str(value) for key, value in changes.items()}
    if done:
        settings("prod", **given)
    else:
        with pytest.raises(SettingsError, match="cannot be updated"):
            settings("prod", **given)
        settings("prod", **given, containerUpdates="restart")


def test_states_follow_each_other_with_their_delays() -> None:
    simulation = simulate(ARTICLE, downloads(0))
    simulation.run(1000)
    assert simulation.history == [
        (5, State.INITIALIZING),
        (15, State.SCALING),
        (15 + 60 + 310, State.RUNNING),
    ]


def test_the_bare_probes_kill_a_slow_download_until_the_deadline_fails_the_app() -> None:
    simulation = simulate(ARTICLE, downloads(900))
    simulation.run(10_000)
    assert simulation.times(Verb.RESTART) == [15 + 60 + 330]
    assert simulation.history[-1] == (615.0, State.FAILED)
    assert "progressDeadlineSeconds (600 s)" in simulation.machine.message
    assert "killed 330 s after its start" in simulation.machine.message
    assert len(simulation.machine.pods) == 0


def test_a_longer_deadline_alone_only_makes_the_loop_longer() -> None:
    simulation = simulate(ARTICLE, downloads(900), deadline=3600)
    simulation.run(10_000)
    assert simulation.times(Verb.RESTART) == [75 + 330 * n for n in range(1, 11)]
    assert simulation.history[-1][1] is State.FAILED


def test_patient_probes_let_the_same_download_finish() -> None:
    patient = replace(ARTICLE, liveness=replace(HEALTH, failure_threshold=120))
    simulation = simulate(patient, downloads(900), deadline=3600)
    simulation.run(10_000)
    assert simulation.times(Verb.RESTART) == []
    assert simulation.history[-1] == (75 + 900, State.RUNNING)


def test_a_probe_on_a_port_where_nothing_listens_never_succeeds() -> None:
    simulation = simulate(replace(ARTICLE, readiness=replace(MODELS, listens=False)), downloads(0))
    simulation.run(5000)
    assert simulation.history[-1][1] is State.FAILED


def test_a_dead_replica_is_restarted_and_the_app_is_scaling_meanwhile() -> None:
    def probe(simulation: Simulation, _pod: Pod, _path: str) -> int:
        return 0 if 1000 <= simulation.now < 1100 else 200

    simulation = simulate(ARTICLE, probe)
    simulation.run(1100)
    assert (simulation.machine.state, simulation.machine.available) == (State.SCALING, 0)
    simulation.run(3000)
    assert (simulation.machine.state, simulation.machine.available) == (State.RUNNING, 1)
    assert len(simulation.times(Verb.RESTART)) == 1


def test_a_time_in_which_the_platform_stood_still_does_not_count_for_the_deadline() -> None:
    for resumes, end in ((True, State.RUNNING), (False, State.FAILED)):
        simulation = simulate(ARTICLE, downloads(0))
        simulation.run(20)
        simulation.now = 5000
        if resumes:
            simulation.machine = app_machine.resume(simulation.machine, simulation.now)
        simulation.run(10_000)
        assert simulation.history[-1][1] is end


def test_more_replicas_serve_one_by_one_and_fewer_get_their_grace_period() -> None:
    simulation = simulate(ARTICLE, downloads(0))
    simulation.run(1000)
    simulation.machine = app_machine.scale(simulation.machine, 3)
    simulation.run(1001)
    assert (simulation.machine.state, simulation.machine.available) == (State.SCALING, 1)
    simulation.run(2000)
    assert (simulation.machine.state, simulation.machine.available) == (State.RUNNING, 3)
    simulation.machine = app_machine.scale(simulation.machine, 1)
    simulation.run(2001)
    assert (simulation.machine.state, simulation.machine.available) == (State.SCALING, 1)
    assert simulation.times(Verb.RELEASE) == []
    simulation.run(3000)
    assert simulation.times(Verb.RELEASE) == [2030, 2030]
    assert simulation.machine.state is State.RUNNING


def test_an_update_brings_new_replicas_up_before_old_ones_go() -> None:
    simulation = simulate(ARTICLE, downloads(0), replicas=3)
    simulation.run(1000)
    simulation.fewest = 1000
    simulation.machine = app_machine.roll_out(simulation.machine, replace(ARTICLE, revision=2), 1000)
    simulation.run(1001)
    assert (simulation.machine.state, len(simulation.machine.pods)) == (State.SCALING, 4)
    simulation.run(5000)
    assert simulation.fewest == 3
    assert simulation.machine.state is State.RUNNING
    assert {pod.template.revision for pod in simulation.machine.pods} == {2}


def test_an_update_without_a_free_gpu_waits_and_the_old_replicas_serve() -> None:
    simulation = simulate(ARTICLE, downloads(0), replicas=4)
    simulation.run(1000)
    one_by_one = replace(simulation.machine, strategy=Strategy(unavailable="0"))
    simulation.machine = app_machine.roll_out(one_by_one, replace(ARTICLE, revision=2), 1000)
    simulation.run(1100)
    assert "wait for GPU quota" in simulation.machine.message
    simulation.run(3000)
    assert (simulation.machine.state, simulation.machine.available) == (State.SCALING, 4)
    assert "previous version" in simulation.machine.message


def test_an_update_that_cannot_be_pulled_leaves_the_old_version_serving() -> None:
    simulation = simulate(ARTICLE, downloads(0))
    simulation.run(1000)
    bad = Template(2, readiness=MODELS, pullable=False, image="vllm/vllm-openai:nope")
    simulation.machine = app_machine.roll_out(simulation.machine, bad, 1000)
    simulation.run(1200)
    assert (simulation.machine.state, simulation.machine.available) == (State.SCALING, 1)
    assert "vllm/vllm-openai:nope cannot be pulled" in simulation.machine.message


def test_stop_and_delete_free_every_replica() -> None:
    simulation = simulate(ARTICLE, downloads(0))
    simulation.run(1000)
    simulation.machine = app_machine.stop(simulation.machine, 1000)
    simulation.run(1001)
    assert (simulation.machine.state, simulation.machine.available) == (State.STOPPING, 0)
    simulation.run(2000)
    assert (simulation.machine.state, simulation.machine.pods) == (State.STOPPED, ())
    simulation.machine = app_machine.delete(simulation.machine, 2000)
    simulation.run(3000)
    assert simulation.history[-2:] == [(1030, State.STOPPED), (2005, State.DELETED)]


def test_an_app_deleted_while_it_starts_keeps_nothing() -> None:
    simulation = simulate(ARTICLE, downloads(0), replicas=2)
    simulation.run(50)
    simulation.machine = app_machine.delete(simulation.machine, 50)
    simulation.run(100)
    assert simulation.machine.state is State.DELETED
    assert len(simulation.times(Verb.ALLOCATE)) == len(simulation.times(Verb.RELEASE)) == 2
