"""The chart for the tests of this folder; where helm or the chart is missing they are left out, saying so."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.chart.helm import Chart, MissingError, Rendering, find
from tests.chart.variants import VARIANTS

Render = Callable[[str], Rendering]
"""Renders the variant of that name, once per session."""


@cache
def _found() -> Chart | MissingError:
    """The chart in the version that the stacks pin, or what is missing."""
    try:
        return find(VARIANTS["prod"].settings.chart_version)
    except MissingError as error:
        return error


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--chart-required`, for those who want to know."""
    parser.addoption(
        "--chart-required", action="store_true", help="a missing helm or chart is an error instead of a skip"
    )


def pytest_configure(config: pytest.Config) -> None:
    """One error, and not one for each test."""
    if config.getoption("--chart-required", default=False) and isinstance(found := _found(), MissingError):
        raise pytest.UsageError(f"--chart-required: {found}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Here and not in the fixture, so that the summary says it once."""
    if "chart" in getattr(item, "fixturenames", ()) and isinstance(found := _found(), MissingError):
        pytest.skip(f"comparison with the real chart left out: {found}")


@pytest.fixture(scope="session")
def chart() -> Chart:
    """The chart in the version that the stacks pin."""
    found = _found()
    assert isinstance(found, Chart), "a test that uses it is skipped without"
    return found


@pytest.fixture(scope="session")
def render(chart: Chart) -> Render:
    """What the chart makes of a variant's values."""

    @cache
    def rendered(name: str) -> Rendering:
        variant = VARIANTS[name]
        return chart.render(variant.values(), variant.kubernetes)

    return rendered
