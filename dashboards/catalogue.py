"""One catalogue of everything that our expressions may read.

The metrics of vLLM come from its sources (`server_metrics`, `connector_metrics`), the others are listed here
with what is needed to check an expression. `find` tells what a series is, whoever recorded it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from dashboards.connector_metrics import CONNECTORS
from dashboards.metric import FIRST, NEWEST, Metric, Type, Unit, UnknownVersionError, version
from dashboards.server_metrics import CONDITIONAL, FINISHED_REASONS, HTTP, PROCESS, RETIRED, SERVER
from dashboards.target import ENDPOINT_LABELS

__all__ = [
    "FIRST",
    "METRICS",
    "NEWEST",
    "OTHERS",
    "RECORDED",
    "Metric",
    "Series",
    "Type",
    "Unit",
    "UnknownVersionError",
    "exposed",
    "find",
    "series",
    "version",
]

METRICS: tuple[Metric, ...] = (*PROCESS, *SERVER, *HTTP, *CONDITIONAL, *CONNECTORS, *RETIRED)
"""What a server exposes, in the order of an exposition, then what it exposes only with some flag."""

SCRAPE_LABELS = (*ENDPOINT_LABELS, "instance", "sampler")
"""What a scrape of the endpoint adds to the labels of its metrics."""
REPLICA_LABELS = (*ENDPOINT_LABELS, "instance", "replica")
"""What a recorded series of a replica has besides the labels of its metric."""
CLUSTER_LABELS = ("job", "instance", "namespace", "pod", "service", "container", "endpoint", "node")
"""What a scrape of something in the cluster adds."""
_ANY = tuple(dict.fromkeys((*SCRAPE_LABELS, *CLUSTER_LABELS)))
_ALERT = ("alertname", "alertstate", "severity", "slo", "replica", "finished_reason", "state")


_SLOS = {"slo": ("time_to_first_token", "inter_token_latency", "success", "availability")}


def _gauge(
    name: str, unit: Unit, labels: tuple[str, ...], values: Mapping[str, tuple[str, ...]] | None = None
) -> Metric:
    return Metric(name, "gauge", "", unit, labels, values=values or {})


def _cluster(name: str, unit: Unit, *labels: str) -> Metric:
    """A metric of a component of the monitoring itself."""
    if name.endswith("_total"):
        return Metric(name, "counter", "", unit, (*CLUSTER_LABELS, *labels), created=False)
    return _gauge(name, unit, (*CLUSTER_LABELS, *labels))


OTHERS: tuple[Metric, ...] = (
    # Of every scrape, made by Prometheus.
    _gauge("up", "state", _ANY),
    _gauge("scrape_duration_seconds", "seconds", _ANY),
    _gauge("scrape_samples_scraped", "items", _ANY),
    _gauge("scrape_samples_post_metric_relabeling", "items", _ANY),
    _gauge(
        "ALERTS",
        "state",
        (*_ANY, *_ALERT),
        {
            "alertstate": ("pending", "firing"),
            "severity": ("critical", "warning", "info", "none"),
            **_SLOS,
            "finished_reason": FINISHED_REASONS,
        },
    ),
    # What the platform says of the app; see components/platform_exporter.py.
    _gauge("ai_deploy_app_available_replicas", "replicas", (*ENDPOINT_LABELS, "instance")),
    _gauge("ai_deploy_app_state", "state", (*ENDPOINT_LABELS, "instance", "state")),
    # Prometheus 3 of itself, and Alertmanager.
    _cluster("prometheus_tsdb_storage_blocks_bytes", "bytes"),
    _cluster("prometheus_tsdb_wal_storage_size_bytes", "bytes"),
    _cluster("prometheus_tsdb_head_chunks_storage_size_bytes", "bytes"),
    _cluster("prometheus_tsdb_head_series", "items"),
    _cluster("prometheus_tsdb_size_retentions_total", "items"),
    _cluster("prometheus_rule_evaluation_failures_total", "items", "rule_group"),
    _cluster("prometheus_rule_group_iterations_total", "items", "rule_group"),
    _cluster("prometheus_rule_group_iterations_missed_total", "items", "rule_group"),
    _cluster("prometheus_rule_group_last_duration_seconds", "seconds", "rule_group"),
    _cluster("prometheus_rule_group_interval_seconds", "seconds", "rule_group"),
    _cluster("prometheus_notifications_dropped_total", "items"),
    _cluster("alertmanager_notifications_total", "items", "integration"),
    _cluster("alertmanager_notifications_failed_total", "items", "integration", "reason"),
)
"""Series that are not vLLM's and that our expressions read, with all labels that a scrape gives them."""

_SLO = (*ENDPOINT_LABELS, "slo")

