"""Failures of the platform that somebody asks for: apps that hang in a state, and apps that end."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from sandbox.cloud.app_machine import State


class Stuck(BaseModel):
    """Apps of a name that are in `state`, or come into it, stay there until they are let go.

    The platform does nothing for such an app: no replica is started, probed, restarted or killed, and no
    deadline runs. Replicas that serve go on serving. In STOPPING and DELETING the replicas get no traffic and
    cost nothing (the documentation bills neither state), but hold their GPUs in the quota, as containers do
    that a machine cannot get rid of. Calls that change the app are taken: to stop or to delete it leads into
    another state, which is a way out unless that one is stuck too.
    """

    model_config = ConfigDict(extra="forbid")

    state: Literal[State.QUEUED, State.INITIALIZING, State.SCALING, State.STOPPING, State.DELETING]
    name: re.Pattern[str]
    """Regular expression, searched in the name of the app."""


class End(BaseModel):
    """Apps of a name end now, whatever state they are in: their replicas are killed."""

    model_config = ConfigDict(extra="forbid")

    name: re.Pattern[str]
    """Regular expression, searched in the name of the app."""
    state: Literal[State.FAILED, State.ERROR]
    """FAILED is the user's fault, ERROR the platform's."""
    message: str
    """What the app's `status.info.message` and log say about it."""
