"""AI Deploy apps: drives their state machines on the clock, their replicas and their scaler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import string
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from autoscaling.policy import Sample, ScalerState, decide, read_metric
from sandbox.clock import Clock
from sandbox.cloud import app_machine, specs, stamps
from sandbox.cloud.app_machine import Action, Machine, Pod, State, Verb, World
from sandbox.cloud.failures import End, Stuck
from sandbox.cloud.http import ApiError, bad_request, not_found
from sandbox.cloud.ledger import Ledger
from sandbox.cloud.schema import AppSpec, AppUpdate, ScalingStrategy
from sandbox.cloud.settings import ACCOUNT, CloudSettings
from sandbox.cloud.tasks import Tasks
from sandbox.cloud.tokens import Tokens, check_region
from sandbox.interfaces import AppGateway, JsonObject, JsonValue, Replica, ReplicaFactory
from sandbox.trace import trace

_log = logging.getLogger(__name__)

_LOG_LINES = 5000
_NO_LIMIT = 1000
_PLATFORM = "platform"
"""Whose lines in an app's log are no container's; that the platform writes any is assumed."""
_CODES = {State.DELETING: "APP_INTERRUPTED_BY_USER", State.DELETED: "APP_INTERRUPTED_BY_USER"}
_NAME_CHARACTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True)
class LogLine:
    """A line that a replica wrote, or the platform itself."""

    timestamp: str
    replica: str
    content: str


@dataclass
class App:
    """An app with everything that belongs to it; only `machine` knows its state."""

    id: str
    spec: AppSpec
    machine: Machine
    revisions: dict[int, AppSpec]
    """Spec of the containers by revision; the newest one is what new replicas are made of."""
    created: str
    updated: str
    history: list[tuple[str, State]]
    url: str | None = None
    replicas: dict[str, Replica] = field(default_factory=dict)
    logs: deque[LogLine] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))
    volume_ids: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    scaler: ScalerState | None = None
    complaint: str = ""
    """What the scaler last said about a metric that it could not read."""

    @property
    def name(self) -> str:
        """Its name, which the platform has made up if none was asked for."""
        return self.spec.name or ""

    @property
    def state(self) -> State:
        """State that the platform shows."""
        return self.machine.state

    @property
    def size(self) -> specs.Size:
        """Flavor and count of the replicas that are made now."""
        return specs.size(self.revisions[max(self.revisions)].resources)

    @property
    def labels(self) -> dict[str, str]:
        """Labels, the platform's included."""
        return self.spec.labels or {}

    def log(self, replica: str, content: str) -> None:
        """Adds a line to the log."""
        self.logs.append(LogLine(stamps.now(), replica, content))

    def json(self) -> JsonObject:
        """The app as the API shows it."""
        return {
            "id": self.id,
            "spec": self.spec.json_object(),
            "status": self._status(),
            "user": ACCOUNT,
            "createdAt": self.created,
            "updatedAt": self.updated,
        }

    def _status(self) -> JsonObject:
        region = self.spec.region.lower()
        volumes: list[JsonValue] = [
            {"id": id_, "mountPath": volume.mount_path, "userVolumeId": id_}
            for id_, volume in zip(self.volume_ids, self.spec.volumes or [], strict=True)
        ]
        history: list[JsonValue] = [{"date": date, "state": state} for date, state in self.history]
        return {
            "state": self.state,
            "availableReplicas": self.machine.available,
            "url": self.url,
            "grpcAddress": None,
            "infoUrl": f"https://ui.{region}.ai.cloud.ovh.net/app/{self.id}",
            "monitoringUrl": f"https://monitoring.{region}.ai.cloud.ovh.net/d/app-gpu?var-app={self.id}",
            "internalServiceIp": None,
            "history": history,
            "lastTransitionDate": self.history[-1][0],
            "info": {
                "code": _CODES.get(self.state, f"APP_{self.state}"),
                "message": self.machine.message or f"App is {self.state}",
            },
            "volumes": volumes,
            "dataSync": [],
        }


