"""What a recording amounts to, with the field names of `vllm bench serve` 0.13. Pure."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from typing import Any, Literal, get_args

from autoscaling.traffic import ClosedLoop, Traffic
from loadtest.client import Answer
from loadtest.load import Recording
from loadtest.replicas import Replicas

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

Objective = Literal["ttft", "tpot", "e2el"]
"""What an answer may be measured by; a failed request keeps no objective."""

_BUSY = 0.9
"""Share of a core from which on the client is taken for busy."""
_LATE_SECONDS = 0.1
_OFTEN = 0.05
"""Share of all seconds, or of all requests, that is more than chance."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of ascending values, interpolated as numpy and so `vllm bench serve` do; NaN for none."""
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True)
class Summary:
    """A measure over all successful requests; seconds."""

    count: int
    mean: float
    median: float
    std: float
    """Of the population, as numpy's."""
    least: float
    most: float
    percentiles: Mapping[float, float]

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary | None:
        """None without values."""
        ordered = sorted(values)
        if not ordered:
            return None
        mean = math.fsum(ordered) / len(ordered)
        variance = math.fsum((value - mean) ** 2 for value in ordered) / len(ordered)
        return cls(
            count=len(ordered),
            mean=mean,
            median=percentile(ordered, 50),
            std=math.sqrt(variance),
            least=ordered[0],
            most=ordered[-1],
            percentiles={percent: percentile(ordered, percent) for percent in PERCENTILES},
        )

    def fields(self, name: str) -> dict[str, float]:
        """As `vllm bench serve` calls them, in milliseconds."""
        values = {"mean": self.mean, "median": self.median, "std": self.std}
        values |= {f"p{percent:g}": value for percent, value in self.percentiles.items()}
        return {f"{prefix}_{name}_ms": value * 1000 for prefix, value in values.items()}


@dataclass(frozen=True)
class Result:
    """A load test in numbers."""

    answers: Sequence[Answer]
    """In the order of their starts."""
    recording: Recording
    summaries: Mapping[str, Summary]
    """By vllm's names: ttft, tpot, itl, e2el; what was not measured is not there."""
    goodput: float | None
    """Requests per second that kept all objectives; None without objectives."""
    errors: Mapping[str, int]
    """By kind, the most frequent first."""
    warnings: Sequence[str]
    """Why the numbers may say something else than how the endpoint is."""

    @property
    def completed(self) -> int:
        """Requests that succeeded."""
        return len(self.answers) - sum(self.errors.values())

    @property
    def sent(self) -> int:
        """All requests, those included that were under way at the end."""
        return len(self.answers) + len(self.recording.unfinished)

    @property
    def counts(self) -> str:
        """How the requests ended, in words."""
        under_way = len(self.recording.unfinished)
        return f"{self.completed} succeeded, {len(self.answers) - self.completed} failed" + (
            f", {under_way} under way at the end" if under_way else ""
        )

    @property
    def input_tokens(self) -> int:
        """Of successful requests."""
        return sum(answer.prompt_tokens for answer in self.answers if not answer.kind)

    @property
    def output_tokens(self) -> int:
        """Of successful requests."""
        return sum(answer.output_tokens for answer in self.answers)

    def per_second(self, amount: float) -> float:
        """An amount over the duration of the test."""
        return amount / self.recording.duration if self.recording.duration else 0.0


_MEASURES: Mapping[Objective, Callable[[Answer], float | None]] = {
    "ttft": lambda answer: answer.ttft,
    "tpot": lambda answer: answer.tpot,
    "e2el": lambda answer: answer.latency,
}


