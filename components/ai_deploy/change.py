"""Changing an app in place, and getting the change to its containers."""

from __future__ import annotations

from components.ai_deploy.api import LEAVING, RESTING, AiDeploy, App
from components.ai_deploy.client import OvhApiError
from components.ai_deploy.errors import DeployError, Say
from components.ai_deploy.plan import Plan, Settings, lacking, observed, restarting
from components.ai_deploy.quota import shortage
from components.ai_deploy.removal import rest
from components.ai_deploy.spec import ContainerUpdates

SHOW_SECONDS = 5.0
"""How long the platform may take to show a change that it has accepted."""
START_SECONDS = 60.0
"""How long a started app may take to leave its resting state."""
ROLLOUT_SECONDS = 60.0
"""How long a running app may take to show that it rolls a change out."""


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

    Then an app that rests is started, too. Raises DeployError and OvhApiError; `resource` names the app in
    messages.
    """
    before = api.find_app(app_id) if containers == "roll" else None
    if before is not None and not restarting(observed(wanted, before.spec), wanted):
        # An update of before got as far as this: there is nothing to roll out any more.
        before = None
    for number, call in enumerate(plan.calls):
        try:
            api.change_app(app_id, call)
        except OvhApiError as error:
            if error.status == 404 and api.find_app(app_id) is None:
                raise _gone(app_id) from error
            raise DeployError(
                f"{error} Of {len(plan.calls)} changes {number} were made; `pulumi up` makes the rest, "
                "`pulumi refresh` shows what the app has now."
            ) from error
    app = _changed(api, app_id, plan, wanted, resource, say)
    if containers is None:
        return app
    if containers == "restart" and app.state not in RESTING:
        app = _halted(api, app)
    if app.state in RESTING:
        return _started(api, app)
    if before is not None and before.state == "RUNNING":
        _see_rollout(api, before, resource, say)
    return app


def _gone(app_id: str) -> DeployError:
    return DeployError(f"app {app_id} does not exist any more: `pulumi refresh`, then `pulumi up`.")


def _changed(api: AiDeploy, app_id: str, plan: Plan, wanted: Settings, resource: str, say: Say) -> App:
    """The app as it is now; tells the user when it does not show a change, although none was refused."""
    for _ in api.client.clock.polls(SHOW_SECONDS):
        found = api.find_app(app_id)
        if found is None or found.state in LEAVING:
            raise _gone(app_id)
        app, lacks = found, [field for field in lacking(wanted, found.spec) if field in plan.changed]
        if not lacks:
            return app
    say(
        f"{resource}: the changes were accepted, but app {app_id} does not show them ({', '.join(lacks)}): "
        "`pulumi refresh`, then `pulumi up` makes them again."
    )
    return app


def _halted(api: AiDeploy, app: App) -> App:
    reason = rest(api, app, insist=True)
    if reason:
        raise DeployError(
            f"app {app.id} was to be stopped and started, but {reason.rstrip('.')}. The changes are made; "
            "`pulumi up` tries again."
        )
    now = api.find_app(app.id)
    if now is None:
        raise _gone(app.id)
    return now


def _started(api: AiDeploy, app: App) -> App:
    try:
        api.start_app(app.id)
    except OvhApiError as error:
        now = api.find_app(app.id)
        # Else only the answer was lost, and the repetition was refused.
        if now is None or now.state in RESTING:
            raise DeployError(
                f"{error} App {app.id} rests and bills nothing, but answers nobody; `pulumi refresh`, then "
                f"`pulumi up` starts it.{shortage(api, error)}"
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
