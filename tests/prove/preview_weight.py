"""How light `preview` and `up` are: `python -m tests.prove.preview_weight`.

Writes `docs/proof/preview-weight.md`; the exit status is 1 when one of the two is above its target. `--print`
writes to the terminal instead.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from sandbox.engine import Engine
from sandbox.project import CHECKOUT, Folder
from sandbox.sandbox import Sandbox
from sandbox.toolchain import Toolchain, ensure
from tests.prove.commit import commit

RESULT = CHECKOUT / "docs" / "proof" / "preview-weight.md"
COMMAND = "python -m tests.prove.preview_weight"

STACK = "sandbox"
ROUNDS = 7
MOST_OF_PLAIN = 1.5
"""Time of a preview that finds nothing to do, as a multiple of the plain program's."""
MOST_OF_BRANCH = 1.1
"""Time of `up` from nothing, as a multiple of that of its slowest branch alone."""
QUICK = 1000.0
"""Platform seconds per second where the cloud's delays do not matter."""
REALISTIC = 5.0
"""The same for `up`: the branches take 6 to 9 minutes on the platform, so an update takes one to two, and the
seconds of the engine and its plugins, which run at their own pace, are few beside that."""
BRANCHES = ("endpoint", "monitoring")
_UP = ("up", "--yes", "--skip-preview", "--continue-on-error", "-s", STACK)
CODE = (
    "__main__.py",
    "components",
    "dashboards",
    "sandbox",
    "tests/prove/plain",
    "tests/prove/preview_weight.py",
)
"""What the result depends on."""


@dataclass(frozen=True)
class Took:
    """What a command took, in seconds."""

    wall: float
    cpu: float
    """Of the engine, its plugins and the program."""


@dataclass(frozen=True)
class Previews:
    """The same number of previews of both programs, which took turns."""

    resources: Mapping[str, int]
    """Of each of the two, by package."""
    ours: list[Took]
    plain: list[Took]

    @property
    def ratio(self) -> float:
        """Medians of wall-clock time, ours over plain."""
        return _median(self.ours).wall / _median(self.plain).wall


@dataclass(frozen=True)
class Updates:
    """Seconds of `up` from nothing."""

    branches: Mapping[str, float]
    """Each one alone."""
    both: float

    @property
    def ratio(self) -> float:
        """The whole over its slowest branch."""
        return self.both / max(self.branches.values())


def _median(took: list[Took]) -> Took:
    return Took(statistics.median(one.wall for one in took), statistics.median(one.cpu for one in took))


@contextmanager
def sandboxes(toolchain: Toolchain, speed: float) -> Iterator[Engine]:
    """An engine on a new sandbox; the toolchain's own, without the wrapper of a user's shell."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory) / "settings.toml"
        settings.write_text(f"speed = {speed}\n")
        sandbox = Sandbox(Folder(Path(directory) / "sandbox"))
        try:
            sandbox.start(settings)
            yield Engine(toolchain.pulumi, sandbox.engine(toolchain).environment)
        finally:
            sandbox.remove()


def previews(toolchain: Toolchain) -> Previews:
    """Deploys both programs to one sandbox, then previews them in turns."""
    with sandboxes(toolchain, QUICK) as ours:
        ours.capture(*_UP)
        resources = _packages(ours)
        plain = _program(ours, "plain", COUNTS=json.dumps(resources))
        plain.capture(*_UP)
        if _packages(plain) != resources:
            raise RuntimeError(f"the plain program has {_packages(plain)} resources, not {resources}")
        measured: dict[str, list[Took]] = {"ours": [], "plain": []}
        for number in range(ROUNDS + 1):
            for name, engine in (("ours", ours), ("plain", plain)):
                took = _took(engine, "preview", "--expect-no-changes", "-s", STACK)
                # The first of each warms caches.
                if number > 0:
                    measured[name].append(took)
                _say(f"preview, {name}: {took.wall:.2f} s, {took.cpu:.2f} s of CPU")
    return Previews(resources, **measured)


def _program(engine: Engine, name: str, **variables: str) -> Engine:
    """The engine on another program, a folder beside this file, with the same settings and a new state."""
    ours = Path(engine.environment["PULUMI_OPTION_CWD"])
    root, state = ours.with_name(name), ours.with_name(f"{name}-state")
    shutil.copytree(ours, root)
    state.mkdir()
    project = yaml.safe_load((root / "Pulumi.yaml").read_text())
    project["main"] = os.path.relpath(Path(__file__).with_name(name), root)
    (root / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    other = {
        "PULUMI_OPTION_CWD": str(root),
        "PULUMI_BACKEND_URL": state.as_uri(),
        "PYTHONPATH": str(CHECKOUT),
    }
    engine = Engine(engine.pulumi, {**engine.environment, **other, **variables})
    engine.capture("stack", "init", STACK)
    return engine


def _packages(engine: Engine) -> dict[str, int]:
    """How many resources of each package the stack holds, the stack itself and providers aside."""
    types = [found["type"] for found in engine.resources(STACK)]
    return dict(sorted(Counter(name.partition(":")[0] for name in types if name[:7] != "pulumi:").items()))


def updates(toolchain: Toolchain) -> Updates:
    """Deploys each branch to a new sandbox, then both to another."""
    branches = {}
    for name in BRANCHES:
        with sandboxes(toolchain, REALISTIC) as engine:
            branches[name] = _took(_program(engine, "branch", BRANCH=name), *_UP).wall
        _say(f"up, {name}: {branches[name]:.1f} s")
    with sandboxes(toolchain, REALISTIC) as engine:
        both = _took(engine, *_UP).wall
    _say(f"up: {both:.1f} s")
    return Updates(branches, both)


def _took(engine: Engine, *arguments: str) -> Took:
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    engine.capture(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(time.monotonic() - begin, used)


def main() -> int:
    """Measures, writes the result; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the page, write nothing")
    arguments = parser.parse_args()
    toolchain = ensure(_say)
    preview, update = previews(toolchain), updates(toolchain)
    page = _page(preview, update)
    if arguments.print:
        sys.stdout.write(page)
    else:
        RESULT.write_text(page)
    return int(preview.ratio > MOST_OF_PLAIN or update.ratio > MOST_OF_BRANCH)