def result(recording: Recording, objectives: Mapping[Objective, float]) -> Result:
    """The numbers of a recording; `objectives` are seconds."""
    answers = sorted(recording.answers, key=lambda answer: answer.start)
    good = [answer for answer in answers if not answer.kind]
    values: dict[str, Iterable[float]] = {
        name: [value for answer in good if (value := measure(answer)) is not None]
        for name, measure in _MEASURES.items()
    }
    values["itl"] = chain.from_iterable(answer.gaps for answer in good)
    summaries = {
        name: summary for name in ("ttft", "tpot", "itl", "e2el") if (summary := Summary.of(values[name]))
    }
    met = sum(
        # A single token has no TPOT and keeps its objective, as in `vllm bench serve`.
        all((_MEASURES[name](answer) or 0.0) <= limit for name, limit in objectives.items())
        for answer in good
    )
    errors = Counter(answer.kind for answer in answers if answer.kind)
    return Result(
        answers=answers,
        recording=recording,
        summaries=summaries,
        goodput=met / recording.duration if objectives and recording.duration else None,
        errors=dict(errors.most_common()),
        warnings=[*_left_out(recording, len(good)), *_bottlenecks(recording)],
    )


def _left_out(recording: Recording, succeeded: int) -> Iterator[str]:
    """Those that wait are the slow ones: without them a server that stalls looks fast."""
    if waits := recording.unfinished:
        yield (
            f"{len(waits)} requests were under way when the test was ended, for up to {max(waits):.1f} s: "
            f"percentiles are those of the {succeeded} that had succeeded, and too low if these were slower"
        )


def _bottlenecks(recording: Recording) -> Iterator[str]:
    """What shows that the client, not the endpoint, was slow."""
    samples = recording.samples
    busy = sum(sample.cpu >= _BUSY for sample in samples)
    if busy > max(1, _OFTEN * len(samples)):
        yield (
            f"the client was the bottleneck: it used {_BUSY:.0%} of a core or more in {busy} of "
            f"{len(samples)} s. Latencies are too high and rates too low: send less, or from several machines"
        )
    late = sum(sample.loop_lag >= _LATE_SECONDS for sample in samples)
    if late > max(1, _OFTEN * len(samples)):
        worst = max(sample.loop_lag for sample in samples)
        yield (
            f"the client was late: in {late} of {len(samples)} s it looked {_LATE_SECONDS * 1000:g} ms or "
            f"more too late at what had arrived (worst {worst * 1000:.0f} ms), for its own work or "
            "for that of others on this machine. So much may be in every latency"
        )
    lags = sorted(answer.lag for answer in recording.answers)
    if percentile(lags, 100 * (1 - _OFTEN)) >= _LATE_SECONDS:
        yield (
            f"the client sent late: p95 {percentile(lags, 95) * 1000:.0f} ms, worst {lags[-1] * 1000:.0f} ms "
            "after the intended start. This is in TTFT and E2E, which count from there"
        )


@dataclass(frozen=True)
class Facts:
    """What a load test was."""

    began: datetime.datetime
    base_url: str
    model: str
    traffic: Traffic
    seed: int
    stream: bool
    objectives: Mapping[Objective, float]
    """Seconds."""


