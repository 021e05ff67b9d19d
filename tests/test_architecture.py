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
TOOLCHAIN = "sandbox/toolchain"
"""A room in a room: what others than the sandbox use of it."""


def _imported(file: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{name.name}" for name in names)


def _room(path: str) -> str:
    """The room of a file or module, "" for what is none of ours; `path` has slashes."""
    return TOOLCHAIN if path.startswith(f"{TOOLCHAIN}/") else path.partition("/")[0]


def _arrows() -> dict[str, set[str]]:
    """Room to the rooms that it imports from."""
    rooms = {*ROOMS, TOOLCHAIN}
    arrows: dict[str, set[str]] = {room: set() for room in rooms}
    for file in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        room = _room(file.relative_to(ROOT).as_posix())
        targets = {_room(module.replace(".", "/")) for module in _imported(file)}
        arrows[room] |= targets & rooms - {room}
    return arrows


def _documented() -> dict[str, set[str]]:
    """Room to the rooms that it may know, as the table of the page says."""
    rows = re.findall(r"^\| `([\w/]+)` \| (.+?) \|", PAGE.read_text(), flags=re.MULTILINE)
    return {
        room.rstrip("/"): {name.rstrip("/") for name in re.findall(r"`([\w/]+)`", known)}
        for room, known in rows
    }


def test_the_arrows_are_those_of_the_page() -> None:
    assert _arrows() == _documented()


def test_no_arrow_leads_back() -> None:
    tuple(TopologicalSorter(_arrows()).static_order())


def test_nothing_but_the_tests_knows_more_of_the_sandbox_than_its_toolchain() -> None:
    assert [room for room, targets in _arrows().items() if "sandbox" in targets] == []


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
