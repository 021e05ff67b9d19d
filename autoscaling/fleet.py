"""A whole app on virtual time: traffic, gateway, replicas, scaler, platform.

Traffic goes to the ready replicas, each an `Engine`. Every polling interval the scaler samples the ready
ones and decides as AI Deploy is taken to do (`autoscaling.policy`). New replicas pull the image, start, load
and wait for their readiness probe; those that go lose their traffic at once and are killed after the grace
period. All this is what the sandbox does on the wall clock (its `app_machine` and its gateway).

An open loop is fast because replicas know nothing of each other: one is advanced only when a request comes
to it or the scaler looks. In a closed loop the next request depends on the last answer, so replicas advance
in turn, none further than another one's next answer.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from autoscaling.distribution import Distribution
from autoscaling.engine import Engine, EngineParameters
from autoscaling.outcome import HURT_SECONDS, Attainment, Lifetime, Outcome, Row, ScaleDown, ScaleUp
from autoscaling.platform import PlatformTimes, first_ready, killed_before_listening
from autoscaling.policy import Sample, ScalerSettings, ScalerState, aggregate, decide, parse_selector
from autoscaling.traffic import OpenLoop, Request, Traffic
from components.ai_deploy.spec import Probe
from dashboards.target import Objectives

Balancing = Literal["random", "round-robin"]
"""How the gateway picks a ready replica for each request; OVHcloud does not say."""

METRICS: dict[str, Callable[[Engine], float]] = {
    "vllm:num_requests_running": lambda engine: engine.running,
    "vllm:num_requests_waiting": lambda engine: engine.waiting,
    "vllm:kv_cache_usage_perc": lambda engine: engine.kv_usage,
}
"""Gauges of vLLM that the scaler can be rehearsed on."""

REFUSED_SECONDS = 0.1
"""How long a worker of a closed loop takes to hear that its request is refused; assumed."""


@dataclass(frozen=True)
class Fleet:
    """An app as it is deployed, and what is assumed about its platform.

    Raises ValueError for a metric that is none of `METRICS`, for a quota below the least number of replicas,
    and when the liveness probe kills each container before it listens.
    """

    parameters: EngineParameters
    cold_start: tuple[tuple[str, float], ...]
    """Phases and seconds between the start of a container and its first answer."""
    readiness: Probe
    scaler: ScalerSettings
    metric: str = "vllm:num_requests_running"
    """Metric selector that the scaler reads; its label matchers are taken to match."""
    platform: PlatformTimes = field(default_factory=PlatformTimes)
    gpus_per_replica: int = 1
    """0 for replicas without GPU: no quota then."""
    gpu_quota: int = 4
    """GPUs of the project, all of them for this app; 4 unless support raises it."""
    balancing: Balancing = "random"
    liveness: Probe | None = None
    longest: float = math.inf
    """Tokens that prompt and answer may have together; vLLM refuses what asks for more (status 400)."""

    def __post_init__(self) -> None:
        name, _ = parse_selector(self.metric)
        if name not in METRICS:
            raise ValueError(f"scalingMetric {self.metric!r}: only {', '.join(METRICS)} can be rehearsed")
        if self.scaler.replicas_min > self.most_replicas:
            raise ValueError(
                f"gpuQuota {self.gpu_quota}: minReplicas {self.scaler.replicas_min} needs "
                f"{self.scaler.replicas_min * self.gpus_per_replica}; take fewer, or ask the support for more"
            )
        if self.liveness is not None and killed_before_listening(self.cold_start_seconds, self.liveness):
            raise ValueError(
                f"livenessProbe: it kills each container before it listens, {self.cold_start_seconds:.0f} s "
                f"after its start; initialDelaySeconds ({self.liveness.initial_delay_seconds}) + "
                f"failureThreshold ({self.liveness.failure_threshold}) x periodSeconds "
                f"({self.liveness.period_seconds}) must be more than that"
            )

    @property
    def cold_start_seconds(self) -> float:
        """All phases of the cold start."""
        return sum(seconds for _, seconds in self.cold_start)

    @property
    def most_replicas(self) -> float:
        """Replicas that the quota allows at once."""
        return self.gpu_quota // self.gpus_per_replica if self.gpus_per_replica else math.inf


def run(
    fleet: Fleet,
    traffic: Traffic,
    *,
    seed: int = 1,
    slo: Objectives | None = None,
    after: float = 600.0,
) -> Outcome:
    """Rehearses `traffic`; the same arguments give the same outcome.

    It begins with the least number of replicas, ready and idle, and goes on until every request has its
    answer, at least for `after` seconds after the traffic.
    """
    simulation = _Simulation(fleet, slo, random.Random(f"{seed} balancing"))  # noqa: S311
    if isinstance(traffic, OpenLoop):
        simulation.open_loop(traffic.requests(seed))
        ends = simulation.drain(traffic.duration)
    else:
        ends = simulation.closed_loop([traffic.requests(seed, worker) for worker in range(traffic.workers)])
    return simulation.finish(ends + after)


class _Sent:
    """A request in a replica."""

    __slots__ = ("at", "first", "output_tokens", "prompt_tokens", "worker")

    def __init__(self, at: float, request: Request, worker: int | None) -> None:
        self.at = at
        self.first = -1.0  # when it had its first token
        self.prompt_tokens = request.prompt_tokens
        self.output_tokens = request.output_tokens
        self.worker = worker


@dataclass(eq=False, slots=True)
class _Replica:
    """One replica from its allocation to its release."""

    engine: Engine
    allocated: float
    started: float
    """When its container starts."""
    listening: float
    due: float
    """When its readiness probe passes."""
    ready: bool = False
    leaves: float | None = None
    """When it is killed; None unless it is on its way out."""
    up: _Up | None = None
    """What asked for it; None for those that were there from the beginning."""
    down: _Down | None = None
    """What ended it."""
    ends: float = math.inf
    """When the step under way ends; infinite while it is idle."""
    gap: float = 0.0
    """Mean seconds of the steps under way."""
    sent: dict[int, _Sent] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Up:
    before: int
    after: int
    crossed: float
    decided: float
    first: _Replica | None = None
    """Of its replicas the one that got traffic first."""


@dataclass(eq=False, slots=True)
class _Down:
    time: float
    before: int
    after: int
    killed: int = 0


class _Simulation:
    def __init__(self, fleet: Fleet, slo: Objectives | None, chance: random.Random) -> None:
        self._fleet = fleet
        self._slo = slo
        self._ttft_bound = slo.time_to_first_token.seconds if slo else math.inf
        self._itl_bound = slo.inter_token_latency.seconds if slo else math.inf
        self._random = chance.random
        self._turn: Iterator[int] | None = itertools.count() if fleet.balancing == "round-robin" else None
        self._read = METRICS[parse_selector(fleet.metric)[0]]
        self._ids = itertools.count()

        self._replicas: list[_Replica] = []
        self._ready: list[_Replica] = []
        self._events: list[tuple[float, int, Callable[[float, _Replica], None], _Replica]] = []
        self._event_ids = itertools.count()
        self._polls = 0
        self._due = fleet.platform.polling_interval  # the next poll or event
        self._state = ScalerState(fleet.scaler.replicas_min)
        self._above_since: float | None = None
        self._before: tuple[float, float] = (0.0, 0.0)  # time and value of the last sample
        self._refused_first: float | None = None  # since the last poll
        self._freed: list[tuple[float, int]] = []  # workers of a closed loop whose request has ended

        self._requests = self._completed = self._refused = self._killed = 0
        self._too_long = self._prompt_tokens = self._output_tokens = self._preemptions = 0
        self._late = self._gaps_late = self._good = 0
        self._last_end = 0.0
        self._ttft, self._itl = Distribution(), Distribution()
        self._tpot, self._e2e = Distribution(), Distribution()
        self._waits: list[float] = []  # for first tokens, since the last poll
        self._counted = (0, 0)  # requests and failures up to the last poll
        self._timeline: list[Row] = []
        self._ups: list[_Up] = []
        self._downs: list[_Down] = []
        self._lifetimes: list[tuple[float, float]] = []

        for _ in range(fleet.scaler.replicas_min):
            replica = _Replica(Engine(fleet.parameters), 0.0, 0.0, 0.0, 0.0)
            self._replicas.append(replica)
            self._make_ready(0.0, replica)

    # Traffic

    def open_loop(self, requests: Iterator[Request]) -> None:
        """Sends each request at its time."""
        for request in requests:
            if request.at >= self._due:
                self._run_events(request.at)
            self._send(request, request.at, None)

    def drain(self, duration: float) -> float:
        """Goes on until every request is answered; when that was, or the end of the traffic if later."""
        while True:
            for replica in self._replicas:
                self._advance(replica, self._due, self._due)
            if not self._in_flight:
                return max(duration, self._last_end)
            self._run_events(self._due)

    def closed_loop(self, sources: list[Iterator[Request]]) -> float:
        """Sends each worker's next request when its last one has ended; when the last one of all had."""
        pending = [(0.0, worker) for worker in range(len(sources))]  # a heap: who sends next, and when
        while True:
            for free in self._freed:
                heapq.heappush(pending, free)
            self._freed.clear()
            replica = min(self._replicas, key=lambda one: one.ends, default=None)
            step_ends = replica.ends if replica is not None else math.inf
            if pending and pending[0][0] <= min(step_ends, self._due):
                at, worker = heapq.heappop(pending)
                request = next(sources[worker], None)
                if request is not None:
                    self._send(request, at, worker)
            elif self._due <= step_ends:
                if not pending and not self._in_flight:
                    return self._last_end
                self._run_events(self._due)
            else:
                assert replica is not None
                others = [one.ends for one in self._replicas if one is not replica]
                horizon = min([self._due, *others, *(at for at, _ in pending[:1])])
                self._advance(replica, step_ends, horizon)

    def finish(self, end: float) -> Outcome:
        """What was found, after everything until `end`."""
        self._run_events(end)
        for replica in self._replicas:
            self._lifetimes.append((replica.allocated, end))
        for wait in self._waits:
            self._count_wait(wait)
        return Outcome(
            seconds=end,
            requests=self._requests,
            completed=self._completed,
            refused=self._refused,
            killed=self._killed,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            preemptions=self._preemptions,
            ttft=self._ttft,
            itl=self._itl,
            tpot=self._tpot,
            e2e=self._e2e,
            attainment=self._attainment(),
            timeline=self._timeline,
            scale_ups=[self._scale_up(up) for up in self._ups],
            scale_downs=[self._scale_down(down) for down in self._downs],
            lifetimes=[Lifetime(*times) for times in sorted(self._lifetimes)],
            gpus_per_replica=self._fleet.gpus_per_replica,
            too_long=self._too_long,
        )

    @property
    def _in_flight(self) -> int:
        return self._requests - self._completed - self._refused - self._killed

    # Requests

    def _send(self, request: Request, at: float, worker: int | None) -> None:
        self._requests += 1
        ready = self._ready
        too_long = request.prompt_tokens + request.output_tokens > self._fleet.longest
        if too_long or not ready:
            self._too_long += too_long
            self._refuse(at, worker)
            return
        if self._turn is None:
            replica = ready[int(self._random() * len(ready))]
        else:
            replica = ready[next(self._turn) % len(ready)]
        if replica.ends <= at:
            self._advance(replica, at, at)
        sequence_id = next(self._ids)
        replica.sent[sequence_id] = _Sent(at, request, worker)
        engine = replica.engine
        engine.add(sequence_id, request.prompt_tokens, request.output_tokens, request.prefix)
        if replica.ends == math.inf:
            self._begin(replica, at, 0.0)

    def _refuse(self, at: float, worker: int | None) -> None:
        self._refused += 1
        self._last_end = max(self._last_end, at)
        if self._refused_first is None:
            self._refused_first = at
        if worker is not None:
            self._freed.append((at + REFUSED_SECONDS, worker))

    def _begin(self, replica: _Replica, now: float, within: float) -> None:
        """Begins the next step of a replica, and those that begin `within` seconds if nothing happens."""
        scheduled = replica.engine.schedule(within)
        if scheduled is None:
            replica.ends = math.inf
            return
        replica.ends = now + scheduled.seconds
        replica.gap = scheduled.seconds / scheduled.steps
        self._preemptions += len(scheduled.preempted)

    def _advance(self, replica: _Replica, now: float, horizon: float) -> None:
        """Ends every step that is over by `now`; steps begun meanwhile may begin up to `horizon`."""
        ends, sent = replica.ends, replica.sent
        while ends <= now:
            done = replica.engine.complete()
            if done.decoded:
                self._itl.add(replica.gap, done.decoded)
                if replica.gap > self._itl_bound:
                    self._gaps_late += done.decoded
            for sequence_id in done.first:
                one = sent[sequence_id]
                one.first = ends
                self._waits.append(ends - one.at)
            for sequence_id in done.finished:
                self._complete(sent.pop(sequence_id), ends)
            # An answer that frees a worker ends the knowledge of what comes next.
            self._begin(replica, ends, 0.0 if self._freed else horizon - ends)
            ends = replica.ends

    def _complete(self, one: _Sent, now: float) -> None:
        self._completed += 1
        self._prompt_tokens += one.prompt_tokens
        self._output_tokens += one.output_tokens
        if now > self._last_end:
            self._last_end = now
        self._e2e.add(now - one.at)
        gap = 0.0
        if one.output_tokens > 1:
            gap = (now - one.first) / (one.output_tokens - 1)
            self._tpot.add(gap)
        if gap <= self._itl_bound and one.first - one.at <= self._ttft_bound:
            self._good += 1
        if one.worker is not None:
            self._freed.append((now, one.worker))

    # Replicas

    def _run_events(self, until: float) -> None:
        """Performs all polls and events up to `until`, in order; events come before a poll at their time."""
        interval = self._fleet.platform.polling_interval
        while self._due <= until:
            if self._events and self._events[0][0] <= (self._polls + 1) * interval:
                time, _, perform, replica = heapq.heappop(self._events)
                perform(time, replica)
            else:
                self._polls += 1
                self._poll(self._polls * interval)
            following = (self._polls + 1) * interval
            self._due = min(following, self._events[0][0]) if self._events else following

    def _at(self, time: float, perform: Callable[[float, _Replica], None], replica: _Replica) -> None:
        heapq.heappush(self._events, (time, next(self._event_ids), perform, replica))

    def _reconcile(self, now: float) -> None:
        """Makes the number of replicas what the scaler asks for, as far as the quota allows."""
        asked = self._state.replicas
        live = [replica for replica in self._replicas if replica.leaves is None]
        # Replicas that do not serve go first, then the youngest.
        by_worth = sorted(live, key=lambda replica: (replica.ready, -replica.allocated))
        for replica in by_worth[: max(0, len(live) - asked)]:
            self._end(replica, now)
        # Those that live through their grace period count against the quota.
        room = self._fleet.most_replicas - len(self._replicas)
        while len(live) < asked and room >= 1:
            live.append(self._allocate(now))
            room -= 1

    def _allocate(self, now: float) -> _Replica:
        started = now + self._fleet.platform.image_pull
        listening = started + self._fleet.cold_start_seconds
        due = first_ready(started, listening, self._fleet.readiness)
        replica = _Replica(Engine(self._fleet.parameters), now, started, listening, due)
        self._replicas.append(replica)
        if self._ups:
            replica.up = self._ups[-1]
        self._at(due, self._make_ready, replica)
        return replica

    def _make_ready(self, now: float, replica: _Replica) -> None:
        if replica.leaves is not None:
            return
        replica.ready = True
        self._ready.append(replica)
        if replica.up is not None and replica.up.first is None:
            replica.up.first = replica

    def _end(self, replica: _Replica, now: float) -> None:
        """Takes the traffic off a replica; it is killed after the grace period, at once if it pulls."""
        if replica.ready:
            replica.ready = False
            self._ready.remove(replica)
        replica.down = self._downs[-1]
        replica.leaves = now + self._fleet.platform.grace if now >= replica.started else now
        self._at(replica.leaves, self._kill, replica)

    def _kill(self, now: float, replica: _Replica) -> None:
        self._advance(replica, now, now)
        assert replica.down is not None
        for one in replica.sent.values():
            replica.down.killed += 1
            self._killed += 1
            self._last_end = max(self._last_end, now)
            if one.worker is not None:
                self._freed.append((now, one.worker))
        self._replicas.remove(replica)
        self._lifetimes.append((replica.allocated, now))
        self._reconcile(now)  # its GPUs may be what another one waits for

    # The scaler

    def _poll(self, now: float) -> None:
        for replica in self._replicas:
            self._advance(replica, now, now)
        engines = [replica.engine for replica in self._ready]
        values = tuple(self._read(engine) for engine in engines)
        asked = self._state.replicas
        if asked == 0:
            # How AI Deploy wakes an app is not documented: requests that found nobody do it here.
            values = (self._requests - self._counted[0],)
        metric = aggregate(values, self._fleet.scaler.aggregation)
        crossed = self._crossed(now, metric, asked)
        after, self._state = decide(self._state, Sample(now, values), self._fleet.scaler)
        if after > asked:
            self._ups.append(_Up(asked, after, crossed, now))
        elif after < asked:
            self._downs.append(_Down(now, asked, after))
        if after != asked:
            self._reconcile(now)
        self._record(now, engines, metric)

    def _crossed(self, now: float, metric: float | None, asked: int) -> float:
        """Since when the metric has been above the target's tolerance; `now` if it is not."""
        settings = self._fleet.scaler
        if asked == 0:
            return now if self._refused_first is None else self._refused_first
        limit = settings.target_value * (1 + settings.tolerance)
        if settings.target_type == "AverageValue":
            limit *= asked
        if metric is None:
            return now if self._above_since is None else self._above_since
        if metric <= limit:
            self._above_since = None
        elif self._above_since is None:
            time, value = self._before
            share = (limit - value) / (metric - value) if value < limit else 1.0
            self._above_since = time + share * (now - time)
        self._before = (now, metric)
        return now if self._above_since is None else self._above_since

    def _record(self, now: float, engines: list[Engine], metric: float | None) -> None:
        self._waits.sort()
        late = 0
        for wait in self._waits:
            late += self._count_wait(wait)
        p95 = self._waits[math.ceil(0.95 * len(self._waits)) - 1] if self._waits else None
        failed = self._refused + self._killed
        leaving = sum(replica.leaves is not None for replica in self._replicas)
        self._timeline.append(
            Row(
                time=now,
                ready=len(self._ready),
                starting=len(self._replicas) - len(self._ready) - leaving,
                leaving=leaving,
                asked=self._state.replicas,
                running=sum(engine.running for engine in engines),
                waiting=sum(engine.waiting for engine in engines),
                kv_usage=max((engine.kv_usage for engine in engines), default=0.0),
                metric=metric,
                requests=self._requests - self._counted[0],
                failed=failed - self._counted[1],
                first_tokens=len(self._waits),
                late=late,
                ttft_p95=p95,
            )
        )
        self._waits = []
        self._counted = (self._requests, failed)
        self._refused_first = None

    def _count_wait(self, wait: float) -> bool:
        """Counts a first token; whether it was late."""
        self._ttft.add(wait)
        late = wait > self._ttft_bound
        self._late += late
        return late

    # What was found

    def _attainment(self) -> Attainment | None:
        if self._slo is None:
            return None

        def share(bad: int, of: int) -> float:
            return 1 - bad / of if of else 1.0

        return Attainment(
            time_to_first_token=share(self._late, self._ttft.count),
            inter_token_latency=share(self._gaps_late, self._itl.count),
            success=share(self._refused + self._killed, self._requests),
            requests=share(self._requests - self._good, self._requests),
        )

    def _scale_up(self, up: _Up) -> ScaleUp:
        first = up.first
        if first is None:
            return ScaleUp(up.before, up.after, up.crossed, up.decided, None, ())
        parts = (
            ("decision", up.decided - up.crossed),
            ("quota", first.allocated - up.decided),
            ("image pull", first.started - first.allocated),
            *self._fleet.cold_start,
            ("readiness probe", first.due - first.listening),
        )
        return ScaleUp(up.before, up.after, up.crossed, up.decided, first.due, parts)

    def _scale_down(self, down: _Down) -> ScaleDown:
        until = down.time + HURT_SECONDS
        ups = [up.decided - down.time for up in self._ups if down.time < up.decided <= until]
        missed = False
        if self._slo is not None:
            rows = [row for row in self._timeline if down.time < row.time <= until]
            first_tokens, late = sum(row.first_tokens for row in rows), sum(row.late for row in rows)
            missed = late > (1 - self._slo.time_to_first_token.ratio) * first_tokens
        return ScaleDown(down.time, down.before, down.after, down.killed, min(ups, default=None), missed)
