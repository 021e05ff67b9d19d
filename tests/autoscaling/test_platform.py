"""When a replica becomes ready, by the looks of its readiness probe."""

from __future__ import annotations

import pytest

from autoscaling.platform import first_ready, killed_before_listening
from components.ai_deploy.spec import Probe

ARTICLE = Probe(path="/v1/models", port=8000, initial_delay_seconds=300, period_seconds=10)


@pytest.mark.parametrize(
    ("listens", "ready"),
    [
        (1000, 1310),  # long before: the first look, one period after the delay
        (1310, 1310),  # just in time
        (1310.5, 1320),  # the next look
        (1479, 1480),  # 28 GB take 479 s
    ],
)
def test_ready_at_the_first_look_that_is_answered(listens: float, ready: float) -> None:
    assert first_ready(1000, listens, ARTICLE) == ready


def test_a_success_threshold_takes_further_looks() -> None:
    assert first_ready(0, 479, ARTICLE.model_copy(update={"success_threshold": 3})) == 500


def test_a_liveness_probe_gives_up_after_its_failures() -> None:
    """The article's probe (300 s, then three times 10 s) never lets 28 GB be downloaded."""
    liveness = Probe(path="/health", port=8000, initial_delay_seconds=300)
    assert killed_before_listening(479, liveness)
    assert killed_before_listening(330.1, liveness)
    assert not killed_before_listening(330, liveness)
    assert not killed_before_listening(479, liveness.model_copy(update={"failure_threshold": 120}))
