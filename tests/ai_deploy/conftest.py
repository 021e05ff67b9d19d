from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ai_deploy.clouds import Sky, clouds


@pytest.fixture
def sky(tmp_path: Path) -> Iterator[Sky]:
    """A cloud with default settings."""
    with clouds(tmp_path) as running:
        yield running
