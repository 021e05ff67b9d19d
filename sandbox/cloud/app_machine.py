"""The life of an AI Deploy app as a pure state machine.

An app behaves like a Kubernetes Deployment (rolling update, probes, progress deadline): OVHcloud says so of
none of it, but documents the same fields with the same defaults, so Kubernetes' rules are assumed. Times are
platform seconds of one monotonic clock; `advance` performs what is due and says what the platform has to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from components.ai_deploy.spec import rollout_limits

RETRY_SECONDS = 10.0
"""How often the platform looks again for free GPUs."""


class State(StrEnum):
    """States of an app that the platform shows; STANDBY and ERROR of the API are not entered by rules."""

    QUEUED = "QUEUED"
    INITIALIZING = "INITIALIZING"
    SCALING = "SCALING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    ERROR = "ERROR"
    DELETING = "DELETING"
    DELETED = "DELETED"


ACTIVE = frozenset({State.QUEUED, State.INITIALIZING, State.SCALING, State.RUNNING})
"""States that the panel calls running: the app has replicas or is to get them."""
SERVING = frozenset({State.SCALING, State.RUNNING})
"""States in which replicas may get traffic; they are billed in these and in no other."""
STARTABLE = frozenset({State.STOPPED, State.FAILED, State.ERROR})


@dataclass(frozen=True)
class Probe:
    """A probe of a container; defaults are the API's.

    `timeoutSeconds` has no place here: a replica of the sandbox answers at once or not at all.
    """

    path: str = "/"
    listens: bool = True
    """False: the probe's port is not the one of the app, so nothing answers there."""
    initial_delay: float = 0
    period: float = 10
    failure_threshold: int = 3
    success_threshold: int = 1


@dataclass(frozen=True)
class Template:
    """What containers of one revision of the app are made of."""

    revision: int
    readiness: Probe | None = None
    liveness: Probe | None = None
    pullable: bool = True
    image: str = ""


@dataclass(frozen=True)
class Strategy:
    """`deploymentStrategy` of the app; counts or percentages as the API takes them."""

    surge: str = "25%"
    unavailable: str = "25%"
    progress_deadline: float = 600
    grace: float = 30
    """Time between the end of traffic to a replica and its kill."""

    def limits(self, desired: int) -> tuple[int, int]:
        """(replicas above, replicas below) the desired count during an update; never both zero."""
        return rollout_limits(self.surge, self.unavailable, desired)


@dataclass(frozen=True)
class Waiting:
    """What a probe has seen of a container since it started."""

    due: float
    successes: int = 0
    failures: int = 0


@dataclass(frozen=True)
class Pod:
    """One replica of the app."""

    name: str
    template: Template
    allocated: float
    started: float | None = None
    """When its process was started last; None while the image is pulled."""
    readiness: Waiting | None = None
    liveness: Waiting | None = None
    ready: bool = False
    was_ready: bool = False
    restarts: int = 0
    ends: float | None = None
    """When it is killed; None unless it is on its way out."""

    @property
    def available(self) -> bool:
        """Whether it gets traffic."""
        return self.ready and self.ends is None


@dataclass(frozen=True)
class Machine:
    """An app at one moment."""

    state: State
    entered: float
    desired: int
    template: Template
    strategy: Strategy = Strategy()
    pods: tuple[Pod, ...] = ()
    progressed: float | None = None
    """When the roll-out under way made its last progress; None when there is none."""
    message: str = ""

    @property
    def available(self) -> int:
        """Replicas that get traffic (`availableReplicas`)."""
        return sum(pod.available for pod in self.pods)


class Verb(StrEnum):
    """What the platform does with a replica."""

    ALLOCATE = "allocate"
    START = "start"
    RESTART = "restart"
    RELEASE = "release"


@dataclass(frozen=True)
class Action:
    """`verb` applied to the replica `pod`."""

    verb: Verb
    pod: Pod


