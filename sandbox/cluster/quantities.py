"""Durations and resource quantities as numbers."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def seconds(duration: str) -> float:
    """A Prometheus duration such as `1m30s` in seconds."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def quantity(text: str | float) -> float:
    """A resource quantity such as `50Gi` in its base unit."""
    match = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)", str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, unit = match.groups()
    factors = {
        "": 1.0,
        "n": 1e-9,
        "u": 1e-6,
        "m": 1e-3,
        "k": 1e3,
        "M": 1e6,
        "G": 1e9,
        "T": 1e12,
        "P": 1e15,
        "E": 1e18,
    }
    factors |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)}
    return float(number) * factors[unit]
