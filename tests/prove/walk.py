"""The walk: every call of every phase of an endpoint's life, each with every trouble, and the way back.

A phase is a run of the engine from one set of settings to another. It is recorded without trouble first; then
each of its calls meets each trouble in a run of its own, and what is left is looked at after the way back.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.ai_deploy.providers import AppProvider, TokenProvider
from components.ai_deploy.spec import AppSpec, create_body
from tests.ai_deploy.clouds import MODEL
from tests.prove import program
from tests.prove.engine import MiniEngine, Run, ids
from tests.prove.process import ROOT, Process
from tests.prove.program import CANARIES, Settings
from tests.prove.scene import Meeting, Point, Scene, scenes, until
from tests.prove.troubles import AT_CALLS, AT_THE_APP, AT_THE_GATE, Situation, Trouble

LOOKS = 3
"""How many looks at the same thing in a row are points of their own: a wait has as many as it takes."""

START = Settings()
CHANGED = replace(
    START,
    image="vllm/vllm-openai:v0.14.0",
    env={"HF_TOKEN": program.HF_TOKEN, "SETTING": program.NEW_ENV_SECRET},
    replicas=2,
    labels={"team": "b", "tier": "x"},
)


@dataclass(frozen=True)
class Phase:
    """A part of an endpoint's life."""

    name: str
    before: Settings | None
    """What there is already; None: nothing."""
    after: Settings | None
    """What is asked for; None: `destroy`."""
    cloud: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the emulator."""
    adopts: bool = False
    """The app exists already and is to be taken over."""
    refreshes: bool = False
    """A refresh comes first, and it is the one that is walked."""
    keeps_serving: bool = False
    """There is an app that serves at every moment."""
    given_up: bool = False
    """What comes after a trouble is `destroy`."""


RESTART = replace(START, container_updates="restart")
PHASES = (
    Phase("create", None, START),
    Phase("create, then destroy", None, START, given_up=True),
    Phase("update", START, CHANGED, keeps_serving=True),
    Phase(
        "update by restart",
        RESTART,
        replace(CHANGED, container_updates="restart"),
        {"update_mode": "restart-required"},
    ),
    Phase("replace", START, replace(START, region="BHS"), keeps_serving=True),
    Phase(
        "replace, old one first",
        replace(START, delete_before_replace=True),
        replace(START, name="vllm-2", delete_before_replace=True),
    ),
    Phase(
        "next tokens",
        replace(START, token_generations=(2, 1)),
        replace(START, token_generations=(3, 2)),
        keeps_serving=True,
    ),
    Phase("take over", None, START, adopts=True),
    Phase("refresh", START, START, refreshes=True),
    Phase("destroy", START, None),
)


@dataclass(frozen=True)
class Siege:
    """A trouble of the platform that lasts for a whole phase, until the way back."""

    name: str
    stuck: str | None
    """State in which apps hang; None: another app has taken all GPUs."""
    phases: frozenset[str]
    says: tuple[str, ...]
    """What a failure has to say."""


_COMING_UP = {"create", "create, then destroy", "update by restart", "replace", "replace, old one first"}
_GOING = {"replace", "replace, old one first", "destroy"}
SIEGES = (
    Siege("apps stay QUEUED", "QUEUED", frozenset(_COMING_UP), ("QUEUED",)),
    Siege("apps stay INITIALIZING", "INITIALIZING", frozenset(_COMING_UP), ("INITIALIZING",)),
    Siege("apps stay SCALING", "SCALING", frozenset(_COMING_UP | {"update"}), ("SCALING",)),
    Siege("apps stay STOPPING", "STOPPING", frozenset(_GOING | {"update by restart"}), ("STOPPING",)),
    Siege("apps stay DELETING", "DELETING", frozenset(_GOING), ("DELETING",)),
    Siege(
        "another app has all GPUs",
        None,
        frozenset({"create", "create, then destroy", "replace"}),
        ("Wanted: ", "In use: ", "Quota of the project: 4 GPU"),
    ),
)


@dataclass
class Outcome:
    """What became of one point."""

    phase: str
    trouble: str
    point: str
    met: bool = False
    """Whether the call came and met its trouble."""
    survived: bool = False
    """The operation succeeded all the same."""
    ended_with: str = ""
    lost: list[str] = field(default_factory=list)
    """Apps, tokens or costs that state does not know, or that are there twice."""
    wrong: list[str] = field(default_factory=list)
    """Everything else that is not as it should be."""


@contextmanager
def stage(phase: Phase, sabotage: str | None = None) -> Iterator[Stage]:
    """A cloud for the points of a phase."""
    with tempfile.TemporaryDirectory() as directory, scenes(Path(directory), **phase.cloud) as scene:
        ready = Stage(phase, scene, sabotage)
        try:
            yield ready
        finally:
            ready.end()


class Stage:
    """A cloud and a provider process; the process lives on until a point kills it."""

    def __init__(self, phase: Phase, scene: Scene, sabotage: str | None) -> None:
        self.phase = phase
        self.scene = scene
        self.process, self._spare = Process(scene.config, sabotage), Process(scene.config, sabotage)
        self._sabotage = sabotage
        self._texts: list[str] = []
        self._tokens: set[str] = set()

    def record(self) -> list[Point]:
        """The calls of the phase when nothing goes wrong; AssertionError when it does."""
        engine, after = self._prepared()
        self._renew(engine)
        self.scene.watch.seen.clear()
        run = self._walked(engine, after)
        assert run.succeeded, _told(run)
        points = list(self.scene.watch.seen)
        self._clear(engine, outcome := Outcome(self.phase.name, "none", "none"))
        assert not outcome.lost and not outcome.wrong, (outcome.lost, outcome.wrong)
        return points

    def strike(self, point: Point, trouble: Trouble) -> Outcome:
        """One run of the phase, with a trouble at one of its calls."""
        outcome = Outcome(self.phase.name, trouble.name, str(point))
        engine, after = self._prepared()
        if point.path == "/auth/time" or self.phase.adopts:
            # What a process asks once, and what it remembers of a run.
            self._renew(engine)
        environment = {
            value for settings in (self.phase.before, after) if settings for value in settings.env.values()
        }
        situation, struck, seen_before = Situation(self.scene, engine, environment), 0, 0

        def meet(seen: Point) -> Meeting | None:
            nonlocal struck, seen_before
            if not (trouble.meets_again(point, seen, struck) if struck else seen == point):
                return None
            struck, seen_before = struck + 1, len(self.scene.watch.seen)
            return lambda at, request, handler: trouble.strike(situation, at, request, handler)

        self.scene.watch.meet = meet
        run = self._walked(engine, after)
        self.scene.watch.meet = lambda _point: None
        outcome.met = struck > 0
        if self.process.engine_ended:
            late = [str(seen) for seen in self.scene.watch.seen[seen_before:] if seen.changes]
            outcome.wrong += [f"done for an engine that had ended: {call}" for call in late]
        self._judge(run, outcome, trouble.says(point))
        self.scene.settle()
        self.scene.ask("DELETE", "faults")
        self._find_the_way_back(engine, after, outcome, run, trouble.refresh)
        self._clear(engine, outcome)
        return outcome

    def besiege(self, siege: Siege) -> Outcome:
        """One run of the phase, with a trouble from its beginning to its end."""
        outcome = Outcome(self.phase.name, siege.name, "the whole phase", met=True)
        engine, after = self._prepared()
        occupier = None
        if siege.stuck is None:
            occupier = self._by_hand(
                replace(START, name="somebody-elses"), gpus=4 - len(self.scene.existing("ai-app"))
            )
        else:
            self.scene.ask("POST", "stuck", {"state": siege.stuck, "name": "."})
        run = self._walked(engine, after)
        self._judge(run, outcome, siege.says)
        if siege.stuck is not None and not run.succeeded:
            # Once more while it lasts.
            run = self._walked(engine, after)
            self._judge(run, outcome, siege.says)
        self.scene.ask("DELETE", "stuck")
        if occupier is not None:
            self.scene.api.delete_app(occupier, force=True)
            until(lambda: occupier not in self.scene.existing("ai-app"), "the other app to go")
        self._find_the_way_back(engine, after, outcome, run, False)
        self._clear(engine, outcome)
        return outcome

    def end(self) -> None:
        """Ends the processes."""
        self.process.end()
        self._spare.end()

    # The parts of a run

    def _prepared(self) -> tuple[MiniEngine, Settings | None]:
        """An engine with what there is before the phase, and what is asked for."""
        self._texts.clear()
        self._tokens.clear()
        self.process.messages.clear()
        if self.process.engine_ended or not self.process.alive:
            self._renew(None)
        engine, phase = MiniEngine(self.process, self.scene.watch.begin), self.phase
        if phase.before is not None:
            run = engine.up(program.program(phase.before))
            assert run.succeeded, _told(run)
        after = phase.after
        if phase.adopts and after is not None:
            after = replace(after, adopt=self._by_hand(after))
        return engine, after

    def _by_hand(self, settings: Settings, gpus: int = 1) -> str:
        """An app that somebody has made without Pulumi, RUNNING."""
        spec = AppSpec(
            name=settings.name,
            region=settings.region,
            image=settings.image,
            flavor="h100-1-gpu",
            gpu=gpus,
            env=dict(settings.env),
            labels=dict(settings.labels),
            default_http_port=8000,
            readiness_probe={"path": "/v1/models", "port": 8000},
            deployment_strategy=program.ROLLOUT,
        )
        app = self.scene.api.create_app(create_body(spec))
        until(lambda: self._state(app.id) == "RUNNING", "an app made by hand to run")
        return app.id

    def _state(self, app_id: str) -> str:
        app = self.scene.api.find_app(app_id)
        return app.state if app else "gone"

    def _walked(self, engine: MiniEngine, after: Settings | None) -> Run:
        """The run that the phase is about."""
        if after is None:
            return engine.destroy()
        if self.phase.refreshes:
            return engine.refresh()
        return engine.up(program.program(after))

    def _judge(self, run: Run, outcome: Outcome, says: Sequence[str]) -> None:
        """How the operation ended, and whether its messages are fit for people."""
        outcome.survived = run.succeeded
        outcome.ended_with = _told(run) or "success"
        if run.hung:
            outcome.wrong.append("an operation did not end")
        if run.broken_off:
            return
        for step, message in run.failures:
            if not _explained(message):
                outcome.wrong.append(f"{step} failed without an explanation: {shortened(message)}")
        told = "\n".join(message for _, message in run.failures)
        if run.failures:
            outcome.wrong += [f"the message lacks {text!r}" for text in says if text not in told]

    def _find_the_way_back(
        self, engine: MiniEngine, after: Settings | None, outcome: Outcome, run: Run, refresh: bool
    ) -> None:
        self._note(engine, run)
        self._expect_a_server(engine, outcome)
        if run.broken_off or self.phase.adopts:
            self._renew(engine)
        if self.phase.given_up or after is None:
            # A second `destroy` of nothing is as good as a first one of all.
            self._expect(engine, engine.destroy(), "destroy", outcome)
            return
        if run.broken_off or refresh:
            self._expect(engine, engine.refresh(), "refresh", outcome)
        goals = program.program(after)
        if not run.succeeded or refresh:
            self._expect(engine, engine.up(goals), "up", outcome)
        seen = len(self.scene.watch.seen)
        again = engine.up(goals)
        self._expect(engine, again, "one more up", outcome)
        changing = [str(point) for point in self.scene.watch.seen[seen:] if point.changes]
        if again.changes or changing:
            outcome.wrong.append(f"one more `up` is not idle: {'; '.join([*again.changes, *changing])}")
        self._compare(engine, after, outcome)

    def _expect_a_server(self, engine: MiniEngine, outcome: Outcome) -> None:
        """Where a new app serves before the old one goes, callers are always sent to one that exists."""
        gate = engine.living(program.READY)
        if self.phase.keeps_serving and gate and gate.outputs["app_id"] not in self.scene.existing("ai-app"):
            outcome.wrong.append("the app that callers are sent to is gone")

    def _expect(self, engine: MiniEngine, run: Run, name: str, outcome: Outcome) -> None:
        self._note(engine, run)
        if not run.succeeded:
            outcome.wrong.append(f"way back, {name}: {_told(run)}")

    def _compare(self, engine: MiniEngine, wanted: Settings, outcome: Outcome) -> None:
        """Cloud against state against what was asked for."""
        self._count(engine, outcome)
        identity, app, gate = map(engine.living, (program.IDENTITY, program.APP, program.READY))
        if identity is None or app is None or gate is None or app.id not in self.scene.existing("ai-app"):
            outcome.wrong.append("there is no app in state")
            return
        live = self.scene.api.find_app(app.id)
        assert live is not None
        spec = live.spec
        has = {
            "region": spec["region"],
            "name": spec["name"],
            "image": spec["image"],
            "env": {item["name"]: item["value"] for item in spec.get("envVars") or ()},
            "scaling": spec["scalingStrategy"].get("fixed"),
            "labels": {
                name: value for name, value in live.labels.items() if not name.startswith(("ovh/", "deploy-"))
            },
            "owner": {name: live.labels.get(name) for name in ("deploy-identity", "deploy-resource")},
        }
        shall = {
            "region": wanted.region,
            "name": wanted.name,
            "image": wanted.image,
            "env": dict(wanted.env),
            "scaling": {"replicas": wanted.replicas},
            "labels": dict(wanted.labels),
            "owner": {
                "deploy-identity": identity.id,
                "deploy-resource": program.APP,
            },
        }
        outcome.wrong += [f"the app's {key} is not the wanted one" for key in has if has[key] != shall[key]]
        try:
            # After a kill in the middle of an update the platform may be at it still.
            until(lambda: self._state(app.id) == "RUNNING", "the app to run")
        except AssertionError:
            outcome.wrong.append(f"the app is {self._state(app.id)}")
        for replica in self.scene.sky.cloud.apps.ready_replicas(app.id):
            made_of: Any = getattr(replica, "spec", {})
            if made_of["image"] != wanted.image:
                outcome.wrong.append("a replica serves an image of before")
        if (gate.outputs["url"], gate.outputs["app_id"], gate.outputs["failure"]) != (live.url, app.id, ""):
            outcome.wrong.append("the gate's outputs are not those of the app")
            return
        for name in program.tokens(wanted):
            token = engine.living(name)
            value = token.outputs["value"] if token else ""
            answer = self.scene.http.get(
                f"{live.url}/v1/models", headers={"Authorization": f"Bearer {value}"}
            )
            if answer.status_code != 200 or answer.json()["data"][0]["id"] != MODEL:
                outcome.wrong.append(f"{name} does not open the app")

    def _count(self, engine: MiniEngine, outcome: Outcome) -> None:
        """Whether apps, tokens and costs are those of the state."""
        for what, there, known in (
            ("app", self.scene.existing("ai-app"), ids(engine.state, AppProvider)),
            ("token", self.scene.existing("ai-token"), ids(engine.state, TokenProvider)),
        ):
            outcome.lost += [f"{what} that state does not know"] * len(set(there) - known)
            outcome.lost += [f"{what} in state does not exist"] * len(known - set(there))
        known = ids(engine.state, AppProvider)
        billed = [item["id"] for item in self.scene.ask("GET", "bill")["items"] if item["running"]]
        outcome.lost += [
            "cost that state does not know" for id_ in billed if not id_.startswith(tuple(known) or "none")
        ]

    def _clear(self, engine: MiniEngine, outcome: Outcome) -> None:
        """Destroys what there is; afterwards nothing may be left, and nothing told."""
        self._expect(engine, engine.destroy(), "destroy at the end", outcome)
        if engine.state:
            outcome.wrong.append(f"left in state: {', '.join(item.name for item in engine.state)}")
        self._count(engine, outcome)
        self._texts.append(self.process.log)
        self._texts += self.process.messages
        for text in (*CANARIES, *self._tokens):
            told = [message for message in self._texts if text in message]
            outcome.wrong += [f"a secret was told: {shortened(message)}" for message in told[:1]]
        for app_id in self.scene.existing("ai-app"):
            self.scene.api.delete_app(app_id, force=True)
        for token_id in self.scene.existing("ai-token"):
            self.scene.api.delete_token(token_id)
        until(lambda: not self.scene.existing("ai-app"), "apps to go")

    def _note(self, engine: MiniEngine, run: Run) -> None:
        """Keeps what was said, and the AI tokens that it must not hold."""
        self._texts += [message for _, message in run.failures]
        self._tokens.update(item.outputs["value"] for item in engine.state if item.kind is TokenProvider)

    def _renew(self, engine: MiniEngine | None) -> None:
        """Another provider process, as another engine would start it."""
        self._texts += self.process.messages
        self._texts.append(self.process.log)
        self.process.end()
        self.process, self._spare = self._spare, Process(self.scene.config, self._sabotage)
        if engine is not None:
            engine.process = self.process


_PRODUCT_ERROR = re.compile(r"^components\.[\w.]+Error: |^inputs are refused: ", re.MULTILINE)
_SHORTENED = (
    (re.compile(r"(?s)^Traceback.*?\n(?=\S*(Error|Exception)\b)"), ""),
    (re.compile(r"^components\.[\w.]+\.(\w+): "), ""),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}(-\w{5})?"), "…"),
    (re.compile(r" \(query id [^)]*\)"), ""),
    (re.compile(r"/cloud/project/\w+"), ""),
    (re.compile(re.escape(f"{ROOT}/")), ""),
    (re.compile(r"https?://127\.0\.0\.1:\d+"), "http://…"),
    (re.compile(r"127\.0\.0\.1:\d+"), "…"),
    (re.compile(r"\b[0-9a-f]{16,}\b"), "…"),
    (re.compile(r"\s+"), " "),
)
_LENGTH = 120


def shortened(message: str) -> str:
    """A message on one line, without ids and at most so long."""
    for pattern, text in _SHORTENED:
        message = pattern.sub(text, message)
    for canary in CANARIES:
        message = message.replace(canary, "<SECRET>")
    message = message.strip()
    return message if len(message) <= _LENGTH else f"{message[:_LENGTH]}…"


def _told(run: Run) -> str:
    """Why a run failed."""
    return "; ".join(f"{step}: {shortened(message)}" for step, message in run.failures)


def _explained(message: str) -> bool:
    """Whether the error is one of the product's own, which say what, where and what to do."""
    return _PRODUCT_ERROR.search(message) is not None


