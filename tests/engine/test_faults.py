"""Whatever goes wrong on the way, the next command leads back: nothing is lost, made twice or billed unseen.

A sample of all faults, with the real engine. A point is one endpoint of a fleet with one fault that waits for
one of its calls. Three runs of the engine meet them: one that creates, one that changes, one that destroys.
After each the faults are gone, and what the message says (`pulumi up`, or `pulumi refresh` before it) has to
lead to what was wanted. All of it happens with a clock that is an hour behind that of the API.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from sandbox.engine import EngineError
from sandbox.toolchain import Toolchain
from tests.ai_deploy.clouds import Sky
from tests.engine.fleet import CANARY, Fleet, fleets
from tests.sandbox_cloud.fakes import CREDENTIALS
from tests.waiting import until

PACE = 60
"""Seconds of waiting that pass for the providers in one."""
PATIENCE = 60 * PACE
"""Seconds after which a gate gives up that is meant to open."""
SHORT = {"timeout_seconds": 50}
NO_GPU = ("gave up after 50 s", "State: QUEUED", "waits for a GPU and bills nothing", "`pulumi up` waits on")
"""What is said about an app that is QUEUED until the gate gives up, when that is `SHORT`."""
QUOTA = 39
"""GPUs of the project: one less than the largest app there can be takes."""
ON_CPU = {"flavor": "ai1-1-cpu", "cpu": 1, "gpu": None}
TOO_MUCH = {
    "flavor": "l4-1-gpu",
    "cpu": None,
    "gpu": 4,
    "scaling_strategy": {"fixed": {"replicas": 10}},
}
IMAGES = frozenset({"vllm/vllm-openai:v0.13.0", "vllm/vllm-openai:v0.14.0"})
NEW_IMAGE = {"image": "vllm/vllm-openai:v0.14.0"}
BAD_IMAGE = {"image": "vllm/vllm-openai:v0.13.o"}
GOOD_IMAGE = {"image": "vllm/vllm-openai:v0.13.0"}
LABEL = {"labels": {"team": "a"}}
SCALE = {"scaling_strategy": {"fixed": {"replicas": 2}}}
ENOUGH = {**ON_CPU, "scaling_strategy": {"fixed": {"replicas": 1}}}
NEVER_LISTED = {"model": "somebody/else"}
LISTED = {"model": "mistralai/Ministral-3-14B-Instruct-2512"}

CREATE_TOKEN = {"method": "POST", "path": r"/ai/token$"}
CREATE_APP = {"method": "POST", "path": r"/ai/app$"}
FIND_NEW_APP = {"method": "GET", "path": r"/ai/app\?labelSelector=deploy-nonce"}
GET_APP = {"method": "GET", "path": r"/ai/app/[^/?]+$"}
PUT_LABEL = {"method": "PUT", "path": r"/ai/app/[^/?]+/label$"}
PUT_APP = {"method": "PUT", "path": r"/ai/app/[^/?]+$"}
PUT_SCALING = {"method": "PUT", "path": r"/ai/app/[^/?]+/scalingstrategy$"}
STOP_APP = {"method": "PUT", "path": r"/ai/app/[^/?]+/stop$"}
DELETE_APP = {"method": "DELETE", "path": r"/ai/app/"}
DELETE_TOKEN = {"method": "DELETE", "path": r"/ai/token/"}


def refusal(status: int, class_: str, message: str, **more: Any) -> dict[str, Any]:
    return {"status": status, "body": {"class": class_, "message": message, **more}}


def lacks(right: str) -> dict[str, Any]:
    """The answer to who has not been given a right."""
    details = {"unauthorizedActionsByIAM": f"publicCloudProject:apiovh:{right}"}
    return refusal(403, "Client::Forbidden", "User not granted for this request", details=details)


BUSY = refusal(429, "Client::TooManyRequests", "Too many requests")
BUSY_FOR_A_SECOND = {**BUSY, "headers": {"Retry-After": "1"}}
BUSY_FOR_AN_HOUR = {**BUSY, "headers": {"Retry-After": "3600"}}
BROKEN = refusal(500, "Server::InternalServerError", "Internal server error")
PAGE = {
    "status": 502,
    "body": "<html><head><style>b {}</style></head><body><h1>Bad Gateway</h1></body></html>",
    "headers": {"Content-Type": "text/html"},
}
RESET = {"reset": True}
LOST = {"lost_answer": True}
SLOW = {"delay_seconds": 2}
OUT_OF_TIME = refusal(400, "Client::BadRequest", "Query out of time", errorCode="QUERY_TIME_OUT")
EXPIRED = refusal(403, "Client::Forbidden", "This credential is not valid", errorCode="INVALID_CREDENTIAL")
NEW_CREDENTIALS = "credentials are wrong, expired or not yet validated: make new ones"
ECHO = refusal(400, "Client::BadRequest", f"envVars: HF_TOKEN={CANARY} is not wanted")
STILL_RUNS = refusal(409, "Client::Conflict", "the app has to be stopped first")


@dataclass(frozen=True)
class Point:
    """An endpoint and what it meets."""

    call: str
    fault: str
    """Both for the reader."""
    meets: tuple[Mapping[str, Any], ...] = ()
    """Faults of its calls; what they lack is that they are about this endpoint."""
    says: tuple[str, ...] = ()
    """What the failed run says of it (regular expressions); nothing: the run succeeds nevertheless."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Its fields in the run that meets the faults …"""
    corrected: Mapping[str, Any] = field(default_factory=dict)
    """… and what is changed of them for the next one."""
    refreshed: bool = False
    """Whether the message says that the next run needs `pulumi refresh` before."""
    before: Callable[[Sky, str], None] | None = None
    """Done with the cloud before the run …"""
    during: Callable[[Sky, str], None] | None = None
    """… and while it is under way; the name of the app is given."""


