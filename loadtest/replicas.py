"""How many replicas the endpoint has while it is tested, as its platform says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx

from components.ai_deploy.api import AiDeploy
from components.ai_deploy.client import OvhApiError, OvhClient
from components.ai_deploy.credentials import Credentials
from components.ai_deploy.redact import redact

LOOK_SECONDS = 2.0
"""Time between two looks; no rate limit of the API is published."""
_CALL_SECONDS = 10.0
_SCALING = "SCALING"
"""The state of an app that has been asked for another number of replicas than it has."""


class UnseenError(Exception):
    """The platform does not say how many replicas there are; the text says why."""


@dataclass(frozen=True, slots=True)
class Look:
    """The app at one moment."""

    time: float
    """Seconds since the test began."""
    state: str
    available: int
    """Replicas that get traffic."""


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """More replicas than before; times are seconds since the test, and with it the load, began."""

    replicas: int
    asked: float
    """When the app was first seen scaling: the autoscaler had asked for more."""
    available: float
    """When so many replicas were first seen to get traffic."""


@dataclass(frozen=True)
class Source:
    """Where the replicas are read."""

    name: str
    read: Callable[[], tuple[str, int]]
    """State and available replicas; raises UnseenError. It blocks."""


@dataclass
class Replicas:
    """What was seen of the replicas."""

    source: str
    """Where from, or why they were not seen."""
    looks: list[Look] = field(default_factory=list)
    failed: int = 0
    """Looks that brought no answer."""

    @property
    def available(self) -> int | None:
        """The newest count."""
        return self.looks[-1].available if self.looks else None

    def scale_ups(self) -> Iterator[ScaleUp]:
        """Each time when there were more replicas than ever before."""
        if not self.looks:
            return
        most, asked = self.looks[0].available, None
        for look in self.looks:
            if look.state == _SCALING and asked is None:
                asked = look.time
            if look.available > most:
                most = look.available
                # A scaling that is faster than the looks is seen when it is over.
                yield ScaleUp(most, look.time if asked is None else asked, look.time)
                asked = look.time if look.state == _SCALING else None
            elif look.state != _SCALING:
                asked = None

    def lines(self) -> list[str]:
        """What was seen, in words, with a line for each scale-up."""
        if not self.looks:
            return [f"replicas: {self.source}"]
        counts = [look.available for look in self.looks]
        lines = [f"replicas: {min(counts)} to {max(counts)}, at the end {counts[-1]}; from {self.source}"]
        lines += [
            f"{one.replicas} replicas {one.available:.0f} s after the load began, asked for "
            f"after {one.asked:.0f} s"
            for one in self.scale_ups()
        ]
        return lines + ([f"{self.failed} looks at the replicas brought no answer"] if self.failed else [])


def platform_api(credentials: Credentials, service_name: str, app_id: str) -> Source:
    """OVHcloud's API with the credentials of an account."""
    client = OvhClient(credentials)
    api = AiDeploy(client, service_name)

    def read() -> tuple[str, int]:
        try:
            app = api.find_app(app_id, client.clock.now() + _CALL_SECONDS)
        except OvhApiError as error:
            raise UnseenError(api.redact(str(error))) from None
        if app is None:
            raise UnseenError(f"{credentials.url} knows no app {app_id} in project {service_name}")
        return app.state, int(app.status.get("availableReplicas") or 0)

    return Source(f"the OVHcloud API ({credentials.url})", read)


def native_api(url: str, token: str, app_id: str) -> Source:
    """AI Deploy's own API with the token that the endpoint is called with."""
    address = f"{url.rstrip('/')}/v1/app/{app_id}"

    def read() -> tuple[str, int]:
        try:
            answer = httpx.get(
                address, headers={"Authorization": f"Bearer {token}"}, timeout=_CALL_SECONDS
            ).raise_for_status()
            status = answer.json()["status"]
            return str(status["state"]), int(status.get("availableReplicas") or 0)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise UnseenError(redact(f"{address}: {type(error).__name__} {error}", (token,))) from None

    return Source(f"AI Deploy's own API ({url})", read)


async def first_readable(sources: Sequence[Source]) -> tuple[Source | None, Replicas]:
    """The first source that answers, and where its looks are to be kept."""
    reasons = []
    for source in sources:
        try:
            await asyncio.to_thread(source.read)
        except UnseenError as error:
            reasons.append(str(error))
        else:
            return source, Replicas(source.name)
    why = "; ".join(reasons) or "the platform is not known, or there are no credentials for it"
    return None, Replicas(f"left out: {why}")


async def watch(source: Source, replicas: Replicas, now: Callable[[], float]) -> None:
    """Looks at the replicas until it is cancelled; `now` is seconds since the test began."""
    while True:
        try:
            state, available = await asyncio.to_thread(source.read)
        except UnseenError:
            replicas.failed += 1
        else:
            replicas.looks.append(Look(now(), state, available))
        await asyncio.sleep(LOOK_SECONDS)