def troubles() -> tuple[Trouble, ...]:
    """Every trouble that strikes at a call."""
    return (*AT_CALLS, *AT_THE_APP, *AT_THE_GATE)


def points(phase: Phase, sabotage: str | None = None, records: int = 3) -> list[Point]:
    """The calls of a phase: those that every one of so many recordings has, a few looks of each wait."""
    with stage(phase, sabotage) as ready:
        recordings = [ready.record() for _ in range(records)]
    common = set(recordings[0]).intersection(*map(set, recordings[1:]))
    return [point for point in recordings[0] if point in common and point.occurrence <= LOOKS]


def walk(phase: Phase, trouble: Trouble, met: Sequence[Point]) -> list[Outcome]:
    """A phase once for each of some points, with one trouble."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(met):
        with stage(phase) as ready:
            for point in met[len(outcomes) :]:
                try:
                    outcomes.append(ready.strike(point, trouble))
                except AssertionError as error:
                    # The cloud is not as it should be between two points: the next ones get another one.
                    failed = Outcome(phase.name, trouble.name, str(point), met=True)
                    failed.wrong.append(f"the walk could not go on: {shortened(str(error))}")
                    outcomes.append(failed)
                    break
    return outcomes


def besiege(phase: Phase, siege: Siege) -> Outcome:
    """A phase under a trouble of the platform."""
    with stage(phase) as ready:
        return ready.besiege(siege)
