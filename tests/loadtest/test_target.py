"""What is tested, and what is known about it, is found where a user expects it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from components.ai_deploy.credentials import AccessToken, Credentials
from loadtest import replicas, target
from loadtest.client import TargetError
from loadtest.replicas import Source, UnseenError, native_api, platform_api
from tests.ai_deploy.servers import Answer, Request, serving
from tests.components.stacks import SERVICE
from tests.stacks.programs import know

APP = "01234567-89ab-cdef-0123-456789abcdef"
OUTPUTS = {
    "openai_base_url": f"https://{APP}.app.gra.ai.cloud.ovh.net/v1",
    "model": "tiny",
    "client_token": "token-of-the-stack",
    "app_id": APP,
}
ACCOUNT = {
    "OVH_APPLICATION_KEY": "key",
    "OVH_APPLICATION_SECRET": "secret-of-the-account",
    "OVH_CONSUMER_KEY": "consumer-of-the-account",
    "OVH_CLOUD_PROJECT_SERVICE": SERVICE,
}


def to_the_token(body: object) -> Callable[[Request], Answer]:
    """Answers those who bring the stack's token, and refuses all others."""

    def respond(request: Request) -> Answer:
        known = request.headers.get("Authorization") == "Bearer token-of-the-stack"
        return Answer(body=body) if known else Answer(403, {})

    return respond


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without what a shell of the sandbox has; whatever a test adds goes away."""
    with mock.patch.dict(os.environ):
        for name in list(os.environ):
            if name.startswith(("OVH_", "SANDBOX_", "PULUMI_")):
                del os.environ[name]
        yield


class TestUrl:
    def test_the_token_comes_from_the_environment(self) -> None:
        found = target.url("https://host/v1/", "tiny", {"OPENAI_API_KEY": "one", "LOADTEST_TOKEN": "two"})
        assert (found.base_url, found.token, found.model) == ("https://host/v1", "two", "tiny")
        assert target.url("https://host/v1", "", {"OPENAI_API_KEY": "one"}).token == "one"
        assert "one" not in repr(target.url("https://host/v1", "", {"OPENAI_API_KEY": "one"}))

    def test_the_address_of_a_request_means_its_api(self) -> None:
        assert target.url("https://host/v1/chat/completions", "", {}).base_url == "https://host/v1"

    @pytest.mark.parametrize(
        "wrong", ["host/v1", "ftp://host", "https:///v1", "http://[::1/v1", "http://host:99999"]
    )
    def test_what_is_no_address_is_refused(self, wrong: str) -> None:
        with pytest.raises(TargetError, match=re.escape(repr(wrong))):
            target.url(wrong, "", {})

    def test_a_password_in_the_address_is_refused_and_not_repeated(self) -> None:
        for wrong in ("https://me:canary-password@host/v1", "https://host/v1?key=canary-password"):
            with pytest.raises(TargetError, match="LOADTEST_TOKEN") as error:
                target.url(wrong, "", {})
            assert "canary-password" not in str(error.value)

    @pytest.mark.parametrize("wrong", ["two\nlines", "two words", "wr\u00f6ng"])
    def test_what_cannot_be_a_token_is_named_by_its_variable(self, wrong: str) -> None:
        with pytest.raises(TargetError, match="OPENAI_API_KEY holds") as error:
            target.url("https://host/v1", "", {"OPENAI_API_KEY": wrong})
        assert wrong not in str(error.value)

    def test_an_app_of_ai_deploy_is_known_by_its_address(self) -> None:
        url = f"https://{APP}.app.gra.ai.cloud.ovh.net/v1"
        (source,) = target.url(url, "", {"OPENAI_API_KEY": "one"}).replicas
        assert source.name == "AI Deploy's own API (https://gra.ai.cloud.ovh.net)"
        assert target.url(url, "", {}).replicas == ()
        assert target.url("https://host/v1", "", {"OPENAI_API_KEY": "one"}).replicas == ()


class TestStack:
    def test_outputs_and_settings_say_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        know(tmp_path, monkeypatch, OUTPUTS)
        found = target.stack("prod", {})
        assert (found.base_url, found.token, found.model) == (
            OUTPUTS["openai_base_url"],
            "token-of-the-stack",
            "tiny",
        )
        assert found.objectives == {"ttft": 2.5, "tpot": 0.1}
        assert "token-of-the-stack" not in repr(found)
        assert [source.name for source in found.replicas] == [
            "AI Deploy's own API (https://gra.ai.cloud.ovh.net)"
        ]

    def test_the_account_s_api_comes_first_where_there_are_credentials(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        know(tmp_path, monkeypatch, OUTPUTS)
        first, second = target.stack("prod", ACCOUNT).replicas
        assert first.name == "the OVHcloud API (https://eu.api.ovh.com/1.0)"
        assert second.name.startswith("AI Deploy's own API")

    def test_the_native_api_is_where_the_environment_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        know(tmp_path, monkeypatch, OUTPUTS)
        (source,) = target.stack("prod", {"OVH_AI_URL": "https://ai.example"}).replicas
        assert source.name == "AI Deploy's own API (https://ai.example)"

    def test_a_stack_that_is_not_deployed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        know(tmp_path, monkeypatch, {"model": "tiny"})
        with pytest.raises(TargetError, match=r"no output openai_base_url, client_token, app_id: deploy it"):
            target.stack("prod", {})

    def test_a_stack_that_there_is_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        know(tmp_path, monkeypatch, OUTPUTS)
        with pytest.raises(TargetError, match=r"stack staging: there is no Pulumi\.staging\.yaml; the"):
            target.stack("staging", {})

    def test_mistakes_in_its_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        know(tmp_path, monkeypatch, OUTPUTS, minReplicas="9")
        with pytest.raises(TargetError, match=r"stack prod: .*\n.*minReplicas = 9"):
            target.stack("prod", {})


class TestReplicas:
    def test_the_native_api_is_asked_with_the_token(self) -> None:
        with serving(to_the_token({"status": {"state": "SCALING", "availableReplicas": 2}})) as server:
            assert native_api(server.url, "token-of-the-stack", APP).read() == ("SCALING", 2)

    def test_a_refusal_says_why_without_the_token(self) -> None:
        with serving(to_the_token({})) as server, pytest.raises(UnseenError, match="403") as error:
            native_api(server.url, "another-token-of-ours", APP).read()
        assert "another-token-of-ours" not in str(error.value)

    def test_the_account_s_api_is_asked_for_the_app(self) -> None:
        app = {"id": APP, "spec": {}, "status": {"state": "RUNNING", "availableReplicas": 3}}
        with serving(to_the_token(app)) as server:
            credentials = Credentials(server.url, AccessToken("token-of-the-stack"))
            assert platform_api(credentials, "0" * 32, APP).read() == ("RUNNING", 3)

    async def test_the_first_source_that_answers_is_taken(self) -> None:
        def fail() -> tuple[str, int]:
            raise UnseenError("HTTP 401")

        sources = [Source("one", fail), Source("two", lambda: ("RUNNING", 1))]
        source, seen = await replicas.first_readable(sources)
        assert source is sources[1]
        assert seen.source == "two"

    async def test_without_a_source_it_is_said_that_they_are_left_out(self) -> None:
        def fail() -> tuple[str, int]:
            raise UnseenError("HTTP 401")

        assert (await replicas.first_readable([]))[1].source.startswith("left out: the platform is not known")
        assert (await replicas.first_readable([Source("one", fail)]))[1].source == "left out: HTTP 401"