@dataclass(frozen=True)
class World:
    """What the machine asks of its surroundings, and the durations it cannot know."""

    probe: Callable[[Pod, str], int]
    """HTTP status of a GET of the path on the replica now; 0 when nothing answers."""
    new_name: Callable[[], str]
    room: int
    """How many more replicas of this app the quota allows."""
    queued: float
    initializing: float
    image_pull: float
    deletion: float


def queue(template: Template, strategy: Strategy, desired: int, now: float) -> Machine:
    """A new app, or one that was started again."""
    return Machine(State.QUEUED, now, desired, template, strategy)


def stop(machine: Machine, now: float) -> Machine:
    """Ends the traffic and gives the replicas their grace period."""
    return replace(_enter(machine, State.STOPPING, now), pods=_end(machine, now, machine.strategy.grace))


def delete(machine: Machine, now: float) -> Machine:
    """Kills what still runs and removes the app."""
    return replace(_enter(machine, State.DELETING, now), pods=_end(machine, now, 0))


def fail(machine: Machine, now: float, message: str, state: State = State.FAILED) -> Machine:
    """Gives the app up: its replicas are killed, `message` says why."""
    ended = replace(_enter(machine, state, now), pods=_end(machine, now, 0))
    return replace(ended, message=message)


def scale(machine: Machine, desired: int) -> Machine:
    """Asks for `desired` replicas."""
    return replace(machine, desired=desired)


def roll_out(machine: Machine, template: Template, now: float) -> Machine:
    """Makes `template` what every replica is to be made of."""
    progressed = now if machine.state in SERVING else machine.progressed
    return replace(machine, template=template, progressed=progressed)


def resume(machine: Machine, now: float) -> Machine:
    """Goes on at `now` after a time in which nothing was advanced; the deadline begins anew."""
    return replace(machine, progressed=None if machine.progressed is None else now)


def advance(machine: Machine, now: float, world: World) -> tuple[Machine, tuple[Action, ...]]:
    """The app after what is due at `now`, and what the platform has to do about it, in order."""
    actions: list[Action] = []
    if machine.state is State.QUEUED and now >= machine.entered + world.queued:
        return _enter(machine, State.INITIALIZING, now), ()
    if machine.state is State.INITIALIZING and now >= machine.entered + world.initializing:
        machine = replace(_enter(machine, State.SCALING, now), progressed=now)
    if machine.state in SERVING:
        before = machine.pods
        machine = _probe_all(machine, now, world, actions)
        machine = _reconcile(machine, now, world, actions)
        machine = _judge(machine, now, world, progress=_has_progressed(before, machine.pods))
    machine = _bury(machine, now, actions)
    if machine.state is State.STOPPING and not machine.pods:
        machine = _enter(machine, State.STOPPED, now)
    elif machine.state is State.DELETING and not machine.pods and now >= machine.entered + world.deletion:
        machine = _enter(machine, State.DELETED, now)
    return machine, tuple(actions)


def next_event(machine: Machine, now: float, world: World) -> float | None:
    """When `advance` has something to do next; None: nothing will happen by itself."""
    times = [pod.ends for pod in machine.pods if pod.ends is not None]
    match machine.state:
        case State.QUEUED:
            times.append(machine.entered + world.queued)
        case State.INITIALIZING:
            times.append(machine.entered + world.initializing)
        case State.DELETING:
            times.append(machine.entered + world.deletion)
        case State.STOPPING if not machine.pods:
            times.append(now)
        case State.SCALING | State.RUNNING:
            for pod in _live(machine):
                pulled = pod.allocated + world.image_pull
                # An image that cannot be pulled, like a deadline that has passed, is no event any more.
                if pod.started is None and (pod.template.pullable or pulled > now):
                    times.append(pulled)
                times += [seen.due for seen in (pod.readiness, pod.liveness) if seen is not None]
            if machine.progressed is not None and now < _deadline(machine, machine.progressed):
                times.append(_deadline(machine, machine.progressed))
            if machine.state is State.SCALING:
                times.append(now + RETRY_SECONDS)
        case _:
            pass
    return min(times, default=None)


