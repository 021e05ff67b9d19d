"""The result as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dashboards.page import document
from dashboards.page.document import Mark, Page, Panel, Place, Report, Section, Series
from loadtest.client import Answer
from loadtest.replicas import Replicas
from loadtest.results import PERCENTILES, Facts, Result, percentile, token_rates

_POINTS = 120
"""How many points a line of percentiles has at most."""
_LINES = (50.0, 95.0, 99.0)
_NAMES = {
    "ttft": "Time to first token",
    "itl": "Inter-token latency",
    "tpot": "Time per output token",
    "e2el": "End to end",
}
_LEGEND: Mapping[str, Any] = {
    "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
    "tooltip": {"mode": "multi", "sort": "desc"},
}


def page(facts: Facts, outcome: Result, replicas: Replicas) -> Page:
    """The page; times on it are the wall clock's."""
    zero = facts.began.timestamp()
    recording = outcome.recording
    samples = recording.samples
    times = [zero + sample.time for sample in samples]
    rates = [*token_rates(recording)]
    sections = [
        Section("", [_statistics(outcome)]),
        Section(
            "Latency by the start of the request",
            [
                _percentiles(
                    "Time to first token",
                    0,
                    0,
                    zero,
                    outcome,
                    lambda answer: answer.ttft,
                    facts.objectives.get("ttft"),
                ),
                _percentiles(
                    "End to end",
                    12,
                    0,
                    zero,
                    outcome,
                    lambda answer: answer.latency,
                    facts.objectives.get("e2el"),
                ),
                _percentiles(
                    "Time per output token",
                    0,
                    8,
                    zero,
                    outcome,
                    lambda answer: answer.tpot,
                    facts.objectives.get("tpot"),
                ),
                _timeseries(
                    "Failed requests",
                    12,
                    8,
                    *_failures(zero, outcome.answers, recording.duration),
                    "By kind of error, per point of the line.",
                    nothing="no request failed",
                ),
            ],
        ),
        Section(
            "Load",
            [
                _timeseries(
                    "Requests in flight",
                    0,
                    0,
                    times,
                    [_line("in flight", [float(sample.in_flight) for sample in samples], "short")],
                    "Sent and not yet answered to the end.",
                ),
                _timeseries(
                    "Output tokens",
                    12,
                    0,
                    [zero + time for time, _ in rates],
                    [_line("tokens/s", [rate for _, rate in rates], "count:tokens/s")],
                    "Chunks of streams; tokens of answers that are not streamed count when they arrive.",
                ),
                _timeseries(
                    "Replicas",
                    0,
                    8,
                    [zero + look.time for look in replicas.looks],
                    [
                        _line(
                            "available",
                            [float(look.available) for look in replicas.looks],
                            "short",
                            custom={"lineInterpolation": "stepAfter"},
                        )
                    ],
                    "\n".join(replicas.lines()),
                    nothing=replicas.source,
                ),
                _timeseries(
                    "Client",
                    12,
                    8,
                    times,
                    [
                        _line("share of a core", [sample.cpu for sample in samples], "percentunit"),
                        _line("event loop late (100 % is 1 s)", [s.loop_lag for s in samples], "percentunit"),
                    ],
                    "Near 100 % of a core, or late, the client measures itself.",
                ),
            ],
        ),
    ]
    marks = [
        Mark(zero + one.available, zero + one.available, f"{one.replicas} replicas", "", "purple")
        for one in replicas.scale_ups()
    ]
    report = Report(
        "loadtest",
        f"Load test of {facts.model}",
        zero,
        zero + max(recording.duration, 1.0),
        sections,
        _facts(facts, outcome),
        marks,
        description=". ".join(outcome.warnings),
    )
    return document.page([report], zero + recording.duration)


def _facts(facts: Facts, outcome: Result) -> dict[str, str]:
    recording = outcome.recording
    shown = {
        "endpoint": facts.base_url,
        "traffic": facts.traffic.name,
        "requests": outcome.counts,
        "duration": f"{recording.duration:.1f} s",
        "requests/s": f"{outcome.per_second(outcome.completed):.2f}",
        "output tokens/s": f"{outcome.per_second(outcome.output_tokens):.0f}",
    }
    if outcome.goodput is not None:
        limits = ", ".join(f"{name} {limit * 1000:g} ms" for name, limit in facts.objectives.items())
        shown["goodput"] = f"{outcome.goodput:.2f} requests/s within {limits}"
    if recording.partial:
        shown["partial"] = recording.partial
    return shown


