"""Asks OVHcloud, Hugging Face, the chart repository and the Pulumi CLI; reads only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from components.ai_deploy.api import AiDeploy
from components.ai_deploy.client import OvhApiError, OvhClient
from components.ai_deploy.credentials import ENDPOINTS
from components.ai_deploy.redact import redact
from components.settings import Settings
from doctor.answers import (
    Access,
    AiFlavor,
    AiRegion,
    Answer,
    Authorization,
    Description,
    Details,
    Enumeration,
    GpuUse,
    KubeFlavor,
    Project,
    Quota,
    Rights,
    Vrack,
)
from doctor.finding import Finding, ok, problem
from doctor.rights import IAM_PREFIX, Call
from stacks.cli import Cli, NoCliError, PulumiError, UnknownStackError
from stacks.stack import Stack, identities

HUGGING_FACE = "https://huggingface.co"
"""Where models are, unless HF_ENDPOINT says otherwise, as for Hugging Face's own tools."""
_PATIENCE = 15.0
"""Seconds after which a question is given up."""
_BACKEND = re.compile(
    r"\blog(ged|ging)? ?in\b|access.token|unauthorized|credential|backend|bucket|\.pulumi/|http request"
)
"""What an error is about that another login may mend; a token alone is a word of YAML's errors, too."""
_VERSIONS = "cloud.kube.VersionEnum"


def backend(name: str) -> tuple[Stack | None, frozenset[str], Finding]:
    """The stack (None when the CLI cannot read it), the ids of its apps, and what the backend says of it."""
    topic = "Pulumi"
    try:
        cli = Cli.find(name)
        stack, known = Stack.read(name, cli), identities(name, cli)
    except UnknownStackError as error:
        return None, frozenset(), problem(topic, str(error), "name one of them")
    except NoCliError as error:
        return None, frozenset(), problem(topic, "the CLI cannot be had", str(error))
    except PulumiError as error:
        return None, frozenset(), problem(topic, str(error), _remedy(name, str(error).lower()))
    proven = "the passphrase is right" if stack.secrets or stack.outputs else "no secret yet to try it on"
    return stack, known, ok(topic, f"the backend knows {name}, {proven}")


def _remedy(name: str, said: str) -> str:
    if "passphrase" in said:
        return "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE to that of the stack"
    if "no stack named" in said:
        return f"`pulumi stack init {name}`, or name another stack"
    if ".sandbox/project: no such file or directory" in said:
        return "this shell's sandbox is gone: open another shell, or `make sandbox`"
    if _BACKEND.search(said):
        return "`pulumi login <backend>` or PULUMI_BACKEND_URL, and the credentials of the backend"
    return "mend this and look again"


def details(client: OvhClient) -> Answer:
    """Who the credentials are."""
    return _get(client, "/auth/details", Details)


def questions(client: OvhClient, settings: Settings, known: Answer, calls: list[Call]) -> dict[str, Answer]:
    """What OVHcloud answers about project, offer and quotas; `known` is what `details` got."""
    service_name = settings.general.service_name
    base = f"/cloud/project/{service_name}"
    ai = f"{base}/ai"
    api = AiDeploy(client, service_name)

    def get(path: str, shape: Any, **params: str) -> Answer:
        return _get(client, path, shape, params)

    def read(path: str, question: Callable[[], Any]) -> Answer:
        """What `AiDeploy` makes of an answer, which it takes for one of the documented shape."""
        try:
            return _ask(client, lambda _: question())
        except (AttributeError, TypeError, ValueError) as error:
            return Answer(trouble=f"GET {path}: not the documented shape: {error}")

    region = settings.cluster.cluster_region
    return {
        "details": known,
        "rights": _rights(client, service_name, calls),
        "project": get(base, Project),
        "authorization": get(f"{ai}/authorization", Authorization),
        "ai regions": get(f"{ai}/capabilities/region", list[AiRegion]),
        "ai flavors": get(
            f"{ai}/capabilities/region/{quote(settings.endpoint.region)}/flavor", list[AiFlavor]
        ),
        "gpu quota": read(f"{ai}/capabilities/quota", api.gpu_quota),
        "apps": read(f"{ai}/app", lambda: [*map(GpuUse.of, api.all_apps())]),
        "kube regions": get(f"{base}/capabilities/kube/regions", list[str]),
        "kube flavors": get(f"{base}/capabilities/kube/flavors", list[KubeFlavor], region=region),
        "kube versions": _versions(get("/cloud.json", Description)),
        "quotas": get(f"{base}/quota", list[Quota]),
        "vrack": get(f"{base}/vrack", Vrack),
    }


def _get(client: OvhClient, path: str, shape: Any, params: Mapping[str, str] | None = None) -> Answer:
    answer = _ask(
        client, lambda deadline: client.request("GET", path, params=params or None, deadline=deadline)
    )
    return answer.shaped(shape, f"GET {path}")


def _ask(client: OvhClient, question: Callable[[float], Any]) -> Answer:
    try:
        return Answer(question(client.clock.now() + _PATIENCE))
    except OvhApiError as error:
        return Answer(trouble=str(error), status=error.status)


def _versions(description: Answer) -> Answer:
    """The versions that the API's description of itself, which anybody may read, lists for new clusters."""
    if not description.known:
        return description
    model = Answer(description.value["models"].get(_VERSIONS))
    listed = model.shaped(Enumeration, f"GET /cloud.json, {_VERSIONS}")
    return Answer(listed.value["enum"]) if listed.known else listed


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
    return answer.shaped(Rights, f"POST {path}")


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
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answer(trouble=f"no answer from {url}: {error}")