def _deadline(machine: Machine, progressed: float) -> float:
    return progressed + machine.strategy.progress_deadline


def _enter(machine: Machine, state: State, now: float) -> Machine:
    return replace(machine, state=state, entered=now, message="", progressed=None)


def _live(machine: Machine) -> list[Pod]:
    return [pod for pod in machine.pods if pod.ends is None]


def _ended(pod: Pod, now: float, grace: float) -> Pod:
    ends = now + grace if pod.started is not None else now
    return replace(pod, ends=ends if pod.ends is None else min(pod.ends, ends))


def _end(machine: Machine, now: float, grace: float) -> tuple[Pod, ...]:
    return tuple(_ended(pod, now, grace) for pod in machine.pods)


def _bury(machine: Machine, now: float, actions: list[Action]) -> Machine:
    over = [pod for pod in machine.pods if pod.ends is not None and pod.ends <= now]
    actions += [Action(Verb.RELEASE, pod) for pod in over]
    return replace(machine, pods=tuple(pod for pod in machine.pods if pod not in over))


def _running(pod: Pod, now: float) -> Pod:
    """The pod with a process started at `now`.

    Kubernetes looks at a container every period, at a phase of its own, once the delay is over: the first
    look falls up to one period after the delay. The whole period is taken here.
    """

    def first(probe: Probe | None) -> Waiting | None:
        return None if probe is None else Waiting(now + probe.initial_delay + probe.period)

    ready = pod.template.readiness is None
    return replace(
        pod,
        started=now,
        readiness=first(pod.template.readiness),
        liveness=first(pod.template.liveness),
        ready=ready,
        was_ready=pod.was_ready or ready,
    )


def _look(pod: Pod, probe: Probe, seen: Waiting, now: float, world: World) -> Waiting:
    healthy = probe.listens and world.probe(pod, probe.path) == 200
    due = seen.due + probe.period if seen.due + probe.period > now else now + probe.period
    return Waiting(due, seen.successes + 1, 0) if healthy else Waiting(due, 0, seen.failures + 1)


def _probe(pod: Pod, now: float, world: World, actions: list[Action]) -> tuple[Pod, str]:
    """The pod after its pull and its probes, and a message for the user ("" for none)."""
    template = pod.template
    if pod.started is None:
        if now < pod.allocated + world.image_pull:
            return pod, ""
        if not template.pullable:
            return pod, (
                f"image {template.image} cannot be pulled: the registry says: pull access denied, repository "
                "does not exist or may require authorization"
            )
        pod = _running(pod, now)
        actions.append(Action(Verb.START, pod))
        return pod, ""
    if template.liveness is not None and pod.liveness is not None and now >= pod.liveness.due:
        pod = replace(pod, liveness=_look(pod, template.liveness, pod.liveness, now, world))
        assert pod.liveness is not None and pod.started is not None
        if pod.liveness.failures >= template.liveness.failure_threshold:
            message = (
                f"replica {pod.name}: liveness probe {template.liveness.path} failed "
                f"{pod.liveness.failures} times, container killed {now - pod.started:.0f} s after its start "
                f"(restart {pod.restarts + 1})"
            )
            pod = replace(_running(pod, now), restarts=pod.restarts + 1)
            actions.append(Action(Verb.RESTART, pod))
            return pod, message
    if template.readiness is not None and pod.readiness is not None and now >= pod.readiness.due:
        seen = _look(pod, template.readiness, pod.readiness, now, world)
        ready = pod.ready
        if seen.successes >= template.readiness.success_threshold:
            ready = True
        elif seen.failures >= template.readiness.failure_threshold:
            ready = False
        pod = replace(pod, readiness=seen, ready=ready, was_ready=pod.was_ready or ready)
    return pod, ""


