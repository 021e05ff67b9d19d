"""A container needs its time to come up, tells it in its log, and starts from nothing after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from autoscaling.cold_start import ColdStart
from sandbox.clock import Clock
from sandbox.inference.replica import ReplicaSettings, VllmReplica, VllmReplicas
from sandbox.interfaces import JsonObject
from tests.sandbox_inference.support import AT_ONCE, TINY_SPEC, wait_until

MakeReplica = Callable[..., tuple[VllmReplica, list[str]]]


@pytest.fixture
async def make() -> AsyncIterator[MakeReplica]:
    """Makes replicas that are stopped in the end; each comes with its log."""
    made: list[VllmReplica] = []

    def make_replica(
        spec: JsonObject, cold_start: ColdStart = AT_ONCE, clock: Clock | None = None
    ) -> tuple[VllmReplica, list[str]]:
        log: list[str] = []
        factory = VllmReplicas(clock or Clock(), ReplicaSettings(cold_start=cold_start))
        made.append(factory("replica-0", spec, log.append))
        return made[-1], log

    yield make_replica
    for replica in made:
        await replica.stop()


class SteppedClock(Clock):
    """A clock whose sleepers wait until they are told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeping: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self.sleeping.append((seconds, event))
        await event.wait()

    async def wake(self) -> float:
        """Ends the one sleep that is under way; returns how long it was."""
        await wait_until(lambda: bool(self.sleeping))
        seconds, event = self.sleeping.pop()
        event.set()
        return seconds


async def test_the_article_s_model_takes_its_time_and_nothing_listens_before_the_end(
    make: MakeReplica,
) -> None:
    clock = SteppedClock()
    model = "mistralai/Ministral-3-14B-Instruct-2512"
    spec: JsonObject = {**TINY_SPEC, "command": ["vllm", "serve", model]}
    replica, log = make(spec, ColdStart(), clock)
    assert replica.probe("/health") == 0
    replica.start()
    for phase in (20, pytest.approx(13.9e9 / 70e6), pytest.approx(13.9 / 1.5), 40):
        assert replica.probe("/health") == 0
        with pytest.raises(ConnectionRefusedError, match="replica-0"):
            replica.metrics()
        assert await clock.wake() == phase
    await wait_until(lambda: replica.probe("/health") == 200)
    text = "\n".join(log)
    for line in (
        "INFO",
        "vLLM API server version 0.13.0",
        f"non-default args: {{'model': '{model}'}}",
        "Using max model len 262144",
        "Loading weights: 13.9 GB",
        f"Time spent downloading weights for {model}: 198.571429 seconds",
        "Loading weights took 9.27 seconds",
        "GPU KV cache size: ",
        "Application startup complete.",
    ):
        assert line in text


async def test_a_restarted_container_downloads_again_and_has_lost_its_counters(make: MakeReplica) -> None:
    replica, log = make(TINY_SPEC)
    for _ in range(2):
        replica.start()
        await wait_until(lambda: replica.probe("/health") == 200)
        assert "http_requests_total{" not in replica.metrics()
        assert replica.probe("/v1/models") == 200
        await replica.stop()
        assert replica.probe("/health") == 0
    assert len([line for line in log if "downloading weights" in line]) == 2


async def test_a_running_container_cannot_be_started_twice(make: MakeReplica) -> None:
    replica, _ = make(TINY_SPEC)
    replica.start()
    with pytest.raises(RuntimeError, match="runs already"):
        replica.start()


async def test_stopping_ends_a_cold_start_and_is_harmless_twice(make: MakeReplica) -> None:
    replica, log = make(TINY_SPEC, replace(AT_ONCE, warmup_seconds=1e6))
    replica.start()
    await wait_until(lambda: any("Loading weights took" in line for line in log))
    await replica.stop()
    await replica.stop()
    assert replica.probe("/health") == 0


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"command": None}, "no model was given (--model)"),
        (
            {"command": ["vllm", "serve", "m-70B"], "resources": {"flavor": "l4-1-gpu"}},
            "CUDA out of memory: 140 GB of weights do not fit into 1 x L4 (22 GiB)",
        ),
        (
            {
                "command": ["vllm", "serve", "m-7B", "--max-model-len", "64k"],
                "resources": {"flavor": "l4-1-gpu"},
            },
            "ValueError: To serve at least one request with the models's max seq len (64000), 9.77 GiB",
        ),
    ],
)
async def test_a_process_that_cannot_start_says_why_and_never_listens(
    make: MakeReplica, changes: JsonObject, line: str
) -> None:
    replica, log = make({**TINY_SPEC, **changes})
    replica.start()
    await wait_until(lambda: any(line in entry for entry in log))
    assert replica.probe("/health") == 0
    replica.start()  # the process has ended: the platform may start it again


async def test_a_server_on_another_port_than_the_app_s_is_not_reached(make: MakeReplica) -> None:
    replica, log = make({**TINY_SPEC, "defaultHttpPort": 8080})
    replica.start()
    await wait_until(lambda: any("startup complete" in entry for entry in log))
    assert replica.probe("/health") == 0
    assert any("http://0.0.0.0:8000" in entry for entry in log)  # where to look for the mistake


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health", 200), ("/v1/models", 200), ("/metrics", 200), ("/v1/completions", 405), ("/", 404)],
)
async def test_a_probe_gets_the_status_of_the_path(make: MakeReplica, path: str, status: int) -> None:
    replica, _ = make(TINY_SPEC)
    replica.start()
    await wait_until(lambda: replica.probe("/health") == 200)
    assert replica.probe(path) == status


async def test_a_mistake_of_ours_is_logged_without_what_it_was_about(
    make: MakeReplica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = f"hf_{'x' * 8}"  # the lines of a trace show the code as it is written

    def fail(*_: object) -> None:
        raise RuntimeError(secret)

    monkeypatch.setattr("sandbox.inference.replica.server_arguments", fail)
    replica, _ = make(TINY_SPEC)
    replica.start()
    await wait_until(lambda: bool(caplog.records))
    assert "vllm replica-0 failed: RuntimeError in" in caplog.text
    assert secret not in caplog.text
