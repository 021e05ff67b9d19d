"""The metrics of vLLM's connectors that move KV caches: between servers, to the host's memory, to storage.

None of them exists without `--kv-transfer-config`. Read like those in `server_metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.metric import Metric, Type, Unit
from dashboards.server_metrics import ENGINE, RESIDENCY_BUCKETS

_TRANSFER_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 5.0)
_STORE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
_BYTES_BUCKETS = tuple(2.0**power for power in range(11, 35, 2))
_DESCRIPTOR_BUCKETS = (
    *(10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 200.0, 400.0, 1000.0, 2000.0, 4000.0, 10000.0),
    *(20000.0, 50000.0),
)
_SIZE_BUCKETS = (1e6, 5e6, 10e6, 20e6, 40e6, 60e6, 80e6, 100e6, 150e6, 200e6)
_SYNC_BUCKETS = (0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
_ASYNC_BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_ALLOCATION_BUCKETS = tuple(4.0**power for power in range(10))
_PROMOTION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class _Connector:
    name: str
    labels: tuple[str, ...] = ()
    """On all of its metrics."""

    def counter(
        self, name: str, help_text: str, unit: Unit, since: str, labels: tuple[str, ...] = ()
    ) -> Metric:
        return self._metric(name, "counter", help_text, unit, since, labels)

    def gauge(
        self, name: str, help_text: str, unit: Unit, since: str, labels: tuple[str, ...] = ()
    ) -> Metric:
        return self._metric(name, "gauge", help_text, unit, since, labels)

    def histogram(
        self,
        name: str,
        help_text: str,
        unit: Unit,
        since: str,
        labels: tuple[str, ...] = (),
        *,
        buckets: tuple[float, ...],
    ) -> Metric:
        return self._metric(name, "histogram", help_text, unit, since, labels, buckets)

    def _metric(
        self,
        name: str,
        kind: Type,
        help_text: str,
        unit: Unit,
        since: str,
        labels: tuple[str, ...],
        buckets: tuple[float, ...] = (),
    ) -> Metric:
        return Metric(
            name,
            kind,
            help_text,
            unit,
            (*ENGINE, *self.labels, *labels),
            buckets,
            since=since,
            flag=f"--kv-transfer-config with the connector {self.name}",
        )


_NIXL = _Connector("NIXL")
_MOONCAKE_STORE = _Connector("Mooncake store", ("operation", "status"))
_MOONCAKE = _Connector("Mooncake")
_HF3FS = _Connector("HF3FS")
_UMBP = _Connector("UMBP store", ("operation",))
_HISPARSE = _Connector("HiSparse")
_OFFLOADING = _Connector("offloading")
_TIERING = _Connector("offloading, with tiers", ("tier",))
_SIMPLE = _Connector("simple CPU offload")

CONNECTORS: tuple[Metric, ...] = (
    _NIXL.histogram(
        "vllm:nixl_xfer_time_seconds",
        "Histogram of transfer duration for NIXL KV Cache transfers.",
        "seconds",
        "0.13",
        buckets=_TRANSFER_BUCKETS,
    ),
    _NIXL.histogram(
        "vllm:nixl_post_time_seconds",
        "Histogram of transfer post time for NIXL KV Cache transfers.",
        "seconds",
        "0.13",
        buckets=(0.001, *_TRANSFER_BUCKETS),
    ),
    _NIXL.histogram(
        "vllm:nixl_bytes_transferred",
        "Histogram of bytes transferred per NIXL KV Cache transfers.",
        "bytes",
        "0.13",
        buckets=_BYTES_BUCKETS,
    ),
    _NIXL.histogram(
        "vllm:nixl_num_descriptors",
        "Histogram of number of descriptors per NIXL  KV Cache transfers.",
        "items",
        "0.13",
        buckets=_DESCRIPTOR_BUCKETS,
    ),
    _NIXL.counter(
        "vllm:nixl_num_failed_transfers_total",
        "Number of failed NIXL KV Cache transfers, including handshake and notification failures. "
        "NOTE: KV expiry is tracked separately in vllm:nixl_num_kv_expired_reqs.",
        "items",
        "0.13",
    ),
    _NIXL.counter(
        "vllm:nixl_num_failed_notifications_total",
        "Number of failed NIXL KV Cache notifications. Retained for compatibility; these failures are "
        "also included in vllm:nixl_num_failed_transfers.",
        "items",
        "0.13",
    ),
    _NIXL.counter(
        "vllm:nixl_num_kv_expired_reqs_total",
        "Number of requests that had their KV expire. NOTE: This metric is tracked on the P instance.",
        "requests",
        "0.15",
    ),
    _NIXL.counter(
        "vllm:nixl_num_notifications_after_expiry_total",
        "Number of completion notifications for requests that were no longer tracked, usually because "
        "their KV lease expired. The KV blocks may have been reused before the transfer finished. "
        "Counted per notification (one per remote rank), not per request.",
        "items",
        "0.32",
    ),
    _MOONCAKE_STORE.histogram(
        "vllm:mooncake_store_operation_time_seconds",
        "Histogram of Mooncake store communication time.",
        "seconds",
        "0.22",
        buckets=_STORE_BUCKETS,
    ),
    _MOONCAKE_STORE.counter(
        "vllm:mooncake_store_operation_total",
        "Number of Mooncake store communication operations.",
        "items",
        "0.22",
    ),
    _MOONCAKE_STORE.counter(
        "vllm:mooncake_store_operation_keys_total",
        "Number of Mooncake store keys touched by operations.",
        "items",
        "0.22",
    ),
    _MOONCAKE_STORE.counter(
        "vllm:mooncake_store_operation_bytes_total",
        "Number of bytes transferred by Mooncake store operations.",
        "bytes",
        "0.22",
    ),
    _MOONCAKE_STORE.counter(
        "vllm:mooncake_store_operation_failed_keys_total",
        "Number of Mooncake store keys that failed in operations.",
        "items",
        "0.22",
    ),
    _MOONCAKE.histogram(
        "vllm:mooncake_xfer_time_seconds",
        "Histogram of transfer duration for Mooncake KV Cache transfers.",
        "seconds",
        "0.33",
        buckets=_TRANSFER_BUCKETS,
    ),
    _MOONCAKE.histogram(
        "vllm:mooncake_bytes_transferred",
        "Histogram of bytes transferred per Mooncake KV Cache transfer.",
        "bytes",
        "0.33",
        buckets=_BYTES_BUCKETS,
    ),
    _MOONCAKE.histogram(
        "vllm:mooncake_num_descriptors",
        "Histogram of number of descriptors per Mooncake KV Cache transfer.",
        "items",
        "0.33",
        buckets=_DESCRIPTOR_BUCKETS,
    ),
    _MOONCAKE.counter(
        "vllm:mooncake_num_failed_transfers_total",
        "Number of failed Mooncake KV Cache transfers.",
        "items",
        "0.33",
    ),
    _MOONCAKE.counter(
        "vllm:mooncake_num_failed_recvs_total",
        "Number of failed Mooncake KV Cache receives.",
        "items",
        "0.33",
    ),
    _MOONCAKE.counter(
        "vllm:mooncake_num_kv_expired_reqs_total",
        "Number of requests that had their KV expire. NOTE: This metric is tracked on the P instance.",
        "requests",
        "0.33",
    ),
    _HF3FS.histogram(
        "vllm:hf3fs_save_duration_seconds",
        "Histogram of save duration for HF3FSKVConnector.",
        "seconds",
        "0.20",
        buckets=(0.001, *_TRANSFER_BUCKETS),
    ),
    _HF3FS.histogram(
        "vllm:hf3fs_load_duration_seconds",
        "Histogram of load duration for HF3FSKVConnector.",
        "seconds",
        "0.20",
        buckets=(0.001, *_TRANSFER_BUCKETS),
    ),
    _HF3FS.counter("vllm:hf3fs_num_failed_save_total", "Number of failed HF3FS KV save.", "items", "0.20"),
    _HF3FS.counter("vllm:hf3fs_num_failed_load_total", "Number of failed HF3FS KV load.", "items", "0.20"),
    _UMBP.counter("vllm:umbp_transfer_submitted_total", "Number of UMBP objects submitted.", "items", "0.33"),
    _UMBP.counter("vllm:umbp_transfer_completed_total", "Number of UMBP objects completed.", "items", "0.33"),
    _UMBP.counter("vllm:umbp_transfer_failed_total", "Number of UMBP objects failed.", "items", "0.33"),
    _UMBP.counter(
        "vllm:umbp_transfer_bytes_total",
        "Bytes in successfully completed UMBP transfer ranges.",
        "bytes",
        "0.33",
    ),
    _HISPARSE.counter(
        "vllm:hisparse_cache_hits_total", "Number of HiSparse device hot-buffer hits.", "items", "0.30"
    ),
    _HISPARSE.counter(
        "vllm:hisparse_cache_misses_total", "Number of HiSparse device hot-buffer misses.", "items", "0.30"
    ),
    _HISPARSE.counter(
        "vllm:hisparse_host_to_device_bytes_total",
        "Bytes transferred from host KV storage to HiSparse hot buffers.",
        "bytes",
        "0.30",
    ),
    _HISPARSE.gauge(
        "vllm:hisparse_host_cache_usage_perc",
        "HiSparse host KV-cache usage. 1 means 100 percent usage. Evictable cached blocks count as free.",
        "ratio",
        "0.32",
    ),
    _HISPARSE.gauge(
        "vllm:hisparse_pending_page_transfers",
        "HiSparse page transfers (write-backs and restores) not yet completed.",
        "items",
        "0.32",
    ),
    _HISPARSE.histogram(
        "vllm:hisparse_host_block_lifetime_seconds",
        "Histogram of HiSparse host KV block lifetime from allocation to eviction. Sampled metrics "
        "(controlled by --kv-cache-metrics-sample).",
        "seconds",
        "0.32",
        buckets=RESIDENCY_BUCKETS,
    ),
    _HISPARSE.histogram(
        "vllm:hisparse_host_block_idle_before_evict_seconds",
        "Histogram of HiSparse host KV block idle time before eviction. Sampled metrics (controlled by "
        "--kv-cache-metrics-sample).",
        "seconds",
        "0.32",
        buckets=RESIDENCY_BUCKETS,
    ),
    _HISPARSE.histogram(
        "vllm:hisparse_host_block_reuse_gap_seconds",
        "Histogram of time gaps between consecutive HiSparse host KV block accesses. Sampled metrics "
        "(controlled by --kv-cache-metrics-sample).",
        "seconds",
        "0.32",
        buckets=RESIDENCY_BUCKETS,
    ),
    _TIERING.histogram(
        "vllm:kv_offload_tiering_lookup_sync_delay_seconds",
        "Histogram of blocking time spent in a per-chunk tier lookup that resolved as a hit or miss, "
        "labeled by tier, in seconds.",
        "seconds",
        "0.26",
        buckets=_SYNC_BUCKETS,
    ),
    _TIERING.histogram(
        "vllm:kv_offload_tiering_lookup_async_delay_seconds",
        "Histogram of wall-clock time from a per-chunk tier lookup first returning retry until that "
        "same tier lookup resolves as a hit or miss, labeled by tier, in seconds.",
        "seconds",
        "0.26",
        buckets=_ASYNC_BUCKETS,
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_read_bytes_total",
        "Total bytes read from secondary tiers into the primary tier, labeled by tier.",
        "bytes",
        "0.28",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_read_time_total",
        "Total time spent reading from secondary tiers into the primary tier, in seconds, labeled by tier.",
        "seconds",
        "0.28",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_write_bytes_total",
        "Total bytes written from the primary tier to secondary tiers, labeled by tier.",
        "bytes",
        "0.28",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_write_time_total",
        "Total time spent writing from the primary tier to secondary tiers, in seconds, labeled by tier.",
        "seconds",
        "0.28",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_promotion_job_failures_total",
        "Number of failed secondary-tier promotion jobs, labeled by tier.",
        "items",
        "0.28",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_cascade_job_failures_total",
        "Number of failed secondary-tier cascade jobs, labeled by tier.",
        "items",
        "0.28",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_chunk_queries_total",
        "Number of chunk lookup queries sent to a tier, labeled by tier.",
        "items",
        "0.28",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_chunk_hits_total",
        "Number of chunk lookup hits in a tier, labeled by tier.",
        "items",
        "0.28",
    ),
    _TIERING.gauge(
        "vllm:kv_offload_tiering_primary_write_usage_perc",
        "Current fraction of primary-tier space used by writes from secondary tiers, labeled by tier.",
        "ratio",
        "0.28",
    ),
    _TIERING.gauge(
        "vllm:kv_offload_tiering_primary_read_usage_perc",
        "Current fraction of primary-tier space used by reads to secondary tiers, labeled by tier.",
        "ratio",
        "0.28",
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_tiering_promotion_allocation_failures_total",
        "Number of promotion attempts that failed because the primary tier could not allocate space.",
        "items",
        "0.28",
    ),
    _TIERING.gauge(
        "vllm:kv_offload_tiering_active_promotion_jobs",
        "Number of active secondary-tier promotion jobs, labeled by tier.",
        "items",
        "0.28",
    ),
    _TIERING.gauge(
        "vllm:kv_offload_tiering_active_cascade_jobs",
        "Number of active secondary-tier cascade jobs, labeled by tier.",
        "items",
        "0.28",
    ),
    _TIERING.gauge(
        "vllm:kv_offload_tiering_backpressure_store_latency_ema",
        "Exponential moving average of store latency for back-pressure detection, in s/MiB.",
        "items",
        "0.31",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_backpressure_stores_dropped_total",
        "Number of store operations dropped due to back-pressure on a secondary tier.",
        "items",
        "0.31",
    ),
    _TIERING.counter(
        "vllm:kv_offload_tiering_backpressure_blocks_dropped_total",
        "Number of blocks dropped due to back-pressure on a secondary tier.",
        "items",
        "0.31",
    ),
    _TIERING.histogram(
        "vllm:kv_offload_tiering_promotion_latency_seconds",
        "Histogram of per-job latency for secondary-tier promotion attempts, labeled by tier and "
        "result, in seconds. Includes failed attempts.",
        "seconds",
        "0.33",
        labels=("result",),
        buckets=_PROMOTION_BUCKETS,
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_stores_skipped_total",
        "Number of KV offload stores skipped because the reuse threshold was not reached.",
        "items",
        "0.24",
    ),
    _OFFLOADING.gauge(
        "vllm:kv_offload_cpu_cache_usage_perc",
        "Fraction of CPU KV-cache space currently pinned by active transfers (0.0 = idle, 1.0 = saturated).",
        "ratio",
        "0.24",
    ),
    _OFFLOADING.histogram(
        "vllm:kv_offload_cpu_allocation_size",
        "Histogram of the number of CPU chunks requested by each KV offload prepare_store call.",
        "items",
        "0.26",
        buckets=_ALLOCATION_BUCKETS,
    ),
    _OFFLOADING.gauge(
        "vllm:kv_offload_cpu_cache_write_usage_perc",
        "Fraction of CPU KV-cache space currently pinned by in-flight stores that have not yet "
        "completed (0.0 = idle, 1.0 = saturated).",
        "ratio",
        "0.26",
    ),
    _OFFLOADING.gauge(
        "vllm:kv_offload_cpu_cache_read_usage_perc",
        "Fraction of CPU KV-cache space currently pinned by in-flight loads that have not yet "
        "completed (0.0 = idle, 1.0 = saturated).",
        "ratio",
        "0.26",
    ),
    _OFFLOADING.gauge(
        "vllm:kv_offload_config_info",
        "Static configuration of the KV offload managers of this engine instance.",
        "state",
        "0.33",
        labels=(
            "cpu_num_chunks",
            "cpu_blocks_per_chunk",
            "cpu_kv_cache_size_bytes",
            "cpu_kv_cache_size_tokens",
        ),
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_total_bytes_total",
        "Number of bytes offloaded by KV connector",
        "bytes",
        "0.16",
        labels=("transfer_type",),
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_total_time_total",
        "Total time measured by all KV offloading operations",
        "seconds",
        "0.16",
        labels=("transfer_type",),
    ),
    _OFFLOADING.histogram(
        "vllm:kv_offload_size",
        "Histogram of KV offload transfer size, in bytes.",
        "bytes",
        "0.16",
        labels=("transfer_type",),
        buckets=_SIZE_BUCKETS,
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_load_bytes_total", "Total bytes loaded from offload storage to GPU.", "bytes", "0.24"
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_load_time_total",
        "Total load time from offload storage to GPU, in seconds.",
        "seconds",
        "0.24",
    ),
    _OFFLOADING.histogram(
        "vllm:kv_offload_load_size",
        "Histogram of KV offload load operation size, in bytes.",
        "bytes",
        "0.24",
        buckets=_SIZE_BUCKETS,
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_store_bytes_total",
        "Total bytes stored from GPU to offload storage.",
        "bytes",
        "0.24",
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_store_time_total",
        "Total store time from GPU to offload storage, in seconds.",
        "seconds",
        "0.24",
    ),
    _OFFLOADING.histogram(
        "vllm:kv_offload_store_size",
        "Histogram of KV offload store operation size, in bytes.",
        "bytes",
        "0.24",
        buckets=_SIZE_BUCKETS,
    ),
    _OFFLOADING.histogram(
        "vllm:kv_offload_lookup_sync_delay_seconds",
        "Histogram of the time spent in a single offload lookup call, in seconds.",
        "seconds",
        "0.26",
        buckets=_SYNC_BUCKETS,
    ),
    _OFFLOADING.histogram(
        "vllm:kv_offload_lookup_async_delay_seconds",
        "Histogram of time between a request's offload lookup first deferring and the following lookup "
        "resolving, or request finish, in seconds.",
        "seconds",
        "0.26",
        buckets=_ASYNC_BUCKETS,
    ),
    _OFFLOADING.counter(
        "vllm:kv_offload_allocation_failure_total",
        "Number of KV offload store allocation attempts that failed.",
        "items",
        "0.26",
    ),
    _SIMPLE.counter(
        "vllm:simple_kv_offload_save_outcomes_total",
        "Store admission decisions in SimpleCPUOffloadConnector, by outcome. Outcomes classify "
        "eager-mode boundary hand-off stores; lazy-mode stores are not classified.",
        "items",
        "0.31",
        labels=("outcome",),
    ),
    _SIMPLE.counter(
        "vllm:simple_kv_offload_load_blocks_total",
        "KV blocks restored to GPU from the offload pool, counted when a load finishes. This is "
        "prefill work avoided through offload cache hits.",
        "items",
        "0.31",
    ),
    _SIMPLE.gauge(
        "vllm:simple_kv_offload_used_blocks",
        "Offload-pool blocks currently pinned by in-flight transfers or cache hits (capacity minus "
        "free). Evictable cached blocks are not counted; capacity_blocks is on "
        "vllm:simple_kv_offload_info.",
        "items",
        "0.31",
    ),
    _SIMPLE.gauge(
        "vllm:simple_kv_offload_pending_store_blocks",
        "Offload blocks in pending stores: queued for dispatch, issued to workers, or awaiting release "
        "after a cache reset. A persistently growing value indicates a stuck transfer.",
        "items",
        "0.31",
    ),
    _SIMPLE.gauge(
        "vllm:simple_kv_offload_info",
        "SimpleCPUOffloadConnector deployment facts. Value is always 1. backend is cpu or disk; "
        "page_cache and lazy_offload are true/false; capacity_blocks is the offload pool size.",
        "state",
        "0.31",
        labels=("backend", "page_cache", "lazy_offload", "capacity_blocks"),
    ),
)
"""Every metric of a connector."""
