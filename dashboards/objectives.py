"""Service level objectives of an endpoint: recording rules of their ratios and alerts on burn rates.

Four objectives, each over seven days, since Prometheus keeps 15 days and two periods fit into that:

| `slo`               | event                        | bad                                                   |
|---------------------|------------------------------|-------------------------------------------------------|
| time_to_first_token | first token of a request     | later than the objective's seconds                    |
| inter_token_latency | gap between two tokens       | longer than the objective's seconds                   |
| success             | request that ended           | finished_reason error, or HTTP 5xx of a POST to /v1/… |
| availability        | scrape of the public address | not answered, for whatever reason                     |

Requests that their callers give up are no failures, and vLLM does not count them. One that is given up
before its first token is in no histogram, one that is given up later had its first token like any other.
Streams that break off because an engine dies are in no objective either: they were answered with 200, and
nobody is left to count their end. VllmManyAborts sees both. Refused requests (HTTP 4xx) are the caller's
doing. An engine error that is answered with HTTP 500 counts twice, as an error and as a 5xx, for nothing
tells that they are the same. Where an endpoint may be scaled to zero, scrapes are events only while the
platform says that it is not.

An alert fires when the budget burns fast over a long window, so that it matters, and over a short one, so
that it still goes on. Windows and shares of the budget are those of Sloth's example for seven days
(https://github.com/slok/sloth/blob/main/examples/windows/7d.yaml), the method is that of Google's workbook
(https://sre.google/workbook/alerting-on-slos/).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dashboards import catalogue
from dashboards.rules import Alert, Group, Recording, Severity
from dashboards.target import API_CALLS, ENDPOINT, Latency, Objectives, Target

PERIOD = "7d"
"""What an objective is about."""

_HOURS = {"5m": 5 / 60, "30m": 0.5, "1h": 1, "2h": 2, "6h": 6, "1d": 24, "3d": 72, "7d": 168}
"""The windows that are recorded, in hours."""


@dataclass(frozen=True)
class Tier:
    """Budget that burns this fast over both windows is worth an alert."""

    severity: Severity
    share: float
    """Share of the period's budget that is gone when it burns so for the length of the long window."""
    long: str
    short: str

    @property
    def factor(self) -> float:
        """How many times faster than allowed the budget burns; 1 spends it in exactly the period."""
        return round(self.share * _HOURS[PERIOD] / _HOURS[self.long], 6)

    @property
    def lowest(self) -> float:
        """The objective up from which the tier can fire, to four digits.

        Below, events that are all bad do not burn the budget that fast.
        """
        return math.ceil((1 - 1 / self.factor) * 10_000) / 10_000


TIERS: tuple[Tier, ...] = (
    Tier("critical", 0.08, "1h", "5m"),
    Tier("critical", 0.125, "6h", "30m"),
    Tier("warning", 0.20, "1d", "2h"),
    Tier("warning", 0.42, "3d", "6h"),
)
"""The fastest first."""

LOWEST = max(tier.lowest for tier in TIERS)
"""The lowest objective for which every tier can fire."""


@dataclass(frozen=True)
class _Slo:
    name: str
    """Value of the label `slo`."""
    alert: str
    """What the names of its alerts begin with."""
    ratio: float
    good: str
    """Good events of the last 5 minutes, without aggregation."""
    total: str
    bad_events: str
    """What bad ones are, in words: `first tokens came later than 1 s`."""
    fewest: int
    """Bad events in the long window below which nobody is told: on a quiet endpoint a few are a large share.

    Bad ones rather than all: so a total outage of a quiet endpoint is told as well.
    """