def document(facts: Facts, outcome: Result, replicas: Replicas) -> dict[str, Any]:
    """The result as JSON, without the gaps of each request (`itls`), which are most of it."""
    recording, answers, traffic = outcome.recording, outcome.answers, facts.traffic
    closed = isinstance(traffic, ClosedLoop)
    # What was ended early has sent for no longer than it ran.
    seconds = 0.0 if isinstance(traffic, ClosedLoop) else min(traffic.duration, recording.duration)
    lags = Summary.of(answer.lag for answer in answers)
    return {
        "date": f"{facts.began:%Y%m%d-%H%M%S}",
        "endpoint_type": "openai-chat",
        "backend": "openai-chat",
        "label": None,
        "model_id": facts.model,
        "tokenizer_id": None,
        "num_prompts": outcome.sent,
        "request_rate": "inf" if closed else outcome.sent / (seconds or 1),
        "max_concurrency": traffic.workers if isinstance(traffic, ClosedLoop) else None,
        "duration": recording.duration,
        "completed": outcome.completed,
        "failed": len(answers) - outcome.completed,
        "total_input_tokens": outcome.input_tokens,
        "total_output_tokens": outcome.output_tokens,
        "request_throughput": outcome.per_second(outcome.completed),
        "request_goodput": outcome.goodput,
        "output_throughput": outcome.per_second(outcome.output_tokens),
        "total_token_throughput": outcome.per_second(outcome.input_tokens + outcome.output_tokens),
        "max_output_tokens_per_s": max((rate for _, rate in token_rates(recording)), default=0.0),
        "max_concurrent_requests": recording.most_in_flight,
        **{
            key: value
            for name, summary in outcome.summaries.items()
            for key, value in summary.fields(name).items()
        },
        "partial": recording.partial or None,
        "unfinished": len(recording.unfinished),
        "unfinished_for": [round(wait, 6) for wait in recording.unfinished],
        "base_url": facts.base_url,
        "traffic": traffic.name,
        "seed": facts.seed,
        "stream": facts.stream,
        "goodput_ms": {name: limit * 1000 for name, limit in facts.objectives.items()} or None,
        "errors_by_kind": outcome.errors,
        "latencies_from": "when the request was sent" if closed else "when the request was to be sent",
        "warnings": list(outcome.warnings),
        "client": {
            "cpu_share": max((sample.cpu for sample in recording.samples), default=None),
            "loop_lag_ms": max((sample.loop_lag * 1000 for sample in recording.samples), default=None),
            "p99_lag_ms": lags and lags.percentiles[99.0] * 1000,
            "max_lag_ms": lags and lags.most * 1000,
        },
        "timeline": [asdict(sample) for sample in recording.samples],
        "replicas_from": replicas.source,
        "replicas": [asdict(look) for look in replicas.looks],
        "scale_ups": [asdict(scale_up) for scale_up in replicas.scale_ups()],
        "input_lens": [answer.prompt_tokens for answer in answers],
        "output_lens": [answer.output_tokens for answer in answers],
        "start_times": [round(answer.start, 6) for answer in answers],
        "ttfts": [round(answer.ttft or 0.0, 6) if not answer.kind else 0.0 for answer in answers],
        "e2els": [round(answer.latency, 6) for answer in answers],
        "lags": [round(answer.lag, 6) for answer in answers],
        "errors": [answer.error for answer in answers],
    }


def to_json(document: Mapping[str, Any], answers: Iterable[Answer]) -> Iterator[str]:
    """The JSON of a result with the gaps of each request, which are too many to be put together first."""
    yield json.dumps(document, allow_nan=False)[:-1]
    yield ', "itls": ['
    for number, answer in enumerate(answers):
        gaps = () if answer.kind else answer.gaps
        yield f"{', ' if number else ''}[{', '.join(f'{gap:.4g}' for gap in gaps)}]"
    yield "]}\n"


def token_rates(recording: Recording) -> Iterator[tuple[float, float]]:
    """Time and output tokens per second between each two samples."""
    for before, after in pairwise(recording.samples):
        yield after.time, (after.tokens - before.tokens) / (after.time - before.time)


def objectives(texts: Iterable[str]) -> dict[Objective, float]:
    """Objectives in seconds, of texts as `vllm bench serve --goodput` takes them: `ttft:2500`, milliseconds.

    Raises ValueError.
    """
    found: dict[Objective, float] = {}
    for text in texts:
        name, _, limit = text.partition(":")
        try:
            milliseconds = float(limit)
        except ValueError:
            milliseconds = math.nan
        known = next((one for one in get_args(Objective) if one == name), None)
        if known is None or not 0 < milliseconds < math.inf:
            raise ValueError(
                f"goodput {text!r}: {', '.join(get_args(Objective))} with milliseconds, "
                "such as ttft:2500 tpot:100"
            )
        found[known] = milliseconds / 1000
    return found
