"""Timestamps as OVHcloud's API and OpenStack write them."""

from __future__ import annotations

import datetime


def now() -> str:
    """The wall-clock time."""
    return stamp(datetime.datetime.now(datetime.UTC))


def stamp(moment: datetime.datetime) -> str:
    """A time in UTC, e.g. `2026-01-01T12:00:00.123456Z`."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
