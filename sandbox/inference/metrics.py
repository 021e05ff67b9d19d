"""The metrics of a vLLM 0.13.0 server: a small registry that prints the families of the catalogue.

The output follows prometheus_client's text format in every detail that a consumer may rely on: order of
labels, floats (`1.0`, `1.7953531880019178e+09`), and a gauge `<name>_created` beside every counter,
histogram and summary that the client library makes itself.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from dashboards import catalogue
from dashboards.metric import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the exposition."""

FINISHED_REASONS = ("stop", "length", "abort", "error")
"""Values of the label `finished_reason`; all exist from the start."""

_UNCOUNTED_HANDLERS = ("/metrics", "/health", "/load", "/ping", "/version", "/server_info")
"""Paths for which vLLM keeps no HTTP metrics."""

VERSION = "0.13.0"
"""The version of vLLM that the replicas are."""

_CACHE_CONFIG = {
    # CacheConfig of a CUDA server with default arguments.
    "block_size": "16",
    "cache_dtype": "auto",
    "calculate_kv_scales": "False",
    "cpu_kvcache_space_bytes": "None",
    "cpu_offload_gb": "0.0",
    "enable_prefix_caching": "True",
    "gpu_memory_utilization": "0.9",
    "is_attention_free": "False",
    "kv_cache_memory_bytes": "None",
    "kv_offloading_backend": "None",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "auto",
    "num_cpu_blocks": "None",
    "num_gpu_blocks_override": "None",
    "prefix_caching_hash_algo": "sha256",
    "sliding_window": "None",
    "swap_space": "4.0",
}


FAMILIES: tuple[Metric, ...] = catalogue.exposed(VERSION)
"""Every family of a text-generation server without LoRA, speculative decoding or a KV connector, in order."""


def one_two_five(longest: int) -> tuple[float, ...]:
    """vLLM's bucket bounds for numbers of tokens: 1, 2, 5, 10, … up to `longest`."""
    bounds: list[float] = []
    power = 1
    while power <= longest:
        bounds += [float(digit * power) for digit in (1, 2, 5) if digit * power <= longest]
        power *= 10
    return tuple(bounds)


def format_float(value: float) -> str:
    """A number as prometheus_client prints it: Python's shortest form, exponents as early as Go's."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    text = repr(float(value))
    dot = text.find(".")
    if value > 0 and dot > 6:
        mantissa = f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.")
        return f"{mantissa}e+0{dot - 1}"
    return text


def _sample(name: str, labels: Mapping[str, str]) -> str:
    """A sample line up to its value."""
    if not labels:
        return f"{name} "
    pairs = ",".join(f'{label}="{_escape(labels[label])}"' for label in sorted(labels))
    return f"{name}{{{pairs}}} "


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class Number:
    """One series of a counter or gauge."""

    def __init__(self, family: Metric, labels: Mapping[str, str]) -> None:
        self.value = 0.0
        self._line = _sample(family.name, labels)

    def lines(self) -> list[str]:
        """The sample lines."""
        return [self._line + format_float(self.value)]


class Distribution:
    """One series of a histogram, or of a summary (which has no buckets)."""

    def __init__(self, family: Metric, labels: Mapping[str, str], bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._buckets = [
            _sample(f"{family.name}_bucket", {**labels, "le": format_float(bound)})
            for bound in ((*bounds, math.inf) if family.type == "histogram" else ())
        ]
        self._count_line = _sample(f"{family.name}_count", labels)
        self._sum_line = _sample(f"{family.name}_sum", labels)

    def observe(self, value: float, times: int = 1) -> None:
        """Counts `times` observations of `value`."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self) -> list[str]:
        """The sample lines."""
        cumulative = list(accumulate(self._counts))
        lines = [line + format_float(count) for line, count in zip(self._buckets, cumulative, strict=False)]
        return [
            *lines,
            self._count_line + format_float(cumulative[-1]),
            self._sum_line + format_float(self._sum),
        ]


@dataclass
class _Exposed:
    """A family with its series, and the text that does not change."""

    family: Metric
    series: dict[tuple[str, ...], Number | Distribution] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        name, help_text, kind = self.family.name, self.family.help, self.family.type
        lines = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
        for series in self.series.values():
            lines += series.lines()
        if self.created:
            name = f"{self.family.base}_created"
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", *self.created]
        return lines


