"""AI Deploy's autoscaler on a custom metric, as pure functions.

OVHcloud names no engine, but its API links the metrics-api scaler of KEDA 2.16, whose aggregation over
endpoints was contributed from OVHcloud: so `read_metric` follows KEDA, and `decide` follows the Kubernetes
HorizontalPodAutoscaler that KEDA drives (`pkg/controller/podautoscaler`, external metric, `behavior` given).
That AI Deploy works like this, and that its target type is `Value`, is an assumption: with `AverageValue`,
KEDA's own default, an `AVERAGE` over replicas would scale down as soon as it had scaled up.

All times are seconds of any one monotonic clock; the caller calls `decide` once per polling interval.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

_RATE_PERIOD_SECONDS = 15.0  # upstream scale-up policies: the larger of +4 pods and +100 % per 15 s
_RATE_PODS = 4
_RATE_FACTOR = 2.0
# The upstream scale-down policy, 100 % per 15 s, allows every step down: there is nothing to compute for it.

Aggregation = Literal["AVERAGE", "MIN", "MAX", "SUM"]
"""How the values of the replicas become one (`aggregationType` of the API)."""

TargetType = Literal["Value", "AverageValue"]
"""`Value` multiplies the ready replicas by value/target; `AverageValue` divides the value by the target."""


@dataclass(frozen=True)
class ScalerSettings:
    """The `automatic` scaling strategy of an app; defaults are those of the OVHcloud panel and upstream.

    Raises ValueError when the bounds or the target make no sense.
    """

    replicas_min: int
    replicas_max: int
    target_value: float
    aggregation: Aggregation = "AVERAGE"
    target_type: TargetType = "Value"
    scale_up_stabilization_seconds: float = 0
    """The lowest recommendation of this window wins when scaling up."""
    scale_down_stabilization_seconds: float = 300
    """The highest recommendation of this window wins when scaling down."""
    cooldown_seconds: float = 300
    """Time without load after which an app with `replicas_min` 0 loses its replicas.

    As with KEDA, one that never had load does not wait for it: its replicas go with the first value of zero.
    """
    tolerance: float = 0.1
    """Share of the target by which the value may be off without a change."""

    def __post_init__(self) -> None:
        if not 0 <= self.replicas_min <= self.replicas_max or self.replicas_max < 1:
            raise ValueError(
                f"replicas_min {self.replicas_min}, replicas_max {self.replicas_max}: "
                "0 <= min <= max and max >= 1 are required"
            )
        if int(self.target_value * 1000) <= 0:
            raise ValueError(f"target_value {self.target_value}: must be at least 0.001")
        if self.aggregation not in get_args(Aggregation):
            raise ValueError(f"aggregation {self.aggregation!r}: one of {', '.join(get_args(Aggregation))}")
        if self.target_type not in get_args(TargetType):
            raise ValueError(f"target_type {self.target_type!r}: one of {', '.join(get_args(TargetType))}")


@dataclass(frozen=True)
class ScalerState:
    """What the scaler remembers between two decisions; `ScalerState(replicas)` takes an app over.

    After a change by hand, `replace` its `replicas`.
    """

    replicas: int
    """Replicas that are asked for now, ready or not."""
    recommendations: tuple[tuple[float, int], ...] = ()
    """(time, replicas) of the unstabilized recommendations that a window may still need."""
    scalings: tuple[tuple[float, int], ...] = ()
    """(time, change) of the changes within the period of the rate limits, those from and to zero apart."""
    last_active: float | None = None
    """When the metric was last above zero; None when it never was."""


@dataclass(frozen=True)
class Sample:
    """One poll of the metric."""

    time: float
    """Seconds."""
    values: tuple[float | None, ...]
    """One value per ready replica; None (or a value that is not finite) for one that could not be read.

    An app with no replica at all may be sampled with its pending requests, so that it wakes: how AI Deploy
    wakes an app that was scaled to zero is not documented.
    """


def decide(state: ScalerState, sample: Sample, settings: ScalerSettings) -> tuple[int, ScalerState]:
    """The number of replicas to ask for after `sample`, and the state for the next call.

    A count outside the bounds is put right at once, whatever the metric says. When no endpoint could be
    read, the count stays as it is.
    """
    if not state.recommendations:
        # As the controller does: what runs when it starts is the first recommendation, so that a restart
        # of the controller never scales down at once.
        state = replace(state, recommendations=((sample.time, state.replicas),))
    value = aggregate(sample.values, settings.aggregation)
    if value is not None and value > 0:
        state = replace(state, last_active=sample.time)
    bounded = min(max(state.replicas, settings.replicas_min), settings.replicas_max)
    if bounded != state.replicas:
        return _scaled(state, bounded, sample.time)

    if value is None:
        return state.replicas, state
    if settings.replicas_min == 0:
        # KEDA, not the HPA, wakes the app and takes its replicas away, all of them at once. So the rate
        # limits of the HPA do not count these changes.
        if state.replicas == 0:
            return (1, replace(state, replicas=1)) if value > 0 else (0, state)
        cooled = state.last_active is None or sample.time - state.last_active >= settings.cooldown_seconds
        if value <= 0 and cooled:
            return 0, replace(state, replicas=0)

    # Both sides of the comparison are thousandths, cut off as KEDA does it.
    usage, target = int(value * 1000), int(settings.target_value * 1000)
    desired = _recommend(state.replicas, len(sample.values), usage, target, settings)
    stabilized, state = _stabilize(state, desired, sample.time, settings)
    limited = min(stabilized, max(state.replicas, _scale_up_limit(state, sample.time)))
    return _scaled(state, min(max(limited, settings.replicas_min, 1), settings.replicas_max), sample.time)


def aggregate(values: tuple[float | None, ...], aggregation: Aggregation) -> float | None:
    """One value out of those of the endpoints; None when none could be read."""
    readable = [value for value in values if value is not None and math.isfinite(value)]
    if not readable:
        return None
    match aggregation:
        case "AVERAGE":
            return sum(readable) / len(readable)
        case "MIN":
            return min(readable)
        case "MAX":
            return max(readable)
        case "SUM":
            return sum(readable)


def _recommend(replicas: int, ready: int, usage: int, target: int, settings: ScalerSettings) -> int:
    """HPA formula for an external metric."""
    ratio = usage / target if settings.target_type == "Value" else usage / (target * replicas)
    if 1 - settings.tolerance <= ratio <= 1 + settings.tolerance:
        return replicas
    return math.ceil(ratio * ready) if settings.target_type == "Value" else math.ceil(usage / target)


def _stabilize(
    state: ScalerState, desired: int, now: float, settings: ScalerSettings
) -> tuple[int, ScalerState]:
    """HPA's `stabilizeRecommendationWithBehaviors`: remembers `desired`, lets the windows temper it."""
    up_since = now - settings.scale_up_stabilization_seconds
    down_since = now - settings.scale_down_stabilization_seconds
    lowest = min([desired, *(count for time, count in state.recommendations if time > up_since)])
    highest = max([desired, *(count for time, count in state.recommendations if time > down_since)])
    kept = [entry for entry in state.recommendations if entry[0] > min(up_since, down_since)]
    stabilized = min(max(state.replicas, lowest), highest)
    return stabilized, replace(state, recommendations=(*kept, (now, desired)))


