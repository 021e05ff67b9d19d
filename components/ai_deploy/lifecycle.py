"""Making, changing and removing apps so that none is ever lost: a GPU that nobody knows of still bills.

Who an app belongs to is written on it as labels: the deployment's random id and the name of the Pulumi
resource. An app that the readiness gate has not confirmed yet is known to nobody for sure: whoever made it
may have died before the answer was saved. `create` therefore removes such leftovers before it makes a new
app, and never takes one over: state may hold the very id, and the engine would delete the app that lives.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from components.ai_deploy.api import LEAVING, RESTING, AiDeploy, App
from components.ai_deploy.client import OvhApiError
from components.ai_deploy.plan import Call, Plan, Settings, lacking, observed, restarting
from components.ai_deploy.spec import (
    LABEL_CONFIRMED,
    LABEL_IDENTITY,
    LABEL_NONCE,
    LABEL_READY,
    LABEL_RESOURCE,
    AppSpec,
    create_body,
)

URL_SECONDS = 60.0
"""How long `create` waits for the URL of an app that was accepted."""
SEARCH_SECONDS = 5.0
"""How long something is looked for whose creation was not answered."""
LATE_SECONDS = 60.0
"""The same for a creation that was not answered in time: the platform may still be at work on it."""
CREATE_ATTEMPTS = 3
STOP_SECONDS = 300.0
"""How long an app may take to stop before it is deleted by force."""
DELETE_SECONDS = 600.0
"""How long a deleted app may take to be gone."""
SUCCESSOR_SECONDS = 30.0
"""How long an app that is to replace another one may take to go, when both are being deleted."""
START_SECONDS = 60.0
"""How long a started app may take to leave its resting state."""
ROLLOUT_SECONDS = 60.0
"""How long a running app may take to show that it rolls a change out."""

ContainerUpdates = Literal["roll", "restart"]
"""How a change of the containers gets to a running app; OVHcloud's guides contradict each other.

`roll`: the platform replaces the containers itself, old ones serve meanwhile (guide "capabilities").
`restart`: the app is stopped and started (guide "update a custom Docker image"), and answers nobody until it
is up again. The first is the safer one: where it is wrong the old containers go on serving and the user is
told; where the second is wrong an endpoint goes down for nothing, and its GPUs may be gone when it is to come
back.
"""

Say = Callable[[str], None]
"""Shows a message to the user."""


class DeployError(Exception):
    """Something did not work out; the text says what, where, and what to do. It holds no secret."""


@dataclass(frozen=True)
class Owner:
    """Who an app belongs to."""

    identity: str
    """Random id of the deployment."""
    resource: str
    """Name of the Pulumi resource."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that say so."""
        return {LABEL_IDENTITY: self.identity, LABEL_RESOURCE: self.resource}


def create(api: AiDeploy, spec: AppSpec, owner: Owner, say: Say) -> App:
    """Makes an app and returns as soon as the platform has accepted it, with its URL if that comes in time.

    Before, apps of this owner that were never confirmed are deleted. A lost answer is found again by a fresh
    nonce. Once the app is accepted nothing raises: the engine would lose it.
    """
    remove_leftovers(api, owner.identity, say, resource=owner.resource)
    nonce = secrets.token_hex(8)
    labels = {**spec.labels, **owner.labels, LABEL_NONCE: nonce}
    app = _post(api, spec.model_copy(update={"labels": labels}), nonce)
    try:
        for twin in api.apps(LABEL_NONCE, nonce):
            # An attempt without an answer made an app after all, after it was no longer looked for.
            if twin.id != app.id:
                remove(api, twin.id)
        for _ in api.client.clock.polls(URL_SECONDS):
            app = api.find_app(app.id) or app
            if app.url is not None or app.state in RESTING:
                break
    except (OvhApiError, DeployError) as error:
        say(f"{owner.resource}: app {app.id} was accepted, but then: {error}")
    return app


def remove_leftovers(
    api: AiDeploy, identity: str, say: Say, *, resource: str | None = None, keep: str | None = None
) -> None:
    """Deletes the apps of a deployment (or of one of its resources) that were never confirmed, but `keep`."""
    for app in api.apps(LABEL_IDENTITY, identity):
        name = app.labels.get(LABEL_RESOURCE)
        if not confirmed(app) and resource in (None, name) and app.id != keep:
            say(f"{name}: deleting app {app.id}, left over from an update that was cut off")
            remove(api, app.id)


def confirmed(app: App) -> bool:
    """Whether the gate has seen the app, and state holds it therefore."""
    return app.labels.get(LABEL_CONFIRMED) == "true"


