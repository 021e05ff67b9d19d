"""The numbers mean what `vllm bench serve` means by them."""

from __future__ import annotations

import datetime
import io
import json
import re
import statistics
from array import array
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autoscaling.traffic import parse
from loadtest import report, results
from loadtest.client import Answer, Client
from loadtest.load import Recording, Sample
from loadtest.progress import Progress, summary
from loadtest.replicas import Look, Replicas
from loadtest.results import Facts, Summary, percentile, to_json

BENCH_SERVE = {
    # What vLLM 0.13.0 writes with --save-result --save-detailed and all percentiles, but for burstiness,
    # generated_texts and tokenizer-side words, and start_times, which later versions have.
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate"),
    *("max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *("max_output_tokens_per_s", "max_concurrent_requests"),
    *("input_lens", "output_lens", "ttfts", "itls", "errors", "start_times"),
    *(
        f"{number}_{measure}_ms"
        for number in ("mean", "median", "std", "p50", "p90", "p95", "p99", "p99.9")
        for measure in ("ttft", "tpot", "itl", "e2el")
    ),
}


def answer(start: float, ttft: float, gaps: list[float], tokens: int = 0, lag: float = 0.0) -> Answer:
    return Answer(
        start,
        lag,
        prompt_tokens=10,
        output_tokens=tokens or len(gaps) + 1,
        latency=ttft + sum(gaps),
        ttft=ttft,
        gaps=array("d", gaps),
    )


def failure(start: float, kind: str) -> Answer:
    return Answer(start, 0.0, 10, latency=1.0, kind=kind, error=f"{kind}: for a reason")


def recording(*answers: Answer, duration: float = 10.0, samples: list[Sample] | None = None) -> Recording:
    return Recording([*answers], samples or [], duration, most_in_flight=len(answers))


def sample(time: float, *, tokens: int = 0, cpu: float = 0.1, lag: float = 0.0) -> Sample:
    return Sample(time, 5, 10, tokens, cpu, lag)


FACTS = Facts(
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    "https://host/v1",
    "tiny",
    parse("poisson:rate=2,for=10s"),
    seed=1,
    stream=True,
    objectives={"ttft": 1.0, "tpot": 0.1},
)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_percentiles_are_numpy_s(values: list[float]) -> None:
    """numpy's default is what the standard library calls inclusive."""
    cuts = statistics.quantiles(values, n=1000, method="inclusive")
    summary = Summary.of(values)
    assert summary is not None
    for percent, value in summary.percentiles.items():
        assert value == pytest.approx(cuts[round(percent * 10) - 1], rel=1e-9, abs=1e-9)
    assert summary.median == pytest.approx(statistics.median(values))
    assert summary.mean == pytest.approx(statistics.fmean(values))
    assert summary.std == pytest.approx(statistics.pstdev(values), rel=1e-6, abs=1e-6)


def test_one_value_is_all_percentiles() -> None:
    assert percentile([3.0], 99.9) == 3.0
    assert Summary.of([]) is None


def test_a_failed_request_has_no_part_in_the_latencies() -> None:
    slow = failure(1.0, "timeout")
    slow.ttft, slow.gaps = 100.0, array("d", [100.0])
    outcome = results.result(recording(answer(0.0, 0.5, [0.1]), slow), {})
    assert max(summary.most for summary in outcome.summaries.values()) == pytest.approx(0.6)
    assert (outcome.completed, dict(outcome.errors)) == (1, {"timeout": 1})


def test_goodput_counts_requests_that_keep_all_objectives() -> None:
    answers = [
        answer(0, 0.5, [0.1]),
        answer(1, 1.5, [0.1]),  # first token too late
        answer(2, 0.5, [0.3]),  # the others too slow
        answer(3, 0.5, []),  # a single token has no TPOT
        failure(4, "HTTP 503"),
    ]
    outcome = results.result(recording(*answers, duration=10), {"ttft": 1.0, "tpot": 0.2})
    assert outcome.goodput == pytest.approx(2 / 10)
    assert results.result(recording(*answers), {}).goodput is None


def test_tpot_is_by_tokens_and_itl_by_chunks() -> None:
    outcome = results.result(recording(answer(0, 1.0, [0.4, 0.4], tokens=5)), {})
    assert outcome.summaries["tpot"].mean == pytest.approx(0.8 / 4)
    assert outcome.summaries["itl"].mean == pytest.approx(0.4)


class TestDocument:
    def document(self, *answers: Answer) -> dict[str, object]:
        outcome = results.result(
            recording(*answers, samples=[sample(1), sample(2, tokens=70)]), FACTS.objectives
        )
        written = "".join(to_json(results.document(FACTS, outcome, Replicas("left out")), outcome.answers))
        read: dict[str, object] = json.loads(written)
        return read

    def test_its_fields_are_those_of_vllm_bench_serve(self) -> None:
        document = self.document(answer(0, 0.5, [0.1, 0.2]))
        assert document.keys() >= BENCH_SERVE

    def test_the_rate_is_that_of_the_time_in_which_requests_were_sent(self) -> None:
        """The traffic lasts 10 s: answers may take longer, and an interrupt may end it before."""
        for duration, rate in ((20.0, 0.6), (3.0, 2.0)):
            seen = recording(*(answer(second, 0.5, []) for second in range(3)), duration=duration)
            seen.unfinished = [0.1, 0.2, 0.3]
            document = results.document(FACTS, results.result(seen, {}), Replicas("nobody"))
            assert document["request_rate"] == pytest.approx(rate)

    def test_details_are_in_one_order(self) -> None:
        document = self.document(answer(3, 0.7, [0.25]), failure(2, "HTTP 503"), answer(1, 0.5, [0.1, 0.2]))
        assert document["start_times"] == [1, 2, 3]
        assert document["ttfts"] == [0.5, 0.0, 0.7]
        assert document["itls"] == [[0.1, 0.2], [], [0.25]]
        assert document["output_lens"] == [3, 0, 2]
        assert document["input_lens"] == [10, 10, 10]
        assert document["errors"] == ["", "HTTP 503: for a reason", ""]

    def test_totals(self) -> None:
        document = self.document(answer(0, 0.5, [0.1, 0.2]), failure(2, "HTTP 503"))
        assert (document["completed"], document["failed"], document["num_prompts"]) == (1, 1, 2)
        assert (document["total_input_tokens"], document["total_output_tokens"]) == (10, 3)
        assert document["output_throughput"] == pytest.approx(0.3)
        assert document["max_output_tokens_per_s"] == 70
        assert document["mean_ttft_ms"] == pytest.approx(500)
        assert document["date"] == "20260102-030405"

    def test_an_answer_without_stream_has_no_first_token(self) -> None:
        whole = Answer(0.0, 0.0, 10, 20, latency=2.0)
        document = self.document(whole)
        assert "mean_ttft_ms" not in document
        assert document["mean_e2el_ms"] == pytest.approx(2000)

    def test_nothing_succeeded(self) -> None:
        document = self.document(failure(0, "connection"))
        assert (document["completed"], document["output_throughput"]) == (0, 0)


def test_those_that_still_wait_are_named_where_percentiles_are() -> None:
    """A server that stalls answers nobody: the percentiles alone would be those of before."""
    seen = recording(answer(0, 0.5, [0.1]), failure(1, "HTTP 503"))
    seen.unfinished, seen.partial = [8.0, 9.0], "interrupted"
    outcome = results.result(seen, FACTS.objectives)
    said = io.StringIO()
    Console(file=said, width=200).print(summary(outcome, Replicas("left out")))
    assert "4 requests in 10.0 s: 1 succeeded, 1 failed, 2 under way at the end" in said.getvalue()
    (warning,) = outcome.warnings
    assert "2 requests were under way when the test was ended, for up to 9.0 s" in warning
    assert "of the 1 that had succeeded" in warning
    assert warning in said.getvalue().replace("\n", "")
    assert warning in report.page(FACTS, outcome, Replicas("left out")).html
    document = results.document(FACTS, outcome, Replicas("left out"))
    assert (document["unfinished"], document["unfinished_for"]) == (2, [8.0, 9.0])


class TestBottleneck:
    def warnings(self, *samples: Sample, lags: tuple[float, ...] = ()) -> list[str]:
        answers = [answer(0, 0.5, [0.1], lag=lag) for lag in lags]
        return [*results.result(recording(*answers, samples=[*samples]), {}).warnings]

    def test_a_client_at_ease_is_not_mentioned(self) -> None:
        assert self.warnings(*(sample(second) for second in range(60)), lags=(0.001,) * 20) == []

    def test_a_busy_core_is(self) -> None:
        samples = [sample(second, cpu=0.97 if second % 4 == 0 else 0.5) for second in range(60)]
        assert "used 90% of a core or more in 15 of 60 s" in self.warnings(*samples)[0]

    def test_a_late_event_loop_is(self) -> None:
        samples = [sample(second, lag=0.3) for second in range(10)]
        assert "worst 300 ms" in self.warnings(*samples)[0]

    def test_late_requests_are(self) -> None:
        assert "sent late: p95" in self.warnings(lags=(0.001,) * 10 + (0.5,) * 10)[0]

    def test_one_bad_second_is_chance(self) -> None:
        assert self.warnings(*(sample(second, cpu=1.0 if second == 3 else 0.2) for second in range(60))) == []


class TestObjectives:
    def test_they_are_milliseconds(self) -> None:
        assert results.objectives(["ttft:2500", "tpot:100", "e2el:30000"]) == {
            "ttft": 2.5,
            "tpot": 0.1,
            "e2el": 30.0,
        }

    @pytest.mark.parametrize("text", ["ttft", "itl:5", "ttft:fast", "ttft:0", "ttft:-1", "ttft:inf", ""])
    def test_others_are_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"ttft, tpot, e2el with milliseconds, such as ttft:2500"):
            results.objectives([text])


