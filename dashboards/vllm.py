"""The dashboard of the vLLM endpoint: latency, throughput, resources, queue, capacity and tokens.

Counters and histograms are read with plain `rate()`: right for one replica. Behind one URL with several
replicas each scrape meets another replica, so absolute rates are too high then; gauges show one replica.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import DataSourceRef

UID = "vllm-ministral-monitoring"
"""Uid of the dashboard, part of its address."""
SLUG = "ministral-14b-vllm-metrics-monitoring"
"""Human-readable part of the dashboard's address; Grafana ignores it."""

_DATASOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
_COLUMNS = 24


@dataclass(frozen=True)
class _Query:
    expression: str
    legend: str


@dataclass(frozen=True)
class _Panel:
    title: str
    description: str
    unit: str
    queries: Sequence[_Query]
    maximum: float | None = None


def _rate(counter: str, by: str = "") -> str:
    """Sum of a counter's increase per second, by the label `by` if given."""
    grouping = f" by ({by}) " if by else ""
    return f"sum{grouping}(rate({counter}{{$vllm}}[$__rate_interval]))"


def _quantiles(family: str) -> list[_Query]:
    """p50, p95 and p99 of a histogram of vLLM."""
    return [
        _Query(
            f"histogram_quantile({quantile}, {_rate(f'{family}_bucket', by='le')})",
            f"p{round(quantile * 100)}",
        )
        for quantile in (0.5, 0.95, 0.99)
    ]


_ROWS: tuple[tuple[str, tuple[_Panel, ...]], ...] = (
    (
        "Latency",
        (
            _Panel(
                "Time to first token",
                "Seconds from the arrival of a request to its first token; grows first when a GPU saturates.",
                "s",
                _quantiles("vllm:time_to_first_token_seconds"),
            ),
            _Panel(
                "Inter-token latency",
                "Seconds between two tokens of a stream. The median stays flat while the queue grows.",
                "s",
                _quantiles("vllm:inter_token_latency_seconds"),
            ),
            _Panel(
                "End-to-end latency",
                "Seconds from the arrival of a request to its last token.",
                "s",
                _quantiles("vllm:e2e_request_latency_seconds"),
            ),
        ),
    ),
    (
        "Throughput and tokens",
        (
            _Panel(
                "Finished requests",
                "Requests per second by how they ended: stop, length, abort (the caller left) or error.",
                "reqps",
                [_Query(_rate("vllm:request_success_total", by="finished_reason"), "{{finished_reason}}")],
            ),
            _Panel(
                "Prompt tokens",
                "Prompt tokens per second, cached ones included.",
                "short",
                [_Query(_rate("vllm:prompt_tokens_total"), "prompt tokens/s")],
            ),
            _Panel(
                "Generated tokens",
                "Generated tokens per second.",
                "short",
                [_Query(_rate("vllm:generation_tokens_total"), "generated tokens/s")],
            ),
        ),
    ),
    (
        "Queue, resources and capacity",
        (
            _Panel(
                "Requests",
                "Running is what the platform scales on; waiting that lasts means one replica too few.",
                "short",
                [
                    _Query("vllm:num_requests_running{$vllm}", "running"),
                    _Query("vllm:num_requests_waiting{$vllm}", "waiting"),
                ],
            ),
            _Panel(
                "KV cache usage",
                "Share of the KV cache in use. Near 100 % requests are preempted and computed again.",
                "percentunit",
                [_Query("vllm:kv_cache_usage_perc{$vllm}", "in use")],
                maximum=1,
            ),
            _Panel(
                "Preemptions",
                "Preempted requests per second; anything above zero for long means too little KV cache.",
                "short",
                [_Query(_rate("vllm:num_preemptions_total"), "preemptions/s")],
            ),
        ),
    ),
)


def build(job: str) -> str:
    """The dashboard as JSON of Grafana's classic schema, for the vLLM series of the scrape job `job`."""
    builder = (
        dashboard.Dashboard("Ministral 14B vLLM metrics monitoring")
        .uid(UID)
        .tags(["vllm"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
    )
    for title, panels in _ROWS:
        builder = builder.with_row(dashboard.Row(title))
        for panel in panels:
            builder = builder.with_panel(_timeseries(panel, job, span=_COLUMNS // len(panels)))
    return json.dumps(
        json.loads(JSONEncoder(sort_keys=True).encode(builder.build())), indent=1, sort_keys=True
    )


def _timeseries(panel: _Panel, job: str, span: int) -> timeseries.Panel:
    legend = (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .placement(common.LegendPlacement.BOTTOM)
        .display_mode(common.LegendDisplayMode.LIST)
    )
    result = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(_DATASOURCE)
        .unit(panel.unit)
        .min(0)
        .legend(legend)
        .span(span)
        .height(8)
    )
    if panel.maximum is not None:
        result = result.max(panel.maximum)
    for reference, query in zip(ascii_uppercase, panel.queries, strict=False):
        expression = query.expression.replace("$vllm", f'job="{job}"')
        result = result.with_target(
            prometheus.Dataquery().ref_id(reference).expr(expression).legend_format(query.legend)
        )
    return result
