"""What the user sees while the test runs, and at its end."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtest.client import Client
from loadtest.load import Recording
from loadtest.replicas import Replicas
from loadtest.results import PERCENTILES, Result, percentile

_RECENT = 30
"""Seconds over which the current time to the first token and tokens per second are counted."""
_PLAIN_SECONDS = 10.0
"""How often a line is written where there is no terminal."""
_MEASURES = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2el": "E2E"}


class Progress:
    """Shows the state of a test once a second: a live table on a terminal, lines elsewhere."""

    def __init__(
        self, console: Console, client: Client, recording: Recording, replicas: Replicas, planned: str
    ) -> None:
        """`planned` is how many requests or seconds there will be, in words."""
        self._console = console
        self._client = client
        self._recording = recording
        self._replicas = replicas
        self._planned = planned
        self._seen = 0
        self._errors: Counter[str] = Counter()
        self._first_tokens: list[tuple[float, float]] = []
        self._said = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self) -> None:
        """Shows the state now."""
        self._learn()
        if self._console.is_terminal:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._said >= _PLAIN_SECONDS:
            self._said = time.monotonic()
            self._console.print(
                ", ".join(f"{name} {value}" for name, value in self._values()), soft_wrap=True
            )

    def _learn(self) -> None:
        """Looks at the answers since the last time."""
        answers = self._recording.answers
        for answer in answers[self._seen :]:
            if answer.kind:
                self._errors[answer.kind] += 1
            elif answer.ttft is not None:
                self._first_tokens.append((answer.start + answer.ttft, answer.ttft))
        self._seen = len(answers)
        since = self._client.now() - _RECENT
        self._first_tokens = [pair for pair in self._first_tokens if pair[0] >= since]

    def _values(self) -> list[tuple[str, str]]:
        samples = self._recording.samples
        window = samples[-_RECENT:]
        rate = 0.0
        if len(window) > 1:
            rate = (window[-1].tokens - window[0].tokens) / (window[-1].time - window[0].time)
        recent = sorted(ttft for _, ttft in self._first_tokens)
        errors = ", ".join(f"{count} × {kind}" for kind, count in self._errors.most_common())
        replicas = self._replicas.available
        values = [
            ("time", f"{self._client.now():.0f} s"),
            ("sent", f"{self._client.sent} of {self._planned}"),
            ("answered", f"{self._seen - sum(self._errors.values())}"),
            ("in flight", f"{self._client.in_flight}"),
            ("tokens/s", f"{rate:.0f}"),
            ("p95 TTFT", f"{percentile(recent, 95):.3f} s" if recent else "-"),
            ("errors", errors or "0"),
            ("replicas", "-" if replicas is None else f"{replicas}"),
        ]
        return [*values, ("client CPU", f"{samples[-1].cpu:.0%} of a core")] if samples else values

    def _table(self) -> Table:
        table = Table(show_header=False, box=None, title="load test", title_justify="left")
        for name, value in self._values():
            table.add_row(name, value)
        return table


def summary(outcome: Result, replicas: Replicas) -> Group:
    """The result as a table and a few lines."""
    recording = outcome.recording
    table = Table(title="seconds", title_justify="left")
    for heading in ("", "mean", *(f"p{percent:g}" for percent in PERCENTILES), "min", "max", "std"):
        table.add_column(heading, justify="right")
    for name, label in _MEASURES.items():
        if numbers := outcome.summaries.get(name):
            cells = (numbers.mean, *numbers.percentiles.values(), numbers.least, numbers.most, numbers.std)
            table.add_row(label, *(f"{cell:.3f}" if cell < 10 else f"{cell:.1f}" for cell in cells))
    lines = [
        f"{outcome.sent} requests in {recording.duration:.1f} s: {outcome.counts}",
        f"{outcome.per_second(outcome.completed):.2f} requests/s, "
        f"{outcome.per_second(outcome.output_tokens):.0f} output tokens/s, "
        f"at most {recording.most_in_flight} in flight",
    ]
    if outcome.goodput is not None:
        share = outcome.goodput * recording.duration / max(1, len(outcome.answers))
        lines.append(
            f"goodput {outcome.goodput:.2f} requests/s: {share:.1%} of the requests that ended kept the "
            "objectives"
        )
    lines += [f"error: {count} × {kind}: {_example(outcome, kind)}" for kind, count in outcome.errors.items()]
    lines += replicas.lines()
    if recording.partial:
        lines.append(f"partial: {recording.partial}")
    lines += [f"warning: {warning}" for warning in outcome.warnings]
    return Group(table, *map(Text, lines)) if outcome.summaries else Group(*map(Text, lines))


def _example(outcome: Result, kind: str) -> str:
    error = next(answer.error for answer in outcome.answers if answer.kind == kind)
    return error.removeprefix(f"{kind}: ")
