"""Writes `docs/configuration.md` out of `Pulumi.yaml` and the stack files: `python -m docs.configuration`.

A test fails when the page is not what `render` returns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
PAGE = ROOT / "docs" / "configuration.md"
"""What is written."""

_INTRODUCTION = """\
# Configuration reference

Written by `python -m docs.configuration` from `Pulumi.yaml` and the stack files; do not edit it.

A key is set in `Pulumi.<stack>.yaml` as `ovh-vllm:<key>`, or with `pulumi config set <key> <value>`; secrets
with `pulumi config set --secret <key>`. A key without a default has to be set. `pulumi preview` reports all
mistakes at once, with key, value and what is allowed.

Where the API is and who calls it are keys of the `ovh` provider: `ovh:endpoint`, `ovh:applicationKey`,
`ovh:applicationSecret`, `ovh:consumerKey`, `ovh:clientId`, `ovh:clientSecret`, `ovh:accessToken`, or the
variables `OVH_ENDPOINT`, `OVH_APPLICATION_KEY` and so on.
"""
_HEADER = "| Key | Type | Default | Set in | Meaning |\n|---|---|---|---|---|"


def render(root: Path = ROOT) -> str:
    """The page for the project file and the stack files in `root`."""
    declaration = (root / "Pulumi.yaml").read_text(encoding="utf-8")
    keys: Mapping[str, Mapping[str, Any]] = yaml.safe_load(declaration)["config"]
    setters = _setters(root)
    parts = [_INTRODUCTION]
    for title, names in _sections(declaration):
        rows = [_row(name, keys[name], setters.get(name, [])) for name in names]
        parts.append("\n".join([f"## {title.capitalize()}\n", _HEADER, *rows, ""]))
    return "\n".join(parts)


def _sections(declaration: str) -> Iterator[tuple[str, list[str]]]:
    """Titles and keys of the sections, which comments like `# --- project -----` begin."""
    for section in re.split(r"^  # --- ", declaration, flags=re.MULTILINE)[1:]:
        title, _, keys = section.partition("\n")
        yield title.rstrip(" -"), re.findall(r"^  (\w+):", keys, flags=re.MULTILINE)


def _setters(root: Path) -> dict[str, list[str]]:
    """Stacks whose file sets a key, by key."""
    setters: dict[str, list[str]] = {}
    for path in sorted(root.glob("Pulumi.*.yaml")):
        stack = path.name.split(".")[1]
        for key in yaml.safe_load(path.read_text(encoding="utf-8"))["config"]:
            setters.setdefault(key.partition(":")[2], []).append(stack)
    return setters


def _row(name: str, key: Mapping[str, Any], stacks: list[str]) -> str:
    kind = f"{key['type']} of {key['items']['type']}" if "items" in key else key["type"]
    cells = (f"`{name}`", kind, _default(key), ", ".join(stacks), key["description"])
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _default(key: Mapping[str, Any]) -> str:
    if "default" not in key:
        return "none"
    value = key["default"]
    return f"`{value if value and isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
