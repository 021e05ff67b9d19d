"""What the values of an expression count or measure, as far as that can be told.

A quantity is a unit of the catalogue, one of `percent`, `milliseconds` and `unix milliseconds`, or one of
these per second (`tokens/s`). None means that nothing is known, and is no reason to complain.
"""

from __future__ import annotations

from collections.abc import Mapping

_COUNTED = ("tokens", "requests", "items", "replicas")
_SCALED: Mapping[tuple[str, float], str] = {
    ("ratio", 100): "percent",
    ("seconds", 1000): "milliseconds",
    ("unix seconds", 1000): "unix milliseconds",
}
_RATES = frozenset(f"{unit}/s" for unit in _COUNTED)
_TIMES_AND_BYTES = frozenset(
    ("seconds", "milliseconds", "unix seconds", "unix milliseconds", "bytes", "bytes/s", "percent")
)

_GRAFANA: Mapping[str, frozenset[str]] = {
    "s": frozenset({"seconds"}),
    "ms": frozenset({"milliseconds"}),
    "dateTimeAsIso": frozenset({"unix milliseconds"}),
    "dateTimeAsLocal": frozenset({"unix milliseconds"}),
    "dateTimeFromNow": frozenset({"unix milliseconds"}),
    "percentunit": frozenset({"ratio", "seconds/s"}),
    "percent": frozenset({"percent"}),
    "bytes": frozenset({"bytes"}),
    "decbytes": frozenset({"bytes"}),
    "Bps": frozenset({"bytes/s"}),
    "binBps": frozenset({"bytes/s"}),
    "reqps": frozenset({"requests/s"}),
    "rps": frozenset({"requests/s"}),
    "cps": _RATES,
    "ops": _RATES,
    "currencyEUR": frozenset(),
}
"""The quantities that a unit of Grafana is right for. Money is none of the catalogue's."""
_PLAIN = frozenset({"", "none", "short", "locale"})
"""Units that show a bare number: right for what has no unit of its own.

A ratio as a number, such as a burn rate, says so with `none`.
"""


def per_second(unit: str | None) -> str | None:
    """Of what is gained per second."""
    return None if unit is None or unit.endswith("/s") else f"{unit}/s"


def quotient(left: str | None, right: str | None) -> str | None:
    """One divided by the other: a share, a mean, a rate."""
    if left is None or right is None:
        return None
    if left == right:
        return "ratio"
    if left.endswith("/s") and right.endswith("/s"):
        return quotient(left.removesuffix("/s"), right.removesuffix("/s"))
    if right in _COUNTED:
        return left
    return per_second(left) if right == "seconds" else None


def product(left: str | None, right: str | None) -> str | None:
    """One times the other; a share of something is that."""
    if left == "ratio":
        return right
    return left if right == "ratio" else None


def scaled(unit: str | None, factor: float) -> str | None:
    """So many times as much."""
    if unit is None or factor == 1:
        return unit
    return _SCALED.get((unit, factor))


def difference(left: str | None, right: str | None) -> str | None:
    """One minus the other."""
    if left == right:
        return "seconds" if left == "unix seconds" else left
    return left if (left, right) == ("unix seconds", "seconds") else None


def total(left: str | None, right: str | None) -> str | None:
    """Both together."""
    if left == right and left not in ("unix seconds", "unix milliseconds"):
        return left
    return "unix seconds" if {left, right} == {"unix seconds", "seconds"} else None


def fits(unit: str | None, grafana: str) -> bool:
    """Whether Grafana's unit is right for the quantity, as far as both are known."""
    if unit is None:
        return True
    if grafana in _PLAIN:
        return unit not in _TIMES_AND_BYTES and (unit != "ratio" or grafana == "none")
    accepted = _GRAFANA.get(grafana)
    return accepted is None or unit in accepted


def shown_as(unit: str) -> str:
    """The unit of Grafana that is right for a quantity."""
    return next((name for name, accepted in _GRAFANA.items() if unit in accepted), "short")
