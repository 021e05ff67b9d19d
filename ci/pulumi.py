"""Runs the Pulumi engine on a stack and reads its event log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ci import report
from sandbox.toolchain import ensure
from sandbox.toolchain.tools import PULUMI, find_version

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ROOT / "policy"
"""The policy pack."""
DRIFT = 7
"""Exit status of the CLI when it was to find no changes and found some."""


class RefusedError(Exception):
    """A run that was not begun; the text says why and what to do."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: int
    """Exit status of the CLI."""
    run: report.Run


def preview(stack: str, plan: Path | None = None) -> Outcome:
    """What an update would do; with `plan` the CLI writes there what the update may do, secrets encrypted."""
    saved = [] if plan is None else ["--save-plan", str(plan.absolute())]
    return _run("preview", "-s", stack, *_policies(), *saved)


def deploy(stack: str, plan: Path | None = None) -> Outcome:
    """An update; with `plan` the engine stops before a step that is not in it. Raises RefusedError.

    One branch of the program finishes when the other fails.
    """
    follow = [] if plan is None else ["--plan", str(plan.absolute())]
    if plan is not None and (unknown := _unfollowable(plan)):
        raise RefusedError(
            f"{plan} makes or changes providers whose configuration it does not know yet "
            f"({', '.join(unknown)}), as in the first update of a stack: it would stop half-way. Run "
            f"`make deploy STACK={stack}`, which follows no plan"
        )
    options = ("--yes", "--skip-preview", "--continue-on-error")
    return _run("up", "-s", stack, *options, *_policies(), *follow)


def drift(stack: str) -> Outcome:
    """What is not as the state says; changes nothing, nor the state. Status `DRIFT` when there is any."""
    return _run("refresh", "-s", stack, "--preview-only", "--expect-no-changes")


def _unfollowable(plan: Path) -> list[str]:
    try:
        return report.unfollowable(json.loads(plan.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"{plan} is no plan: {error}; make one with `make preview … PLAN={plan}`"
        ) from error


def _policies() -> list[str]:
    # Absolute: the CLI may be told by PULUMI_OPTION_CWD to work elsewhere.
    return ["--policy-pack", str(POLICIES), "--policy-pack-config", str(POLICIES / "config.json")]


def _run(*arguments: str) -> Outcome:
    """Runs the CLI, whose output the user sees, and reads what it wrote into its event log."""
    pulumi, environment = cli()
    # The event log is an option for programs that drive the CLI, such as Pulumi's own Automation API.
    environment = {**environment, "PULUMI_DEBUG_COMMANDS": "true"}
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "events.json")
        command = [pulumi, *arguments, "--non-interactive", "--event-log", str(log)]
        with _left_to_the_engine():
            status = subprocess.call(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return Outcome(status, report.read(map(json.loads, lines)))


@contextmanager
def _left_to_the_engine() -> Iterator[None]:
    """Ctrl-C goes to the engine as well, which ends the steps under way and gives back the lock.

    `subprocess` would kill it a quarter of a second later, with the update half done.
    """
    # A handler, since a signal that is ignored would be ignored by the engine, too.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def cli() -> tuple[str, dict[str, str]]:
    """The CLI (that of PATH unless it is too old, else the toolchain's), and the environment to run it in.

    Raises ToolchainError when there is none to be had.
    """
    found = shutil.which("pulumi")
    pulumi = found if found and _is_new_enough(found) else str(ensure(_say, (PULUMI,)).pulumi)
    # The program runs with this Python and its packages.
    path = os.pathsep.join([str(Path(sys.executable).parent), str(Path(pulumi).parent), os.environ["PATH"]])
    return pulumi, {**os.environ, "PATH": path}


def _is_new_enough(pulumi: str) -> bool:
    result = subprocess.run([pulumi, "version"], capture_output=True, text=True, check=False)
    version = find_version(result.stdout)
    return version is not None and version >= PULUMI.minimum


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
