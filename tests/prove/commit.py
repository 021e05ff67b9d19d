"""Which code a proof was made with, for the page that holds its result."""

from __future__ import annotations

import subprocess
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]


def commit(*parts: str) -> str:
    """Short name of the commit, and whether any of these files or folders has changes on top of it."""
    changed = _git("status", "--porcelain", "--", *parts)
    return _git("rev-parse", "--short", "HEAD") + (" with changes on top" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_CHECKOUT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
