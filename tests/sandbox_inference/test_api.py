"""The API answers what a real vLLM 0.13.0 was recorded to answer: status, headers, keys, types, nulls."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sandbox.interfaces import JsonObject
from tests.sandbox_inference.support import FIXTURES, Deployment, deployed

CALLS: list[dict[str, Any]] = json.loads((FIXTURES / "vllm-0.13.0-http.json").read_text())["calls"]
CHAT: JsonObject = {"messages": [{"role": "user", "content": "hello world"}]}
# The recording shortens the long prompt, and ran outside the image.
LONG_PROMPT = "hello (3000 times)"
ENDPOINT_FILE = r'File "[^"]*/vllm/entrypoints/utils.py"'


def shape(value: Any) -> Any:
    """Keys in their order, types instead of values; numbers and the place of a file in messages left out."""
    if isinstance(value, dict):
        return [(key, shape(entry)) for key, entry in value.items()]
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    if isinstance(value, str):
        return re.sub(r"[0-9a-f]{16}", "ID", value) if "-" in value[:10] else "text"
    return type(value).__name__ if not isinstance(value, bool) and value is not None else value


def message(body: dict[str, Any]) -> str:
    """An error message without numbers that depend on the tokenizer."""
    return re.sub(r"\d+", "N", re.sub(ENDPOINT_FILE, "File", body["error"]["message"]))


def event_shape(event: str) -> Any:
    data = event.removeprefix("data: ")
    if data == "[DONE]":
        return data
    decoded = json.loads(data)
    finish = [choice["finish_reason"] for choice in decoded["choices"]]
    return shape(decoded), finish


def distinct(shapes: list[Any]) -> list[Any]:
    """Shapes without repetitions in a row: an event more or less for the same tokens is the same stream."""
    return [one for index, one in enumerate(shapes) if index == 0 or one != shapes[index - 1]]


async def call(app: Deployment, request: dict[str, Any]) -> tuple[int, dict[str, str], str]:
    body = request["body"]
    data = body
    if isinstance(body, dict):
        data = json.dumps(body).replace(LONG_PROMPT, "hello " * 3000)
    headers = app.headers() | ({"Content-Type": "application/json"} if body is not None else {})
    async with app.client.request(
        request["method"], app.url + request["path"], data=data, headers=headers
    ) as response:
        return response.status, {k.lower(): v for k, v in response.headers.items()}, await response.text()


@pytest.mark.parametrize("recorded", CALLS, ids=lambda recorded: recorded["name"])
async def test_answers_like_the_recording(tmp_path: Path, recorded: dict[str, Any]) -> None:
    async with deployed(tmp_path) as app:
        status, headers, text = await call(app, recorded["request"])
    assert status == recorded["status"]
    relevant = {key: headers.get(key) for key in ("content-type", "allow", "transfer-encoding")}
    assert {key: value for key, value in relevant.items() if value is not None} == recorded["headers"]
    if "events" in recorded:
        *events, rest = text.split("\n\n")
        assert rest == ""
        shapes = distinct([event_shape(event) for event in events])
        assert shapes == distinct([event_shape(event) for event in recorded["events"]])
    elif "text" in recorded:
        assert text == recorded["text"]
    else:
        body = json.loads(text)
        assert shape(body) == shape(recorded["body"])
        if "error" in body:
            assert message(body) == message(recorded["body"])
            assert {**body["error"], "message": ""} == {**recorded["body"]["error"], "message": ""}
        if "usage" in body:
            assert body["usage"] == recorded["body"]["usage"]
            finish = [choice["finish_reason"] for choice in body["choices"]]
            assert finish == [choice["finish_reason"] for choice in recorded["body"]["choices"]]


async def events_of(app: Deployment, path: str, body: JsonObject) -> list[dict[str, Any]]:
    """The decoded events of a stream, which must be properly ended."""
    async with app.client.post(app.url + path, json=body, headers=app.headers()) as response:
        assert response.status == 200
        *events, done, rest = (await response.text()).split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize("n", [1, 3])
async def test_a_stream_says_what_the_whole_answer_says(tmp_path: Path, n: int) -> None:
    body: JsonObject = {**CHAT, "n": n, "max_tokens": 300}
    async with deployed(tmp_path) as app:
        _, whole = await app.post("/v1/chat/completions", body)
        streamed: JsonObject = {**body, "stream": True, "stream_options": {"include_usage": True}}
        *events, usage = await events_of(app, "/v1/chat/completions", streamed)
    texts = [""] * n
    finish: list[str | None] = [None] * n
    for event in events:
        for choice in event["choices"]:
            assert finish[choice["index"]] is None  # nothing after the end
            texts[choice["index"]] += choice["delta"]["content"]
            finish[choice["index"]] = choice["finish_reason"]
    choices: Any = whole["choices"]
    assert texts == [choice["message"]["content"] for choice in choices]
    assert finish == [choice["finish_reason"] for choice in choices]
    total: Any = whole["usage"]
    assert usage["choices"] == []
    assert usage["usage"] == {key: total[key] for key in usage["usage"]}
    assert [event["choices"][0]["delta"].get("role") for event in events[: n + 1]] == ["assistant"] * n + [
        None
    ]


async def test_an_answer_ends_by_itself_unless_told_otherwise(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        reasons = set()
        for index in range(5):
            body: JsonObject = {"prompt": f"question {index}", "max_tokens": 900}
            _, answer = await app.post("/v1/completions", body)
            choices: Any = answer["choices"]
            reasons.add(choices[0]["finish_reason"])
            _, answer = await app.post("/v1/completions", {**body, "ignore_eos": True})
            usage: Any = answer["usage"]
            assert usage["completion_tokens"] == 900
        assert "stop" in reasons


async def test_several_prompts_in_one_completion(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        body: JsonObject = {"prompt": ["hello world", "good day to you"], "n": 2, "max_tokens": 3}
        _, answer = await app.post("/v1/completions", body)
        choices: Any = answer["choices"]
        usage: Any = answer["usage"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 12)
        _, answer = await app.post("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 1})
        usage = answer["usage"]
        assert usage["prompt_tokens"] == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n": 0}, "n must be at least 1, got 0."),
        ({"top_p": 0}, "top_p must be in (0, 1], got 0.0."),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
    ],
)
async def test_sampling_parameters_out_of_range(tmp_path: Path, changes: JsonObject, expected: str) -> None:
    async with deployed(tmp_path) as app:
        status, body = await app.post("/v1/chat/completions", {**CHAT, **changes})
    error: Any = body["error"]
    assert (status, error["message"]) == (400, expected)


async def test_a_body_that_is_not_declared_as_json_is_refused(tmp_path: Path) -> None:
    async with (
        deployed(tmp_path) as app,
        app.client.post(
            f"{app.url}/v1/chat/completions",
            data=json.dumps(CHAT),
            headers=app.headers() | {"Content-Type": "text/plain"},
        ) as response,
    ):
        assert response.status == 400
        assert "Unsupported Media Type" in await response.text()


@pytest.mark.parametrize("data", [b"\xff", b"[" * 100_000])
async def test_a_body_that_no_parser_gets_through_is_the_clients_mistake(tmp_path: Path, data: bytes) -> None:
    async with deployed(tmp_path) as app:
        headers = app.headers() | {"Content-Type": "application/json"}
        url = f"{app.url}/v1/completions"
        async with app.client.post(url, data=data, headers=headers) as response:
            assert response.status == 400
            assert (await response.json())["error"]["message"] == "There was an error parsing the body"


async def test_half_a_character_is_no_reason_to_fail(tmp_path: Path) -> None:
    async with deployed(tmp_path) as app:
        status, _ = await app.post("/v1/completions", {"prompt": "\ud800", "max_tokens": 1})
    assert status == 200


async def test_every_served_name_is_accepted_and_the_first_one_answers(tmp_path: Path) -> None:
    spec: JsonObject = {
        "command": ["bash", "-c", 'vllm serve tiny --served-model-name "tiny@$HOSTNAME" chat'],
        "defaultHttpPort": 8000,
    }
    async with deployed(tmp_path, spec=spec) as app:
        _, models = await app.post("/v1/chat/completions", {**CHAT, "model": "chat", "max_tokens": 1})
        assert models["model"] == "tiny@replica-0"
        status, _ = await app.post("/v1/chat/completions", {**CHAT, "model": "tiny"})
        assert status == 404
        async with app.client.get(f"{app.url}/v1/models", headers=app.headers()) as response:
            listed: Any = await response.json()
        assert [model["id"] for model in listed["data"]] == ["tiny@replica-0", "chat"]
        assert 'model_name="tiny@replica-0"' in app.directory.replicas[0].metrics()
