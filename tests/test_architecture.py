"""The arrows between the folders are those of docs/architecture.md, and none of them leads back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = {folder.parent.name for folder in ROOT.glob("*/__init__.py")} - {"docs", "tests"}


def _imported(file: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{name.name}" for name in names)


def _arrows() -> dict[str, dict[str, list[str]]]:
    """Room to the rooms that it imports from, with the modules."""
    arrows: dict[str, dict[str, list[str]]] = {room: {} for room in ROOMS}
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            for module in _imported(file):
                target = module.partition(".")[0]
                if target in ROOMS - {room}:
                    arrows[room].setdefault(target, []).append(module)
    return arrows


def _documented() -> dict[str, set[str]]:
    """Room to the rooms that it may know, as the table of the page says."""
    rows = re.findall(r"^\| `(\w+)/` \| (.+?) \|", PAGE.read_text(), flags=re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)/", known)) for room, known in rows}


def test_the_arrows_are_those_of_the_page() -> None:
    assert {room: set(targets) for room, targets in _arrows().items()} == _documented()


def test_no_arrow_leads_back() -> None:
    tuple(TopologicalSorter(_arrows()).static_order())


def test_nothing_but_the_tests_knows_more_of_the_sandbox_than_its_toolchain() -> None:
    known = {module for targets in _arrows().values() for module in targets.get("sandbox", [])}
    assert {module for module in known if not module.startswith("sandbox.toolchain")} == set()


def test_every_room_is_on_the_page() -> None:
    tree = PAGE.read_text().partition("```")[2].partition("```")[0]
    listed = set(re.findall(r"^(\w+)/ ", tree, flags=re.MULTILINE))
    assert listed == ROOMS | {"docs", "tests"}


def test_every_file_of_the_tree_exists() -> None:
    """A line of the tree names a file or a folder; deeper ones are two blanks further in."""
    tree = PAGE.read_text().partition("```\n")[2].partition("```")[0]
    room = ""
    for line in tree.splitlines():
        if head := re.match(r"^([\w./{},]+)(?:  |$)", line):
            room = head[1]
            if "{" not in room:
                assert (ROOT / room).exists(), line
        for name in re.findall(r"\b(\w+\.(?:py|json))\b", line):
            assert list((ROOT / room.rstrip("/")).rglob(name)) or (ROOT / name).exists(), name
        if inner := re.match(r"^  +(\w+)/(?:  |$)", line):
            assert list((ROOT / room).rglob(inner[1])), line