def _statistics(outcome: Result) -> Panel:
    """All measures in one table."""
    rows = [(label, outcome.summaries[name]) for name, label in _NAMES.items() if name in outcome.summaries]
    columns: dict[str, list[float | str | None]] = {
        "measure": [label for label, _ in rows],
        "requests or gaps": [float(numbers.count) for _, numbers in rows],
        "mean": [numbers.mean for _, numbers in rows],
        **{f"p{percent:g}": [numbers.percentiles[percent] for _, numbers in rows] for percent in PERCENTILES},
        "min": [numbers.least for _, numbers in rows],
        "max": [numbers.most for _, numbers in rows],
        "std": [numbers.std for _, numbers in rows],
    }
    series = [
        Series(
            name,
            values,
            {"unit": "none" if name == "measure" else "short" if name == "requests or gaps" else "s"},
            "string" if name == "measure" else "number",
        )
        for name, values in columns.items()
    ]
    return Panel(
        "table",
        "Statistics of successful requests",
        Place(0, 0, 24, 6),
        "Percentiles over all of them, interpolated as numpy does.",
        {"showHeader": True},
        series=series,
    )


def _percentiles(
    title: str,
    column: int,
    row: int,
    zero: float,
    outcome: Result,
    measure: Callable[[Answer], float | None],
    limit: float | None,
) -> Panel:
    """Lines of percentiles over the requests that began within the same piece of the test."""
    width = _width(outcome.recording.duration)
    pieces: dict[int, list[float]] = {}
    for answer in outcome.answers:
        value = measure(answer)
        if value is not None and not answer.kind:
            pieces.setdefault(int(answer.start / width), []).append(value)
    ordered = {piece: sorted(pieces[piece]) for piece in sorted(pieces)}
    lines = [
        _line(f"p{percent:g}", [percentile(values, percent) for values in ordered.values()], "s", limit=limit)
        for percent in _LINES
    ]
    return _timeseries(
        title,
        column,
        row,
        [zero + piece * width for piece in ordered],
        lines if ordered else [],
        f"Percentiles of the requests that began within {width:g} s."
        + (f" The dashed line is the objective, {limit:g} s." if limit else ""),
        nothing="not measured",
    )


def _failures(zero: float, answers: Iterable[Answer], duration: float) -> tuple[list[float], list[Series]]:
    width = _width(duration)
    failed = [answer for answer in answers if answer.kind]
    pieces = range(int(duration / width) + 1) if failed else range(0)
    kinds = sorted({answer.kind for answer in failed})
    counts = {kind: [0.0] * len(pieces) for kind in kinds}
    for answer in failed:
        counts[answer.kind][min(int(answer.end / width), len(pieces) - 1)] += 1
    return [zero + piece * width for piece in pieces], [_line(kind, counts[kind], "short") for kind in kinds]


def _width(duration: float) -> float:
    """Seconds between two points: whole ones, and few points."""
    return max(1.0, math.ceil(duration / _POINTS))


def _line(
    name: str,
    values: Sequence[float | None],
    unit: str,
    *,
    limit: float | None = None,
    custom: Mapping[str, Any] | None = None,
) -> Series:
    drawn = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, **(custom or {})}
    field: dict[str, Any] = {"unit": unit, "min": 0, "color": {"mode": "palette-classic"}, "custom": drawn}
    if limit is not None:
        steps = [{"value": None, "color": "green"}, {"value": limit, "color": "red"}]
        field["thresholds"] = {"mode": "absolute", "steps": steps}
        drawn["thresholdsStyle"] = {"mode": "dashed"}
    return Series(name, values, field)


def _timeseries(
    title: str,
    column: int,
    row: int,
    times: Sequence[float],
    series: Sequence[Series],
    description: str,
    nothing: str = "",
) -> Panel:
    return Panel(
        "timeseries",
        title,
        Place(column, row, 12, 8),
        description,
        _LEGEND,
        times,
        series,
        nothing=nothing,
    )
