"""A vLLM container of an AI Deploy app: its cold start on the platform's clock, then its HTTP API.

Each start downloads the weights again: whether a standalone volume keeps them over a restart is not
documented. When to start, probe and kill a container is for the platform to decide.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import PositiveFloat, PositiveInt

from autoscaling.arguments import ServerArguments
from autoscaling.cold_start import ColdStart
from autoscaling.engine import EngineParameters
from autoscaling.hardware import GPUS, OutOfMemoryError, engine_parameters, max_model_len, weights_bytes
from sandbox.clock import Clock
from sandbox.inference.command import CommandError, server_arguments
from sandbox.inference.engine import EngineLoop
from sandbox.inference.metrics import VERSION, ServerMetrics
from sandbox.inference.server import VllmServer
from sandbox.interfaces import JsonObject
from sandbox.trace import trace

_LOG = logging.getLogger(__name__)

_DEFAULT_FLAVOR = "h100-1-gpu"  # stands in for flavors whose GPU is not in the table


@dataclass(frozen=True)
class ReplicaSettings:
    """How replicas behave."""

    cold_start: ColdStart = field(default_factory=ColdStart)
    """Durations in platform seconds."""
    inference_speed: PositiveFloat = 1.0
    """Seconds of the engine's model per wall-clock second; by default tokens come at their real pace."""
    median_answer_tokens: PositiveInt = 200
    """Half of the answers are longer, if the request allows; assumed."""
    stream_writes_per_second: PositiveFloat = 2000.0
    """Per replica: bounds the cost of many streams, which then get several tokens at once."""