RECORDED: tuple[Metric, ...] = (
    _gauge("fleet:vllm:replicas_seen", "replicas", ENDPOINT_LABELS),
    _gauge("fleet:vllm:replicas_ready", "replicas", ENDPOINT_LABELS),
    _gauge("fleet:vllm:unidentified_scrapes", "items", ENDPOINT_LABELS),
    _gauge("fleet:vllm:num_requests_running", "requests", ENDPOINT_LABELS),
    _gauge("fleet:vllm:num_requests_waiting", "requests", ENDPOINT_LABELS),
    _gauge("fleet:vllm:generation_tokens:increase5m", "tokens", ENDPOINT_LABELS),
    _gauge("fleet:vllm:prompt_tokens:increase5m", "tokens", ENDPOINT_LABELS),
    _gauge(
        "fleet:vllm:requests:increase5m",
        "requests",
        (*ENDPOINT_LABELS, "finished_reason"),
        {"finished_reason": FINISHED_REASONS},
    ),
    _gauge("fleet:slo_good:increase5m", "items", _SLO, _SLOS),
    _gauge("fleet:slo_total:increase5m", "items", _SLO, _SLOS),
    *(
        _gauge(f"fleet:slo_errors:ratio{window}", "ratio", _SLO, _SLOS)
        for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "7d")
    ),
    _gauge("fleet:slo_objective:ratio", "ratio", _SLO, _SLOS),
    _gauge("fleet:slo_budget_left:ratio7d", "ratio", _SLO, _SLOS),
)
"""What rules record besides the series of replicas. Increases are gauges: they are increased already."""

Part = Literal["value", "bucket", "sum", "count", "created"]
"""Which of the series of a family; `value` is the one with the family's own name."""
Layer = Literal["scraped", "replica", "recorded", "other"]
"""Who made a series: a scrape of the endpoint, the rules for the replicas, other rules, somebody else."""

_PARTS: Mapping[str, tuple[Part, tuple[Type, ...]]] = {
    "_bucket": ("bucket", ("histogram",)),
    "_sum": ("sum", ("histogram", "summary")),
    "_count": ("count", ("histogram", "summary")),
    "_created": ("created", ("counter", "histogram", "summary")),
}
REPLICA = "replica:"
"""Before the name of a series: the same, of each replica."""


@dataclass(frozen=True)
class Series:
    """A series of a family."""

    name: str
    metric: Metric
    part: Part
    layer: Layer

    @property
    def counts(self) -> bool:
        """Whether it only grows, until its process ends."""
        return self.part in ("bucket", "sum", "count") or (
            self.part == "value" and self.metric.type == "counter"
        )

    @property
    def increased(self) -> float | None:
        """Seconds over which its values are increases already; None if they are not."""
        match = re.search(r":increase(\d+)m$", self.name) if self.layer == "recorded" else None
        return 60 * float(match[1]) if match else None

    @property
    def unit(self) -> Unit:
        """What a value counts or measures."""
        if self.part == "created":
            return "unix seconds"
        return self.metric.counted if self.part in ("bucket", "count") else self.metric.unit

    def labels(self, vllm: str) -> frozenset[str]:
        """All labels in that version of vLLM."""
        own = {*self.metric.labels_in(vllm), *(["le"] if self.part == "bucket" else [])}
        if self.layer == "replica":
            own.update(REPLICA_LABELS)
        elif self.layer == "scraped":
            # Other processes than vLLM say process_… as well.
            own.update(SCRAPE_LABELS if self.metric not in PROCESS else _ANY)
        return frozenset(own)


def _index(metrics: Iterable[Metric], layer: Layer) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for metric in metrics:
        found[metric.name] = Series(metric.name, metric, "value", layer)
        for ending, (part, types) in _PARTS.items():
            base = metric.base if part == "created" else metric.name
            if metric.type in types and (part != "created" or metric.created):
                found[base + ending] = Series(base + ending, metric, part, layer)
    return found


_SERIES: Mapping[str, Series] = {
    **_index(METRICS, "scraped"),
    **_index(OTHERS, "other"),
    **_index(RECORDED, "recorded"),
}


def series(name: str) -> Series | None:
    """What the series of that name is; None if there is none in any version."""
    if not name.startswith(REPLICA):
        return _SERIES.get(name)
    found = _SERIES.get(name.removeprefix(REPLICA))
    if found is None or found.layer != "scraped":
        return None
    return Series(name, found.metric, found.part, "replica")


def find(series_name: str) -> Metric | None:
    """The family of a series, of a part of it (`_bucket`, `_sum`, …), or of a replica's."""
    found = series(series_name)
    return found.metric if found else None


def names() -> tuple[str, ...]:
    """Names of all series that are in the catalogue, those of replicas not."""
    return tuple(_SERIES)


def exposed(vllm: str) -> tuple[Metric, ...]:
    """What a text-generation server of that version exposes with no flag, in order, with its labels there."""
    return tuple(
        replace(metric, labels=metric.labels_in(vllm), label_versions={})
        for metric in METRICS
        if metric.flag is None and metric.exists(vllm)
    )