def _probe_all(machine: Machine, now: float, world: World, actions: list[Action]) -> Machine:
    pods: list[Pod] = []
    message = machine.message
    for pod in machine.pods:
        after, news = (pod, "") if pod.ends is not None else _probe(pod, now, world, actions)
        pods.append(after)
        message = news or message
    return replace(machine, pods=tuple(pods), message=message)


def _reconcile(machine: Machine, now: float, world: World, actions: list[Action]) -> Machine:
    """Creates and ends replicas as a Deployment with RollingUpdate does."""
    live = _live(machine)
    current = [pod for pod in live if pod.template.revision == machine.template.revision]
    old = [pod for pod in live if pod.template.revision != machine.template.revision]
    surge, unavailable = machine.strategy.limits(machine.desired)
    if old:
        surplus = _old_to_end(old, current, machine.desired - unavailable)
        wanted = min(machine.desired - len(current), machine.desired + surge - len(live))
    else:
        # Replicas that do not serve go first, then the youngest.
        by_worth = sorted(current, key=lambda pod: (pod.available, -pod.allocated))
        surplus = by_worth[: max(0, len(current) - machine.desired)]
        wanted = machine.desired - len(current)
    created = [Pod(world.new_name(), machine.template, now) for _ in range(max(0, min(wanted, world.room)))]
    actions += [Action(Verb.ALLOCATE, pod) for pod in created]
    message = machine.message
    if wanted > world.room:
        message = f"{wanted - len(created)} more replica(s) wait for GPU quota"
    pods = [_ended(pod, now, machine.strategy.grace) if pod in surplus else pod for pod in machine.pods]
    return replace(machine, pods=(*pods, *created), message=message)


def _old_to_end(old: list[Pod], current: list[Pod], least: int) -> list[Pod]:
    """Replicas of the previous revision that may go while `least` stay available."""
    available = sum(pod.available for pod in (*old, *current))
    unready = [pod for pod in old if not pod.available]
    starting = sum(not pod.available for pod in current)
    cleanup = unready[: max(0, len(old) + len(current) - least - starting)]
    serving = [pod for pod in old if pod.available]
    return cleanup + serving[: max(0, available - least)]


def _has_progressed(before: tuple[Pod, ...], after: tuple[Pod, ...]) -> bool:
    return {pod.name for pod in before} != {pod.name for pod in after} or sum(
        pod.was_ready for pod in before
    ) != sum(pod.was_ready for pod in after)


def _judge(machine: Machine, now: float, world: World, progress: bool) -> Machine:
    """Whether the app is RUNNING, still SCALING, or has FAILED.

    That a roll-out which makes no progress for `progressDeadlineSeconds` ends in FAILED when no replica
    serves, and goes on with a message when one does, is an assumption.
    """
    settled = (
        machine.available > 0
        and len(machine.pods) == machine.desired
        and all(pod.was_ready and pod.template.revision == machine.template.revision for pod in machine.pods)
    )
    if settled:
        if machine.state is State.RUNNING:
            return machine
        return _enter(machine, State.RUNNING, now)
    if machine.state is State.RUNNING:
        machine = replace(machine, state=State.SCALING, entered=now)
    if machine.available == 0 and any(
        not pod.template.pullable and now >= pod.allocated + world.image_pull for pod in _live(machine)
    ):
        return fail(machine, now, machine.message)
    if machine.progressed is None:
        return machine
    if progress:
        return replace(machine, progressed=now)
    if now < _deadline(machine, machine.progressed):
        return machine
    lack = f"no progress within progressDeadlineSeconds ({machine.strategy.progress_deadline:.0f} s)"
    if machine.available == 0:
        return fail(machine, now, f"{lack}; {machine.message}" if machine.message else lack)
    return replace(machine, message=f"{lack}; replicas of the previous version keep serving")
