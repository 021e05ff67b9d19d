"""AI tokens: made anew each time, and swept up when a crash has left one behind.

A token has no labels and shows its value once, so its name says whose it is: Pulumi resource, identity of the
deployment, and a nonce.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from components.ai_deploy.api import AiDeploy
from components.ai_deploy.client import OvhApiError
from components.ai_deploy.errors import DeployError, Say
from components.ai_deploy.ownership import Owner

Role = Literal["ai_training_operator", "ai_training_read"]
"""`ai_training_read` may call apps; `ai_training_operator` may stop and delete them as well."""

ATTEMPTS = 3
"""How often a token is asked for whose creation is not answered."""


@dataclass(frozen=True)
class NewToken:
    """A token just made."""

    id: str
    name: str
    value: str = field(repr=False)


def create(api: AiDeploy, owner: Owner, region: str, role: Role, label_selector: str) -> NewToken:
    """Makes a token that opens apps of `region` with a label (`name=value`).

    Its value is shown in this answer only: when the answer is lost the token is looked for, deleted, and
    another one made. Should it come up later still, it is for `sweep`; nobody knows its value.
    """
    for _ in range(ATTEMPTS):
        name = f"{owner.resource}-{owner.identity}-{secrets.token_hex(8)}"
        body = {"name": name, "region": region, "role": role, "labelSelector": label_selector}
        try:
            answer = api.create_token(body)
        except OvhApiError as error:
            if not error.may_have_acted:
                raise
            failure: Exception = error
            _discard(api, name, error)
            continue
        value = (answer.get("status") or {}).get("value")
        if value:
            return NewToken(str(answer["id"]), name, str(value))
        failure = DeployError(f"POST /ai/token: the answer for {name} holds no value.")
    raise failure


def _discard(api: AiDeploy, name: str, error: OvhApiError) -> None:
    """Deletes the token whose creation was not answered, as soon as it shows up."""
    for _ in api.client.clock.polls(error.settles_seconds):
        for token in api.tokens():
            if (token.get("spec") or {}).get("name") == name:
                api.delete_token(str(token["id"]))
                return


def sweep(api: AiDeploy, identity: str, keep: Collection[str], say: Say) -> None:
    """Deletes tokens of this deployment whose id is not in `keep`; never anybody else's."""
    ours = re.compile(rf".+-{re.escape(identity)}-[0-9a-f]{{16}}")
    for token in api.tokens():
        name = (token.get("spec") or {}).get("name") or ""
        if ours.fullmatch(name) and token["id"] not in keep:
            say(f"deleting token {name}, left over from an update that was cut off")
            api.delete_token(token["id"])