def _scale_up_limit(state: ScalerState, now: float) -> int:
    """The most replicas that the scale-up policies allow now."""
    changed = sum(change for time, change in state.scalings if time > now - _RATE_PERIOD_SECONDS)
    at_start = state.replicas - changed
    return max(at_start + _RATE_PODS, math.ceil(at_start * _RATE_FACTOR))


def _scaled(state: ScalerState, replicas: int, now: float) -> tuple[int, ScalerState]:
    change = replicas - state.replicas
    scalings = tuple(entry for entry in state.scalings if entry[0] > now - _RATE_PERIOD_SECONDS)
    if change:
        scalings = (*scalings, (now, change))
    return replicas, replace(state, replicas=replicas, scalings=scalings)


_METRIC_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL_NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
_QUOTED = r'"(?:[^"\\\n]|\\.)*"'
_SELECTOR = re.compile(rf"\s*(?P<name>{_METRIC_NAME})?\s*(?:\{{(?P<matchers>.*)\}})?\s*", re.DOTALL)
_MATCHER = re.compile(
    rf"\s*(?P<label>{_LABEL_NAME})\s*(?:=~|!~|!=|=)\s*(?P<value>{_QUOTED}|'(?:[^'\\\n]|\\.)*'|`[^`]*`)\s*(?:,|$)"
)
_SERIES = rf"(?P<name>{_METRIC_NAME})[ \t]*(?:\{{(?P<labels>(?:[^\"}}]++|{_QUOTED})*)\}})?"
_SERIES_ALONE = re.compile(rf"{_SERIES}[ \t]*")
_SAMPLE = re.compile(rf"{_SERIES}[ \t]*(?P<value>[^\s{{}}]+)(?:[ \t]+-?\d+)?[ \t]*")
_LABEL = re.compile(rf"[ \t]*(?P<label>{_LABEL_NAME})[ \t]*=[ \t]*(?P<value>{_QUOTED})[ \t]*(?:,|$)")
_ESCAPE = re.compile(r"\\(.)")
_SCALAR_TYPES = ("untyped", "counter", "gauge")
_WITH_PART = {"bucket": ("histogram",), "sum": ("histogram", "summary"), "count": ("histogram", "summary")}
"""Which types of families have samples whose names end so."""


