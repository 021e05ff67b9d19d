"""The metrics of a vLLM server, from version 0.13 to the newest known one.

Read in vLLM's own sources of every minor version (`vllm/v1/metrics/loggers.py`, `perf.py`, and where else
metrics are made), so `since` and `until` are exact to the minor version; the order is that of an exposition.
Those that only exist with a KV transfer connector are in `connector_metrics`.
"""

from __future__ import annotations

from typing import cast

from dashboards.metric import Metric, Type, Unit, table

_EARLIER = "0.0"
"""Some version before those that were read."""

ENGINE = ("engine", "model_name")
"""Labels of nearly everything that the engine says."""
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")
"""Why a request is over."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
_REQUEST_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_ITERATION_BUCKETS = (1.0, *(2.0**power for power in range(3, 15)))
_HIGHR_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0),
    *(7.5, 10.0, 30.0, 60.0),
)

# All of CacheConfig, which changes with nearly every version.
_CACHE_CONFIG = (
    *("block_size", "cache_dtype", "calculate_kv_scales", "cpu_kvcache_space_bytes", "cpu_offload_gb"),
    *("enable_prefix_caching", "gpu_memory_utilization", "is_attention_free", "kv_cache_memory_bytes"),
    *("kv_offloading_backend", "kv_offloading_size", "kv_sharing_fast_prefill", "mamba_block_size"),
    *("mamba_cache_dtype", "mamba_page_size_padded", "mamba_ssm_cache_dtype", "num_cpu_blocks"),
    *("num_gpu_blocks_override", "prefix_caching_hash_algo", "sliding_window", "swap_space"),
)
_CACHE_CONFIG_VERSIONS: dict[str, tuple[str, str | None]] = {
    "cpu_offload_gb": ("0.13", "0.18"),
    "swap_space": ("0.13", "0.18"),
    "cpu_kvcache_space_bytes": ("0.13", "0.20"),
    "calculate_kv_scales": ("0.13", "0.28"),
    "mamba_cache_mode": ("0.15", None),
    "cpu_offload_params": ("0.17", "0.18"),
    "user_specified_block_size": ("0.18", None),
    "kv_cache_dtype_skip_layers": ("0.19", None),
    "user_specified_mamba_block_size": ("0.20", "0.32"),
    "kv_cache_max_concurrency": ("0.24", None),
    "kv_cache_size_tokens": ("0.24", None),
    "skip_page_size_padded": ("0.25", None),
    "prefix_match_unit": ("0.26", None),
    "replayssm_buffer_len": ("0.27", None),
    "use_replayssm": ("0.27", None),
    "kv_cache_layout": ("0.29", None),
    "prefix_cache_retention_interval": ("0.29", None),
    "use_kda_recoverssm": ("0.29", None),
    "enable_mamba_fine_grained_prefix_cache": ("0.30", "0.31"),
    "effective_attention_block_size": ("0.31", None),
    "enable_mamba_shared_prefix_checkpoint": ("0.31", None),
    "swa_bounded_replay": ("0.31", None),
    "cache_hit_alignment_tokens": ("0.32", None),
    "hash_block_size": ("0.32", None),  # also from 0.20 to 0.25
    "simple_cpu_offload_num_blocks": ("0.33", None),
}

_ADDED = tuple(label for label in _CACHE_CONFIG_VERSIONS if label not in _CACHE_CONFIG)


def _latency(name: str, help_text: str) -> Metric:
    return Metric(name, "histogram", help_text, "seconds", ENGINE, _REQUEST_BUCKETS, "requests")


def _lengths(name: str, help_text: str) -> Metric:
    return Metric(name, "histogram", help_text, "tokens", ENGINE, "model length", "requests")


def _gc(name: str, help_text: str) -> Metric:
    return Metric(name, "counter", help_text, "items", ("generation",), created=False)


PROCESS: tuple[Metric, ...] = (
    _gc("python_gc_objects_collected_total", "Objects collected during gc"),
    _gc("python_gc_objects_uncollectable_total", "Uncollectable objects found during GC"),
    _gc("python_gc_collections_total", "Number of times this generation was collected"),
    Metric(
        "python_info",
        "gauge",
        "Python platform information",
        "state",
        ("implementation", "major", "minor", "patchlevel", "version"),
    ),
    Metric("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", "bytes"),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", "bytes"),
    Metric(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        "unix seconds",
    ),
    Metric(
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        "seconds",
        created=False,
    ),
    Metric("process_open_fds", "gauge", "Number of open file descriptors.", "items"),
    Metric("process_max_fds", "gauge", "Maximum number of open file descriptors.", "items"),
)
"""What every process with the Python client library says of itself; not with several API servers."""

SERVER: tuple[Metric, ...] = (
    Metric(
        "vllm:num_requests_running",
        "gauge",
        "Number of requests in model execution batches.",
        "requests",
        ENGINE,
    ),
    Metric(
        "vllm:num_requests_waiting",
        "gauge",
        "Number of requests waiting to be processed.",
        "requests",
        ENGINE,
        changes={
            "0.20": "counts requests that are deferred as well; num_requests_waiting_by_reason tells "
            "them apart"
        },
    ),
    Metric(
        "vllm:num_requests_waiting_by_reason",
        "gauge",
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; "
        "'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). "
        "Sum of all reasons equals vllm:num_requests_waiting.",
        "requests",
        (*ENGINE, "reason"),
        since="0.20",
        values={"reason": ("capacity", "deferred")},
    ),
    Metric(
        "vllm:engine_sleep_state",
        "gauge",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; "
        "weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        "state",
        (*ENGINE, "sleep_state"),
        values={"sleep_state": ("awake", "weights_offloaded", "discard_all")},
    ),
    Metric(
        "vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", "ratio", ENGINE
    ),
    Metric(
        "vllm:prefix_cache_queries_total",
        "counter",
        "Prefix cache queries, in terms of number of queried tokens.",
        "tokens",
        ENGINE,
    ),
    Metric(
        "vllm:prefix_cache_hits_total",
        "counter",
        "Prefix cache hits, in terms of number of cached tokens.",
        "tokens",
        ENGINE,
    ),
    Metric(
        "vllm:external_prefix_cache_queries_total",
        "counter",
        "External prefix cache queries from KV connector cross-instance cache sharing, in terms of "
        "number of queried tokens.",
        "tokens",
        ENGINE,
    ),
    Metric(
        "vllm:external_prefix_cache_hits_total",
        "counter",
        "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number "
        "of cached tokens.",
        "tokens",
        ENGINE,
    ),
    Metric(
        "vllm:mm_cache_queries_total",
        "counter",
        "Multi-modal cache queries, in terms of number of queried items.",
        "items",
        ENGINE,
    ),
    Metric(
        "vllm:mm_cache_hits_total",
        "counter",
        "Multi-modal cache hits, in terms of number of cached items.",
        "items",
        ENGINE,
    ),
    Metric(
        "vllm:num_preemptions_total",
        "counter",
        "Cumulative number of preemption from the engine.",
        "requests",
        ENGINE,
    ),
    Metric("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.", "tokens", ENGINE),
    Metric(
        "vllm:prompt_tokens_by_source_total",
        "counter",
        "Number of prompt tokens by source.",
        "tokens",
        (*ENGINE, "source"),
        since="0.16",
        values={"source": ("local_compute", "local_cache_hit", "external_kv_transfer")},
    ),
    Metric(
        "vllm:prompt_tokens_cached_total",
        "counter",
        "Number of cached prompt tokens (local + external).",
        "tokens",
        ENGINE,
        since="0.16",
    ),
    Metric(
        "vllm:prompt_tokens_recomputed_total",
        "counter",
        "Number of cached tokens recomputed for forward pass.",
        "tokens",
        ENGINE,
        since="0.16",
        until="0.20",
    ),
    Metric(
        "vllm:prompt_tokens_cached_by_source_total",
        "counter",
        "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host "
        "(offloaded to DRAM), "
        "disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; "
        "sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
        "tokens",
        (*ENGINE, "source"),
        since="0.32",
        values={"source": ("device", "host", "disk", "p2p", "external_unspecified")},
    ),
    Metric(
        "vllm:generation_tokens_total", "counter", "Number of generation tokens processed.", "tokens", ENGINE
    ),
    Metric(
        "vllm:request_success_total",
        "counter",
        "Count of successfully processed requests.",
        "requests",
        (*ENGINE, "finished_reason"),
        changes={"0.17": "may have the finished_reason `repetition`"},
        values={"finished_reason": FINISHED_REASONS},
    ),
    Metric(
        "vllm:admission_rejections_total",
        "counter",
        "Number of admission attempts rejected by a queue limit, by reason.",
        "requests",
        ("model_name", "reason"),
        since="0.32",
        values={"reason": ("max_num_queued_reqs", "max_num_queued_tokens")},
    ),
    _lengths("vllm:request_prompt_tokens", "Number of prefill tokens processed."),
    _lengths("vllm:request_generation_tokens", "Number of generation tokens processed."),
    Metric(
        "vllm:iteration_tokens_total",
        "histogram",
        "Histogram of number of tokens per engine_step.",
        "tokens",
        ENGINE,
        _ITERATION_BUCKETS,
        changes={"0.23": "counts computed tokens only, no longer those of the prompt that were cached"},
    ),
    _lengths(
        "vllm:request_max_num_generation_tokens",
        "Histogram of maximum number of requested generation tokens.",
    ),
    Metric(
        "vllm:request_params_n",
        "histogram",
        "Histogram of the n request parameter.",
        "items",
        ENGINE,
        (1.0, 2.0, 5.0, 10.0, 20.0),
        counted="requests",
    ),
    _lengths("vllm:request_params_max_tokens", "Histogram of the max_tokens request parameter."),
    Metric(
        "vllm:time_to_first_token_seconds",
        "histogram",
        "Histogram of time to first token in seconds.",
        "seconds",
        ENGINE,
        _FIRST_TOKEN_BUCKETS,
        counted="requests",
    ),
    Metric(
        "vllm:inter_token_latency_seconds",
        "histogram",
        "Histogram of inter-token latency in seconds.",
        "seconds",
        ENGINE,
        _TOKEN_BUCKETS,
    ),
    Metric(
        "vllm:request_time_per_output_token_seconds",
        "histogram",
        "Histogram of time_per_output_token_seconds per request.",
        "seconds",
        ENGINE,
        _TOKEN_BUCKETS,
        counted="requests",
    ),
    _latency("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds."),
    _latency("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request."),
    _latency("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request."),
    _latency("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request."),
    _latency("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request."),
    Metric(
        "vllm:request_num_preemptions",
        "histogram",
        "Histogram of the number of times a request was preempted.",
        "items",
        ENGINE,
        (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0),
        "requests",
        since="0.30",
    ),
    _lengths(
        "vllm:request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
    ),
    Metric(
        "vllm:cache_config_info",
        "gauge",
        "Information of the LLMEngine CacheConfig",
        "state",
        (*_CACHE_CONFIG, "num_gpu_blocks", *_ADDED, "engine"),
        label_versions=_CACHE_CONFIG_VERSIONS,
    ),
)
"""What every text-generation server says."""

HTTP: tuple[Metric, ...] = (
    Metric(
        "http_requests_total",
        "counter",
        "Total number of requests by method, status and handler.",
        "requests",
        ("handler", "method", "status"),
        values={"method": _METHODS, "status": ("1xx", "2xx", "3xx", "4xx", "5xx")},
    ),
    Metric(
        "http_request_size_bytes",
        "summary",
        "Content length of incoming requests by handler. Only value of header is respected. Otherwise "
        "ignored. No percentile calculated. ",
        "bytes",
        ("handler",),
        counted="requests",
    ),
    Metric(
        "http_response_size_bytes",
        "summary",
        "Content length of outgoing responses by handler. Only value of header is respected. Otherwise "
        "ignored. No percentile calculated. ",
        "bytes",
        ("handler",),
        counted="requests",
    ),
    Metric(
        "http_request_duration_highr_seconds",
        "histogram",
        "Latency with many buckets but no API specific labels. Made for more accurate percentile "
        "calculations. ",
        "seconds",
        (),
        _HIGHR_BUCKETS,
        counted="requests",
    ),
    Metric(
        "http_request_duration_seconds",
        "histogram",
        "Latency with only few buckets by handler. Made to be only used if aggregation by handler is "
        "important. ",
        "seconds",
        ("handler", "method"),
        (0.1, 0.5, 1.0),
        counted="requests",
        values={"method": _METHODS},
    ),
)
"""What the server says of its HTTP requests (prometheus-fastapi-instrumentator 7 and 8)."""

CONDITIONAL = (
    *table(
        """
