"""Whose an app is, written on it as labels: a GPU that nobody knows of still bills.

An app belongs to a deployment (a random id that state holds) and to one of its Pulumi resources. One that the
readiness gate has not confirmed yet is known to nobody for sure: whoever made it may have died before the
answer was saved.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.ai_deploy.api import LEAVING, AiDeploy, App
from components.ai_deploy.plan import Call
from components.ai_deploy.spec import LABEL_CONFIRMED, LABEL_IDENTITY, LABEL_READY, LABEL_RESOURCE


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


def confirmed(app: App) -> bool:
    """Whether the gate has seen the app, and state holds it therefore."""
    return app.labels.get(LABEL_CONFIRMED) == "true"


def is_ready(app: App) -> bool:
    """Whether the app has served once."""
    return app.labels.get(LABEL_READY) == "true"


def confirm(api: AiDeploy, app: App, owner: Owner, deadline: float | None = None) -> None:
    """Writes on an app that state holds it, so that no later create takes it for a leftover.

    Whose it is comes last, for an app that was taken over: with these labels but unconfirmed it would be one.
    """
    for name, value in {LABEL_CONFIRMED: "true", **owner.labels}.items():
        if app.labels.get(name) != value:
            api.change_app(app.id, Call("/label", {"name": name, "value": value}), deadline)


def mark_ready(api: AiDeploy, app: App, deadline: float) -> None:
    """Writes on an app that it has served once; until then the app that it replaces is not deleted."""
    if not is_ready(app):
        api.change_app(app.id, Call("/label", {"name": LABEL_READY, "value": "true"}), deadline)


def leftovers(api: AiDeploy, identity: str, resource: str | None = None) -> list[App]:
    """Apps of a deployment, or of one of its resources, that a crash has left behind."""
    return [
        app
        for app in api.apps(LABEL_IDENTITY, identity)
        # Without the first label, which somebody may have taken off, the second one tells that it lives.
        if not (confirmed(app) or is_ready(app)) and resource in (None, app.labels.get(LABEL_RESOURCE))
    ]


def successors(api: AiDeploy, app: App, owner: Owner) -> list[App]:
    """Other apps of the same resource that state holds; not those that are being deleted, too."""
    if not owner.identity:
        # Taken off by hand and found by a refresh: nothing can be said.
        return []
    return [
        other
        for other in api.apps(LABEL_IDENTITY, owner.identity)
        if other.id != app.id
        and other.labels.get(LABEL_RESOURCE) == owner.resource
        and confirmed(other)
        and other.state not in LEAVING | {"STOPPING"}
    ]
