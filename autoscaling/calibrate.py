"""Measures an engine from outside: fits the costs of its steps to the detailed result of a load test.

All sequences that decode get a token at the end of each step, so the gaps between the tokens of one request
are the steps of its replica. Over so many steps, what all requests got tells how many sequences took part,
over how many tokens they attended, and how many prompt tokens were computed. Least squares give what each
costs.

What a client cannot see stays as published: the size of the KV cache, and attention between the tokens of a
prompt, which is part of the fitted prefill here. Prompt tokens that the prefix cache held look cheap: use
prompts that differ.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoscaling.engine import EngineParameters

_STEPS = 16
"""Of a window: enough that tokens which are late or early at its ends do not matter."""
_LEAST_WINDOWS = 50
_MOST_UNCERTAIN = 0.05
"""Standard error of what a cost adds to a mean step, as a share of that."""
_LEAST_ALONE = 1e-5
"""Share of the squares of a cost's driver that does not follow from the others."""
_NOTHING = 1e-12
"""Of a scaled column: what rounding leaves of one that follows from others."""
_DRIVERS = {
    "sequence_seconds": "the number of requests under way",
    "context_token_seconds": "the number of tokens in their contexts",
    "prefill_tokens_per_second": "the number of prompt tokens computed",
}


class CalibrationError(ValueError):
    """A result that tells too little, or a file that is none; the text says what to do."""


class Calibration(BaseModel):
    """What a load test says about an engine; takes the place of the published figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """The result that it was fitted to."""
    date: str
    """When that was measured."""
    model: str
    step_seconds: float = Field(gt=0)
    sequence_seconds: float = Field(ge=0)
    context_token_seconds: float = Field(ge=0)
    prefill_tokens_per_second: float = Field(gt=0)
    error: float = Field(ge=0)
    """Median difference between the measured duration of a window and what the fit says, as a share."""
    windows: int
    """Measured spans of some steps."""

    def applied(self, parameters: EngineParameters) -> EngineParameters:
        """`parameters` with the measured costs."""
        return replace(
            parameters,
            step_seconds=self.step_seconds,
            sequence_seconds=self.sequence_seconds,
            context_token_seconds=self.context_token_seconds,
            prefill_tokens_per_second=self.prefill_tokens_per_second,
            attention_pair_seconds=0.0,
        )


def read(path: Path) -> Calibration:
    """A calibration that was kept; raises CalibrationError."""
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join((*map(str, first["loc"]), first["msg"]))
    except (OSError, UnicodeDecodeError) as error:
        problem = str(error)
    raise CalibrationError(f"{path}: no calibration, make one with `make calibrate RESULT=…` ({problem})")


@dataclass(frozen=True)
class _Request:
    """An answer as its client saw it; times in seconds."""

    prompt_tokens: int
    times: Sequence[float]
    """Of its events, the first token's first."""
    tokens_per_event: float
    """After the first; more than 1 where the server sends several tokens at once."""


@dataclass(slots=True)
class _Window:
    """A span between two events of one request."""

    begin: float
    end: float
    steps: float
    tokens: float = 0
    """What all requests got in it, but for first tokens: one per step and decoding sequence."""
    context: float = 0
    """Tokens over which these attended."""
    prompt_tokens: int = 0
    """Of the requests whose first token came in it."""


