"""What is tested, and what is known about it, is found where a user expects it."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from components.ai_deploy.credentials import AccessToken, Credentials
from loadtest import replicas, target
from loadtest.client import TargetError
from loadtest.replicas import Source, UnseenError, native_api, platform_api

APP = "01234567-89ab-cdef-0123-456789abcdef"
OUTPUTS = {
    "openai_base_url": f"https://{APP}.app.gra.ai.cloud.ovh.net/v1",
    "model": "tiny",
    "client_token": "token-of-the-stack",
    "app_id": APP,
}
OBJECTIVES = {
    "timeToFirstToken": {"seconds": 2.5, "percent": 95},
    "interTokenLatency": {"seconds": 0.1, "percent": 95},
}
CONFIG = {"ovh-vllm:region": "GRA", "ovh-vllm:serviceLevelObjectives": json.dumps(OBJECTIVES)}
ACCOUNT = {
    "OVH_APPLICATION_KEY": "key",
    "OVH_APPLICATION_SECRET": "secret-of-the-account",
    "OVH_CONSUMER_KEY": "consumer-of-the-account",
    "OVH_CLOUD_PROJECT_SERVICE": "0" * 32,
}


@contextmanager
def answering(status: int, body: object) -> Iterator[str]:
    """A server that always answers the same."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status == 401 or self.headers.get("Authorization", "") == "Bearer token-of-the-stack":
                data = json.dumps(body).encode()
                self.send_response(status)
            else:
                data = json.dumps(body).encode()
                self.send_response(200 if "/sandbox/" in self.path else 403)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pulumi(directory: Path, outputs: Mapping[str, Any], config: Mapping[str, str] = CONFIG) -> str:
    """A folder with a `pulumi` that knows one stack, `prod`."""
    directory.mkdir(exist_ok=True)
    values = {key: {"value": value, "secret": False} for key, value in config.items()}
    (directory / "stack.json").write_text(json.dumps(outputs))
    (directory / "config.json").write_text(json.dumps(values))
    program = directory / "pulumi"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *"-s prod"|*"-s sandbox") ;; '
        "*) echo \"error: no stack named '$6' found\" >&2; exit 255;; esac\n"
        f'cat "{directory}/$1.json"\n'
    )
    program.chmod(stat.S_IRWXU)
    return str(directory)


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
    def test_outputs_and_configuration_say_all(self, tmp_path: Path) -> None:
        os.environ["PATH"] = pulumi(tmp_path, OUTPUTS) + os.pathsep + os.environ["PATH"]
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

    def test_the_account_s_api_comes_first_where_there_are_credentials(self, tmp_path: Path) -> None:
        os.environ["PATH"] = pulumi(tmp_path, OUTPUTS) + os.pathsep + os.environ["PATH"]
        first, second = target.stack("prod", ACCOUNT).replicas
        assert first.name == "the OVHcloud API (https://eu.api.ovh.com/1.0)"
        assert second.name.startswith("AI Deploy's own API")

    def test_a_stack_that_is_not_deployed(self, tmp_path: Path) -> None:
        os.environ["PATH"] = pulumi(tmp_path, {"model": "tiny"}) + os.pathsep + os.environ["PATH"]
        with pytest.raises(TargetError, match=r"no output openai_base_url, client_token, app_id: deploy it"):
            target.stack("prod", {})

    def test_a_stack_that_there_is_not(self, tmp_path: Path) -> None:
        os.environ["PATH"] = pulumi(tmp_path, OUTPUTS) + os.pathsep + os.environ["PATH"]
        with pytest.raises(TargetError, match=r"stack staging: `pulumi stack` says: error: no stack named"):
            target.stack("staging", {})

    def test_no_pulumi(self, tmp_path: Path) -> None:
        os.environ["PATH"] = str(tmp_path)
        with pytest.raises(TargetError, match="no pulumi on PATH"):
            target.stack("prod", {})


class TestSandbox:
    def write(self, path: Path, api: str, programs: str) -> Path:
        path.parent.mkdir()
        path.write_text(f"export SANDBOX_API_URL={api}\nexport PATH={programs}:$PATH\n")
        return path

    def test_what_its_env_says_is_used(self, tmp_path: Path) -> None:
        programs = pulumi(tmp_path / "bin", OUTPUTS)
        with answering(200, {}) as api:
            found = target.sandbox(self.write(tmp_path / ".sandbox" / "env", api, programs))
        assert found.base_url == OUTPUTS["openai_base_url"]

    def test_none_runs(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="no sandbox runs: start one with `make sandbox`, or say"):
            target.sandbox(tmp_path / "env")

    def test_one_that_has_ended(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / ".sandbox" / "env", "http://127.0.0.1:9", str(tmp_path))
        with pytest.raises(TargetError, match="the sandbox does not run any more"):
            target.sandbox(path)


class TestReplicas:
    def test_the_native_api_is_asked_with_the_token(self) -> None:
        with answering(200, {"status": {"state": "SCALING", "availableReplicas": 2}}) as url:
            assert native_api(url, "token-of-the-stack", APP).read() == ("SCALING", 2)

    def test_a_refusal_says_why_without_the_token(self) -> None:
        with answering(200, {}) as url, pytest.raises(UnseenError, match="403") as error:
            native_api(url, "another-token-of-ours", APP).read()
        assert "another-token-of-ours" not in str(error.value)

    def test_the_account_s_api_is_asked_for_the_app(self) -> None:
        app = {"id": APP, "spec": {}, "status": {"state": "RUNNING", "availableReplicas": 3}}
        with answering(200, app) as url:
            credentials = Credentials(url, AccessToken("token-of-the-stack"))
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