class Apps:
    """All apps of the project; implements `AppDirectory` of the interfaces."""

    def __init__(
        self,
        settings: CloudSettings,
        clock: Clock,
        factory: ReplicaFactory,
        tokens: Tokens,
        ledger: Ledger,
        tasks: Tasks,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._factory = factory
        self._tokens = tokens
        self._ledger = ledger
        self._tasks = tasks
        self._apps: dict[str, App] = {}
        self._stuck: list[Stuck] = []
        self._scaling: asyncio.Task[None] | None = None
        self.gateway: AppGateway | None = None
        """Set once by the composition, before the first app."""

    # AppDirectory

    def ready_replicas(self, app_id: str) -> Sequence[Replica]:
        """Replicas that pass their readiness probe now."""
        app = self._apps.get(app_id)
        if app is None:
            return []
        # A replica is missing for a moment while its start waits for the end of another one.
        names = [pod.name for pod in app.machine.pods if pod.available]
        return [app.replicas[name] for name in names if name in app.replicas]

    def may_call(self, app_id: str, token: str) -> bool:
        """Whether the AI token may call the app: same region, label selector matches, or `unsecureHttp`."""
        app = self._apps.get(app_id)
        if app is None:
            return False
        return bool(app.spec.unsecure_http) or self._tokens.opens(token, app.spec.region, app.labels)

    # What the API does

    def all(self) -> list[App]:
        """Every app, oldest first."""
        return list(self._apps.values())

    def selected(self, label_selector: str) -> list[App]:
        """Apps that carry the label `name=value`; one that is no selector selects none."""
        name, _, value = label_selector.partition("=")
        return [app for app in self.all() if app.labels.get(name) == value]

    def find(self, app_id: str) -> App:
        """The app; raises 404."""
        if app_id not in self._apps:
            raise not_found("App", f"app {app_id} does not exist")
        return self._apps[app_id]

    def create(self, given: AppSpec) -> App:
        """Accepts an app; raises 400 for what cannot be, 403 when the GPU quota does not allow it."""
        if self.gateway is None:
            raise RuntimeError("Cloud.connect comes before the first app")
        check_region(given.region)
        app_id = str(uuid.uuid4())
        spec = specs.filled(given, app_id)
        self._check_quota(specs.size(spec.resources), specs.replicas(spec))
        now = stamps.now()
        app = App(
            id=app_id,
            spec=spec,
            machine=self._queued(spec, revision=1),
            revisions={1: spec},
            created=now,
            updated=now,
            history=[(now, State.QUEUED)],
            volume_ids=[str(uuid.uuid4()) for _ in spec.volumes or []],
        )
        self._apps[app_id] = app
        self._tasks.spawn(self._drive(app, self.gateway), f"app {app_id}")
        if self._scaling is None:
            self._scaling = self._tasks.spawn(self._scale_all(), "scaler")
        return app

    def start(self, app: App) -> None:
        """Queues a stopped app again, with its spec as it is now; it keeps id and URL."""
        if app.state not in app_machine.STARTABLE or app.machine.pods:
            raise bad_request(f"app {app.id} is {app.state}: only a stopped or failed app can be started")
        self._check_quota(specs.size(app.spec.resources), specs.replicas(app.spec))
        revision = max(app.revisions) + 1
        app.revisions = {revision: app.spec}
        app.scaler = None
        self._set(app, self._queued(app.spec, revision))

    def stop(self, app: App) -> None:
        """Ends the app's replicas after their grace period."""
        if app.state not in app_machine.ACTIVE:
            raise bad_request(f"app {app.id} is {app.state}: only a running app can be stopped")
        self._set(app, app_machine.stop(app.machine, self._clock.monotonic()))

    def delete(self, app: App, force: bool) -> None:
        """Removes the app; one that is not stopped needs `force` (assumed from the parameter's text)."""
        if app.state in (State.DELETING, State.DELETED):
            return
        if app.state not in app_machine.STARTABLE and not force:
            raise bad_request(f"app {app.id} is {app.state}: stop it first, or delete it with force=true")
        self._set(app, app_machine.delete(app.machine, self._clock.monotonic()))

    def update(self, app: App, update: AppUpdate) -> None:
        """Changes the spec; what that does to running replicas is `CloudSettings.update_mode`."""
        self._check_exists(app)
        old, app.spec = app.spec, specs.updated(app.spec, update)
        app.updated = stamps.now()
        machine = replace(app.machine, strategy=specs.strategy(app.spec))
        rolls = self._settings.update_mode == "roll" and app.state in app_machine.ACTIVE
        if rolls and specs.container_changed(old, app.spec):
            revision = max(app.revisions) + 1
            app.revisions[revision] = app.spec
            machine = app_machine.roll_out(machine, self._template(app.spec, revision), self._now)
        self._set(app, machine)

    def set_label(self, app: App, name: str, value: str | None) -> None:
        """Sets or (None) deletes one label; nothing is restarted."""
        self._check_exists(app)
        app.spec = specs.with_label(app.spec, name, value)
        app.updated = stamps.now()

    def set_scaling(self, app: App, strategy: ScalingStrategy) -> None:
        """Changes the scaling strategy; a count outside its bounds is put right at once."""
        self._check_exists(app)
        app.spec = app.spec.model_copy(update={"scaling_strategy": strategy})
        app.updated = stamps.now()
        app.scaler = None
        self._set(app, app_machine.scale(app.machine, specs.replicas(app.spec, app.machine.desired)))

    # What is asked for from outside

    @property
    def stuck(self) -> list[Stuck]:
        """Where apps are stuck."""
        return [*self._stuck]

    def hold(self, stuck: Stuck) -> None:
        """Makes apps stay in a state from now on."""
        self._stuck.append(stuck)

    def let_go(self) -> None:
        """No app is stuck any more."""
        held = [app for app in self.all() if self._is_stuck(app)]
        self._stuck.clear()
        for app in held:
            self._set(app, app_machine.resume(app.machine, self._now))

    def end(self, end: End) -> list[App]:
        """Puts apps into FAILED or ERROR; returns them."""
        ended = [app for app in self.all() if end.name.search(app.name) and app.state is not State.DELETED]
        for app in ended:
            self._set(app, app_machine.fail(app.machine, self._now, end.message, end.state))
        return ended

    @property
    def gpus_in_use(self) -> int:
        """GPUs of all replicas that exist, and of those that queued apps will start with."""
        return sum(self._gpus(app) for app in self._apps.values())

    async def close(self) -> None:
        """Kills every replica; the driving tasks must have ended."""
        for app in self._apps.values():
            for replica in app.replicas.values():
                await replica.stop()

    # How apps live

    @property
    def _now(self) -> float:
        return self._clock.monotonic()

    def _is_stuck(self, app: App) -> bool:
        return any(stuck.state is app.state and stuck.name.search(app.name) for stuck in self._stuck)

    def _check_exists(self, app: App) -> None:
        if app.state in (State.DELETING, State.DELETED):
            raise bad_request(f"app {app.id} is {app.state}: it cannot be changed any more")

    def _queued(self, spec: AppSpec, revision: int) -> Machine:
        template = self._template(spec, revision)
        return app_machine.queue(template, specs.strategy(spec), specs.replicas(spec), self._now)

    def _template(self, spec: AppSpec, revision: int) -> app_machine.Template:
        images = self._settings.pullable_images
        return specs.template(spec, revision, images is None or spec.image in images)

    def _check_quota(self, size: specs.Size, replicas: int) -> None:
        """Raises 403 when the quota lacks GPUs; status and class of the real refusal are not documented."""
        asked, used, quota = size.gpus * replicas, self.gpus_in_use, self._settings.gpu_quota
        if used + asked > quota:
            raise ApiError(
                403,
                "Client::Forbidden::QuotaExceeded",
                f"GPU quota exceeded: the app asks for {asked} GPU(s), {used} of the project's {quota} "
                "are in use; stop another app or ask the support for more",
            )

    def _gpus(self, app: App) -> int:
        if app.state in (State.QUEUED, State.INITIALIZING):
            return app.size.gpus * app.machine.desired
        return self._gpus_of_pods(app)

    def _gpus_of_pods(self, app: App) -> int:
        of_pods = (app.revisions[pod.template.revision].resources for pod in app.machine.pods)
        return sum(specs.size(resources).gpus for resources in of_pods)

    def _set(self, app: App, machine: Machine) -> None:
        """Takes over a changed machine and lets its driver look at it."""
        if machine.state is not app.machine.state:
            app.history.append((stamps.now(), machine.state))
            _log.info("app %s is %s", app.id, machine.state)
        if machine.message and machine.message != app.machine.message:
            app.log(_PLATFORM, f"[platform] {machine.message}")
        if machine.state not in app_machine.SERVING:
            # The documentation bills replicas in these states only, also when they are not gone yet.
            for pod in machine.pods:
                self._ledger.close("replica", pod.name)
        app.machine = machine
        app.changed.set()

    def _world(self, app: App) -> World:
        delays, each = self._settings.delays, app.size.gpus
        # What the app itself has reserved is there for it.
        used = self.gpus_in_use - self._gpus(app) + self._gpus_of_pods(app)
        room = (self._settings.gpu_quota - used) // each if each else _NO_LIMIT
        return World(
            probe=lambda pod, path: app.replicas[pod.name].probe(path),
            new_name=lambda: f"{app.id}-{''.join(secrets.choice(_NAME_CHARACTERS) for _ in range(5))}",
            room=max(0, room),
            queued=delays.queued,
            initializing=delays.initializing,
            image_pull=delays.image_pull,
            deletion=delays.app_deletion,
        )

    async def _drive(self, app: App, gateway: AppGateway) -> None:
        """Advances the app whenever something is due or it was changed, until it is deleted."""
        while True:
            app.changed.clear()
            if not self._is_stuck(app):
                await self._try_to_advance(app, gateway)
            if app.state is State.DELETED:
                break
            stuck = self._is_stuck(app)
            due = None if stuck else app_machine.next_event(app.machine, self._now, self._world(app))
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(None if due is None else due - self._now):
                    await app.changed.wait()
        del self._apps[app.id]
        if app.url is not None:
            await gateway.close(app.id)

    async def _try_to_advance(self, app: App, gateway: AppGateway) -> None:
        try:
            await self._advance(app, gateway)
        except Exception as error:
            # The user sees what a platform shows whose fault it is; the sandbox's log has the rest.
            _log.error("app %s is in ERROR: %s", app.id, trace(error))
            message = f"platform error: {type(error).__name__}"
            self._set(app, app_machine.fail(app.machine, self._now, message, State.ERROR))

    async def _advance(self, app: App, gateway: AppGateway) -> None:
        before = app.machine
        after, actions = app_machine.advance(before, self._now, self._world(app))
        self._set(app, after)
        app.changed.clear()
        for action in actions:
            await self._perform(app, action)
        if app.url is None and app.state in (State.INITIALIZING, *app_machine.SERVING):
            app.url = await gateway.open(app.id)
        used = {app.machine.template.revision, *(pod.template.revision for pod in app.machine.pods)}
        app.revisions = {number: spec for number, spec in app.revisions.items() if number in used}

    async def _perform(self, app: App, action: Action) -> None:
        pod = action.pod
        match action.verb:
            case Verb.ALLOCATE:
                size = specs.size(app.revisions[pod.template.revision].resources)
                self._ledger.open("replica", pod.name, pod.name, size.eur_per_hour, "minute", app.id)
            case Verb.START:
                app.replicas[pod.name] = self._make(app, pod)
                app.replicas[pod.name].start()
            case Verb.RESTART:
                await app.replicas[pod.name].stop()
                app.replicas[pod.name].start()
            case Verb.RELEASE:
                self._ledger.close("replica", pod.name)
                if (replica := app.replicas.pop(pod.name, None)) is not None:
                    await replica.stop()

    def _make(self, app: App, pod: Pod) -> Replica:
        spec = app.revisions[pod.template.revision].json_object()
        return self._factory(pod.name, spec, _writer(app, pod.name))

    async def _scale_all(self) -> None:
        """AI Deploy's scaler: samples every app with a custom metric and follows the policy."""
        while True:
            await self._clock.sleep(self._settings.polling_interval)
            for app in self.all():
                if app.state in app_machine.SERVING:
                    self._scale(app)

    def _scale(self, app: App) -> None:
        strategy = specs.automatic(app.spec)
        if strategy is None:
            return
        try:
            metric = specs.modelled_metric(strategy, app.spec.default_http_port)
        except ValueError as error:
            self._complain(app, str(error))
            return
        settings = specs.scaler_settings(strategy, metric, self._settings.scaler_target_type)
        values = tuple(
            self._sample(app, replica, metric.value_location) for replica in self.ready_replicas(app.id)
        )
        state = app.scaler or ScalerState(app.machine.desired)
        desired, app.scaler = decide(state, Sample(self._now, values), settings)
        if desired != app.machine.desired:
            _log.info("app %s scales from %d to %d", app.id, app.machine.desired, desired)
            self._set(app, app_machine.scale(app.machine, desired))

    def _sample(self, app: App, replica: Replica, location: str) -> float | None:
        try:
            return read_metric(replica.metrics(), location)
        except (ConnectionRefusedError, ValueError) as error:
            self._complain(app, f"metric of replica {replica.name} cannot be read: {error}")
            return None

    def _complain(self, app: App, complaint: str) -> None:
        """Tells the user once why the scaler does nothing; the real platform is silent here."""
        if complaint != app.complaint:
            app.complaint = complaint
            app.log(_PLATFORM, f"[scaler] {complaint}")


def _writer(app: App, replica: str) -> Callable[[str], None]:
    return lambda line: app.log(replica, line)