class VllmReplica:
    """A container that runs vLLM; implements `sandbox.interfaces.Replica`."""

    def __init__(
        self,
        name: str,
        spec: JsonObject,
        log: Callable[[str], None],
        clock: Clock,
        settings: ReplicaSettings,
    ) -> None:
        self._name = name
        self._spec = spec
        self._log = log
        self._clock = clock
        self._settings = settings
        self._process: asyncio.Task[None] | None = None
        self._server: VllmServer | None = None

    @property
    def name(self) -> str:
        """Name of the replica."""
        return self._name

    def start(self) -> None:
        """Starts the process; it listens after its cold start, unless it exits with an error in its log."""
        if self._process is not None and not self._process.done():
            raise RuntimeError(f"replica {self._name} runs already")
        self._process = asyncio.create_task(self._run(time.time()), name=f"vllm {self._name}")
        self._process.add_done_callback(_report)

    async def stop(self) -> None:
        """Kills the process; it may be started again, from nothing."""
        if self._server is not None:
            self._server.engine.stop()
            self._server = None
        if self._process is not None:
            self._process.cancel()
            await asyncio.wait([self._process])
            self._process = None

    def probe(self, path: str) -> int:
        """HTTP status of a GET of `path` on the app's port, 0 when nothing listens there."""
        return 0 if self._server is None else self._server.probe(path)

    def metrics(self) -> str:
        """The text of `/metrics`; ConnectionRefusedError when nothing listens on the app's port."""
        return self._listening().exposition()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request.

        Raises ConnectionRefusedError when nothing listens, EngineStoppedError (a ConnectionError) when the
        process is killed before the answer is complete.
        """
        return await self._listening().handle(request)

    def _listening(self) -> VllmServer:
        if self._server is None:
            raise ConnectionRefusedError(f"nothing listens in replica {self._name}")
        return self._server

    async def _run(self, started: float) -> None:
        """The life of the process, which began at the Unix time `started`."""
        await self._clock.sleep(self._settings.cold_start.process_seconds)
        self._vllm_log("APIServer pid=1", "api_server.py:1351", f"vLLM API server version {VERSION}")
        try:
            arguments = server_arguments(self._spec, self._name)
        except CommandError as error:
            self._log(str(error))
            return
        given = arguments.non_default()
        self._vllm_log("APIServer pid=1", "utils.py:253", f"non-default args: {given}")
        longest = max_model_len(arguments)
        self._vllm_log("APIServer pid=1", "model.py:1661", f"Using max model len {longest}")
        parameters = await self._load(arguments)
        if parameters is None:
            return
        longest = min(longest, parameters.kv_tokens)  # where the first is a guess: an unknown model
        metrics = ServerMetrics(
            arguments.served_model_names[0],
            longest,
            _cache_config(arguments, parameters),
            weights_bytes(arguments.model),
            started,
        )
        speed, writes = self._settings.inference_speed, self._settings.stream_writes_per_second
        engine = EngineLoop(parameters, metrics, speed, writes)
        where = f"http://0.0.0.0:{arguments.port}"
        self._vllm_log("APIServer pid=1", "api_server.py:1425", f"Starting vLLM API server 0 on {where}")
        if arguments.port == self._spec.get("defaultHttpPort"):
            self._server = VllmServer(
                arguments.model,
                arguments.served_model_names,
                longest,
                self._settings.median_answer_tokens,
                metrics,
                engine,
            )
        for line in ("Started server process [1]", "Waiting for application startup."):
            self._log(f"(APIServer pid=1) INFO:     {line}")
        self._log("(APIServer pid=1) INFO:     Application startup complete.")
        await engine.run()

    async def _load(self, arguments: ServerArguments) -> EngineParameters | None:
        """Downloads and loads the weights; None when they do not fit, which ends the process."""
        cold, model, process = self._settings.cold_start, arguments.model, "EngineCore_DP0 pid=135"
        size = weights_bytes(model)
        phases = cold.phases(size)
        download, load = phases["download"], phases["load"]
        self._vllm_log(process, "gpu_model_runner.py:3562", f"Starting to load model {model}...")
        self._vllm_log(process, "weight_utils.py:300", f"Loading weights: {size / 1e9:.1f} GB to download")
        await self._clock.sleep(download)
        text = f"Time spent downloading weights for {model}: {download:.6f} seconds"
        self._vllm_log(process, "weight_utils.py:487", text)
        try:
            parameters = engine_parameters(arguments, self._flavor())
        except ValueError as error:
            out_of_memory = isinstance(error, OutOfMemoryError)
            kind = "torch.OutOfMemoryError: CUDA out of memory" if out_of_memory else "ValueError"
            self._log(f"({process}) {kind}: {error}")
            self._log("(APIServer pid=1) RuntimeError: Engine core initialization failed.")
            return None
        await self._clock.sleep(load)
        self._vllm_log(process, "default_loader.py:308", f"Loading weights took {load:.2f} seconds")
        await self._clock.sleep(cold.warmup_seconds)
        text = f"GPU KV cache size: {parameters.kv_tokens:,} tokens"
        self._vllm_log(process, "kv_cache_utils.py:1291", text)
        text = f"init engine (profile, create kv cache, warmup model) took {cold.warmup_seconds:.2f} seconds"
        self._vllm_log(process, "core.py:259", text)
        return parameters

    def _flavor(self) -> str:
        resources = self._spec.get("resources")
        flavor = str(resources.get("flavor")) if isinstance(resources, dict) else _DEFAULT_FLAVOR
        return flavor if flavor in GPUS else _DEFAULT_FLAVOR

    def _vllm_log(self, process: str, place: str, text: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self._log(f"({process}) INFO {now:%m-%d %H:%M:%S} [{place}] {text}")


def _cache_config(arguments: ServerArguments, parameters: EngineParameters) -> dict[str, str]:
    """The labels of `vllm:cache_config_info` that depend on the server's arguments and its GPU."""
    return {
        "num_gpu_blocks": str(parameters.kv_blocks),
        "block_size": str(arguments.block_size),
        "cache_dtype": arguments.kv_cache_dtype,
        "enable_prefix_caching": str(arguments.enable_prefix_caching),
        "gpu_memory_utilization": str(arguments.gpu_memory_utilization),
    }


def _report(process: asyncio.Task[None]) -> None:
    """Logs why a process ended by a mistake of ours; nobody awaits it."""
    if not process.cancelled() and (error := process.exception()) is not None:
        _LOG.error("%s failed: %s", process.get_name(), trace(error))


class VllmReplicas:
    """Makes replicas that run vLLM; implements `sandbox.interfaces.ReplicaFactory`."""

    def __init__(self, clock: Clock, settings: ReplicaSettings) -> None:
        self._clock = clock
        self._settings = settings

    def __call__(self, name: str, spec: JsonObject, log: Callable[[str], None]) -> VllmReplica:
        """A replica called `name` of an app with this spec, not started; `log` takes its output."""
        return VllmReplica(name, spec, log, self._clock, self._settings)
