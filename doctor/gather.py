"""Asks OVHcloud, Hugging Face, the chart repository and the Pulumi CLI; reads only."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from ci import pulumi
from components.ai_deploy.api import AiDeploy
from components.ai_deploy.client import OvhApiError, OvhClient
from components.ai_deploy.credentials import ENDPOINTS
from components.ai_deploy.redact import redact
from components.settings import PROJECT, Settings, load
from doctor.checks import Access, Answer
from doctor.finding import Finding, ok, problem
from doctor.rights import IAM_PREFIX, Call
from sandbox.toolchain import ToolchainError

HUGGING_FACE = "https://huggingface.co"
"""Where models are, unless HF_ENDPOINT says otherwise, as for Hugging Face's own tools."""
_PATIENCE = 15.0
"""Seconds after which a question is given up."""
_VERSIONS = "cloud.kube.VersionEnum"


@dataclass(frozen=True)
class Stack:
    """A stack as its backend knows it."""

    config: Mapping[str, str] = field(repr=False)
    """Values by key with namespace, secrets in clear."""
    secrets: frozenset[str]
    """Keys whose values are encrypted."""
    deployed: bool
    """Whether it has outputs, so that there is something of it in the cloud."""

    def settings(self, name: str) -> Settings:
        """The settings, as the program reads them; raises SettingsError."""
        prefix = f"{PROJECT}:"
        own = {
            key.removeprefix(prefix): value for key, value in self.config.items() if key.startswith(prefix)
        }
        return load(own, secret=lambda key: prefix + key in self.secrets, environment=os.environ, stack=name)


def backend(name: str) -> tuple[Stack | None, Finding]:
    """The stack, None when the CLI cannot read it, and what there is to say about backend and passphrase."""
    topic = "Pulumi"
    try:
        config = _pulumi("config", "--json", "--show-secrets", "-s", name)
        outputs = _pulumi("stack", "output", "--json", "--show-secrets", "-s", name)
    except ToolchainError as error:
        return None, problem(topic, "the CLI cannot be had", str(error))
    except _PulumiError as error:
        said = str(error).lower()
        if "passphrase" in said:
            remedy = "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to that of the stack"
        elif "no stack named" in said:
            remedy = f"`pulumi stack init {name}`, or name another stack"
        else:
            remedy = "`pulumi login <backend>` or PULUMI_BACKEND_URL, and the credentials of the backend"
        return None, problem(topic, str(error), remedy)
    secrets = frozenset(key for key, entry in config.items() if entry["secret"])
    stack = Stack({key: entry.get("value", "") for key, entry in config.items()}, secrets, bool(outputs))
    tried = "the passphrase is right" if secrets or outputs else "no secret yet, so no passphrase was tried"
    return stack, ok(topic, f"the backend knows {name}, {tried}")


class _PulumiError(Exception):
    """What the CLI said on its way out, in one line."""


