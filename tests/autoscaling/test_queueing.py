"""Fleets without a scaler are queues, and queueing theory knows exactly what queues do.

An engine with one place and answers of one token is a server with a fixed service time (M/D/1); with c places
and geometric answers one with c servers (M/M/c, but for the length of a step).
"""

from __future__ import annotations

import heapq
import math
import random

import pytest

from autoscaling.fleet import run
from tests.autoscaling.fleets import Drawn, engine, fixed, fleet, polled


def wait_of_md1(rate: float, service: float) -> float:
    """Mean wait before service (Pollaczek, Khinchine)."""
    load = rate * service
    return load * service / (2 * (1 - load))


def wait_of_mmc(rate: float, service: float, servers: int) -> float:
    """Mean wait before service (Erlang C)."""
    offered = rate * service
    busy = offered**servers / math.factorial(servers) * servers / (servers - offered)
    waits = busy / (sum(offered**k / math.factorial(k) for k in range(servers)) + busy)
    return waits * service / (servers - offered)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_place_and_one_length_wait_as_long_as_in_md1(load: float) -> None:
    service = 0.1
    found = run(fleet(engine(service, slots=1)), Drawn(load / service, 4_000), seed=3)
    assert found.completed == found.requests > 10_000
    assert found.ttft.mean == pytest.approx(service + wait_of_md1(load / service, service), rel=0.03)


@pytest.mark.parametrize("replicas", [2, 5])
def test_random_balancing_splits_one_queue_into_equal_ones(replicas: int) -> None:
    """Each replica has Poisson arrivals of its own, so more replicas are not one faster server."""
    service, rate = 0.1, 7.0
    found = run(fleet(engine(service, slots=1), fixed(replicas)), Drawn(rate * replicas, 1_500), seed=4)
    assert found.ttft.mean == pytest.approx(service + wait_of_md1(rate, service), rel=0.03)


def test_round_robin_waits_less_than_chance() -> None:
    """Every second arrival is more even than Poisson."""
    traffic, two = Drawn(14.0, 1_000), fixed(2)
    chance = run(fleet(engine(0.1, slots=1), two), traffic, seed=4).ttft.mean
    turns = run(fleet(engine(0.1, slots=1), two, balancing="round-robin"), traffic, seed=4).ttft.mean
    assert chance is not None and turns is not None
    assert turns < 0.8 * chance


STEP, TOKENS = 0.002, 500


def exponential(chance: random.Random) -> int:
    """Tokens of an answer that takes a second on average, in steps of two thousandths."""
    return 1 + int(math.log(1 - chance.random()) / math.log(1 - 1 / TOKENS))


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (4, 0.8), (16, 0.9)])
def test_places_and_exponential_answers_wait_as_long_as_in_mmc(servers: int, load: float) -> None:
    service = STEP * TOKENS
    rate = servers * load / service
    found = run(fleet(engine(STEP, slots=servers)), Drawn(rate, 15_000 / rate, exponential), seed=5)
    assert found.e2e.mean == pytest.approx(service + wait_of_mmc(rate, service, servers), rel=0.05)


@pytest.mark.parametrize("servers", [1, 7])
def test_places_are_servers_to_the_step(servers: int) -> None:
    """Against the queue itself, request by request: so chance has no part in it."""
    traffic = Drawn(0.9 * servers / (STEP * TOKENS), 1_000, exponential)
    found = run(fleet(engine(STEP, slots=servers)), traffic, seed=6)
    free, times = [0.0] * servers, []
    for request in traffic.requests(6):
        ends = max(heapq.heappop(free), request.at) + STEP * request.output_tokens
        heapq.heappush(free, ends)
        times.append(ends - request.at)
    # A request that finds a free place still waits for the end of the step under way.
    assert found.e2e.count == len(times)
    assert found.e2e.mean is not None
    assert -1e-9 <= found.e2e.mean - sum(times) / len(times) <= STEP


def test_mean_number_is_rate_times_mean_time() -> None:
    """Little's law, of what each poll sees and what each request says."""
    found = run(
        fleet(engine(0.01, slots=8), fixed(2), platform=polled(1.0)),
        Drawn(20, 2_000, lambda chance: chance.randint(1, 120)),
        seed=6,
    )
    rows = [row for row in found.timeline if row.time <= 2_000]
    number = sum(row.running + row.waiting for row in rows) / len(rows)
    assert found.e2e.mean is not None
    assert number == pytest.approx(found.requests / 2_000 * found.e2e.mean, rel=0.03)
