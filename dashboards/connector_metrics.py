"""The metrics of vLLM's connectors that move KV caches: between servers, to the host's memory, to storage.

None of them exists without `--kv-transfer-config`, and no expression reads one: they are here so that a name
is known and `check` says what it needs. Read like those in `server_metrics`.
"""

from __future__ import annotations

from dashboards.metric import table
from dashboards.server_metrics import ENGINE

CONNECTORS = table(
    """
# NIXL
nixl_xfer_time_seconds histogram seconds 0.13
nixl_post_time_seconds histogram seconds 0.13
nixl_bytes_transferred histogram bytes 0.13
nixl_num_descriptors histogram items 0.13
nixl_num_failed_transfers_total counter items 0.13
nixl_num_failed_notifications_total counter items 0.13
nixl_num_kv_expired_reqs_total counter requests 0.15
nixl_num_notifications_after_expiry_total counter items 0.32
# Mooncake store
mooncake_store_operation_time_seconds histogram seconds 0.22 operation,status
mooncake_store_operation_total counter items 0.22 operation,status
mooncake_store_operation_keys_total counter items 0.22 operation,status
mooncake_store_operation_bytes_total counter bytes 0.22 operation,status
mooncake_store_operation_failed_keys_total counter items 0.22 operation,status
# Mooncake
mooncake_xfer_time_seconds histogram seconds 0.33
mooncake_bytes_transferred histogram bytes 0.33
mooncake_num_descriptors histogram items 0.33
mooncake_num_failed_transfers_total counter items 0.33
mooncake_num_failed_recvs_total counter items 0.33
mooncake_num_kv_expired_reqs_total counter requests 0.33
# HF3FS
hf3fs_save_duration_seconds histogram seconds 0.20
hf3fs_load_duration_seconds histogram seconds 0.20
hf3fs_num_failed_save_total counter items 0.20
hf3fs_num_failed_load_total counter items 0.20
# UMBP store
umbp_transfer_submitted_total counter items 0.33 operation
umbp_transfer_completed_total counter items 0.33 operation
umbp_transfer_failed_total counter items 0.33 operation
umbp_transfer_bytes_total counter bytes 0.33 operation
# HiSparse
hisparse_cache_hits_total counter items 0.30
hisparse_cache_misses_total counter items 0.30
hisparse_host_to_device_bytes_total counter bytes 0.30
hisparse_host_cache_usage_perc gauge ratio 0.32
hisparse_pending_page_transfers gauge items 0.32
hisparse_host_block_lifetime_seconds histogram seconds 0.32
hisparse_host_block_idle_before_evict_seconds histogram seconds 0.32
hisparse_host_block_reuse_gap_seconds histogram seconds 0.32
# offloading, with tiers
kv_offload_tiering_lookup_sync_delay_seconds histogram seconds 0.26 tier
kv_offload_tiering_lookup_async_delay_seconds histogram seconds 0.26 tier
kv_offload_tiering_read_bytes_total counter bytes 0.28 tier
kv_offload_tiering_read_time_total counter seconds 0.28 tier
kv_offload_tiering_write_bytes_total counter bytes 0.28 tier
kv_offload_tiering_write_time_total counter seconds 0.28 tier
kv_offload_tiering_promotion_job_failures_total counter items 0.28 tier
kv_offload_tiering_cascade_job_failures_total counter items 0.28 tier
kv_offload_tiering_chunk_queries_total counter items 0.28 tier
kv_offload_tiering_chunk_hits_total counter items 0.28 tier
kv_offload_tiering_primary_write_usage_perc gauge ratio 0.28 tier
kv_offload_tiering_primary_read_usage_perc gauge ratio 0.28 tier
kv_offload_tiering_active_promotion_jobs gauge items 0.28 tier
kv_offload_tiering_active_cascade_jobs gauge items 0.28 tier
kv_offload_tiering_backpressure_store_latency_ema gauge items 0.31 tier
kv_offload_tiering_backpressure_stores_dropped_total counter items 0.31 tier
kv_offload_tiering_backpressure_blocks_dropped_total counter items 0.31 tier
kv_offload_tiering_promotion_latency_seconds histogram seconds 0.33 tier,result
# offloading
kv_offload_tiering_promotion_allocation_failures_total counter items 0.28
kv_offload_stores_skipped_total counter items 0.24
kv_offload_cpu_cache_usage_perc gauge ratio 0.24
kv_offload_cpu_allocation_size histogram items 0.26
kv_offload_cpu_cache_write_usage_perc gauge ratio 0.26
kv_offload_cpu_cache_read_usage_perc gauge ratio 0.26
kv_offload_config_info gauge state 0.33 \
cpu_num_chunks,cpu_blocks_per_chunk,cpu_kv_cache_size_bytes,cpu_kv_cache_size_tokens
kv_offload_total_bytes_total counter bytes 0.16 transfer_type
kv_offload_total_time_total counter seconds 0.16 transfer_type
kv_offload_size histogram bytes 0.16 transfer_type
kv_offload_load_bytes_total counter bytes 0.24
kv_offload_load_time_total counter seconds 0.24
kv_offload_load_size histogram bytes 0.24
kv_offload_store_bytes_total counter bytes 0.24
kv_offload_store_time_total counter seconds 0.24
kv_offload_store_size histogram bytes 0.24
kv_offload_lookup_sync_delay_seconds histogram seconds 0.26
kv_offload_lookup_async_delay_seconds histogram seconds 0.26
kv_offload_allocation_failure_total counter items 0.26
# simple CPU offload
simple_kv_offload_save_outcomes_total counter items 0.31 outcome
simple_kv_offload_load_blocks_total counter items 0.31
simple_kv_offload_used_blocks gauge items 0.31
simple_kv_offload_pending_store_blocks gauge items 0.31
simple_kv_offload_info gauge state 0.31 backend,page_cache,lazy_offload,capacity_blocks
""",
    ENGINE,
    "--kv-transfer-config with the connector {}",
)
"""Every metric of a connector, below its name."""
