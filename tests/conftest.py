"""What holds for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Nothing may depend on being fast: not one example, nor how examples are made.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_TESTS = Path(__file__).parent
_LONG = (_TESTS / "engine", _TESTS / "prove")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few long tests come first: one that is begun last keeps all other workers waiting."""
    items.sort(key=lambda item: not any(folder in item.path.parents for folder in _LONG))
