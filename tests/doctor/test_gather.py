"""The questions reach who can answer them, change nothing, and come back as findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.ai_deploy.client import OvhClient
from components.ai_deploy.credentials import AccessToken, ApplicationKey, Credentials
from doctor import answers, checks, gather, rights
from doctor.finding import Finding
from sandbox.cloud.settings import RegionQuota
from tests.ai_deploy.clouds import FAST, Sky, clouds
from tests.ai_deploy.servers import Answer, Request, serving
from tests.doctor.test_checks import settings
from tests.sandbox_cloud.fakes import CREDENTIALS, PROJECT
from tests.stacks.programs import install

KEYS = ApplicationKey(CREDENTIALS.application_key, CREDENTIALS.application_secret, CREDENTIALS.consumer_key)
PROD = settings(serviceName=PROJECT)
CALLS = rights.needed(reserved_address=True)


def examined(sky: Sky, keys: ApplicationKey = KEYS, **changes: Any) -> dict[str, Finding]:
    """The findings about a stack in this cloud, by topic."""
    stack = settings(serviceName=PROJECT, **changes)
    client = OvhClient(Credentials(sky.url, keys), FAST)
    details = gather.details(client)
    told = gather.questions(client, stack, details, CALLS)
    findings = [checks.credentials(details), *checks.everything(told, stack, CALLS, identities=())]
    return {finding.topic: finding for finding in findings}


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sky]:
    with clouds(tmp_path_factory.mktemp("cloud")) as sky:
        yield sky


def test_a_project_that_has_everything_has_no_problem_and_is_not_changed(sky: Sky) -> None:
    findings = examined(sky)
    assert {topic: finding.text for topic, finding in findings.items() if finding.level != "ok"} == {}
    assert len(findings) == 13
    assert sky.calls() == ["POST "], "but for the question to IAM"


@pytest.mark.parametrize(
    ("changed", "topic", "told"),
    [
        ({"project_status": "suspended"}, "project", "suspended"),
        ({"ai_authorized": False}, "AI service", "not authorised"),
        ({"gpu_quota": 2}, "GPU quota", "may use 2"),
        ({"in_vrack": False}, "vRack", "in none"),
        ({"region_quota": RegionQuota(instances=2)}, "instance quota", "2 of 2 free"),
        ({"region_quota": RegionQuota(cores=8)}, "instance quota", "12 vCPU"),
        ({"region_quota": RegionQuota(volume_gib=50)}, "volume quota", "50 of 50"),
        ({"region_quota": RegionQuota(load_balancers=0)}, "load balancers", "0 of 0"),
        (
            {"denied_actions": frozenset({"publicCloudProject:apiovh:kube/create"})},
            "rights (IAM)",
            "kube/create",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_project_lacks_is_a_problem(
    tmp_path: Path, changed: dict[str, Any], topic: str, told: str
) -> None:
    with clouds(tmp_path, **changed) as sky:
        findings = examined(sky)
    problems = {topic: finding for topic, finding in findings.items() if finding.level == "problem"}
    assert list(problems) == [topic]
    assert told in problems[topic].text
    assert problems[topic].remedy


@pytest.mark.parametrize(
    ("changes", "topic"),
    [
        ({"gpuFlavor": "h100-1-gpu", "region": "GRA"}, None),
        ({"clusterRegion": "GRA12"}, "cluster region"),
        ({"kubernetesVersion": "1.30"}, "Kubernetes"),
        ({"nodeFlavor": "b2-16"}, "node flavor"),
    ],
)
def test_what_is_not_offered_is_a_problem(sky: Sky, changes: dict[str, Any], topic: str | None) -> None:
    problems = [found.topic for found in examined(sky, **changes).values() if found.level == "problem"]
    assert topic is None or topic in problems
    assert bool(problems) == (topic is not None)


def test_a_right_of_the_doctor_s_own_that_is_missing_is_no_problem(tmp_path: Path) -> None:
    denied = frozenset(rights.IAM_PREFIX + action for action in rights.OWN_ACTIONS)
    with clouds(tmp_path, denied_actions=denied) as sky:
        findings = examined(sky)
    assert {finding.level for finding in findings.values()} == {"ok", "unknown"}
    assert "ai/capabilities/quota/get" in findings["GPU quota"].text


@pytest.mark.parametrize("body", [[], {}, "text", 7, [[]], [{"spec": []}], {"resources": []}], ids=repr)
def test_answers_of_another_shape_are_unknown_and_nothing_else_happens(body: Any) -> None:
    with serving(lambda request: Answer(body=body)) as server:
        client = OvhClient(Credentials(server.url, AccessToken("token")), FAST)
        told = gather.questions(client, PROD, gather.details(client), CALLS)
        findings = list(checks.everything(told, PROD, CALLS, identities=()))
    assert "unknown" in {finding.level for finding in findings}
    assert {finding.level for finding in findings if "shape" in finding.text} == {"unknown"}


def test_wrong_credentials_are_told_without_the_secret(sky: Sky) -> None:
    wrong = ApplicationKey(CREDENTIALS.application_key, "a-wrong-secret", CREDENTIALS.consumer_key)
    finding = checks.credentials(gather.details(OvhClient(Credentials(sky.url, wrong), FAST)))
    assert finding.level == "problem"
    assert "a-wrong-secret" not in finding.text + finding.remedy


TOKEN = "hf_canary0123456789abcdefghij"
GATED = Answer(403, {"error": "Access to model is restricted"}, {"X-Error-Code": "GatedRepo"})
NOT_FOUND = Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
UNAUTHORIZED = Answer(401, {"error": "Invalid credentials in Authorization header"})
FINE = Answer(body={"name": "somebody"})


@pytest.mark.parametrize(
    ("token", "whoami", "asked", "level", "told"),
    [
        ("", UNAUTHORIZED, FINE, "ok", "without a token"),
        (TOKEN, FINE, FINE, "ok", "may be downloaded"),
        (TOKEN, UNAUTHORIZED, UNAUTHORIZED, "problem", "does not know the token"),
        (TOKEN, FINE, GATED, "problem", "no access"),
        ("", UNAUTHORIZED, GATED, "problem", "no token"),
        (TOKEN, FINE, NOT_FOUND, "problem", "there is no"),
    ],
)
def test_hugging_face_says_whether_the_model_may_be_downloaded(
    token: str, whoami: Answer, asked: Answer, level: str, told: str
) -> None:
    def respond(request: Request) -> Answer:
        assert request.headers.get("Authorization") == (f"Bearer {token}" if token else None)
        return whoami if request.path == "/api/whoami-v2" else asked

    with serving(respond) as server:
        access = gather.model("google/gemma-3-27b-it", token, server.url)
        finding = checks.model(access, "google/gemma-3-27b-it", server.url)
    assert server.requests[-1].path == "/api/models/google/gemma-3-27b-it/auth-check"
    assert finding.level == level
    assert told in finding.text
    assert TOKEN not in finding.text + finding.remedy


@pytest.mark.parametrize(
    ("token", "address", "text"),
    [
        ("", "http://[::1", "no answer from http://[::1"),
        ("hf_\u00f6\u20ac", "http://127.0.0.1:9", "copy it again"),
    ],
)
def test_what_cannot_be_asked_is_told(token: str, address: str, text: str) -> None:
    assert text in gather.model("mistralai/Ministral-3", token, address).trouble


def test_the_index_of_the_repository_tells_which_charts_there_are() -> None:
    line = "    - https://github.com/prometheus-community/…/kube-prometheus-stack-88.5.3.tgz\n"
    with serving(lambda request: Answer(body=f"entries:\n{line * 1000}".encode())) as server:
        assert gather.chart(f"{server.url}/", "88.5.3") == answers.Answer(True)
        assert gather.chart(server.url, "88.5.4") == answers.Answer(False)
    assert server.requests[0].path == "/index.yaml"
    assert not gather.chart(server.url, "88.5.3").known


def test_a_registry_has_no_index() -> None:
    assert not gather.chart("oci://ghcr.io/prometheus-community/charts", "88.5.3").known


LOGIN = "`pulumi login <backend>` or PULUMI_BACKEND_URL, and the credentials of the backend"


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions", LOGIN),
        ("error: invalid access token", LOGIN),
        ('error: read ".pulumi/meta.yaml": blob (code=Unknown): operation error S3: no such host', LOGIN),
        (
            "error: incorrect passphrase",
            "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to that",
        ),
        ("error: no stack named 'dev' found", "`pulumi stack init dev`, or name another stack"),
        (
            "error: chdir /home/me/ovh-vllm/.sandbox/project: no such file or directory",
            "this shell's sandbox is gone",
        ),
        ("Pulumi.dev.yaml is not valid YAML: a character that cannot start any token", "mend this and"),
    ],
)
def test_what_the_cli_says_is_told_with_what_may_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, remedy: str
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///state")
    install(tmp_path, f"cat >&2 <<'END'\n{said}\nEND\nexit 255", monkeypatch)
    stack, known, finding = gather.backend("dev")
    assert (stack, known, finding.level) == (None, frozenset(), "problem")
    assert finding.text == said.removeprefix("error: ")
    assert finding.remedy.startswith(remedy)


def test_a_stack_that_there_is_not_is_not_to_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, f"touch {tmp_path}/asked", monkeypatch)
    _, _, finding = gather.backend("nope")
    assert finding.text == "there is no Pulumi.nope.yaml; the stacks are dev, prod, sandbox"
    assert finding.remedy == "name one of them"
    assert not (tmp_path / "asked").exists()
