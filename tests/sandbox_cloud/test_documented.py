"""docs/sandbox.md says of each endpoint whether it is documented or assumed, and names no other."""

from __future__ import annotations

import re

from aiohttp import web

from sandbox.cloud.http import PREFIXES
from sandbox.project import CHECKOUT
from tests.sandbox_cloud.conftest import World

PAGE = (CHECKOUT / "docs" / "sandbox.md").read_text(encoding="utf-8")
V1_PREFIXES = [prefix for prefix in PREFIXES if prefix != "/v2"]


def _section(heading: str) -> str:
    return PAGE.partition(f"{heading}\n")[2].partition("\n#")[0]


def _rows(heading: str) -> list[list[str]]:
    """Cells of a table below a heading, without its head."""
    rows = [line.strip("|").split("|") for line in _section(heading).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def _routes(application: web.Application, prefixes: list[str]) -> set[str]:
    """Method and path of each route, without the prefix of the API's version."""
    found = set()
    for route in application.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        prefix = next((prefix for prefix in prefixes if path.startswith(f"{prefix}/")), "")
        if route.method != "HEAD":
            found.add(f"{route.method} {path.removeprefix(prefix)}")
    return found


def _named(cell: str) -> set[str]:
    return {name.replace("…", "/cloud/project/{project}") for name in re.findall(r"`([^`]+)`", cell)}


def test_each_endpoint_has_its_mark(world: World) -> None:
    rows = _rows("### Each endpoint")
    for cells in rows:
        assert len(cells) == 3
        assert all(re.search("documented|assumed", cell) for cell in cells[1:]), cells[0]
    named = [name for cells in rows for name in sorted(_named(cells[0]))]
    assert len(named) == len(set(named))
    served = _routes(world.cloud.application(), V1_PREFIXES) | _routes(world.cloud.native_ai(), [])
    assert set(named) == {route for route in served if " /sandbox/" not in route}


def test_each_endpoint_of_the_sandbox_itself_is_named(world: World) -> None:
    named = set()
    for cells in _rows("## Endpoints of the sandbox itself"):
        *methods, path = re.findall(r"[A-Z]+(?=[` ])|/[\w/]+", cells[0])
        named |= {f"{method} {path}" for method in methods}
    served = {route for route in _routes(world.cloud.application(), []) if " /sandbox/" in route}
    # The server, beside the cloud, has two of its own.
    server = (CHECKOUT / "sandbox" / "server.py").read_text(encoding="utf-8")
    served |= {f"GET {path}" for path in re.findall(r'add_get\("(/sandbox/\w+)"', server)}
    # Where a browser is sent that brings no token.
    assert named == served - {"GET /sandbox/login"}