def meets(*parts: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in (*parts, more):
        merged |= part
    return merged


def hold(state: str) -> Callable[[Sky, str], None]:
    """The app gets no further than this state."""
    return lambda sky, name: sky.hold(state, f"^{name}$")


def end(state: str, message: str, after: str) -> Callable[[Sky, str], None]:
    """The app ends in `state` once it has been in `after`."""

    def end_it(sky: Sky, name: str) -> None:
        until(lambda: sky.in_states(after, name=name), f"{name} is {after}")
        sky.end(f"^{name}$", state, message)

    return end_it


def vanish(sky: Sky, name: str) -> None:
    """Somebody deletes the app."""
    (id_,) = sky.in_states("RUNNING", name=name)
    sky.api.delete_app(id_, force=True)
    until(lambda: id_ not in sky.apps, f"{name} is gone")


CREATED = (
    Point("POST token", "429, Retry-After 1", (meets(CREATE_TOKEN, BUSY_FOR_A_SECOND),)),
    Point("POST token", "lost answer", (meets(CREATE_TOKEN, LOST),)),
    Point("POST token", "reset", (meets(CREATE_TOKEN, RESET),)),
    Point("POST token", "500 for a while", (meets(CREATE_TOKEN, BROKEN, count=3),), ("HTTP 500",)),
    Point(
        "POST token",
        "right missing",
        (meets(CREATE_TOKEN, lacks("ai/token/create")),),
        ("apiovh:ai/token/create",),
    ),
    Point("POST app", "429", (meets(CREATE_APP, BUSY),)),
    Point("POST app", "429, Retry-After 3600", (meets(CREATE_APP, BUSY_FOR_AN_HOUR),), ("HTTP 429",)),
    Point("POST app", "500", (meets(CREATE_APP, BROKEN),)),
    Point("POST app", "502 with HTML", (meets(CREATE_APP, PAGE),)),
    Point(
        "POST app",
        "502 with HTML for a while",
        (meets(CREATE_APP, PAGE, count=3),),
        (r"HTTP 502 \(no JSON\): Bad Gateway\.", "the next `pulumi up` or `pulumi destroy` deletes it"),
    ),
    Point("POST app", "reset", (meets(CREATE_APP, RESET),)),
    Point("POST app", "slow answer", (meets(CREATE_APP, SLOW),)),
    Point("POST app", "lost answer", (meets(CREATE_APP, LOST),)),
    Point("POST app", "lost answer, then 502", (meets(CREATE_APP, LOST), meets(FIND_NEW_APP, PAGE))),
    Point(
        "POST app",
        "lost answer, not found again",
        (meets(CREATE_APP, LOST), meets(FIND_NEW_APP, EXPIRED)),
        (NEW_CREDENTIALS, "the next .pulumi up. or"),
    ),
    Point("POST app", "wrong clock", (meets(CREATE_APP, OUT_OF_TIME),)),
    Point("POST app", "credentials expired", (meets(CREATE_APP, EXPIRED),), (NEW_CREDENTIALS,)),
    Point(
        "POST app", "right missing", (meets(CREATE_APP, lacks("ai/app/create")),), ("apiovh:ai/app/create",)
    ),
    Point("POST app", "refused with a secret", (meets(CREATE_APP, ECHO),), (r"HF_TOKEN=\S+ is not wanted",)),
    Point(
        "POST app",
        "quota reached",
        says=(
            "up to 10 replicas with 4 GPU",
            r"In use: \d+ GPU by apps",
            f"Quota of the project: {QUOTA} GPU",
        ),
        given=TOO_MUCH,
        corrected=ENOUGH,
    ),
    Point("GET app after POST", "credentials expired", (meets(FIND_NEW_APP, EXPIRED),)),
    Point("GET app", "reset", (meets(GET_APP, RESET, after=2),)),
    Point("PUT label", "lost answer", (meets(PUT_LABEL, LOST),)),
    Point(
        "PUT label",
        "right missing",
        (meets(PUT_LABEL, lacks("ai/app/label/edit")),),
        ("apiovh:ai/app/label/edit",),
    ),
    Point(
        "app",
        "FAILED: bad image",
        says=("State: FAILED", r"v0\.13\.o cannot be pulled", "the registry says", r"log:\n\s+\[platform\]"),
        given=BAD_IMAGE,
        corrected=GOOD_IMAGE,
    ),
    Point(
        "app",
        "QUEUED for ever",
        says=NO_GPU,
        given=SHORT,
        corrected={"timeout_seconds": PATIENCE},
        before=hold("QUEUED"),
    ),
    Point(
        "app",
        "ERROR",
        says=("State: ERROR", "a host was lost", r"`pulumi refresh`, then `pulumi up` starts it again"),
        refreshed=True,
        before=hold("INITIALIZING"),
        during=end("ERROR", "a host was lost", after="INITIALIZING"),
    ),
    Point(
        "app",
        "FAILED after RUNNING",
        says=("State: FAILED", "out of memory", "says hello", "`pulumi refresh`, then `pulumi up`"),
        given=NEVER_LISTED,
        corrected=LISTED,
        refreshed=True,
        during=end("FAILED", "out of memory", after="RUNNING"),
    ),
)

CHANGED = (
    Point("PUT scaling", "429, Retry-After 1", (meets(PUT_SCALING, BUSY_FOR_A_SECOND),), given=SCALE),
    Point(
        "PUT scaling",
        "right missing",
        (meets(PUT_SCALING, lacks("ai/app/scalingstrategy/edit")),),
        ("apiovh:ai/app/scalingstrategy/edit", "`pulumi up` makes the rest"),
        given=SCALE,
    ),
    Point(
        "PUT label after PUT scaling",
        "credentials expired",
        (meets(PUT_LABEL, EXPIRED),),
        (NEW_CREDENTIALS, "Of 2 changes 1 were made"),
        given=LABEL | SCALE,
    ),
    Point("PUT label", "502 with HTML", (meets(PUT_LABEL, PAGE),), given=LABEL),
    Point("PUT label", "wrong clock", (meets(PUT_LABEL, OUT_OF_TIME),), given=LABEL),
    Point("PUT app", "500", (meets(PUT_APP, BROKEN),), given=NEW_IMAGE),
    Point("PUT app", "reset", (meets(PUT_APP, RESET),), given=NEW_IMAGE),
    Point("PUT app", "slow answer", (meets(PUT_APP, SLOW),), given=NEW_IMAGE),
    Point("PUT app", "lost answer", (meets(PUT_APP, LOST),), given=NEW_IMAGE),
    Point(
        "PUT app",
        "right missing",
        (meets(PUT_APP, lacks("ai/app/edit")),),
        ("apiovh:ai/app/edit",),
        NEW_IMAGE,
    ),
    Point("PUT app", "refused with a secret", (meets(PUT_APP, ECHO),), (r"HF_TOKEN=\S+ is not",), NEW_IMAGE),
    Point(
        "GET app after PUT",
        "credentials expired",
        (meets(GET_APP, EXPIRED, after=1),),
        (NEW_CREDENTIALS,),
        given=NEW_IMAGE,
    ),
    Point(
        "POST app of a replacement",
        "right missing",
        (meets(CREATE_APP, lacks("ai/app/create")),),
        ("apiovh:ai/app/create",),
        given={"volumes": ["standalone:/hub:rw"]},
    ),
    Point(
        "app",
        "vanished",
        says=("does not exist any more: `pulumi refresh`, then `pulumi up`",),
        given=NEW_IMAGE,
        refreshed=True,
        before=vanish,
    ),
    Point(
        "app that is restarted",
        "QUEUED for ever",
        says=NO_GPU,
        given=NEW_IMAGE | SHORT | {"container_updates": "restart"},
        corrected={"timeout_seconds": PATIENCE},
        before=hold("QUEUED"),
    ),
    Point(
        "app that rolls",
        "FAILED after RUNNING",
        says=("State: FAILED", "out of memory", "says hello", "`pulumi refresh`, then `pulumi up`"),
        given=NEW_IMAGE,
        refreshed=True,
        before=hold("SCALING"),
        during=end("FAILED", "out of memory", after="SCALING"),
    ),
)

DESTROYED = (
    Point("GET app", "502 with HTML", (meets(GET_APP, PAGE),)),
    Point("GET app", "credentials expired", (meets(GET_APP, EXPIRED),), (NEW_CREDENTIALS,)),
    Point("PUT stop", "429", (meets(STOP_APP, BUSY),)),
    Point("PUT stop", "500", (meets(STOP_APP, BROKEN),)),
    Point("PUT stop", "lost answer", (meets(STOP_APP, LOST),)),
    Point("PUT stop", "right missing", (meets(STOP_APP, lacks("ai/app/stop")),), ("apiovh:ai/app/stop",)),
    Point("GET app that stops", "reset", (meets(GET_APP, RESET, after=1),)),
    Point("GET app that stops", "wrong clock", (meets(GET_APP, OUT_OF_TIME, after=1),)),
    Point("DELETE app", "502 with HTML", (meets(DELETE_APP, PAGE),)),
    Point("DELETE app", "lost answer", (meets(DELETE_APP, LOST),)),
    Point("DELETE app", "reset", (meets(DELETE_APP, RESET),)),
    Point("DELETE app", "refused as running", (meets(DELETE_APP, STILL_RUNS),)),
    Point(
        "DELETE app", "right missing", (meets(DELETE_APP, lacks("ai/app/delete")),), ("apiovh:ai/app/delete",)
    ),
    Point("app", "STOPPING for ever", before=hold("STOPPING")),
    Point("DELETE token", "lost answer", (meets(DELETE_TOKEN, LOST),)),
    Point("DELETE token", "slow answer", (meets(DELETE_TOKEN, SLOW),)),
    Point("DELETE token", "credentials expired", (meets(DELETE_TOKEN, EXPIRED),), (NEW_CREDENTIALS,)),
)

PHASES = {"create": CREATED, "change": CHANGED, "destroy": DESTROYED}
POINTS = {
    f"{phase}: {point.call}: {point.fault}": point for phase, points in PHASES.items() for point in points
}


@dataclass
class Walk:
    """What happened at the points."""

    first: dict[str, str] = field(default_factory=dict)
    """Per point: what the run that met the fault said of the endpoint, "" when it succeeded."""
    then: dict[str, str] = field(default_factory=dict)
    """Per point: what it ended with."""
    missed: list[str] = field(default_factory=list)
    """Faults that no call has met."""
    said: list[str] = field(default_factory=list)
    """All that the engine has said."""

    def table(self) -> str:
        """One line for each point."""
        lines = []
        for name, point in POINTS.items():
            reached = re.search("|".join(point.says), self.first[name]) if point.says else None
            first = f"failed: … {reached[0]} …" if reached else "survived"
            lines.append(f"{name:<58} {first:<75} {self.then[name]}")
        return "\n".join(lines)


def names(phase: str) -> dict[str, str]:
    """The endpoint of each point of a phase, by the name of the point; the phases share endpoints."""
    points = [name for name in POINTS if name.startswith(phase)]
    return {point: f"point-{number:02}" for number, point in enumerate(points)}


def arm(sky: Sky, endpoint: str, point: Point) -> None:
    for fault in point.meets:
        of_token = "token" in fault["path"]
        sky.fault(**{"about": f"^{endpoint}-token-" if of_token else f"^{endpoint}$", **fault})
    if point.before is not None:
        point.before(sky, endpoint)


def complaints(said: str, endpoint: str) -> str:
    """What the engine's diagnostics say about the resources of an endpoint."""
    diagnostics = said.partition("\nDiagnostics:\n")[2].partition("\nOutputs:\n")[0]
    parts = re.split(r"^  \S+ \((\S+)\):$", diagnostics, flags=re.MULTILINE)
    about = zip(parts[1::2], parts[2::2], strict=True)
    return "".join(text for resource, text in about if re.fullmatch(rf"{endpoint}(-.+)?", resource))


def meet(fleet: Fleet, walk: Walk, phase: str, command: Callable[[], str]) -> None:
    """Runs a command of the engine while every point of a phase meets its faults; then all is well again."""
    endpoints = names(phase)
    armed = {point: POINTS[point] for point in endpoints}
    for name, point in armed.items():
        arm(fleet.sky, endpoints[name], point)
    untouched = fleet.sky.waiting_faults
    with ThreadPoolExecutor(1) as executor:
        run = executor.submit(command)
        for name, point in armed.items():
            if point.during is not None:
                point.during(fleet.sky, endpoints[name])
        error = run.exception()
    assert isinstance(error, EngineError), run.result()
    walk.said.append(str(error))
    walk.first |= {name: complaints(str(error), endpoint) for name, endpoint in endpoints.items()}
    walk.missed += [str(fault) for fault in fleet.sky.waiting_faults if fault in untouched]
    fleet.sky.clear_faults()
    fleet.sky.let_go()


def deploy(fleet: Fleet, walk: Walk, phase: str) -> None:
    """A phase that ends with every endpoint as it was wanted."""
    endpoints = names(phase)
    for number, (name, endpoint) in enumerate(endpoints.items()):
        # Half of them on CPUs leave GPUs for replicas that come before others go.
        fields = {"timeout_seconds": PATIENCE} | (ON_CPU if number % 2 else {})
        fleet.endpoints.setdefault(endpoint, fields).update(POINTS[name].given)
    meet(fleet, walk, phase, fleet.up)
    for name, endpoint in endpoints.items():
        fleet.endpoints[endpoint].update(POINTS[name].corrected)
    outdated = [endpoints[name] for name in endpoints if POINTS[name].refreshed]
    urns = [f"--target=**{endpoint}" for endpoint in outdated]
    walk.said += [fleet.refresh(*urns), fleet.up()]
    fleet.converged()
    walk.then |= {name: f"RUNNING, {fleet.apps_in_state()[endpoints[name]][0]}" for name in endpoints}


@pytest.fixture(scope="module")
def walk(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """All points, met."""
    walk = Walk()
    directory = tmp_path_factory.mktemp("faults")
    settings: dict[str, Any] = {"gpu_quota": QUOTA, "pullable_images": IMAGES, "clock_offset_seconds": 3600}
    with fleets(toolchain, directory, pace=PACE, **settings) as fleet:
        deploy(fleet, walk, "create")
        deploy(fleet, walk, "change")
        meet(fleet, walk, "destroy", fleet.destroy)
        walk.said.append(fleet.destroy())
        assert (fleet.sky.apps, fleet.sky.tokens, fleet.sky.billed) == ([], [], [])
        assert not fleet.export()["deployment"].get("resources")
        walk.then |= dict.fromkeys(names("destroy"), "gone, token and bill too")
        yield walk


@pytest.mark.parametrize("name", POINTS)
def test_a_fault_is_survived_or_explained(walk: Walk, name: str) -> None:
    said, wanted = walk.first[name], POINTS[name].says
    if not wanted:
        assert "error" not in said
    for words in wanted:
        assert re.search(words, said), f"not said: {words}\n{said}"
    assert walk.then[name]


def test_every_fault_was_met_and_no_secret_said(walk: Walk) -> None:
    print(walk.table())  # noqa: T201 - the protocol of the walk, shown by `pytest -rA`
    assert walk.missed == []
    assert len(POINTS) >= 30
    for secret in (CANARY, CREDENTIALS.application_secret, CREDENTIALS.consumer_key):
        assert not any(secret in said for said in walk.said)