class Registry:
    """The series of one process. Asking for a family or labels that the table lacks is a KeyError."""

    def __init__(self, families: Sequence[Metric], longest: int) -> None:
        """`longest` is the longest sequence in tokens (`--max-model-len`)."""
        self._longest = longest
        self._exposed = {family.name: _Exposed(family) for family in families}

    def number(self, name: str, **labels: str) -> Number:
        """A series of a counter or gauge, made when it is first asked for."""
        series = self._series(name, labels)
        assert isinstance(series, Number)
        return series

    def distribution(self, name: str, **labels: str) -> Distribution:
        """A series of a histogram or summary, made when it is first asked for."""
        series = self._series(name, labels)
        assert isinstance(series, Distribution)
        return series

    def expose(self) -> str:
        """The text exposition of all families, with a final newline."""
        lines: list[str] = []
        for exposed in self._exposed.values():
            lines += exposed.lines()
        return "\n".join(lines) + "\n"

    def _series(self, name: str, labels: Mapping[str, str]) -> Number | Distribution:
        exposed = self._exposed[name]
        family = exposed.family
        key = tuple(labels[label] for label in family.labels)
        series = exposed.series.get(key)
        if series is not None:
            return series
        series = self._make(family, labels)
        exposed.series[key] = series
        if family.created and family.type != "gauge":
            exposed.created.append(_sample(f"{family.base}_created", labels) + format_float(time.time()))
        return series

    def _make(self, family: Metric, labels: Mapping[str, str]) -> Number | Distribution:
        if family.type in ("counter", "gauge"):
            return Number(family, labels)
        bounds = one_two_five(self._longest) if isinstance(family.buckets, str) else family.buckets
        return Distribution(family, labels, bounds)


@dataclass(frozen=True)
class FinishedSequence:
    """What vLLM records when a sequence ends; times are seconds of one clock."""

    reason: str
    """One of `FINISHED_REASONS`."""
    prompt_tokens: int
    generation_tokens: int
    max_tokens: int
    arrived: float
    scheduled: float
    """When it was admitted first."""
    first_token: float
    ended: float
    cached_tokens: int = 0
    """Of the prompt: found in the prefix cache."""