def _post(api: AiDeploy, spec: AppSpec, nonce: str) -> App:
    body = create_body(spec)
    for _ in range(CREATE_ATTEMPTS):
        try:
            return api.create_app(body)
        except OvhApiError as error:
            if not error.may_have_acted:
                raise DeployError(f"{error} Wanted: {_wanted(spec)}.{_shortage(api, error)}") from error
            failure = error
        found = _search(api, nonce, search_seconds(failure))
        if found is not None:
            return found
    raise DeployError(
        f"{failure} Should the app come up nevertheless, the next `pulumi up` deletes it first."
    )


def _wanted(spec: AppSpec) -> str:
    unit, count = ("GPU", spec.gpu) if spec.gpu else ("CPU", spec.cpu)
    return f"up to {spec.scaling_strategy.most_replicas} replicas with {count} {unit} ({spec.flavor}) each"


def _shortage(api: AiDeploy, error: OvhApiError) -> str:
    """For a refusal for want of quota: how large it is and who uses it, as far as the API tells."""
    if not error.about_quota:
        return ""
    try:
        users = [(app.gpus, app) for app in api.all_apps() if app.gpus]
    except OvhApiError as failure:
        return f" In use: unknown ({failure})"
    try:
        quota = api.gpu_quota()
    except OvhApiError:
        # A right that nothing else needs.
        quota = None
    limit = f"{quota} GPU" if quota is not None else "unknown (4 GPU unless OVHcloud has raised it)"
    names = ", ".join(f"{app.spec.get('name')} {app.id} {gpus}" for gpus, app in users)
    used = sum(gpus for gpus, _ in users)
    return f" In use: {used} GPU by apps{f' ({names})' if names else ''}. Quota of the project: {limit}."


def search_seconds(error: OvhApiError) -> float:
    """How long to look for something whose creation ended with `error`."""
    return LATE_SECONDS if error.timed_out else SEARCH_SECONDS


def _search(api: AiDeploy, nonce: str, seconds: float) -> App | None:
    for _ in api.client.clock.polls(seconds):
        found = api.apps(LABEL_NONCE, nonce)
        if found:
            return found[0]
    return None


def confirm(api: AiDeploy, app: App, owner: Owner, deadline: float | None = None) -> None:
    """Writes on an app that state holds it, so that no later `create` takes it for a leftover.

    Whose it is comes last, for an app that was taken over: with these labels but unconfirmed it would be one.
    """
    for name, value in {LABEL_CONFIRMED: "true", **owner.labels}.items():
        if app.labels.get(name) != value:
            api.change_app(app.id, Call("/label", {"name": name, "value": value}), deadline)


def mark_ready(api: AiDeploy, app: App, deadline: float) -> None:
    """Writes on an app that it has served once; until then the app that it replaces is not deleted."""
    if not _ready(app):
        api.change_app(app.id, Call("/label", {"name": LABEL_READY, "value": "true"}), deadline)


def _ready(app: App) -> bool:
    return app.labels.get(LABEL_READY) == "true"


def change(
    api: AiDeploy,
    app_id: str,
    plan: Plan,
    wanted: Settings,
    containers: ContainerUpdates | None,
    resource: str,
    say: Say,
) -> App:
    """Makes the calls of a plan to `wanted`; `containers` is how they get to the containers, None: none does.

    Then an app that rests is started, too. Raises DeployError; `resource` names the app in messages.
    """
    before = api.find_app(app_id) if containers == "roll" else None
    if before is not None and not restarting(observed(wanted, before.spec), wanted):
        # An update of before got as far as this: there is nothing to roll out any more.
        before = None
    for number, call in enumerate(plan.calls):
        try:
            api.change_app(app_id, call)
        except OvhApiError as error:
            if error.status == 404:
                raise _gone(app_id) from error
            raise DeployError(
                f"{error} Of {len(plan.calls)} changes {number} were made; `pulumi up` makes the rest, "
                "`pulumi refresh` shows what the app has now."
            ) from error
    app = _changed_app(api, app_id, wanted, resource, say)
    if containers is None:
        return app
    if containers == "restart" and app.state not in RESTING:
        _halt(api, app)
        app = api.find_app(app_id) or app
    if app.state in RESTING:
        return _start(api, app)
    if before is not None and before.state == "RUNNING":
        _see_rollout(api, before, resource, say)
    return app


def _gone(app_id: str) -> DeployError:
    return DeployError(f"app {app_id} does not exist any more: `pulumi refresh`, then `pulumi up`.")