# the environment variable VLLM_COMPUTE_NANS_IN_LOGITS=1
corrupted_requests_total counter requests 0.13
# --watermark-config
watermark_requests_total counter requests 0.32 status
# --kv-transfer-config of a consumer
num_requests_kv_fetch_by_stage gauge requests 0.32 stage
# --kv-cache-metrics
kv_block_lifetime_seconds histogram seconds 0.13
kv_block_idle_before_evict_seconds histogram seconds 0.13
kv_block_reuse_gap_seconds histogram seconds 0.13
# --speculative-config
spec_decode_num_drafts_total counter items 0.13
spec_decode_num_draft_tokens_total counter tokens 0.13
spec_decode_num_accepted_tokens_total counter tokens 0.13
spec_decode_num_accepted_tokens_per_pos_total counter tokens 0.13 position
# a diffusion model
diffusion_num_denoising_steps_total counter items 0.24
diffusion_num_canvas_positions_total counter items 0.24
diffusion_num_committed_tokens_total counter tokens 0.24
# --enable-mfu-metrics (the series are there without it, at 0)
estimated_flops_per_gpu_total counter items 0.17
estimated_read_bytes_per_gpu_total counter bytes 0.17
estimated_write_bytes_per_gpu_total counter bytes 0.17
""",
        ENGINE,
    ),
    *table(
        """
