"""The readiness gate against the emulated cloud, with apps that answer over real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pulumi.output import UNKNOWN

from components.ai_deploy import gate
from components.ai_deploy.client import ATTEMPTS
from components.ai_deploy.engine import Engine
from components.ai_deploy.errors import DeployError
from components.ai_deploy.ownership import Owner
from components.ai_deploy.providers import AppProvider, ReadinessProvider, TokenProvider, VerdictProvider
from components.ai_deploy.spec import AppSpec, create_body
from tests.ai_deploy.clouds import FAST, MODEL, SPEED, Sky, clouds, floats, inputs
from tests.ai_deploy.test_tokens import token_inputs


def prepared(
    sky: Sky, *, timeout: float = 60 * SPEED, **fields: Any
) -> tuple[ReadinessProvider, dict[str, Any]]:
    """The gate of an app that was just made, and its inputs."""
    token = sky.provider(TokenProvider).create(token_inputs())
    # On a platform that fast a rollout would fail long before the gate gives up.
    patient = {"progressDeadlineSeconds": 10**8}
    app = sky.provider(AppProvider).create(inputs(deployment_strategy=patient, **fields))
    assert token.outs is not None
    assert app.outs is not None
    return sky.provider(ReadinessProvider), floats(
        {
            "service_name": app.outs["service_name"],
            "app_id": app.id,
            "app_resource": app.outs["resource"],
            "identity": app.outs["identity"],
            "starts": app.outs["starts"],
            "resource": "vllm",
            "token": token.outs["value"],
            "model": MODEL,
            "timeout_seconds": timeout,
        }
    )


def running(sky: Sky) -> tuple[ReadinessProvider, dict[str, Any]]:
    """The gate of an app that runs already, with little patience."""
    provider, props = prepared(sky, timeout=SPEED)
    sky.in_state(props["app_id"], "RUNNING")
    return provider, props


def failure(provider: ReadinessProvider, props: dict[str, Any]) -> str:
    with pytest.raises(DeployError) as caught:
        provider.create(props)
    assert props["token"] not in str(caught.value)
    return str(caught.value)


def test_it_opens_when_the_app_runs_lists_its_model_and_answers(sky: Sky) -> None:
    provider, props = prepared(sky)
    result = provider.create(props)
    app = sky.in_state(props["app_id"], "RUNNING")
    assert result.outs is not None
    assert result.outs["url"] == app.url
    assert "token" not in result.outs
    assert sky.servers.asked[-2:] == ["GET /v1/models", "POST /v1/chat/completions"]


def test_it_confirms_the_app_before_it_waits(tmp_path: Path) -> None:
    with clouds(tmp_path, startup=1e9) as sky:
        provider, props = prepared(sky, timeout=0)
        text = failure(provider, props)
        assert sky.app(props["app_id"]).labels["deploy-confirmed"] == "true"
    assert "gave up after 0 s" in text


def test_an_app_is_labelled_once_as_held_by_state_and_once_as_ready(sky: Sky) -> None:
    provider, props = prepared(sky)
    outs = provider.create(props).outs
    assert outs is not None
    provider.update("id", floats(outs), props)
    written = [body["name"] for body in sky.bodies("PUT", f"{props['app_id']}/label")]
    assert written == ["deploy-confirmed", "deploy-ready"]


def test_an_app_that_was_not_ready_yet_does_not_say_so(tmp_path: Path) -> None:
    with clouds(tmp_path, startup=1e9) as sky:
        provider, props = prepared(sky, timeout=0)
        failure(provider, props)
        assert "deploy-ready" not in sky.app(props["app_id"]).labels


def test_a_timeout_names_the_state_and_what_to_do_and_keeps_the_app(tmp_path: Path) -> None:
    with clouds(tmp_path, startup=1e9) as sky:
        provider, props = prepared(sky, timeout=SPEED / 2)
        text = failure(provider, props)
        assert sky.apps == [props["app_id"]]
    for words in ("State: ", "waiting for RUNNING", "says hello", "`pulumi up` waits again"):
        assert words in text


def test_a_failed_app_ends_the_wait_with_the_words_of_the_platform(tmp_path: Path) -> None:
    with clouds(tmp_path, pullable_images=frozenset()) as sky:
        provider, props = prepared(sky)
        text = failure(provider, props)
        assert sky.apps == [props["app_id"]]
        platform = sky.app(props["app_id"]).info
    for words in ("State: FAILED", platform, "uid 42420", "`pulumi refresh`"):
        assert words in text


def test_secrets_in_the_log_of_the_app_are_not_shown(tmp_path: Path) -> None:
    with clouds(tmp_path, startup=1e9) as sky:
        provider, props = prepared(sky, timeout=0)
        line = {
            "timestamp": "",
            "content": f"HF_TOKEN=hf_canary_secret Authorization: Bearer {props['token']}\n",
        }
        sky.fault("GET", "/log$", status=200, count=9, body={"lastActivity": None, "logs": [line]})
        text = failure(provider, props)
    assert "HF_TOKEN=*** Authorization: Bearer ***" in text


def test_only_the_last_lines_of_the_log_are_shown(tmp_path: Path) -> None:
    with clouds(tmp_path, startup=1e9) as sky:
        provider, props = prepared(sky, timeout=0)
        logs = [{"timestamp": "", "content": f"line {number}."} for number in range(100)]
        sky.fault("GET", "/log$", status=200, count=9, body={"lastActivity": None, "logs": logs})
        text = failure(provider, props)
    assert "line 79." not in text
    assert "line 80." in text
    assert "line 99." in text


def test_a_log_that_cannot_be_read_does_not_hide_the_failure(tmp_path: Path) -> None:
    right = "publicCloudProject:apiovh:ai/app/log/get"
    with clouds(tmp_path, startup=1e9, denied_actions=frozenset({right})) as sky:
        text = failure(*prepared(sky, timeout=0))
    assert "gave up after 0 s" in text
    assert "(could not be read: GET /cloud/project" in text
    assert right in text


def test_an_app_that_was_stopped_or_deleted_ends_the_wait(sky: Sky) -> None:
    provider, props = prepared(sky)
    sky.in_state(props["app_id"], "RUNNING")
    sky.api.stop_app(props["app_id"])
    sky.in_state(props["app_id"], "STOPPED")
    assert "`pulumi refresh`, then `pulumi up` starts it again" in failure(provider, props)
    sky.api.delete_app(props["app_id"])
    for _ in FAST.polls(60 * SPEED):
        if sky.api.find_app(props["app_id"]) is None:
            break
    assert "it was deleted" in failure(provider, props)


def test_a_login_page_is_not_taken_for_an_answer(sky: Sky) -> None:
    sky.servers.login_page = True
    text = failure(*running(sky))
    assert "GET /v1/models: HTTP 302, sent to a login page" in text
    assert "GET /login" not in sky.servers.asked


def test_it_waits_for_the_right_model(sky: Sky) -> None:
    sky.servers.models = ["somebody/else"]
    text = failure(*running(sky))
    assert f"waiting for model {MODEL} to be listed (listed: somebody/else)" in text


def test_a_chat_that_fails_for_good_ends_the_wait(sky: Sky) -> None:
    sky.servers.chat_status = 400
    text = failure(*prepared(sky))
    assert "POST /v1/chat/completions: HTTP 400" in text


def test_a_chat_that_fails_for_now_is_asked_again(sky: Sky) -> None:
    sky.servers.chat_status = 503
    text = failure(*running(sky))
    assert "POST /v1/chat/completions: HTTP 503" in text
    assert sky.servers.asked.count("POST /v1/chat/completions") > 1


def test_an_api_that_does_not_answer_for_a_while_does_not_end_the_wait(sky: Sky) -> None:
    provider, props = prepared(sky)
    sky.servers.chat_status = 503

    class Outage(Engine):
        def say(self, message: str) -> None:
            if "chat/completions" in message:
                sky.servers.chat_status = 200
                sky.fault("GET", f"/ai/app/{props['app_id']}$", status=503, count=ATTEMPTS + 1)

    provider.engine = Outage(None)
    provider.create(props)


def test_its_progress_is_told(tmp_path: Path) -> None:
    with clouds(tmp_path, startup=1e9) as sky:
        failure(*prepared(sky, timeout=2 * gate.PROGRESS_SECONDS + 5))
        states = [text for text in sky.said if text.startswith("vllm: SCALING after")]
    assert len(states) >= 3
    assert "waiting for RUNNING (0 replicas available)" in states[0]
    assert states[-1].endswith("says hello")
    assert "min" in states[-1]


def test_it_runs_again_for_another_app_or_new_containers_only() -> None:
    olds = {
        "service_name": "p",
        "app_id": "a",
        "starts": 1.0,
        "model": "m",
        "timeout_seconds": 60.0,
        "url": "u",
        "failure": "",
    }
    provider = ReadinessProvider()
    for field, value in (("app_id", "b"), ("starts", 2.0), ("model", "n")):
        diff = provider.diff("id", olds, {**olds, field: value})
        assert (diff.changes, diff.replaces) == (True, []), "a replacement would drop the outputs of before"
    assert not provider.diff("id", olds, {**olds, "token": "t", "timeout_seconds": 90.0}).changes


def test_an_app_that_came_up_late_after_a_crash_is_deleted_when_the_gate_opens(sky: Sky) -> None:
    """The request was under way when its engine was killed: the next create did not see its app yet."""
    provider, props = prepared(sky)
    spec = AppSpec(name="late", region="GRA", image="i:1", flavor="l4-1-gpu", gpu=1)
    labels = Owner(props["identity"], props["app_resource"]).labels
    late = sky.api.create_app(create_body(spec.model_copy(update={"labels": labels})))
    provider.create(props)
    assert sky.apps == [props["app_id"]]
    assert any(late.id in text for text in sky.said)


def test_a_gate_that_fails_later_leaves_its_outputs_at_the_app_that_serves(sky: Sky) -> None:
    provider, props = prepared(sky)
    before = floats(provider.create(props).outs)
    changed = {**props, "starts": 1.0, "model": "other", "timeout_seconds": SPEED}
    after = floats(provider.update("id", before, changed).outs)
    assert {**after, "failure": ""} == before
    assert "waiting for model other to be listed" in after["failure"]
    with pytest.raises(DeployError, match="waiting for model other"):
        VerdictProvider().update("id", {"failure": ""}, {"failure": after["failure"]})

    assert provider.diff("id", after, props).changes, "it looks again when the change is taken back"
    assert provider.diff("id", after, changed).changes
    again = floats(provider.update("id", after, props).outs)
    assert again == before
    assert not provider.diff("id", again, props).changes


def test_a_preview_shows_no_verdict(sky: Sky) -> None:
    provider = VerdictProvider()
    assert not provider.diff("id", {"failure": ""}, {"failure": UNKNOWN}).changes
    assert provider.diff("id", {"failure": ""}, {"failure": "text"}).changes


def test_an_app_that_the_api_never_told_of_is_unknown_and_not_gone(sky: Sky) -> None:
    provider, props = prepared(sky, timeout=SPEED)
    sky.fault("GET", f"/ai/app/{props['app_id']}$", status=500, count=1000)
    said = failure(provider, props)
    assert "State: unknown" in said
    assert "makes a new one" not in said
    assert "`pulumi up` waits again" in said