def read_metric(text: str, value_location: str) -> float:
    """The value that KEDA reads out of a Prometheus text exposition.

    `value_location` is a metric selector (`vllm:num_requests_running`, optionally with label matchers; no
    expression). Without matchers the first series of the family counts; matchers compare for equality,
    whatever their operator says. Only untyped, counter and gauge families have a value.

    Raises ValueError when the selector or the text cannot be parsed or no such value is there.
    """
    family, matchers = parse_selector(value_location)
    types: dict[str, str] = {}
    found: float | None = None
    for number, name, labels, value in _samples(text, types):
        # Reading goes on after a hit: a malformed line further down fails the whole poll.
        if found is None and name == family:
            values = _parse_labels(labels, number)
            if all(values.get(label) == wanted for label, wanted in matchers.items()):
                found = value
    kind = types.get(family, "untyped")
    if found is None or kind not in _SCALAR_TYPES:
        reason = f"is a {kind}" if kind not in _SCALAR_TYPES else "is not there"
        raise ValueError(f"valueLocation {value_location!r}: {reason}; untyped, counter or gauge is needed")
    return found


def parse_selector(selector: str) -> tuple[str, dict[str, str]]:
    """Family name and label values of a metric selector."""
    error = ValueError(
        f'valueLocation {selector!r}: a metric selector is needed, such as name or name{{label="value"}}'
    )
    parsed = _SELECTOR.fullmatch(selector)
    if parsed is None:
        raise error
    matchers: dict[str, str] = {}
    rest = (parsed["matchers"] or "").strip()
    while rest:
        matcher = _MATCHER.match(rest)
        if matcher is None:
            raise error
        quoted = matcher["value"]
        matchers[matcher["label"]] = quoted[1:-1] if quoted[0] == "`" else _unescape(quoted[1:-1])
        rest = rest[matcher.end() :].strip()
    name = parsed["name"] or matchers.pop("__name__", "")
    if not name:
        raise error
    return name, matchers


def _samples(text: str, types: dict[str, str]) -> Iterator[tuple[int, str, str, float]]:
    """Line number, name, labels as written and value of each sample of a text exposition, in order.

    `types` is filled with the TYPE lines passed so far.
    """
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        stripped = line.strip(" \t")
        if not stripped:
            continue
        if stripped.startswith("#"):
            words = stripped.split(None, 3)
            if len(words) == 4 and words[1] == "TYPE":
                types[words[2]] = words[3].strip().lower()
            continue
        series, _, written = stripped.rpartition(" ")
        known = _series(series)
        if known is None:  # with a time, or no sample at all
            sample = _SAMPLE.fullmatch(stripped)
            if sample is None:
                raise ValueError(f"line {number} of the metrics is no sample: {stripped[:80]!r}")
            known, written = (sample["name"], sample["labels"] or ""), sample["value"]
        name, labels = known
        if _is_part(name, types):
            continue
        try:
            value = float(written)
        except ValueError:
            raise ValueError(f"line {number} of the metrics has no number: {stripped[:80]!r}") from None
        yield number, name, labels, value


@functools.lru_cache(maxsize=4096)
def _series(text: str) -> tuple[str, str] | None:
    """Name and labels of a series: those of a replica are the same in every poll of a cloud at high speed."""
    series = _SERIES_ALONE.fullmatch(text)
    return series and (series["name"], series["labels"] or "")


def _is_part(name: str, types: dict[str, str]) -> bool:
    """Whether a sample is part of a histogram or summary declared above it and has no family of its own."""
    stem, _, suffix = name.rpartition("_")
    return name not in types and types.get(stem) in _WITH_PART.get(suffix, ())


def _parse_labels(labels: str, number: int) -> dict[str, str]:
    parsed: dict[str, str] = {}
    rest = labels.strip()
    while rest:
        label = _LABEL.match(rest)
        if label is None:
            raise ValueError(f"line {number} of the metrics has malformed labels: {labels[:80]!r}")
        parsed[label["label"]] = _unescape(label["value"][1:-1])
        rest = rest[label.end() :].strip()
    return parsed


def _unescape(quoted: str) -> str:
    return _ESCAPE.sub(lambda escape: {"n": "\n"}.get(escape[1], escape[1]), quoted)
