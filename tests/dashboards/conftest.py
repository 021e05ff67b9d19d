"""What the tests of rules and dashboards share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.toolchain import ensure


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own tests of rules."""
    return ensure(lambda line: None).promtool