def _slos(target: Target) -> tuple[_Slo, ...]:
    objectives = target.objectives
    first, gap = objectives.time_to_first_token, objectives.inter_token_latency
    finished = f"replica:vllm:request_success_total{{{target.selector},finished_reason"
    failed = f'replica:http_requests_total{{{target.selector},{API_CALLS},status="5xx"}}'
    awake = ""
    if target.min_replicas == 0 and target.platform_metrics:
        ready = f"fleet:vllm:replicas_ready{{{target.selector}}}"
        awake = f" unless on (job) min_over_time({ready}[5m]) == 0"
    return (
        _Slo(
            "time_to_first_token",
            "VllmTimeToFirstToken",
            first.ratio,
            *_latency(target, _FIRST_TOKEN, first),
            f"first tokens came later than {first.seconds:g} s",
            fewest=10,
        ),
        _Slo(
            "inter_token_latency",
            "VllmInterTokenLatency",
            gap.ratio,
            *_latency(target, _TOKEN_GAP, gap),
            f"gaps between tokens were longer than {gap.seconds:g} s",
            # A request has hundreds of gaps: ten slow requests rather than one.
            fewest=1000,
        ),
        _Slo(
            "success",
            "VllmSuccess",
            objectives.success,
            f'increase({finished}!~"abort|error"}}[5m])',
            # Their labels differ, so `or` keeps both.
            f'increase({finished}!="abort"}}[5m]) or increase({failed}[5m])',
            "requests failed",
            fewest=10,
        ),
        _Slo(
            "availability",
            "VllmAvailability",
            objectives.availability,
            f"sum_over_time(up{{{target.selector}}}[5m]){awake}",
            f"count_over_time(up{{{target.selector}}}[5m]){awake}",
            "scrapes of the public address were not answered",
            fewest=10,
        ),
    )


_FIRST_TOKEN = "vllm:time_to_first_token_seconds"  # noqa: S105
_TOKEN_GAP = "vllm:inter_token_latency_seconds"  # noqa: S105


def _latency(target: Target, histogram: str, objective: Latency) -> tuple[str, str]:
    """Events within the bound, and all of them."""
    # As vLLM prints bounds, which Prometheus leaves so: "1.0", never "1".
    bound = f'le="{float(objective.seconds)}"'
    return (
        f"increase(replica:{histogram}_bucket{{{target.selector},{bound}}}[5m])",
        f"increase(replica:{histogram}_count{{{target.selector}}}[5m])",
    )


def groups(target: Target) -> Sequence[Group]:
    """The rules of the endpoint's objectives."""
    return [
        Group(f"{target.job}-slo", [*_recordings(target)]),
        Group(f"{target.job}-slo-alerts", [*_alerts(target)]),
    ]


def _recordings(target: Target) -> Iterator[Recording]:
    slos = _slos(target)
    for slo in slos:
        labels = {"slo": slo.name}
        yield Recording("fleet:slo_good:increase5m", f"sum by ({ENDPOINT}) ({slo.good})", labels)
        yield Recording("fleet:slo_total:increase5m", f"sum by ({ENDPOINT}) ({slo.total})", labels)
    for window in _HOURS:
        good, total = (_events(which, window, target.selector) for which in ("good", "total"))
        # No ratio without events; extrapolation of a young counter may make good exceed total a little.
        ratio = f"clamp_min(1 - {good} / ({total} > 0), 0)"
        if window != "5m":
            # Steps are at whole 5 minutes: until the first one, the last 5 minutes are all there is.
            ratio += f"\nor fleet:slo_errors:ratio5m{{{target.selector}}}"
        yield Recording(f"fleet:slo_errors:ratio{window}", ratio)
    for slo in slos:
        yield Recording(
            "fleet:slo_objective:ratio",
            f"vector({slo.ratio:.10g})",
            {"job": target.job, **target.labels, "slo": slo.name},
        )
    yield Recording(
        "fleet:slo_budget_left:ratio7d",
        f"1 - fleet:slo_errors:ratio7d{{{target.selector}}}\n"
        f"  / (1 - fleet:slo_objective:ratio{{{target.selector}}})",
    )


_SPEEDS: dict[Severity, tuple[str, str]] = {
    "critical": ("BurnsFast", "2m"),
    "warning": ("BurnsSlowly", "15m"),
}
"""How the name of an alert ends, and how long its condition holds."""


