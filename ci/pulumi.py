"""Runs the Pulumi engine on a stack and reads its event log."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci import report
from stacks.cli import ROOT, Cli

POLICIES = ROOT / "policy"
"""The policy pack."""


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
    """What is not as the state says; changes nothing, nor the state. Its status is 0 without."""
    return _run("refresh", "-s", stack, "--preview-only", "--expect-no-changes")


def _unfollowable(plan: Path) -> list[str]:
    try:
        return report.unfollowable(json.loads(plan.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise RefusedError(
            f"{plan} is no plan: {error}; make one with `make preview … PLAN={plan}`"
        ) from error


def _policies() -> list[str]:
    # Absolute: the CLI may be told by PULUMI_OPTION_CWD to work elsewhere.
    return ["--policy-pack", str(POLICIES), "--policy-pack-config", str(POLICIES / "config.json")]


def _run(*arguments: str) -> Outcome:
    """Runs the CLI, whose output the user sees, and reads what it wrote into its event log."""
    cli = Cli.find()
    # The event log is an option for programs that drive the CLI, such as Pulumi's own Automation API.
    environment = {**cli.environment, "PULUMI_DEBUG_COMMANDS": "true"}
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "events.json")
        command = [cli.program, *arguments, "--non-interactive", "--event-log", str(log)]
        with _left_to_the_engine():
            status = subprocess.call(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return Outcome(status, report.read(_events(lines)))


def _events(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        # An engine that is killed leaves half a line.
        with suppress(ValueError):
            yield json.loads(line)


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
