"""Making an app so that it is never lost.

`create` removes what a crash has left behind before it makes a new app, and never takes one over: state may
hold the very id, and the engine would delete the app that lives.
"""

from __future__ import annotations

import secrets

from components.ai_deploy.api import RESTING, AiDeploy, App
from components.ai_deploy.client import OvhApiError
from components.ai_deploy.errors import DeployError, Say
from components.ai_deploy.ownership import Owner, leftovers
from components.ai_deploy.quota import shortage
from components.ai_deploy.removal import remove, remove_leftovers
from components.ai_deploy.spec import LABEL_NONCE, AppSpec, create_body

URL_SECONDS = 60.0
"""How long `create` waits for the URL of an app that was accepted."""
ATTEMPTS = 3
"""How often an app is asked for whose creation is not answered."""


def create(api: AiDeploy, spec: AppSpec, owner: Owner, say: Say) -> App:
    """Makes an app and returns as soon as the platform has accepted it, with its URL if that comes in time.

    Before, apps of this owner that were never confirmed are deleted. A lost answer is found again by a fresh
    nonce. Raises DeployError and OvhApiError, but nothing once the app is accepted: the engine would lose it.
    """
    remove_leftovers(api, leftovers(api, owner.identity, owner.resource), say)
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


def _post(api: AiDeploy, spec: AppSpec, nonce: str) -> App:
    body = create_body(spec)
    lost: OvhApiError | None = None
    for _ in range(ATTEMPTS):
        try:
            return api.create_app(body)
        except OvhApiError as error:
            failure = error
        if failure.may_have_acted:
            lost = failure
        elif lost is None:
            raise DeployError(f"{failure} Wanted: {_wanted(spec)}.{shortage(api, failure)}") from failure
        # Also when an attempt is refused after one without an answer: that one's app may be in its way.
        try:
            found = _search(api, nonce, lost.settles_seconds)
        except OvhApiError as error:
            failure = error
            break
        if found is not None:
            return found
        if not failure.may_have_acted:
            break
    late = "Should an app come up nevertheless, the next `pulumi up` or `pulumi destroy` deletes it first."
    raise DeployError(f"{failure} Wanted: {_wanted(spec)}.{shortage(api, failure)} {late}") from failure


def _search(api: AiDeploy, nonce: str, seconds: float) -> App | None:
    for _ in api.client.clock.polls(seconds):
        found = api.apps(LABEL_NONCE, nonce)
        if found:
            return found[0]
    return None


def _wanted(spec: AppSpec) -> str:
    unit, count = ("GPU", spec.gpu) if spec.gpu else ("CPU", spec.cpu)
    most = spec.scaling_strategy.most_replicas
    replicas = f"up to {most} replicas with" if most > 1 else "1 replica with"
    return f"{replicas} {count} {unit} ({spec.flavor})" + (" each" if most > 1 else "")
