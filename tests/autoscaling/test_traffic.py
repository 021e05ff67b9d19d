"""Traffic: arrivals come at the rates asked for, lengths are those of a chat, mistakes are named."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.traffic import (
    ARTICLE_MAX_TOKENS,
    ARTICLE_POOL,
    ClosedLoop,
    OpenLoop,
    Request,
    parse,
)
from sandbox.inference.openai import ChatRequest


def open_loop(text: str) -> OpenLoop:
    traffic = parse(text)
    assert isinstance(traffic, OpenLoop)
    return traffic


def closed_loop(text: str) -> ClosedLoop:
    traffic = parse(text)
    assert isinstance(traffic, ClosedLoop)
    return traffic


def requests(text: str, seed: int = 1) -> list[Request]:
    return list(open_loop(text).requests(seed))


def between(found: list[Request], start: float, end: float) -> int:
    return sum(start <= request.at < end for request in found)


def near(found: int, expected: float) -> bool:
    """Within four standard deviations of a Poisson count; seeds are fixed, so this never flickers."""
    return abs(found - expected) <= 4 * math.sqrt(expected)


SHAPES: dict[str, list[tuple[float, float, float]]] = {
    "poisson:rate=10,for=1h": [(0, 3600, 36000), (0, 600, 6000), (3000, 3600, 6000)],
    "ramp:from=1,to=20,for=30m": [(0, 1800, 18900), (0, 180, 180 * 1.95), (1620, 1800, 180 * 19.05)],
    "ramp:from=8,to=0,for=10m": [(0, 600, 2400), (0, 300, 1800), (300, 600, 600)],
    "steps:rates=1/5/0/10,each=10m": [(0, 600, 600), (600, 1200, 3000), (1200, 1800, 0), (1800, 2400, 6000)],
    "burst:base=2,peak=30,every=15m,length=1m,for=1h": [
        (0, 840, 1680),
        (840, 900, 1800),
        (900, 1740, 1680),
        (0, 3600, 4 * (1680 + 1800)),
    ],
    "day:trough=0.1,peak=1,for=24h": [
        (0, 86400, 86400 * 0.55),
        (41400, 45000, 3600),
        (0, 1800, 180),
    ],
}


@pytest.mark.parametrize("text", SHAPES)
def test_arrivals_come_at_the_rates_that_were_asked_for(text: str) -> None:
    found = requests(text)
    counts = [(between(found, start, end), expected) for start, end, expected in SHAPES[text]]
    assert all(near(count, expected) for count, expected in counts), counts


@pytest.mark.parametrize("text", [*SHAPES, "constant:rate=7,for=2m"])
def test_requests_come_in_order_and_within_the_duration(text: str) -> None:
    traffic = open_loop(text)
    times = [request.at for request in itertools.islice(traffic.requests(1), 20000)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < traffic.duration


def test_poisson_gaps_are_as_irregular_as_chance_makes_them() -> None:
    times = [request.at for request in requests("poisson:rate=10,for=1h")]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, rel=0.02)


def test_constant_arrivals_are_evenly_spaced_from_the_start() -> None:
    assert [request.at for request in requests("constant:rate=4,for=2s")] == [
        number / 4 for number in range(8)
    ]


def test_the_same_seed_gives_the_same_requests_and_another_one_others() -> None:
    text = "poisson:rate=10,for=1m"
    assert requests(text, 1) == requests(text, 1)
    assert requests(text, 1) != requests(text, 2)


def test_other_lengths_leave_the_arrivals_as_they_are() -> None:
    short, long = requests("poisson:rate=10,for=1m,output=10"), requests("poisson:rate=10,for=1m,output=999")
    assert [request.at for request in short] == [request.at for request in long]


def test_requests_are_made_one_at_a_time() -> None:
    endless = open_loop("poisson:rate=1000,for=10000d").requests(1)
    assert len(list(itertools.islice(endless, 100))) == 100


def test_lengths_of_a_chat_are_those_of_the_published_trace() -> None:
    found = requests("poisson:rate=10,for=2h")
    prompts = [request.prompt_tokens for request in found]
    outputs = [request.output_tokens for request in found]
    assert statistics.median(prompts) == pytest.approx(1020, rel=0.02)
    assert statistics.mean(prompts) == pytest.approx(1155, rel=0.03)
    assert statistics.median(outputs) == pytest.approx(129, rel=0.02)
    assert statistics.mean(outputs) == pytest.approx(211, rel=0.06)
    assert min(outputs) >= 1
    assert max(outputs) <= 8 * 129


def test_lengths_may_be_set() -> None:
    found = requests("constant:rate=100,for=1m,prompt=50,output=7")
    assert statistics.median(request.prompt_tokens for request in found) == pytest.approx(50, rel=0.05)
    assert statistics.median(request.output_tokens for request in found) == pytest.approx(7, abs=1)


def test_a_shared_system_prompt_stands_before_every_prompt() -> None:
    alone = requests("poisson:rate=10,for=1m")
    shared = requests("poisson:rate=10,for=1m,shared=500")
    assert [request.prompt_tokens - 500 for request in shared] == [request.prompt_tokens for request in alone]
    assert {request.prefix.tokens for request in shared if request.prefix} == {500}
    assert len({request.prefix.key for request in shared if request.prefix}) == 1
    assert all(request.prefix is None for request in alone)


def test_the_article_sends_25_requests_from_each_of_500_workers() -> None:
    traffic = closed_loop("article")
    assert (traffic.workers, traffic.requests_per_worker) == (500, 25)
    assert len(list(traffic.requests(1, 499))) == 25
    assert closed_loop("article:workers=3,requests=2") == ClosedLoop("article:workers=3,requests=2", 3, 2)


def test_the_articles_pool_has_its_weights() -> None:
    assert [prompt.weight for prompt in ARTICLE_POOL] == [2, 2, 2, 4, 4, 6]
    traffic = closed_loop("article")
    found = [request for worker in range(500) for request in traffic.requests(1, worker)]
    shares = Counter(request.prompt for request in found)
    for prompt in ARTICLE_POOL:
        assert near(shares[prompt.text], len(found) * prompt.weight / 20)
    assert max(request.output_tokens for request in found) == ARTICLE_MAX_TOKENS
    assert min(request.output_tokens for request in found) >= 1


def test_workers_differ_and_each_is_the_same_again() -> None:
    traffic = closed_loop("article")
    assert list(traffic.requests(1, 0)) == list(traffic.requests(1, 0))
    assert list(traffic.requests(1, 0)) != list(traffic.requests(1, 1))


def test_equal_prompts_of_the_article_are_found_in_the_prefix_cache() -> None:
    traffic = closed_loop("article")
    keys = {
        (request.prompt, request.prefix) for worker in range(50) for request in traffic.requests(1, worker)
    }
    assert len(keys) == len(ARTICLE_POOL)
    assert all(prefix is not None for _, prefix in keys)


def test_prompts_have_as_many_tokens_as_a_replica_of_the_sandbox_counts() -> None:
    for prompt in ARTICLE_POOL:
        chat = ChatRequest(messages=[{"role": "user", "content": prompt.text}])
        assert chat.prompts()[0].tokens == prompt.tokens


def recording(folder: Path, text: str) -> str:
    path = folder / "requests.csv"
    path.write_text(text, encoding="utf-8")
    return f"csv:{path}"


def test_a_csv_file_is_taken_as_it_is(tmp_path: Path) -> None:
    text = recording(tmp_path, "user,seconds,prompt_tokens,output_tokens\na,0.5,10,20\nb,0.5,30,40\n,7,1,2\n")
    assert requests(text) == [Request(0.5, 10, 20), Request(0.5, 30, 40), Request(7.0, 1, 2)]
    assert open_loop(text).duration == 7


HEADER = "seconds,prompt_tokens,output_tokens\n"
BAD_FILES = {
    "seconds,prompt_tokens\n1,2\n": ["line 1", "no column output_tokens"],
    "seconds;prompt_tokens;output_tokens\n1;2;3\n": ["seconds;prompt_tokens", "with commas"],
    "": ["line 1", "an empty file"],
    HEADER: ["has no requests"],
    HEADER + "1,5,5\n0.5,5,5\n": ["line 3", "seconds = 0.5", "before 1"],
    HEADER + "1,5,5\n2,many,5\n": ["line 3", "prompt_tokens = many", "whole number of at least 1"],
    HEADER + "1,5,0\n": ["line 2", "output_tokens = 0"],
    HEADER + "-1,5,5\n": ["line 2", "seconds = -1", "at least 0"],
    HEADER + "1795353188,5,5\n": ["line 2", "seconds = 1795353188", "since the traffic began"],
    HEADER + "1,5\n": ["line 2", "output_tokens", "whole number"],
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_mistake_in_a_csv_file_is_named_with_line_and_column(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"requests\.csv") as error:
        parse(recording(tmp_path, text))
    assert all(part in str(error.value) for part in BAD_FILES[text]), str(error.value)


def test_a_missing_csv_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.csv': No such file.*columns seconds, prompt_tokens"):
        parse(f"csv:{tmp_path}/nothing.csv")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", HEADER.encode() + b"1,5," + b"9" * 200_000])
def test_a_file_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"requests\.csv: no CSV file with commas, in UTF-8"):
        parse(f"csv:{path}")


def test_a_csv_file_as_spreadsheets_and_people_write_them(tmp_path: Path) -> None:
    text = recording(
        tmp_path, "\ufeffseconds, prompt_tokens, output_tokens\r\n0, 10, 20\r\n\r\n1.5, 30, 40\r\n"
    )
    assert requests(text) == [Request(0.0, 10, 20), Request(1.5, 30, 40)]


def test_spaces_after_commas_change_nothing() -> None:
    spaced = open_loop("poisson: rate=2, for=1m, output=7")
    assert list(spaced.requests(1)) == list(open_loop("poisson:rate=2,for=1m,output=7").requests(1))


BAD_TEXTS = {
    "": ["one of article, poisson", "csv:"],
    "poison:rate=1": ["'poison:rate=1'", "one of article, poisson"],
    "poisson:for=1h": ["rate is missing", "poisson:rate=10,for=1h"],
    "poisson:rate=fast,for=1h": ["rate=fast", "number above 0"],
    "poisson:rate=0,for=1h": ["rate=0", "number above 0"],
    "poisson:rate=inf,for=1h": ["rate=inf", "number above 0"],
    "poisson:rate=1,for=90": ["for=90", "duration such as 15s"],
    "poisson:rate=1,for=0s": ["for=0s", "longer than 0"],
    "poisson:rate=1,rate=2,for=1s": ["rate is there twice"],
    "poisson:rate=1,for=1s,speed=3": ["speed is none of rate, for, prompt, output, shared"],
    "poisson:rate=1,for=1s,prompt=0": ["prompt=0", "whole number of at least 1"],
    "poisson:rate=1,for=1s,shared=-1": ["shared=-1", "whole number of at least 0"],
    "article:workers=1.5": ["workers=1.5", "whole number of at least 1"],
    "article:prompt=5": ["prompt is none of workers, requests"],
    "steps:rates=1//2,each=1m": ["rates=1//2", "number of at least 0"],
    "steps:rates=0/0,each=1m": ["above 0"],
    "ramp:from=0,to=0,for=1m": ["above 0"],
    "poisson:rate=1e300,for=1m": ["rate=1e300", "at most 100000 a second"],
    "burst:base=9,peak=3,every=1m,length=1s,for=1h": ["base=9 must not exceed peak=3"],
    "burst:base=1,peak=3,every=1m,length=2m,for=1h": ["length (120 s) must not exceed every (60 s)"],
    "day:trough=3,peak=1,for=24h": ["trough=3 must not exceed peak=1"],
}


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_a_mistake_in_the_text_names_word_value_and_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="traffic") as error:
        parse(text)
    assert all(part in str(error.value) for part in BAD_TEXTS[text]), str(error.value)


@given(st.text(max_size=40))
def test_any_other_text_is_refused_with_an_error_for_users(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error)
