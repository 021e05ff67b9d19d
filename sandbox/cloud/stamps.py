"""Timestamps as OVHcloud's API writes them."""

from __future__ import annotations

import datetime


def now() -> str:
    """The wall-clock time, UTC, e.g. `2026-01-01T12:00:00.123456Z`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