def _page(preview: Previews, update: Updates) -> str:
    rows = "\n".join(
        f"| {name} | {_median(took).wall:.2f} | {_median(took).cpu:.2f} "
        f"| {', '.join(f'{one.wall:.2f}' for one in took)} |"
        for name, took in (("the project's", preview.ours), ("plain", preview.plain))
    )
    alone = "\n".join(
        f"| the {name} branch alone | {seconds:.1f} | {seconds * REALISTIC / 60:.1f} |"
        for name, seconds in update.branches.items()
    )
    counts = ", ".join(f"{number} of {package}" for package, number in preview.resources.items())
    return f"""# How light preview and up are

{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {commit(*CODE)}, `{COMMAND}`,
{os.cpu_count()} cores, Python {platform.python_version()}.

**A preview without changes takes {preview.ratio:.2f} times the time of a plain program
({_within(preview.ratio, MOST_OF_PLAIN)}); `up` takes {update.ratio:.2f} times its slowest branch
({_within(update.ratio, MOST_OF_BRANCH)}).**

## `pulumi preview` without changes

The stack `{STACK}` as it is deployed, and a program with the same plugins and as many resources of each
({counts}):
the same resources of `ovh` and `openstack`, and else ConfigMaps of one line, dynamic resources whose provider
does nothing, empty components (`tests/prove/plain`). Both are deployed to the same sandbox and
previewed in turns, {ROUNDS} times after one that warms the caches. CPU is that of the engine, its plugins and
the program together.

| Program | Wall clock, s (median) | CPU, s (median) | Rounds, s |
| --- | ---: | ---: | --- |
{rows}

## `pulumi up` from nothing

The stack `{STACK}` on a new sandbox, with the delays of the cloud that the sandbox assumes (a cluster in
240 s, a node pool in 150 s, an image, weights and probes of an app …) at {REALISTIC:g} platform seconds per
second. The engine, its plugins and the API calls run at their own pace: at that speed they are a few of about
hundred seconds, where the default speed would measure little else. Each branch alone is an update of its own
on a sandbox of its own, with a program that declares nothing else (`tests/prove/branch`): in the record of
one common update a branch that waits for the other would look slow, and the whole not slower than it. What
the two make where they meet, scrapes, rules and dashboards, is in neither and counts in the whole.

| | Wall clock, s | Minutes on the platform |
| --- | ---: | ---: |
{alone}
| both | {update.both:.1f} | {update.both * REALISTIC / 60:.1f} |
"""


def _within(ratio: float, most: float) -> str:
    return f"{'at most' if ratio <= most else 'MORE THAN'} {most:g}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
