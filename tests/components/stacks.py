"""Configuration of the tracked stacks, as Pulumi hands it to the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from components.settings import PROJECT

CHECKOUT = Path(__file__).resolve().parents[2]
SERVICE = "0123456789abcdef0123456789abcdef"


def declared() -> dict[str, dict[str, Any]]:
    """The configuration keys that Pulumi.yaml declares."""
    keys: dict[str, dict[str, Any]] = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())["config"]
    return keys


def text(value: Any) -> str:
    """A configuration value as Pulumi hands it over: structured ones as JSON, the others as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def configuration(stack: str) -> dict[str, str]:
    """All values of a stack: the defaults of Pulumi.yaml under those of the stack file."""
    values = {key: text(entry["default"]) for key, entry in declared().items() if "default" in entry}
    for key, value in yaml.safe_load((CHECKOUT / f"Pulumi.{stack}.yaml").read_text())["config"].items():
        values[key.removeprefix(f"{PROJECT}:")] = text(value)
    return values
