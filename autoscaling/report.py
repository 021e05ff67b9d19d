"""A rehearsal as tables and as JSON; terminal and page show the same tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaling.policy import TargetType
from autoscaling.rehearsal import Assumption, ModeAnswer, Spread, span
from autoscaling.stack import Stack
from autoscaling.sweep import Candidate, Result, Sweep, of_stack


@dataclass(frozen=True)
class Report:
    """Everything that a rehearsal says."""

    stack: Stack
    traffic: str
    seed: int
    modes: Mapping[TargetType, ModeAnswer]
    assumptions: Sequence[Assumption]
    sweep: Sweep | None = None


@dataclass(frozen=True)
class Table:
    """Rows of texts under columns."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    nothing: str = ""
    """Said instead of a table without rows."""


# --- tables -------------------------------------------------------------------------------------------------


def summary(report: Report) -> Table:
    """The target modes side by side."""
    slo = report.stack.objectives
    ttft, itl = slo.time_to_first_token, slo.inter_token_latency

    def attained(name: str, wanted: float) -> Callable[[ModeAnswer], str]:
        def cell(mode: ModeAnswer) -> str:
            if not _counted(mode, name):
                return f"none to count ({wanted:.4g} % wanted)"
            share = percent(mode.attainment[name])
            return f"{share} {'✗' if name in mode.missed else '✓'} ({wanted:.4g} % wanted)"

        return cell

    lines: list[tuple[str, Callable[[ModeAnswer], str]]] = [
        (f"first token within {ttft.seconds:g} s", attained("time_to_first_token", 100 * ttft.ratio)),
        (f"gap between tokens within {itl.seconds:g} s", attained("inter_token_latency", 100 * itl.ratio)),
        ("requests that did not fail", attained("success", 100 * slo.success)),
        (
            "requests within all of it",
            lambda mode: percent(mode.attainment["requests"]) if mode.requests else "none to count",
        ),
        ("TTFT p50 / p95 / p99", lambda mode: quantiles(mode.ttft)),
        ("ITL p50 / p95 / p99", lambda mode: quantiles(mode.itl)),
        ("E2E p50 / p95 / p99", lambda mode: quantiles(mode.e2e)),
        ("waiting in queues, mean / most", lambda mode: f"{mode.queue.mean:.1f} / {mode.queue.max}"),
        (
            "replicas, mean / most asked / most ready",
            lambda mode: f"{mode.replicas.mean:.2f} / {mode.replicas.max_asked} / {mode.replicas.max_ready}",
        ),
        ("scale-ups / scale-downs / that hurt", _scalings),
        (
            "requests / failed (refused + killed)",
            lambda mode: f"{mode.requests:,} / {mode.failed:,} ({mode.refused:,} + {mode.killed:,})",
        ),
        ("output tokens / per second", lambda mode: f"{mode.output_tokens:,} / {_rate(mode):,.0f}"),
        ("length of the run", lambda mode: span(mode.seconds)),
        ("GPU-minutes billed", lambda mode: f"{mode.cost.gpu_minutes:,}"),
        ("cost", lambda mode: euros(mode.cost.eur)),
        ("cost of a million output tokens", lambda mode: euros(mode.cost.eur_per_million_output_tokens)),
    ]
    return Table(
        "Target modes side by side",
        ("", *report.modes),
        [(name, *(cell(mode) for mode in report.modes.values())) for name, cell in lines],
    )


def scale_ups(report: Report) -> Table:
    """How long each scale-up took until its first replica served, and what of it took how long."""
    ups = [(name, up) for name, mode in report.modes.items() for up in mode.scale_ups]
    phases = list(dict.fromkeys(phase for _, up in ups for phase in up["parts"]))
    return Table(
        "Reaction time of each scale-up",
        ("mode", "metric crossed", "replicas", *phases, "serving after"),
        [
            (
                name,
                span(up["crossed"]),
                f"{up['before']} → {up['after']}",
                *(span(up["parts"][phase]) if up["parts"] else "–" for phase in phases),
                "never" if up["seconds"] is None else span(up["seconds"]),
            )
            for name, up in ups
        ],
        "nothing was scaled up",
    )


def scale_downs(report: Report) -> Table:
    """Each scale-down, and what came of it within ten minutes."""
    return Table(
        "Scale-downs",
        ("mode", "at", "replicas", "hurt"),
        [
            (name, span(down["time"]), f"{down['before']} → {down['after']}", _harm(down))
            for name, mode in report.modes.items()
            for down in mode.scale_downs
        ],
        "nothing was scaled down",
    )


def pareto(found: Sweep) -> Table:
    """Cost against attainment, both in the worse target mode; the stack's own settings in any case."""
    best = found.best()
    names = {found.stack: ["now"]}
    if best is not None:
        names.setdefault(best.candidate, []).append("best")
    named = [result for result in found.results if result.candidate in names]
    shown = {result.candidate: result for result in (*found.pareto, *named)}
    settings = ("replicas", "target", "aggregation", "window up", "window down")
    figures = ("GPU-minutes", "cost", "within objectives", "TTFT p95", "E2E p95", "meets objectives")
    return Table(
        "Cost against attainment, both in the worse of the target modes",
        (*settings, *figures, ""),
        [
            (
                *_settings(result.candidate),
                str(result.gpu_minutes),
                euros(result.eur),
                percent(result.attainment),
                seconds(_worst(result, "ttft_p95")),
                seconds(_worst(result, "e2e_p95")),
                _meeting(result),
                ", ".join(names.get(result.candidate, [])),
            )
            for result in sorted(shown.values(), key=lambda result: (result.gpu_minutes, result.attainment))
        ],
    )


