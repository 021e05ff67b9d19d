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

from components.ai_deploy.api import LEAVING, RESTING, AiDeploy, App
from components.ai_deploy.client import OvhApiError
from components.ai_deploy.plan import Call, Plan
from components.ai_deploy.spec import (
    LABEL_CONFIRMED,
    LABEL_IDENTITY,
    LABEL_NONCE,
    LABEL_RESOURCE,
    AppSpec,
    create_body,
)

URL_SECONDS = 60.0
"""How long `create` waits for the URL of an app that was accepted."""
SEARCH_SECONDS = 5.0
"""How long an app is looked for whose creation was not answered."""
CREATE_ATTEMPTS = 3
STOP_SECONDS = 300.0
"""How long an app may take to stop before it is deleted by force."""
DELETE_SECONDS = 600.0
"""How long a deleted app may take to be gone."""
START_SECONDS = 60.0
"""How long a started app may take to leave its resting state."""

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
    for leftover in api.apps(LABEL_IDENTITY, owner.identity):
        if leftover.labels.get(LABEL_RESOURCE) == owner.resource and not _confirmed(leftover):
            say(f"{owner.resource}: deleting app {leftover.id}, left over from an update that was cut off")
            remove(api, leftover.id)
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


def _confirmed(app: App) -> bool:
    return app.labels.get(LABEL_CONFIRMED) == "true"


def _post(api: AiDeploy, spec: AppSpec, nonce: str) -> App:
    body = create_body(spec)
    for _ in range(CREATE_ATTEMPTS):
        try:
            return api.create_app(body)
        except OvhApiError as error:
            if not error.may_have_acted:
                raise DeployError(f"{error} Wanted: {_wanted(spec)}.") from error
            failure = error
        found = _search(api, nonce)
        if found is not None:
            return found
    raise DeployError(
        f"{failure} Should the app come up nevertheless, the next `pulumi up` deletes it first."
    )


def _wanted(spec: AppSpec) -> str:
    unit, count = ("GPU", spec.gpu) if spec.gpu else ("CPU", spec.cpu)
    return f"up to {spec.scaling_strategy.most_replicas} replicas with {count} {unit} ({spec.flavor}) each"


def _search(api: AiDeploy, nonce: str) -> App | None:
    for _ in api.client.clock.polls(SEARCH_SECONDS):
        found = api.apps(LABEL_NONCE, nonce)
        if found:
            return found[0]
    return None


def confirm(api: AiDeploy, app: App) -> None:
    """Writes on an app that state holds it, so that no later `create` takes it for a leftover."""
    if not _confirmed(app):
        api.change_app(app.id, Call("/label", {"name": LABEL_CONFIRMED, "value": "true"}))


def change(api: AiDeploy, app_id: str, plan: Plan, *, start: bool) -> App:
    """Makes the calls of a plan; with `start` an app that rests afterwards is started."""
    for number, call in enumerate(plan.calls):
        try:
            api.change_app(app_id, call)
        except OvhApiError as error:
            raise DeployError(
                f"{error} Of {len(plan.calls)} changes {number} were made; `pulumi up` makes the rest, "
                "`pulumi refresh` shows what the app has now."
            ) from error
    app = api.find_app(app_id)
    if app is None or app.state in LEAVING:
        raise DeployError(f"app {app_id} does not exist any more: `pulumi refresh`, then `pulumi up`.")
    if start and app.state in RESTING:
        api.start_app(app_id)
        for _ in api.client.clock.polls(START_SECONDS):
            app = api.find_app(app_id) or app
            if app.state not in RESTING:
                break
    return app


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
