"""What is different in another version of vLLM, and which panels and rules see it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dashboards.catalogue import METRICS
from dashboards.check.expressions import Expression
from dashboards.check.reading import readers
from dashboards.metric import version


def changes(old: str, new: str, expressions: Sequence[Expression]) -> Iterator[str]:
    """What the families that are read mean otherwise in the new version, and the places that read them."""
    low, high = sorted((old, new), key=version)
    word = "other in" if low == old else "not yet before"
    found = [
        (version(since), f"{word} {since}: {metric.name} {change}", metric)
        for metric in METRICS
        if metric.exists(old) and metric.exists(new)
        for since, change in metric.changes.items()
        if version(low) < version(since) <= version(high)
    ]
    for _, line, metric in sorted(found, key=lambda item: item[0]):
        if places := readers(metric, expressions):
            yield line
            yield from (f"    {place}" for place in places)


def families(old: str, new: str) -> Iterator[str]:
    """The families that only one of the two versions has, whoever reads them; those that need a flag last."""
    upwards = version(old) <= version(new)
    plain: list[tuple[tuple[int, int], str]] = []
    with_flag: dict[str, list[str]] = {}
    for metric in METRICS:
        came = metric.exists(new)
        if came == metric.exists(old):
            continue
        if metric.flag is not None:
            key = f"{'new' if came else 'gone, even'} with {metric.flag}"
            with_flag.setdefault(key, []).append(metric.name)
            continue
        since = metric.since if came == upwards or metric.until is None else metric.until
        word = (
            ("new in" if came else "gone in") if upwards else ("there before" if came else "missing before")
        )
        line = f"{word} {since}: {metric.name}"
        if came:
            line += f": {metric.help}"
        elif upwards and metric.replacement:
            line += f": use {metric.replacement}"
        plain.append((version(since), line))
    yield from (line for _, line in sorted(plain))
    yield from (f"{key}: {', '.join(names)}" for key, names in with_flag.items())
