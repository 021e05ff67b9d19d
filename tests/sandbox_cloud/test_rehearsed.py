"""The rehearsal's platform is the emulator's: same times, same order, on one virtual clock."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.fleet import Fleet, run
from autoscaling.outcome import Lifetime
from autoscaling.platform import PlatformTimes, first_ready
from autoscaling.policy import ScalerSettings
from autoscaling.traffic import Request
from components.ai_deploy.spec import Probe
from sandbox.cloud import app_machine
from sandbox.cloud.app_machine import Machine, Pod, Strategy, Template, Verb, World
from tests.autoscaling.fleets import Listed, engine, fleet

PROBES = st.builds(
    Probe,
    port=st.just(8000),
    initial_delay_seconds=st.integers(0, 400),
    period_seconds=st.integers(1, 40),
    success_threshold=st.integers(1, 3),
)
DELAYS = st.floats(0, 500).map(lambda delay: round(delay, 2))


@dataclass
class Emulated:
    """An app of the emulator on a virtual clock; containers listen `cold_start` after their start."""

    platform: PlatformTimes
    cold_start: float
    probe: Probe
    quota: int
    machine: Machine = field(init=False)
    now: float = 0.0
    ready: dict[str, float] = field(default_factory=dict)
    """When each replica got its first traffic."""
    lifetimes: dict[str, Lifetime] = field(default_factory=dict)
    """Of those that are gone."""

    def __post_init__(self) -> None:
        probe = app_machine.Probe(
            initial_delay=self.probe.initial_delay_seconds,
            period=self.probe.period_seconds,
            success_threshold=self.probe.success_threshold,
        )
        self._names = map(str, itertools.count())
        self.machine = app_machine.queue(
            Template(1, readiness=probe), Strategy(grace=self.platform.grace, progress_deadline=1e9), 1, 0.0
        )

    def _world(self) -> World:
        def answers(pod: Pod, path: str) -> int:
            assert pod.started is not None
            return 200 if self.now >= pod.started + self.cold_start else 0

        return World(
            probe=answers,
            new_name=lambda: next(self._names),
            room=self.quota - len(self.machine.pods),
            queued=self.platform.queued,
            initializing=self.platform.initializing,
            image_pull=self.platform.image_pull,
            deletion=0,
        )

    def scale(self, replicas: int) -> None:
        self.machine = app_machine.scale(self.machine, replicas)
        self._advance()

    def _advance(self) -> None:
        self.machine, actions = app_machine.advance(self.machine, self.now, self._world())
        for action in actions:
            if action.verb is Verb.RELEASE:
                self.lifetimes[action.pod.name] = Lifetime(action.pod.allocated, self.now)
        for pod in self.machine.pods:
            if pod.available:
                self.ready.setdefault(pod.name, self.now)

    def until(self, end: float) -> None:
        """Lives on to `end`, the events at that time included."""
        while True:
            due = app_machine.next_event(self.machine, self.now, self._world())
            if due is None or due > end:
                self.now = end
                return
            self.now = due
            self._advance()


@settings(max_examples=60, deadline=None)
@given(PROBES, DELAYS, DELAYS)
def test_a_replica_is_ready_when_the_emulator_says_so(
    probe: Probe, image_pull: float, cold_start: float
) -> None:
    platform = PlatformTimes(image_pull=image_pull)
    app = Emulated(platform, cold_start, probe, quota=1)
    app.until(5000)
    started = platform.queued + platform.initializing + image_pull
    assert app.ready["0"] == pytest.approx(first_ready(started, started + cold_start, probe))


def rehearsed(platform: PlatformTimes, cold_start: float, probe: Probe, window: int) -> Fleet:
    return fleet(
        engine(1.0),
        ScalerSettings(1, 3, 1, scale_down_stabilization_seconds=window),
        cold_start=(("all", cold_start),),
        readiness=probe,
        platform=platform,
    )


@settings(max_examples=25, deadline=None)
@given(PROBES, DELAYS, DELAYS, st.integers(0, 60), st.integers(1, 120).map(lambda polls: 15 * polls))
def test_replicas_come_and_go_as_in_the_emulator(
    probe: Probe, image_pull: float, cold_start: float, grace: int, window: int
) -> None:
    """Three answers of 20 s ask for three replicas at the first poll.

    The window lets them go some time later, while they pull, start, wait for their probe, or serve.
    """
    platform = PlatformTimes(image_pull=image_pull, grace=grace)
    rush = Listed(tuple(Request(0.0, 1, 20) for _ in range(3)), 4000)
    found = run(rehearsed(platform, cold_start, probe, window), rush, after=0)

    app = Emulated(platform, cold_start, probe, quota=3)
    app.until(5000)
    begin = app.now
    app.ready.clear()
    steps = [(up.decided, up.after) for up in found.scale_ups] + [
        (down.time, down.after) for down in found.scale_downs
    ]
    for time, replicas in sorted(steps):
        app.until(begin + time)
        app.scale(replicas)
    app.until(begin + found.seconds)
    gone = [life for name, life in app.lifetimes.items() if name != "0"]
    assert len(gone) == len(found.lifetimes) - 1
    for emulated, life in zip(gone, found.lifetimes[1:], strict=True):
        assert emulated.allocated - begin == pytest.approx(life.allocated)
        assert emulated.released - begin == pytest.approx(life.released)
    served = sorted(time - begin for name, time in app.ready.items() if name != "0")
    expected = [up.ready for up in found.scale_ups if up.ready is not None]
    assert served[:1] == pytest.approx(expected)