# --enable-lora
lora_requests_info gauge unix_seconds 0.13 max_lora,running_lora_adapters,waiting_lora_adapters
# --tool-call-parser
tool_call_parser_invocations_total counter items 0.24 mode,model_name,outcome,request_type
# a model with the realtime API
websocket_connections_active gauge items 0.18
websocket_connections_total counter items 0.18
websocket_connection_duration_seconds histogram seconds 0.18
# --enable-sleep-mode and a first use
sleep_mode_operation_duration_seconds histogram seconds 0.32 operation
sleep_mode_operations_in_flight gauge items 0.32 operation
# --weight-transfer-config and a first use
rl_weight_update_operation_duration_seconds histogram seconds 0.32 operation
rl_weight_update_operations_in_flight gauge items 0.32 operation
""",
        (),
    ),
)
"""What a server says only if it is told to, or of special models; no expression reads one."""

_RETIRED = """
gpu_cache_usage_perc gauge ratio 0.12 vllm:kv_cache_usage_perc
gpu_prefix_cache_queries_total counter tokens 0.12 vllm:prefix_cache_queries_total
gpu_prefix_cache_hits_total counter tokens 0.12 vllm:prefix_cache_hits_total
gpu_prefix_cache_hit_rate gauge ratio 0.10 \
vllm:prefix_cache_hits_total / vllm:prefix_cache_queries_total, both increased
cpu_prefix_cache_hit_rate gauge ratio 0.10 \
vllm:prefix_cache_hits_total / vllm:prefix_cache_queries_total, both increased
cpu_cache_usage_perc gauge ratio 0.10 vllm:kv_cache_usage_perc (nothing is swapped to the CPU any more)
num_requests_swapped gauge requests 0.10 \
vllm:num_preemptions_total (preempted requests are computed again, not swapped)
time_in_queue_requests histogram seconds 0.10 vllm:request_queue_time_seconds
model_forward_time_milliseconds histogram items 0.10 vllm:request_inference_time_seconds
model_execute_time_milliseconds histogram items 0.10 vllm:request_inference_time_seconds
spec_decode_draft_acceptance_rate gauge ratio 0.10 \
vllm:spec_decode_num_accepted_tokens_total / vllm:spec_decode_num_draft_tokens_total, both increased
spec_decode_efficiency gauge ratio 0.10 \
vllm:spec_decode_num_accepted_tokens_total / vllm:spec_decode_num_drafts_total, both increased
spec_decode_num_emitted_tokens_total counter tokens 0.10 vllm:generation_tokens_total
avg_prompt_throughput_toks_per_s gauge items 0.13 vllm:prompt_tokens_total, increased
avg_generation_throughput_toks_per_s gauge items 0.13 vllm:generation_tokens_total, increased
num_requests_finished gauge requests 0.13 vllm:request_success_total
request_failure_total counter requests 0.13 vllm:request_success_total{finished_reason="error"}
"""
"""Name without `vllm:`, type, unit, first version without it, what to use instead.

The last four are read in dashboards and alerts of others; no version that was read for this has them.
"""


def _retired(line: str) -> Metric:
    name, kind, unit, until, replacement = line.split(maxsplit=4)
    return Metric(
        f"vllm:{name}",
        cast(Type, kind),
        "",
        cast(Unit, unit),
        ENGINE,
        since=_EARLIER,
        until=until,
        replacement=replacement,
    )


RETIRED = (
    Metric(
        "vllm:time_per_output_token_seconds",
        "histogram",
        "",
        "seconds",
        ENGINE,
        _TOKEN_BUCKETS,
        since=_EARLIER,
        until="0.15",
        flag="--show-hidden-metrics-for-version 0.12",
        replacement="vllm:inter_token_latency_seconds",
    ),
    *map(_retired, _RETIRED.strip().splitlines()),
)
"""What dashboards of others still ask for: names of versions before 0.13, and the last one of them."""
