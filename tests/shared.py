"""Reference recordings that lie beside a checkout of ours; tests that compare with them skip without them."""

from __future__ import annotations

from pathlib import Path

import pytest

_FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"


def fixture(name: str) -> Path:
    """Path of the recording `name`; skips the calling test, saying so, when it is not there."""
    path = _FIXTURES / name
    if not path.exists():
        pytest.skip(f"recording {name} is not beside this checkout: comparison left out")
    return path
