"""What is asked before anything is bought: the answers, and which shape each must have.

Names are those of the published schemas of OVHcloud API v1 (`cloud.quota.Quotas`, `cloud.kube.Flavor`,
`cloud.project.ai.capabilities.Flavor`); what is not read here is left out of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from components.ai_deploy.api import App
from components.ai_deploy.spec import LABEL_IDENTITY


@dataclass(frozen=True)
class Answer:
    """What was answered to a question: a value as in JSON, or why there is none."""

    value: Any = None
    trouble: str = ""
    """Why there is no value; it names the request and holds no secret."""
    status: int | None = None
    """HTTP status of an answer without a value."""

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return not self.trouble

    def shaped(self, shape: Any, request: str) -> Answer:
        """The same, but unknown when what `request` has brought is of another shape."""
        if not self.known:
            return self
        try:
            return replace(self, value=TypeAdapter(shape).validate_python(self.value))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the answer"
            return Answer(trouble=f"{request}: not the documented shape: {place}: {first['msg']}")


@dataclass(frozen=True)
class GpuUse:
    """An app and the GPUs that it holds."""

    id: str
    name: str
    identity: str
    """Of the deployment that it belongs to (`components.ai_deploy.ownership`); "" for an app of others."""
    gpus: int

    @classmethod
    def of(cls, app: App) -> GpuUse:
        """What matters of an app here."""
        return cls(app.id, str(app.spec.get("name")), app.labels.get(LABEL_IDENTITY, ""), app.gpus)


@dataclass(frozen=True)
class Access:
    """What Hugging Face said about a model."""

    status: int
    """Of `GET /api/models/{id}/auth-check`."""
    code: str
    """Header `X-Error-Code`."""
    token_known: bool | None
    """Whether it knows the token; None: there is none."""


class Route(TypedDict):
    """A rule of a consumer key; `*` in the path stands for anything."""

    method: str
    path: str


class Details(TypedDict, total=False):
    """`GET /auth/details`."""

    account: str | None
    method: str | None
    allowedRoutes: list[Route] | None
    """Of a consumer key; None: nothing bounds the credentials but IAM."""


class Rights(TypedDict):
    """IAM's answer to a check of actions."""

    authorizedActions: list[str]


class Project(TypedDict):
    """`GET /cloud/project/{id}`."""

    status: str


class Authorization(TypedDict):
    """`GET …/ai/authorization`."""

    authorized: bool


class AiRegion(TypedDict):
    """One of `GET …/ai/capabilities/region`."""

    id: str


class AiFlavor(TypedDict):
    """One of `GET …/ai/capabilities/region/{region}/flavor`."""

    id: str
    max: int
    """Most units of a replica."""


class KubeFlavor(TypedDict):
    """One of `GET …/capabilities/kube/flavors`."""

    name: str
    state: str
    vCPUs: int
    ram: int
    """GB."""


class Description(TypedDict):
    """`GET /cloud.json`, the API's description of itself."""

    models: dict[str, Any]


class Enumeration(TypedDict):
    """One of its models: a type that lists its values."""

    enum: list[str]


class Instances(TypedDict, total=False):
    """Memory in MiB, as OpenStack counts it; a limit that is negative is none."""

    maxInstances: int | None
    usedInstances: int | None
    maxCores: int | None
    usedCores: int | None
    maxRam: int | None
    usedRAM: int | None


class Volumes(TypedDict, total=False):
    """A limit that is negative is none."""

    maxVolumeCount: int | None
    volumeCount: int | None
    maxGigabytes: int | None
    usedGigabytes: int | None


class LoadBalancers(TypedDict, total=False):
    """A limit that is negative is none."""

    maxLoadbalancers: int | None
    usedLoadbalancers: int | None


class _Region(TypedDict):
    region: str


class Quota(_Region, total=False):
    """One of `GET …/quota`."""

    instance: Instances | None
    volume: Volumes | None
    loadbalancer: LoadBalancers | None


class Vrack(TypedDict, total=False):
    """`GET …/vrack`."""

    id: str