class TestScaleUps:
    def scale_ups(self, *looks: tuple[float, str, int]) -> list[tuple[int, float, float]]:
        replicas = Replicas("here", [Look(*one) for one in looks])
        return [(one.replicas, one.asked, one.available) for one in replicas.scale_ups()]

    def test_from_the_wish_to_the_replica(self) -> None:
        assert self.scale_ups(
            *((0, "RUNNING", 1), (2, "SCALING", 1), (4, "SCALING", 1), (6, "SCALING", 2), (8, "SCALING", 2)),
            *((10, "RUNNING", 3), (12, "SCALING", 3), (14, "RUNNING", 1), (16, "RUNNING", 1)),
        ) == [(2, 2, 6), (3, 6, 10)]

    def test_a_scale_up_between_two_looks(self) -> None:
        assert self.scale_ups((0, "RUNNING", 1), (2, "RUNNING", 3)) == [(3, 2, 2)]

    def test_a_wish_that_was_withdrawn_does_not_count(self) -> None:
        assert self.scale_ups(
            (0, "RUNNING", 1), (2, "SCALING", 1), (4, "RUNNING", 1), (6, "SCALING", 1), (8, "RUNNING", 2)
        ) == [(2, 6, 8)]

    def test_none_without_looks(self) -> None:
        assert self.scale_ups() == []


