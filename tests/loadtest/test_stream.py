"""A stream is counted right however its bytes arrive."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.stream import ErrorInStreamError, Stream, StreamError
from tests.loadtest.server import DONE, OPENING, chunk, closing, event

ANSWER = OPENING + chunk("Hello") + chunk(" there") + chunk("") + closing(3)


def fed(*pieces: bytes) -> Stream:
    """A stream that was fed a piece each second, the first one at second 1."""
    stream = Stream()
    for second, piece in enumerate(pieces, 1):
        stream.feed(piece, float(second))
    return stream


def test_the_role_is_no_token() -> None:
    stream = fed(OPENING, chunk("Hello"), chunk(" there"), closing(2))
    assert stream.first == 2.0
    assert list(stream.gaps) == [1.0]
    assert stream.last == 4.0
    assert stream.done
    assert stream.usage["completion_tokens"] == 2


def test_chunks_that_arrive_together_have_no_gap() -> None:
    stream = fed(chunk("a"), chunk("b") + chunk("c"), chunk("d") + closing(4))
    assert list(stream.gaps) == [1.0, 0.0, 1.0]
    assert stream.chunks == 4


@given(st.lists(st.integers(1, len(ANSWER) - 1), max_size=12, unique=True))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(ANSWER)]
    stream = fed(*(ANSWER[begin:end] for begin, end in pairwise(places)))
    assert (stream.chunks, stream.done, stream.usage["completion_tokens"]) == (3, True, 3)


@given(st.lists(st.integers(1, 2 * len(ANSWER)), max_size=12, unique=True))
def test_other_line_ends_and_spaces_are_read_too(cuts: list[int]) -> None:
    answer = ANSWER.replace(b"\n", b"\r\n").replace(b'"choices":[', b'"choices": [')
    places = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    stream = fed(*(answer[begin:end] for begin, end in pairwise(places)))
    assert (stream.chunks, stream.done) == (3, True)


def test_a_text_that_looks_like_an_event_is_a_text() -> None:
    nasty = 'data: {"choices":[{}]}\n\ndata: [DONE]\n\n{"error": "no"}'
    stream = fed(chunk("a"), chunk(nasty), chunk(nasty) + chunk(nasty), closing(4))
    assert stream.chunks == 4


def test_comments_that_keep_a_connection_are_no_tokens() -> None:
    stream = fed(b": ping\n\n", chunk("a"), b": ping\n\n", chunk("b"), closing(2))
    assert stream.first == 2.0
    assert list(stream.gaps) == [2.0]


@pytest.mark.parametrize("part", ["reasoning_content", "reasoning", "tool_calls"])
def test_thoughts_and_calls_of_tools_are_content(part: str) -> None:
    delta = {"content": None, part: "hm" if part != "tool_calls" else [{"index": 0}]}
    assert fed(event([{"index": 0, "delta": delta}])).first == 1.0


def test_a_stream_without_content_has_no_first_token() -> None:
    stream = fed(OPENING, chunk(""), closing(1))
    assert stream.first is None
    assert stream.chunks == 0


def test_an_error_in_the_stream_is_one_with_its_message() -> None:
    error = {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}
    with pytest.raises(ErrorInStreamError, match="EngineCore died"):
        fed(chunk("a"), b"data: " + json.dumps(error).encode() + b"\n\n" + DONE)


@pytest.mark.parametrize("data", [b"data: <html>\n\n", b"data: 17\n\n"])
def test_what_is_no_event_of_the_api_is_said(data: bytes) -> None:
    with pytest.raises(StreamError, match="no JSON object"):
        fed(data)


@pytest.mark.parametrize(
    "event", ['{"choices": "none"}', '{"choices": [7]}', '{"choices": [{"delta": "a"}]}', '{"usage": [1]}']
)
def test_json_of_another_shape_is_an_error_and_no_crash(event: str) -> None:
    with pytest.raises(StreamError):
        fed(f"data: {event}\n\n".encode())
