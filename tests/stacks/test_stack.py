"""A stack is what its backend says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.settings import SettingsError
from stacks.cli import Cli, PulumiError
from stacks.stack import Stack, identities
from tests.components.stacks import SERVICE
from tests.stacks.programs import know

TYPE = "pulumi-python:dynamic/ai-deploy"


def test_its_settings_are_those_that_the_program_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(tmp_path, monkeypatch, {"client_token": "canary-token"}, region="BHS")
    stack = Stack.read("prod", Cli.find("prod"))
    settings = stack.settings({"OVH_CLOUD_PROJECT_SERVICE": SERVICE})
    assert (settings.endpoint.region, settings.general.service_name) == ("BHS", SERVICE)
    assert stack.outputs == {"client_token": "canary-token"}
    assert "canary-token" not in repr(stack) and "BHS" not in repr(stack)


def test_mistakes_name_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(tmp_path, monkeypatch, {}, minReplicas="9", huggingFaceToken="hf_in_plain_text")
    with pytest.raises(SettingsError, match=r"Pulumi.prod.yaml") as error:
        Stack.read("prod", Cli.find("prod")).settings({"OVH_CLOUD_PROJECT_SERVICE": SERVICE})
    assert {mistake.key for mistake in error.value.mistakes} == {"minReplicas", "huggingFaceToken"}
    assert "hf_in_plain_text" not in str(error.value)


def test_a_stack_that_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(tmp_path, monkeypatch, {})
    with pytest.raises(PulumiError, match="no stack named"):
        Stack.read("staging", Cli.find("prod"))


def test_the_ids_of_its_apps_are_in_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = [{"type": f"{TYPE}:App", "id": "app"}, {"type": f"{TYPE}:Identity", "id": "0123456789abcdef"}]
    know(tmp_path, monkeypatch, {}, state)
    assert identities("prod", Cli.find("prod")) == {"0123456789abcdef"}
    know(tmp_path, monkeypatch, {})
    assert identities("prod", Cli.find("prod")) == frozenset()