def _worst(result: Result, name: str) -> float | None:
    found = [getattr(score, name) for score in result.scores.values()]
    return max((value for value in found if value is not None), default=None)


def _settings(candidate: Candidate) -> tuple[str, str, str, str, str]:
    if candidate.fixed:
        return (str(candidate.min_replicas), "–", "–", "–", "–")
    return (
        f"{candidate.min_replicas} to {candidate.max_replicas}",
        f"{candidate.target:g}",
        candidate.aggregation,
        f"{candidate.up_window:g} s",
        f"{candidate.down_window:g} s",
    )


def _meeting(result: Result) -> str:
    if result.meets:
        return "yes"
    modes = [mode for mode in result.scores if result.only(mode).meets]
    return f"{', '.join(modes)} only" if modes else "no"


def advice(report: Report) -> list[str]:
    """What the sweep says about the settings: sentences, and the lines for the stack file below them."""
    found = report.sweep
    assert found is not None
    path = f"Pulumi.{report.stack.name}.yaml"
    best = found.best()
    if best is not None:
        return _proposal("Cheapest settings that meet the objectives in both modes", best, found, path)
    lines = ["No settings of the sweep meet the objectives in both target modes."]
    for mode in report.modes:
        alone = found.best(mode)
        if alone is not None:
            lines += _proposal(f"If the mode is {mode}, the cheapest that meet them", alone, found, path)
        else:
            most = found.most_attained(mode)
            text = (
                f"If the mode is {mode}, none meet them; those that serve best "
                f"({percent(most.attainment)} of requests within the objectives)"
            )
            lines += _proposal(text, most, found, path)
    return lines


def _proposal(text: str, result: Result, found: Sweep, path: str) -> list[str]:
    price = f"{euros(result.eur)}, " if result.eur is not None else ""
    head = f"{text}: {price}{result.gpu_minutes} GPU-minutes"
    changes = result.candidate.lines(found.stack)
    if not changes:
        return [f"{head}. {path} has them already."]
    return [f"{head}. In {path}:", *(f"  {line}" for line in changes)]


def _counted(mode: ModeAnswer, objective: str) -> bool:
    """Whether there was anything that the objective is about: of nothing every share is met."""
    match objective:
        case "time_to_first_token":
            return mode.ttft.mean is not None
        case "inter_token_latency":
            return mode.itl.mean is not None
        case _:
            return mode.requests > 0


def _scalings(mode: ModeAnswer) -> str:
    hurt = sum(down["hurt"] for down in mode.scale_downs)
    return f"{len(mode.scale_ups)} / {len(mode.scale_downs)} / {hurt}"


def _harm(down: Mapping[str, Any]) -> str:
    said = [
        f"{down['killed']} requests killed" if down["killed"] else "",
        f"scaled up again after {span(down['up_again'])}" if down["up_again"] is not None else "",
        "too many late first tokens" if down["missed"] else "",
    ]
    return ", ".join(filter(None, said)) or "no"


def _rate(mode: ModeAnswer) -> float:
    return mode.output_tokens / mode.seconds if mode.seconds else 0.0


# --- numbers as texts ---------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """A share; never rounded up to all of it."""
    shown = f"{100 * share:.2f}"
    return f"{'99.99' if shown == '100.00' and share < 1 else shown} %"


def seconds(value: float | None) -> str:
    """A latency."""
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


def quantiles(spread: Spread) -> str:
    """p50, p95 and p99."""
    return " / ".join(seconds(value) for value in (spread.p50, spread.p95, spread.p99))


def euros(value: float | None) -> str:
    """A price; one that is not known is never nothing."""
    return "price unknown" if value is None else f"{value:.2f} €"


# --- JSON ---------------------------------------------------------------------------------------------------


def to_json(report: Report) -> str:
    """The report as JSON; the same rehearsal gives the same bytes."""
    stack, found = report.stack, report.sweep
    content = {
        "stack": stack.name,
        "model": stack.model,
        "gpu_flavor": stack.gpu_flavor,
        "gpus_per_replica": stack.fleet.gpus_per_replica,
        "eur_per_replica_hour": stack.eur_per_replica_hour,
        "traffic": report.traffic,
        "seed": report.seed,
        "scaling_metric": stack.fleet.metric,
        "settings": dataclasses.asdict(of_stack(stack)),
        "objectives": dataclasses.asdict(stack.objectives),
        "engine": dataclasses.asdict(stack.fleet.parameters),
        "cold_start": dict(stack.fleet.cold_start),
        "assumptions": [dataclasses.asdict(assumption) for assumption in report.assumptions],
        "modes": {name: dataclasses.asdict(mode) for name, mode in report.modes.items()},
        "sweep": None if found is None else _sweep(found),
    }
    return json.dumps(_rounded(content), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _sweep(found: Sweep) -> dict[str, Any]:
    best, per_mode = found.best(), next(iter(found.results)).scores
    return {
        "runs": [_result(result) for result in found.results],
        "pareto": [dataclasses.asdict(result.candidate) for result in found.pareto],
        "best": None if best is None else _settled(best, found),
        "best_by_mode": {
            mode: None if (alone := found.best(mode)) is None else _settled(alone, found) for mode in per_mode
        },
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "settings": dataclasses.asdict(result.candidate),
        "modes": {mode: dataclasses.asdict(score) for mode, score in result.scores.items()},
        "meets_objectives": result.meets,
    }


def _settled(result: Result, found: Sweep) -> dict[str, Any]:
    return {
        "settings": dataclasses.asdict(result.candidate),
        "lines": result.candidate.lines(found.stack),
    }


def _rounded(value: Any) -> Any:
    """Without digits that mean nothing."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(item) for item in value]
    return value
