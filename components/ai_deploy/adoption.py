"""Taking over an app that exists, by its id: `pulumi import` cannot work for Python's dynamic providers.

Until state holds the app nothing of it may be lost, nor may it be taken for a leftover of a crash. So the
labels that make it ours are written by the readiness gate, which comes after state; here it only gets a
nonce. By that, a second take-over of the same app (`pulumi up --replace`) is told from the first one, whose
id the engine deletes afterwards.
"""

from __future__ import annotations

import secrets

from components.ai_deploy.api import LEAVING, AiDeploy, App
from components.ai_deploy.errors import DeployError, Say
from components.ai_deploy.ownership import Owner, confirmed
from components.ai_deploy.plan import Call, differences
from components.ai_deploy.spec import LABEL_IDENTITY, LABEL_NONCE, LABEL_RESOURCE, AppSpec


def obstacles(app: App | None, spec: AppSpec, owner: Owner) -> list[str]:
    """Why an app that exists (None: it does not) cannot be taken over as it is; empty when it can, or was."""
    if app is None or app.state in LEAVING:
        return ["does not exist; without the setting a new one is made"]
    if _taken_over(app, owner):
        return []
    identity = app.labels.get(LABEL_IDENTITY)
    if identity == owner.identity:
        return [f"belongs to the resource {app.labels.get(LABEL_RESOURCE)} of this deployment"]
    if identity is not None:
        return [
            f"belongs to the deployment {identity}: if that is no more, take the label {LABEL_IDENTITY} off "
            f"(PUT /ai/app/{app.id}/label with value null)"
        ]
    return differences(spec.settings(), app.spec)


def _taken_over(app: App, owner: Owner) -> bool:
    return owner.labels.items() <= app.labels.items() and confirmed(app)


def take_over(api: AiDeploy, app_id: str, spec: AppSpec, owner: Owner, say: Say) -> tuple[App, str] | None:
    """An app that exists, with the nonce by which this take-over is told from others; None: make another one.

    Nothing but the label with the nonce is written: the app becomes ours when the gate confirms it. One that
    was taken over before, or has gone since, is what somebody wants replaced. Raises DeployError.
    """
    app = api.find_app(app_id)
    if app is None or app.state in LEAVING or _taken_over(app, owner):
        what = "is gone" if app is None or app.state in LEAVING else "was taken over before"
        say(f"{owner.resource}: app {app_id} {what}, so a new one is made")
        return None
    found = obstacles(app, spec, owner)
    if found:
        raise DeployError(f"app {app_id} cannot be taken over: {'; '.join(found)}.")
    nonce = secrets.token_hex(8)
    api.change_app(app_id, Call("/label", {"name": LABEL_NONCE, "value": nonce}))
    return app, nonce


def taken_over_since(api: AiDeploy, app_id: str, nonce: str) -> bool:
    """Whether an app that was taken over with `nonce` has been taken over once more."""
    app = api.find_app(app_id)
    return app is not None and app.labels.get(LABEL_NONCE, nonce) != nonce