def test_token_rates_are_differences() -> None:
    samples = [sample(1, tokens=10), sample(2, tokens=110), sample(4, tokens=130)]
    rates = [*results.token_rates(Recording(samples=samples))]
    assert rates == [(2, 100), (4, 10)]
    assert all(before < after for (before, _), (after, _) in pairwise(rates))


class TestScreen:
    """A test needs a client that counts, and no requests."""

    def shown(self, *, terminal: bool) -> str:
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=120, markup=False)
        client = mock.create_autospec(Client, instance=True, in_flight=17, sent=42)
        client.now.return_value = 12.0
        seen = recording(
            answer(5, 0.25, [0.1]), failure(6, "HTTP 503"), samples=[sample(1), sample(2, tokens=70)]
        )
        replicas = Replicas("here", [Look(1, "RUNNING", 2)])
        with Progress(console, client, seen, replicas, "100") as progress:
            progress.update()
        return file.getvalue()

    def test_a_terminal_shows_how_things_stand(self) -> None:
        text = self.shown(terminal=True)
        for line in (
            r"sent +42 of 100",
            r"in flight +17",
            r"tokens/s +70",
            r"p95 TTFT +0\.250 s",
            r"errors +1 × HTTP 503",
            r"replicas +2",
        ):
            assert re.search(line, text), line

    def test_a_log_gets_a_line_now_and_then_only(self) -> None:
        assert self.shown(terminal=False) == ""