@dataclass(frozen=True)
class EngineCounts:
    """What an engine tells of itself."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    """Share of the KV cache in use, 0 to 1."""
    prefix_queries: int = 0
    """Tokens, since the start; as the rest."""
    prefix_hits: int = 0
    preemptions: int = 0


class ServerMetrics:
    """The metrics of one running server; made when its engine is ready."""

    def __init__(
        self,
        model_name: str,
        max_model_len: int,
        cache_config: Mapping[str, str],
        weights_bytes: float,
        started: float,
    ) -> None:
        """`started` is the Unix time of the process's start, `model_name` the first served name.

        `cache_config` are the values of `vllm:cache_config_info` that are not vLLM's defaults.
        """
        self._registry = Registry(FAMILIES, max_model_len)
        self._labels = {"engine": "0", "model_name": model_name}
        self._started = started
        self._process(weights_bytes)
        self._running = self._number("num_requests_running")
        self._waiting = self._number("num_requests_waiting")
        for state in ("awake", "weights_offloaded", "discard_all"):
            self._number("engine_sleep_state", sleep_state=state).value = float(state == "awake")
        self._kv_usage = self._number("kv_cache_usage_perc")
        self._prefix_queries = self._number("prefix_cache_queries_total")
        self._prefix_hits = self._number("prefix_cache_hits_total")
        for name in (
            *("external_prefix_cache_queries", "external_prefix_cache_hits"),
            *("mm_cache_queries", "mm_cache_hits"),
        ):
            self._number(f"{name}_total")
        self._preemptions = self._number("num_preemptions_total")
        self._prompt_tokens = self._number("prompt_tokens_total")
        self._generation_tokens = self._number("generation_tokens_total")
        self._finished = {
            reason: self._number("request_success_total", finished_reason=reason)
            for reason in FINISHED_REASONS
        }
        self._request_prompt_tokens = self._distribution("request_prompt_tokens")
        self._request_generation_tokens = self._distribution("request_generation_tokens")
        self._iteration_tokens = self._distribution("iteration_tokens_total")
        self._request_max_generation = self._distribution("request_max_num_generation_tokens")
        self._request_n = self._distribution("request_params_n")
        self._request_max_tokens = self._distribution("request_params_max_tokens")
        self._first_token = self._distribution("time_to_first_token_seconds")
        self._inter_token = self._distribution("inter_token_latency_seconds")
        self._per_token = self._distribution("request_time_per_output_token_seconds")
        self._e2e = self._distribution("e2e_request_latency_seconds")
        self._queue = self._distribution("request_queue_time_seconds")
        self._inference = self._distribution("request_inference_time_seconds")
        self._prefill = self._distribution("request_prefill_time_seconds")
        self._decode = self._distribution("request_decode_time_seconds")
        self._kv_computed = self._distribution("request_prefill_kv_computed_tokens")
        cache = {**_CACHE_CONFIG, "engine": "0", **cache_config}
        self._registry.number("vllm:cache_config_info", **cache).value = 1.0
        self._http_duration = self._registry.distribution("http_request_duration_highr_seconds")

    def step(self, prompt_tokens: int, first_tokens: int, decoded: int, gap: float) -> None:
        """One engine step: prompts completed (in tokens), first tokens, others `gap` seconds after theirs."""
        self._prompt_tokens.value += prompt_tokens
        self._generation_tokens.value += first_tokens + decoded
        self._iteration_tokens.observe(prompt_tokens + first_tokens + decoded)
        if decoded:
            self._inter_token.observe(gap, decoded)

    def first_token(self, seconds: float) -> None:
        """A sequence got its first token so long after the request's arrival."""
        self._first_token.observe(seconds)

    def finished(self, sequence: FinishedSequence) -> None:
        """A sequence has all its tokens. One that is aborted leaves no trace (vLLM's issue 31503)."""
        self._finished[sequence.reason].value += 1
        self._request_prompt_tokens.observe(sequence.prompt_tokens)
        self._request_generation_tokens.observe(sequence.generation_tokens)
        self._request_max_tokens.observe(sequence.max_tokens)
        decode = sequence.ended - sequence.first_token
        self._e2e.observe(sequence.ended - sequence.arrived)
        self._queue.observe(sequence.scheduled - sequence.arrived)
        self._inference.observe(sequence.ended - sequence.scheduled)
        self._prefill.observe(sequence.first_token - sequence.scheduled)
        self._decode.observe(decode)
        self._per_token.observe(decode / max(1, sequence.generation_tokens - 1))
        self._kv_computed.observe(sequence.prompt_tokens - sequence.cached_tokens)

    def request_finished(self, n: int, most_generated: int) -> None:
        """All `n` sequences of a request ended, the longest with `most_generated` tokens."""
        self._request_n.observe(n)
        self._request_max_generation.observe(most_generated)

    def http(
        self, handler: str, method: str, status: int, request_size: int, response_size: int, seconds: float
    ) -> None:
        """An HTTP answer; `handler` is the path of the route, `none` when there is none. Sizes in bytes."""
        if handler in _UNCOUNTED_HANDLERS:
            return
        group = f"{status // 100}xx"
        self._registry.number("http_requests_total", handler=handler, method=method, status=group).value += 1
        self._registry.distribution("http_request_size_bytes", handler=handler).observe(request_size)
        self._registry.distribution("http_response_size_bytes", handler=handler).observe(response_size)
        self._http_duration.observe(seconds)
        duration = self._registry.distribution(
            "http_request_duration_seconds", handler=handler, method=method
        )
        duration.observe(seconds)

    def expose(self, engine: EngineCounts) -> str:
        """The text of `/metrics` when the engine has come so far."""
        self._running.value = engine.running
        self._waiting.value = engine.waiting
        self._kv_usage.value = engine.kv_usage
        self._prefix_queries.value = engine.prefix_queries
        self._prefix_hits.value = engine.prefix_hits
        self._preemptions.value = engine.preemptions
        self._cpu.value = round((time.time() - self._started) * 0.3, 2)
        return self._registry.expose()

    def _process(self, weights_bytes: float) -> None:
        """What prometheus_client tells about the process; invented, but of a plausible size."""
        for generation, (objects, collections) in enumerate(((12920, 1629), (1772, 147), (575, 10))):
            labels = {"generation": str(generation)}
            self._registry.number("python_gc_objects_collected_total", **labels).value = objects
            self._registry.number("python_gc_objects_uncollectable_total", **labels)
            self._registry.number("python_gc_collections_total", **labels).value = collections
        version = {"major": "3", "minor": "12", "patchlevel": "12", "version": "3.12.12"}
        self._registry.number("python_info", implementation="CPython", **version).value = 1
        self._registry.number("process_virtual_memory_bytes").value = round(weights_bytes) + 6_194_094_080
        self._registry.number("process_resident_memory_bytes").value = 928_608_256
        # The kernel counts in clock ticks: 10 ms.
        self._registry.number("process_start_time_seconds").value = round(self._started, 2)
        self._cpu = self._registry.number("process_cpu_seconds_total")
        self._registry.number("process_open_fds").value = 34
        self._registry.number("process_max_fds").value = 1_048_576

    def _number(self, name: str, **labels: str) -> Number:
        return self._registry.number(f"vllm:{name}", **self._labels, **labels)

    def _distribution(self, name: str) -> Distribution:
        return self._registry.distribution(f"vllm:{name}", **self._labels)