def _pulumi(*arguments: str) -> Mapping[str, Any]:
    command, environment = pulumi.cli()
    result = subprocess.run(
        [command, *arguments, "--non-interactive"],
        cwd=pulumi.ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        said = [line for line in result.stderr.splitlines() if line.strip()]
        last = said[-1].removeprefix("error: ") if said else f"status {result.returncode}"
        raise _PulumiError(redact(last, _secrets(os.environ))[:300])
    answer: Mapping[str, Any] = json.loads(result.stdout)
    return answer


def _secrets(environment: Mapping[str, str]) -> list[str]:
    return [
        value
        for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_ACCESS_TOKEN")
        if (value := environment.get(name))
    ]


def details(client: OvhClient) -> Answer:
    """Who the credentials are."""
    return _ask(client, lambda deadline: client.request("GET", "/auth/details", deadline=deadline))


def questions(client: OvhClient, settings: Settings, known: Answer, calls: list[Call]) -> dict[str, Answer]:
    """What OVHcloud answers about project, offer and quotas; `known` is what `details` got."""
    service_name = settings.general.service_name
    base = f"/cloud/project/{service_name}"
    ai = f"{base}/ai"
    api = AiDeploy(client, service_name)

    def get(path: str, **params: str) -> Answer:
        return _ask(
            client, lambda deadline: client.request("GET", path, params=params or None, deadline=deadline)
        )

    region = settings.cluster.cluster_region
    return {
        "details": known,
        "rights": _rights(client, service_name, calls),
        "project": get(base),
        "authorization": get(f"{ai}/authorization"),
        "ai regions": get(f"{ai}/capabilities/region"),
        "ai flavors": get(f"{ai}/capabilities/region/{quote(settings.endpoint.region)}/flavor"),
        "gpu quota": _ask(client, lambda _: api.gpu_quota()),
        "apps": _ask(client, lambda _: api.all_apps()),
        "kube regions": get(f"{base}/capabilities/kube/regions"),
        "kube flavors": get(f"{base}/capabilities/kube/flavors", region=region),
        "kube versions": _versions(get("/cloud.json")),
        "quotas": get(f"{base}/quota"),
        "vrack": get(f"{base}/vrack"),
    }


def _ask(client: OvhClient, question: Callable[[float], Any]) -> Answer:
    try:
        return Answer(question(client.clock.now() + _PATIENCE))
    except OvhApiError as error:
        return Answer(trouble=str(error), status=error.status)


def _versions(description: Answer) -> Answer:
    """The versions that the API's description of itself, which anybody may read, lists for new clusters."""
    if not description.known:
        return description
    versions = ((description.value.get("models") or {}).get(_VERSIONS) or {}).get("enum")
    return Answer(versions) if versions else Answer(trouble=f"GET /cloud.json says nothing about {_VERSIONS}")


def _rights(client: OvhClient, service_name: str, calls: list[Call]) -> Answer:
    """Which actions IAM allows these credentials; the POST that asks it changes nothing."""
    # Names of things are regional, as the API is.
    region = {ENDPOINTS["ovh-ca"]: "ca", ENDPOINTS["ovh-us"]: "us"}.get(client.credentials.url, "eu")
    urn = f"urn:v1:{region}:resource:publicCloudProject:{service_name}"
    path = f"/v2/iam/resource/{urn}/authorization/check"
    actions = list(dict.fromkeys(IAM_PREFIX + call.action for call in calls))
    answer = _ask(
        client, lambda deadline: client.request("POST", path, {"actions": actions}, deadline=deadline)
    )
    if answer.known and not isinstance(answer.value, dict):
        return Answer(trouble=f"POST {path}: an object was expected")
    return answer


def model(name: str, token: str, endpoint: str) -> Answer:
    """Whether Hugging Face would let the model be downloaded with this token, "" for none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(headers=headers, timeout=_PATIENCE, follow_redirects=True) as client:
            known = None
            if token:
                known = client.get(f"{endpoint}/api/whoami-v2").status_code != 401
            answer = client.get(f"{endpoint}/api/models/{quote(name)}/auth-check")
    except UnicodeError:
        return Answer(trouble="the Hugging Face token holds a letter that no token has: copy it again")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answer(trouble=redact(f"no answer from {endpoint}: {error}", (token,)))
    return Answer(Access(answer.status_code, answer.headers.get("X-Error-Code", ""), known))


def chart(repository: str, version: str) -> Answer:
    """Whether the index of a chart repository names kube-prometheus-stack in that version."""
    if not repository.startswith(("http://", "https://")):
        return Answer(trouble=f"{repository} is no repository with an index")
    url = f"{repository.rstrip('/')}/index.yaml"
    wanted = f"kube-prometheus-stack-{version}.tgz"
    try:
        with httpx.stream("GET", url, timeout=_PATIENCE, follow_redirects=True) as answer:
            if not answer.is_success:
                return Answer(trouble=f"GET {url}: HTTP {answer.status_code}")
            # Several megabytes of YAML, in which a line names the archive of each version.
            return Answer(any(wanted in line for line in answer.iter_lines()))
    except httpx.HTTPError as error:
        return Answer(trouble=f"no answer from {url}: {error}")