def _changed_app(api: AiDeploy, app_id: str, wanted: Settings, resource: str, say: Say) -> App:
    """The app as it is now; tells the user when it does not show a change, although none was refused."""
    for _ in api.client.clock.polls(SEARCH_SECONDS):
        found = api.find_app(app_id)
        if found is None or found.state in LEAVING:
            raise _gone(app_id)
        app, lacks = found, lacking(wanted, found.spec)
        if not lacks:
            return app
    say(
        f"{resource}: the changes were accepted, but app {app_id} does not show them ({', '.join(lacks)}): "
        "`pulumi refresh`, then `pulumi up` makes them again."
    )
    return app


def _halt(api: AiDeploy, app: App) -> None:
    if not _stop(api, app):
        now = api.find_app(app.id)
        raise DeployError(
            f"app {app.id} was to be stopped and started, but is still {now.state if now else 'gone'} after "
            f"{STOP_SECONDS:.0f} s; the changes are made. `pulumi up` tries again."
        )


def _start(api: AiDeploy, app: App) -> App:
    try:
        api.start_app(app.id)
    except OvhApiError as error:
        raise DeployError(
            f"{error} App {app.id} rests and bills nothing, but answers nobody; `pulumi up` starts it."
            f"{_shortage(api, error)}"
        ) from error
    for _ in api.client.clock.polls(START_SECONDS):
        app = api.find_app(app.id) or app
        if app.state not in RESTING:
            break
    return app


def _see_rollout(api: AiDeploy, before: App, resource: str, say: Say) -> None:
    """Waits until the platform shows a rollout, so that the gate does not look at the old containers."""
    for _ in api.client.clock.polls(ROLLOUT_SECONDS):
        now = api.find_app(before.id)
        if now is None or (now.state, now.entered) != (before.state, before.entered):
            return
    say(
        f"{resource}: the change was accepted, but app {before.id} has shown no rollout in "
        f"{ROLLOUT_SECONDS:.0f} s: its old containers may go on serving. If they do, the platform wants a "
        "restart: stop the app, `pulumi refresh`, `pulumi up`, and choose the container updates `restart`."
    )


def retire(api: AiDeploy, app_id: str, owner: Owner) -> None:
    """Removes an app that state holds, unless it serves and the one that is to replace it does not yet.

    With `--continue-on-error` the engine keeps the old app in the update whose gate failed, but deletes it in
    the next one, although the gate fails again. Raises DeployError then.
    """
    app = api.find_app(app_id)
    if app is not None and _ready(app) and app.state not in RESTING | LEAVING:
        for _ in api.client.clock.polls(SUCCESSOR_SECONDS):
            successors = [other for other in _successors(api, app, owner) if not _ready(other)]
            if not successors:
                break
        else:
            raise DeployError(
                f"app {app_id} is kept: it serves, and app {successors[0].id}, which is to replace it, is "
                f"{successors[0].state} and not ready yet. `pulumi up` deletes it when that one is."
            )
    remove(api, app_id)


def _successors(api: AiDeploy, app: App, owner: Owner) -> list[App]:
    """Other apps of the same resource that state holds; not those that are being deleted, too."""
    return [
        other
        for other in api.apps(LABEL_IDENTITY, owner.identity)
        if other.id != app.id
        and other.labels.get(LABEL_RESOURCE) == owner.resource
        and confirmed(other)
        and other.state not in LEAVING | {"STOPPING"}
    ]


def remove(api: AiDeploy, app_id: str) -> None:
    """Stops an app, deletes it and waits until it is gone; one that is gone already is no error.

    An app that does not stop, or that the platform refuses to delete, is deleted by force.
    """
    app = api.find_app(app_id)
    if app is None:
        return
    if app.state not in LEAVING:
        _delete(api, app_id, force=not _stop(api, app))
    for _ in api.client.clock.polls(DELETE_SECONDS):
        app = api.find_app(app_id)
        if app is None:
            return
    raise DeployError(
        f"app {app_id} was deleted but is still {app.state if app else ''} after {DELETE_SECONDS:.0f} s, and "
        "may still bill. Run the same command again; if it stays, ask OVHcloud's support."
    )


def _stop(api: AiDeploy, app: App) -> bool:
    """Whether the app has come to rest."""
    if app.state not in RESTING | {"STOPPING"}:
        try:
            api.stop_app(app.id)
        except OvhApiError as error:
            if error.status in (400, 404, 409):
                # Not to be stopped in its present state.
                return False
            raise
    for _ in api.client.clock.polls(STOP_SECONDS):
        now = api.find_app(app.id)
        if now is None or now.state in RESTING | LEAVING:
            return True
    return False


def _delete(api: AiDeploy, app_id: str, *, force: bool) -> None:
    try:
        api.delete_app(app_id, force=force)
    except OvhApiError as error:
        if force or error.status not in (400, 409):
            raise
        # Refused as still running: the state that was read was out of date.
        api.delete_app(app_id, force=True)