def _alerts(target: Target) -> Iterator[Alert]:
    for slo in _slos(target):
        for severity, (speed, duration) in _SPEEDS.items():
            tiers = [tier for tier in TIERS if tier.severity == severity]
            shares = " or ".join(f"{100 * tier.share:g} % in {tier.long}" for tier in tiers)
            yield Alert(
                f"{slo.alert}{speed}",
                severity,
                "\nor\n".join(_burns(target, slo, tier) for tier in tiers),
                duration,
                f"{target.job}: {{{{ $value | humanizePercentage }}}} of {slo.bad_events}",
                f"At most {100 * (1 - slo.ratio):.4g} % may within 7 days. The budget for that burns so fast "
                f"that {shares} are gone. The panels of the objective and of the error budget show since "
                f"when.",
                {"job": target.job, **target.labels, "slo": slo.name},
            )


def _burns(target: Target, slo: _Slo, tier: Tier) -> str:
    matchers = f'{target.selector},slo="{slo.name}"'
    selector = f"{{{matchers}}}"
    speed = f"{tier.factor:g} * {1 - slo.ratio:.10g}"
    good, total = (_events(which, tier.long, matchers) for which in ("good", "total"))
    return (
        "(\n"
        f"  fleet:slo_errors:ratio{tier.long}{selector} > {speed}\n"
        "  and\n"
        f"  fleet:slo_errors:ratio{tier.short}{selector} > {speed}\n"
        "  and\n"
        f"  {total} - {good} >= {slo.fewest}\n"
        ")"
    )


def _events(which: str, window: str, matchers: str) -> str:
    """Good events, or all of them (`total`), in the window."""
    series = f"fleet:slo_{which}:increase5m{{{matchers}}}"
    # Steps as wide as the increases: each event is in exactly one of them.
    return series if window == "5m" else f"sum_over_time({series}[{window}:5m])"


def problems(objectives: Objectives) -> list[tuple[str, str]]:
    """What is wrong: the field, such as `time_to_first_token.seconds`, and what to do about it."""
    first, gap = objectives.time_to_first_token, objectives.inter_token_latency
    return [
        *_bound_problems("time_to_first_token.seconds", first.seconds, _FIRST_TOKEN),
        *_ratio_problems("time_to_first_token.ratio", first.ratio),
        *_bound_problems("inter_token_latency.seconds", gap.seconds, _TOKEN_GAP),
        *_ratio_problems("inter_token_latency.ratio", gap.ratio),
        *_ratio_problems("success", objectives.success),
        *_ratio_problems("availability", objectives.availability),
    ]


def _bound_problems(field: str, seconds: float, histogram: str) -> Iterator[tuple[str, str]]:
    metric = catalogue.find(histogram)
    bounds = [] if metric is None or isinstance(metric.buckets, str) else sorted(metric.buckets)
    if seconds not in bounds:
        near = sorted(sorted(bounds, key=lambda bound: abs(bound - seconds))[:4])
        yield (
            field,
            f"{seconds:g} s is no bucket bound of vLLM's histogram {histogram}, so what is within is not "
            f"counted; take one near it, such as {_listed(near)} (all: {_listed(bounds)})",
        )


def _listed(bounds: Sequence[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)


def _ratio_problems(field: str, ratio: float) -> Iterator[tuple[str, str]]:
    given = f"{100 * ratio:.10g} %"
    if not 0 < ratio < 1:
        yield (
            field,
            f"{given} is no share: take one above 0 % and below 100 %, which leaves no budget for errors",
        )
        return
    for tier in TIERS:
        if tier.factor * (1 - ratio) >= 1:
            yield (
                field,
                f"{given} is too low for alerts: even if everything were bad, the budget would not burn "
                f"{tier.factor:g} times too fast, so the alert over {tier.long} could never fire; "
                f"take {100 * LOWEST:g} % or more, and looser seconds if that is too strict",
            )
            return
