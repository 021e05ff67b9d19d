"""Stopping and deleting apps: for good, and never the one that serves while its replacement does not."""

from __future__ import annotations

from collections.abc import Iterable

from components.ai_deploy.api import LEAVING, RESTING, AiDeploy, App
from components.ai_deploy.client import OvhApiError
from components.ai_deploy.errors import DeployError, Say
from components.ai_deploy.ownership import Owner, is_ready, successors
from components.ai_deploy.spec import LABEL_IDENTITY, LABEL_RESOURCE

STOP_SECONDS = 300.0
"""How long an app may take to stop before it is deleted by force."""
DELETE_SECONDS = 600.0
"""How long a deleted app may take to be gone."""
SUCCESSOR_SECONDS = 30.0
"""How long an app that is to replace another one may take to go, when both are being deleted."""


def retire(api: AiDeploy, app_id: str, owner: Owner) -> None:
    """Removes an app that state holds, unless it serves and the one that is to replace it does not yet.

    With `--continue-on-error` the engine (3.258, `performPostSteps` of its deployment executor) keeps the old
    app in the update whose gate failed, but deletes it in the next one, although the gate fails again. Raises
    DeployError then, and when the app belongs to another deployment by now.
    """
    app = api.find_app(app_id)
    if app is None:
        return
    check_owner(app, owner)
    if is_ready(app) and app.state not in RESTING | LEAVING:
        for _ in api.client.clock.polls(SUCCESSOR_SECONDS):
            others = successors(api, app, owner)
            if not others or any(map(is_ready, others)):
                break
        else:
            hint = (
                " If it waits for these very GPUs, stop the old one." if others[0].state == "QUEUED" else ""
            )
            raise DeployError(
                f"app {app_id} is kept: it serves, and app {others[0].id}, which is to replace it, is "
                f"{others[0].state} and not ready yet. `pulumi up` deletes it when that one is.{hint}"
            )
    remove(api, app_id)


def check_owner(app: App, owner: Owner) -> None:
    """Raises DeployError when another deployment has taken the app over; no label at all says nothing."""
    identity = app.labels.get(LABEL_IDENTITY)
    if identity not in (None, owner.identity):
        raise DeployError(
            f"app {app.id} belongs to the deployment {identity} now, says its label {LABEL_IDENTITY}. If so, "
            f"take it out of this state (`pulumi state delete`); else set the label to {owner.identity}."
        )


def remove_leftovers(api: AiDeploy, apps: Iterable[App], say: Say) -> None:
    """Removes what a crash has left behind. Raises DeployError and OvhApiError."""
    for app in apps:
        name = app.labels.get(LABEL_RESOURCE)
        say(f"{name}: deleting app {app.id}, left over from an update that was cut off")
        remove(api, app.id)


def remove(api: AiDeploy, app_id: str) -> None:
    """Stops an app, deletes it and waits until it is gone; one that is gone already is no error.

    An app that does not stop, or that the platform refuses to delete, is deleted by force. Raises DeployError
    and OvhApiError.
    """
    app = api.find_app(app_id)
    if app is None:
        return
    if app.state not in LEAVING:
        _delete(api, app_id, force=bool(rest(api, app, insist=False)))
    for _ in api.client.clock.polls(DELETE_SECONDS):
        app = api.find_app(app_id)
        if app is None:
            return
    raise DeployError(
        f"app {app_id} was deleted but is still {app.state if app else ''} after {DELETE_SECONDS:.0f} s, and "
        "may still bill. Run the same command again; if it stays, ask OVHcloud's support."
    )


def rest(api: AiDeploy, app: App, *, insist: bool) -> str:
    """Stops an app and waits until it rests; "" when it does, else why not. Raises OvhApiError.

    With `insist` a refusal, as an app may give that is just changing, is answered by asking again.
    """
    refusal, asked = "", app.state == "STOPPING"
    for _ in api.client.clock.polls(STOP_SECONDS):
        now = api.find_app(app.id)
        if now is None or now.state in RESTING | LEAVING:
            return ""
        if not asked:
            try:
                api.stop_app(app.id)
            except OvhApiError as error:
                if error.status not in (400, 404, 409):
                    raise
                refusal = str(error)
                if not insist:
                    return refusal
            else:
                asked, refusal = True, ""
    return refusal or f"it is still {now.state if now else 'gone'} after {STOP_SECONDS:.0f} s"


def _delete(api: AiDeploy, app_id: str, *, force: bool) -> None:
    try:
        api.delete_app(app_id, force=force)
    except OvhApiError as error:
        if force or error.status not in (400, 409):
            raise
        # Refused as still running: the state that was read was out of date.
        api.delete_app(app_id, force=True)
