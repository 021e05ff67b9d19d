"""What Prometheus stores of scrapes that meet one replica or another, for promtool, in 5 s steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dashboards import recording
from dashboards.rules import Alert, Group, Recording
from tests.dashboards.targets import PROD

STATIC = {"service": "vllm", "model": "m", "environment": "test"}
TARGET = replace(PROD, job="vllm-test", labels=STATIC)
SAMPLERS = recording.samplers(TARGET)
STEP = 5
"""Seconds between two scrapes and two evaluations."""
MINUTE = 60 // STEP
"""Steps."""

Labels = Mapping[str, str]
Sample = tuple[str, Labels]
"""Name and labels of a series."""


def text(name: str, labels: Labels) -> str:
    pairs = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}"


@dataclass(frozen=True)
class Replica:
    """A process whose counters grow evenly from step `born` on."""

    birth: float
    """Unix time, as it says itself."""
    born: int = -10_000
    tokens: int = 5000
    """Generated per step; also requests of 100 tokens, all of 0.3 s to the first one."""
    running: float = 10
    model_name: str = "m"
    engines: int = 1
    created: bool = True
    process: bool = True
    errors: int = 0
    """Requests answered with 500, all before the first scrape."""

    @property
    def label(self) -> str:
        return repr(self.birth)

    def exposition(self, step: int) -> dict[Sample, float]:
        age = step - self.born
        samples: dict[Sample, float] = {}
        for engine in range(self.engines):
            labels = {"engine": str(engine), "model_name": self.model_name}
            tokens = self.tokens * age / self.engines
            samples |= {
                ("vllm:num_requests_running", _hashable(labels)): self.running / self.engines,
                ("vllm:num_requests_waiting", _hashable(labels)): 0,
                ("vllm:generation_tokens_total", _hashable(labels)): tokens,
            }
            if self.created:
                # The engines of a process make their metrics one after the other.
                samples["vllm:generation_tokens_created", _hashable(labels)] = self.birth - 1e-3 * (
                    self.engines - 1 - engine
                )
            for bound, share in (("0.25", 0), ("0.5", 1), ("+Inf", 1)):
                bucket = _hashable({**labels, "le": bound})
                samples["vllm:time_to_first_token_seconds_bucket", bucket] = share * tokens / 100
        ok = {"handler": "/v1/chat/completions", "method": "POST", "status": "2xx"}
        samples["http_requests_total", _hashable(ok)] = self.tokens * age / 100
        if self.errors:
            samples["http_requests_total", _hashable({**ok, "status": "5xx"})] = self.errors
        if self.process:
            samples["process_start_time_seconds", _hashable({})] = round(self.birth - 40, 2)
        return samples


class _hashable(dict[str, str]):  # noqa: N801
    """Labels that can be a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


@dataclass
class Scrapes:
    """What Prometheus stores of what its samplers are answered."""

    steps: int
    values: dict[str, list[str]] = field(default_factory=dict)
    known: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    """Series of the last scrape by sampler and address, of which Prometheus tells when they are gone."""

    def put(self, step: int, series: str, value: float | str) -> None:
        self.values.setdefault(series, ["_"] * self.steps)[step] = str(value)

    def scrape(self, step: int, sampler: int, replica: Replica | None, app: str = "app:443") -> None:
        """One scrape; None is one that fails."""
        labels = self._labels(sampler, app)
        exposition = replica.exposition(step) if replica else {}
        found = {text(name, {**own, **labels}): value for (name, own), value in exposition.items()}
        for series in self.known.get((sampler, app), set()) - found.keys():
            self.put(step, series, "stale")
        for series, value in found.items():
            self.put(step, series, value)
        self.put(step, text("up", labels), int(replica is not None))
        self.known[sampler, app] = set(found)

    def leave(self, step: int, sampler: int, app: str) -> None:
        """Prometheus is told that the address is no target any more."""
        for series in self.known.pop((sampler, app)) | {text("up", self._labels(sampler, app))}:
            self.put(step, series, "stale")

    @staticmethod
    def _labels(sampler: int, app: str) -> Labels:
        return {"job": TARGET.job, "instance": app, "sampler": str(sampler), **STATIC}

    def restart(self) -> None:
        """Prometheus forgets what its last scrapes had."""
        self.known.clear()

    def fed(self, groups: Sequence[Group]) -> list[Group]:
        """Without the rules of families that no scrape has: they record nothing and take most of the time."""
        scraped = {f"replica:{series.partition('{')[0]}" for series in self.values}

        def needed(rule: Recording | Alert) -> bool:
            return isinstance(rule, Alert) or rule.record in scraped or rule.record.startswith("fleet:")

        return [replace(group, rules=[*filter(needed, group.rules)]) for group in groups]

    def series(self) -> list[dict[str, str]]:
        return [{"series": series, "values": " ".join(values)} for series, values in self.values.items()]
