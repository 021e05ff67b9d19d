"""The make targets of the workflows, on the sandbox as a workflow runs them on the cloud."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pulumi.runtime.rpc import UNKNOWN

from ci import report
from ci.pulumi import RefusedError, deploy
from components.ai_deploy.client import OvhClient
from components.ai_deploy.credentials import find_credentials
from sandbox.project import CHECKOUT
from tests.engine.conftest import CANARY, Deployment

UNREACHABLE = "http://127.0.0.1:9"


def make(deployment: Deployment, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A target in a shell that has read the sandbox's environment."""
    environment = {**os.environ, **deployment.engine.environment, "HF_ENDPOINT": UNREACHABLE, **variables}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)


def call(deployment: Deployment, method: str, path: str, body: Any = None) -> Any:
    """A call of the OVHcloud API below the project, as somebody makes it by hand."""
    environment = deployment.engine.environment
    client = OvhClient(find_credentials({}, environment, ()))
    project = environment["OVH_CLOUD_PROJECT_SERVICE"]
    return client.request(method, f"/cloud/project/{project}{path}", body)


@pytest.fixture
def other_target(deployment: Deployment) -> Iterator[str]:
    """A changed setting that is not deployed yet."""
    before = deployment.engine.capture("config", "get", "scalingTarget", "-s", "sandbox").strip()
    value = str(int(before) + 7)
    deployment.engine.capture("config", "set", "scalingTarget", value, "-s", "sandbox")
    yield value
    deployment.engine.capture("config", "set", "scalingTarget", before, "-s", "sandbox")


def test_a_preview_is_told_and_its_plan_is_followed(
    deployment: Deployment, other_target: str, tmp_path: Path
) -> None:
    comment, plan, done = (tmp_path / name for name in ("preview.md", "plan.json", "update.md"))
    said = make(deployment, "preview", "STACK=sandbox", f"COMMENT={comment}", f"PLAN={plan}")
    assert said.returncode == 0, said.stdout + said.stderr
    text = comment.read_text()
    assert text.startswith(report.marker("preview", "sandbox"))
    assert f"customMetrics.targetValue: {int(other_target) - 7} → {other_target}" in text
    assert "Policies: no violation." in text
    assert "| fewest replicas | 3.51 | 3.51 |  |" in text
    for secret in (CANARY, *secrets(deployment)):
        assert secret not in said.stdout + said.stderr + text + plan.read_text()

    said = make(deployment, "deploy", "STACK=sandbox", f"COMMENT={done}", f"PLAN={plan}")
    assert said.returncode == 0, said.stdout + said.stderr
    assert " updated" in done.read_text().splitlines()[2]
    (app,) = call(deployment, "GET", "/ai/app")
    metrics = app["spec"]["scalingStrategy"]["automatic"]["customMetrics"]
    assert metrics["targetValue"] == float(other_target)


def secrets(deployment: Deployment) -> list[str]:
    """Secret outputs of the stack."""
    outputs = deployment.engine.outputs("sandbox")
    return [outputs[name] for name in ("client_token", "grafana_admin_password", "kubeconfig")]


def test_drift_fails_the_check_and_is_told(deployment: Deployment, tmp_path: Path) -> None:
    comment = tmp_path / "drift.md"
    (kube,) = call(deployment, "GET", "/kube")
    name = call(deployment, "GET", f"/kube/{kube}")["name"]
    call(deployment, "PUT", f"/kube/{kube}", {"name": "renamed-by-hand"})
    try:
        said = make(deployment, "drift", "STACK=sandbox", f"COMMENT={comment}")
    finally:
        call(deployment, "PUT", f"/kube/{kube}", {"name": name})
    assert said.returncode != 0
    assert said.stdout.endswith(f"1 resource not as deployed: {comment} lists what differs\n")
    assert "1 resource not as deployed" in comment.read_text()
    assert f"name: {name} → renamed-by-hand" in comment.read_text()


def test_without_drift_the_check_is_clean(deployment: Deployment, tmp_path: Path) -> None:
    before = deployment.state()
    said = make(deployment, "drift", "STACK=sandbox", f"COMMENT={tmp_path / 'drift.md'}")
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.endswith("no drift\n")
    assert "no drift" in (tmp_path / "drift.md").read_text()
    assert deployment.state() == before


def test_the_way_back_is_open_when_nothing_was_killed(deployment: Deployment) -> None:
    """What it mends is in test_crashes.py; the real CLI takes the commands here."""
    said = make(deployment, "recover", "STACK=sandbox")
    assert said.returncode == 0, said.stdout + said.stderr
    for secret in (CANARY, *secrets(deployment)):
        assert secret not in said.stdout + said.stderr


def test_the_doctor_finds_nothing_wrong_and_changes_nothing(deployment: Deployment) -> None:
    api = deployment.sandbox.connection.api
    before = len(httpx.get(f"{api}/sandbox/calls").json())
    said = make(deployment, "doctor", "STACK=sandbox")
    calls = httpx.get(f"{api}/sandbox/calls").json()[before:]
    assert said.returncode == 0, said.stdout + said.stderr
    assert "the passphrase is right" in said.stdout
    assert " 0 problem" in said.stdout
    changing = [call["path"] for call in calls if call["method"] != "GET"]
    assert len(changing) == 1 and changing[0].endswith("/authorization/check")
    for secret in (CANARY, *secrets(deployment)):
        assert secret not in said.stdout + said.stderr


def test_the_doctor_tells_a_wrong_passphrase_from_a_missing_stack(deployment: Deployment) -> None:
    wrong = make(deployment, "doctor", "STACK=sandbox", PULUMI_CONFIG_PASSPHRASE="not-this-one")
    assert wrong.returncode != 0
    assert "set PULUMI_CONFIG_PASSPHRASE" in wrong.stdout
    assert "not-this-one" not in wrong.stdout + wrong.stderr
    missing = make(deployment, "doctor", "STACK=staging")
    assert missing.returncode != 0
    assert "there is no Pulumi.staging.yaml; the stacks are dev, prod, sandbox" in missing.stdout


def test_the_doctor_reports_mistakes_in_the_settings(deployment: Deployment) -> None:
    deployment.engine.capture("config", "set", "minReplicas", "9", "-s", "dev")
    try:
        said = make(deployment, "doctor", "STACK=dev")
    finally:
        deployment.engine.capture("config", "rm", "minReplicas", "-s", "dev")
    assert said.returncode != 0
    assert "minReplicas = 9: must not exceed maxReplicas (1)" in said.stdout


def test_a_plan_that_would_stop_half_way_is_refused(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    goal = {"inputDiff": {"adds": {"kubeconfig": UNKNOWN}}}
    plan.write_text(
        json.dumps({"resourcePlans": {"pulumi:providers:kubernetes::monitoring": {"goal": goal}}})
    )
    with pytest.raises(RefusedError, match="make deploy STACK=prod"):
        deploy("prod", plan)