def calibrate(result: Mapping[str, Any], source: str) -> Calibration:
    """Fits a calibration to a load test's result, in the fields of `vllm bench serve` with `start_times`.

    `source` is what to call the result. Raises CalibrationError when it lacks details or varies too little.
    """
    looks = result.get("replicas")
    looks = [look for look in looks if isinstance(look, dict)] if isinstance(looks, list) else []
    most = max((look.get("available") or 0 for look in looks), default=0)
    if most > 1:
        raise CalibrationError(
            f"there were up to {most} replicas: test with minReplicas and maxReplicas 1, or less load"
        )
    windows = _windows(_requests(result))
    if len(windows) < _LEAST_WINDOWS:
        raise CalibrationError(
            f"only {len(windows)} spans of {_STEPS} steps, {_LEAST_WINDOWS} are needed: send more requests, "
            "with longer answers"
        )
    rows = [
        (
            1.0,
            window.tokens / window.steps,
            window.context / window.steps,
            window.prompt_tokens / window.steps,
        )
        for window in windows
    ]
    seconds = [(window.end - window.begin) / window.steps for window in windows]
    step, sequence, token, prompt = _fit(rows, seconds)
    fitted = [sum(map(float.__mul__, row, (step, sequence, token, prompt))) for row in rows]
    _check_certainty(rows, seconds, fitted)
    if step <= 0 or prompt <= 0:
        raise CalibrationError(
            "the durations do not follow from the load: was it one replica all the time, and did the prompts "
            "differ (what the prefix cache holds costs nothing)?"
        )
    errors = sorted(abs(ours / measured - 1) for ours, measured in zip(fitted, seconds, strict=True))
    return Calibration(
        source=source,
        date=str(result.get("date", "unknown")),
        model=str(result.get("model_id", "unknown")),
        step_seconds=step,
        sequence_seconds=sequence,
        context_token_seconds=token,
        prefill_tokens_per_second=1 / prompt,
        error=errors[len(errors) // 2],
        windows=len(windows),
    )


def _requests(result: Mapping[str, Any]) -> list[_Request]:
    fields = ("start_times", "ttfts", "itls", "input_lens", "output_lens")
    missing = [name for name in fields if not isinstance(result.get(name), list)]
    if missing:
        raise CalibrationError(
            f"the result lacks {', '.join(missing)}: it needs the details of each request, as "
            "`make loadtest` writes them"
        )
    requests = []
    for start, ttft, gaps, prompt, output in zip(*(result[name] for name in fields), strict=False):
        if not ttft or not gaps:  # failed, or one token only: no step was seen
            continue
        try:
            times = list(itertools.accumulate(gaps, initial=start + ttft))
            requests.append(_Request(int(prompt), times, max(1.0, (output - 1) / len(gaps))))
        except (TypeError, ValueError):
            raise CalibrationError(
                f"request {len(requests)} of those with an answer has no numbers in {', '.join(fields)}"
            ) from None
    return requests


def _windows(requests: Sequence[_Request]) -> list[_Window]:
    """Spans that do not overlap, each with what happened in it."""
    windows = list(_spans(requests))
    ends = [window.end for window in windows]
    for request in requests:
        index = bisect_left(ends, request.times[0])
        if index < len(windows) and windows[index].begin < request.times[0]:
            windows[index].prompt_tokens += request.prompt_tokens
        context = float(request.prompt_tokens)
        for time in request.times[1:]:
            while index < len(windows) and windows[index].end < time:
                index += 1
            if index == len(windows):
                break
            window = windows[index]
            if window.begin < time:
                window.tokens += request.tokens_per_event
                window.context += request.tokens_per_event * (context + request.tokens_per_event / 2 + 0.5)
            context += request.tokens_per_event
    return windows


def _spans(requests: Sequence[_Request]) -> Iterator[_Window]:
    """Cuts the time into spans of some steps: along one request, then along one that outlasts it."""
    now = -math.inf
    for request in sorted(requests, key=lambda one: one.times[0]):
        if request.times[-1] <= now:
            continue
        events = max(1, round(_STEPS / request.tokens_per_event))
        times = [time for time in request.times if time >= now]
        for begin, end in itertools.pairwise(times[::events]):
            yield _Window(begin, end, events * request.tokens_per_event)
            now = end


def _check_certainty(
    rows: Sequence[Sequence[float]], seconds: Sequence[float], fitted: Sequence[float]
) -> None:
    """Raises CalibrationError for a cost that the load leaves open: its driver hardly varies by itself."""
    mean_seconds = math.fsum(seconds) / len(seconds)
    variance = math.fsum((ours - theirs) ** 2 for ours, theirs in zip(fitted, seconds, strict=True)) / len(
        rows
    )
    for column, (name, driver) in enumerate(_DRIVERS.items(), start=1):
        values = [row[column] for row in rows]
        others = [[value for index, value in enumerate(row) if index != column] for row in rows]
        weights = _least_squares(others, values, [1.0] * len(rows))
        # What of the driver does not follow from the others: only that says something about its own cost.
        alone = math.fsum(
            (value - sum(map(float.__mul__, weights, other))) ** 2
            for value, other in zip(values, others, strict=True)
        )
        mean = math.fsum(values) / len(values)
        enough = alone > _LEAST_ALONE * math.fsum(value * value for value in values)
        if not enough or math.sqrt(variance / alone) * mean > _MOST_UNCERTAIN * mean_seconds:
            raise CalibrationError(
                f"the load leaves {name} open: {driver} stays the same or follows the rest; mix short and "
                "long prompts and answers, and let the rate rise from next to nothing to more than the "
                "replica can do"
            )


def _fit(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> tuple[float, float, float, float]:
    """Costs ≥ 0 with the least sum of squared relative errors.

    With four of them, the best of all choices of those that are not 0 is the answer.
    """
    weights = [1 / value**2 for value in seconds]
    best, least = [0.0] * 4, math.inf
    for count in range(1, 5):
        for chosen in itertools.combinations(range(4), count):
            part = [[row[column] for column in chosen] for row in rows]
            costs = _least_squares(part, seconds, weights)
            if min(costs) < 0:
                continue
            rest = math.fsum(
                weight * (value - sum(map(float.__mul__, costs, row))) ** 2
                for weight, value, row in zip(weights, seconds, part, strict=True)
            )
            if rest < least:
                least = rest
                best = [0.0] * 4
                for column, cost in zip(chosen, costs, strict=True):
                    best[column] = cost
    step, sequence, token, prompt = best
    return step, sequence, token, prompt


def _least_squares(
    rows: Sequence[Sequence[float]], values: Sequence[float], weights: Sequence[float]
) -> list[float]:
    """Solves the normal equations; the columns are scaled first, since they differ by powers of ten."""
    count = len(rows[0])
    squares = [
        math.fsum(weight * row[column] ** 2 for row, weight in zip(rows, weights, strict=True))
        for column in range(count)
    ]
    scales = [math.sqrt(square) or 1.0 for square in squares]
    matrix = [[0.0] * (count + 1) for _ in range(count)]
    for row, value, weight in zip(rows, values, weights, strict=True):
        scaled = [entry / scale for entry, scale in zip(row, scales, strict=True)]
        for left in range(count):
            factor = weight * scaled[left]
            for right in range(left, count):
                matrix[left][right] += factor * scaled[right]
            matrix[left][count] += factor * value
    for left in range(count):
        for right in range(left):
            matrix[left][right] = matrix[right][left]
    return [entry / scale for entry, scale in zip(_solve(matrix), scales, strict=True)]


def _solve(matrix: list[list[float]]) -> list[float]:
    """Gauss's elimination; a column that follows from those before it gets 0."""
    count = len(matrix)
    for column in range(count):
        pivot = matrix[column][column]  # positive definite: no better one is needed
        if pivot < _NOTHING:
            matrix[column] = [0.0] * (count + 1)
            matrix[column][column] = 1.0
            continue
        for row in range(count):
            if row != column:
                factor = matrix[row][column] / pivot
                matrix[row] = [
                    entry - factor * above for entry, above in zip(matrix[row], matrix[column], strict=True)
                ]
    return [matrix[row][count] / matrix[row][row] for row in range(count)]


def main(arguments: list[str] | None = None) -> int:
    """Prints the calibration as JSON, and about it on stderr; 1 with one line that explains a mistake."""
    parser = argparse.ArgumentParser(prog="python -m autoscaling.calibrate", description=__doc__)
    parser.add_argument("result", type=Path, help="JSON of a load test on one replica, with details")
    path: Path = parser.parse_args(arguments).result
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result, dict):
            raise CalibrationError("a JSON object is needed")
        found = calibrate(result, path.name)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    sys.stdout.write(found.model_dump_json(indent=2) + "\n")
    sys.stderr.write(
        f"{found.windows} spans of steps: half of them are off by less than {found.error:.1%}. Keep these "
        "lines in a file and rehearse with it: make rehearse STACK=prod CALIBRATION=file.json\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
