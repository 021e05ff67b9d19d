"""A stack as its backend knows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.settings import PROJECT, Settings, load
from stacks.cli import Cli

_IDENTITY = "ai-deploy:Identity"
"""End of the type of `components.ai_deploy.resources.Identity` in state."""


@dataclass(frozen=True)
class Stack:
    """A stack's configuration and outputs; `repr` shows none of their values."""

    name: str
    config: Mapping[str, str] = field(repr=False)
    """Values by key with namespace, lists and objects as JSON, secrets in clear."""
    secrets: frozenset[str]
    """Keys whose values are encrypted."""
    outputs: Mapping[str, Any] = field(repr=False)
    """Secrets in clear; empty before the first update."""

    @classmethod
    def read(cls, name: str, cli: Cli) -> Stack:
        """Asks the backend; raises PulumiError, which for a wrong passphrase says so."""
        config = cli.query("config", "--json", "--show-secrets", "-s", name)
        outputs = cli.query("stack", "output", "--json", "--show-secrets", "-s", name)
        return cls(
            name,
            {key: entry.get("value", "") for key, entry in config.items()},
            frozenset(key for key, entry in config.items() if entry["secret"]),
            outputs,
        )

    def settings(self, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings, as the program reads them; raises SettingsError."""
        prefix = f"{PROJECT}:"
        own = {
            key.removeprefix(prefix): value for key, value in self.config.items() if key.startswith(prefix)
        }
        return load(
            own, secret=lambda key: prefix + key in self.secrets, environment=environment, stack=self.name
        )


def identities(name: str, cli: Cli) -> frozenset[str]:
    """The ids by which the stack's apps are known (`components.ai_deploy.ownership`), from its state.

    None before the first update: nothing of the stack is in the cloud. Raises PulumiError.
    """
    state = cli.query("stack", "export", "-s", name)
    resources = (state.get("deployment") or {}).get("resources") or ()
    return frozenset(resource["id"] for resource in resources if resource["type"].endswith(_IDENTITY))
