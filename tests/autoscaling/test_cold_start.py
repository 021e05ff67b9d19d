"""A cold start is the sum of phases that follow each other."""

from __future__ import annotations

import pytest

from autoscaling.cold_start import ColdStart


def test_phases_come_in_their_turn_and_grow_with_the_weights() -> None:
    cold = ColdStart(
        process_seconds=10, download_bytes_per_second=1e8, load_bytes_per_second=1e9, warmup_seconds=30
    )
    assert list(cold.phases(2e9).items()) == [("process", 10), ("download", 20), ("load", 2), ("warm-up", 30)]
    assert cold.seconds(2e9) == 62


def test_28_gb_take_longer_than_the_article_s_liveness_probe_waits() -> None:
    """It looks 300 s after the start and gives up after three times 10 s."""
    assert ColdStart().phases(28e9)["download"] == pytest.approx(400)
    assert 300 + 3 * 10 < ColdStart().seconds(28e9) == pytest.approx(478.7, abs=0.1)
