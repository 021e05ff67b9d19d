"""Runs the Pulumi engine on a stack and reads its event log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci import report
from stacks.cli import ROOT, Cli, without_backend

POLICIES = ROOT / "policy"
"""The policy pack."""
_UPDATE = ("--yes", "--skip-preview", "--continue-on-error")
"""Options of `pulumi up`: one branch of the program finishes when the other fails."""


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
    return _run("preview", stack, *_policies(), *saved)


def deploy(stack: str, plan: Path | None = None) -> Outcome:
    """An update; with `plan` the engine stops before a step that is not in it. Raises RefusedError."""
    follow = [] if plan is None else ["--plan", str(plan.absolute())]
    if plan is not None and (unknown := _unfollowable(plan)):
        raise RefusedError(
            f"{plan} makes or changes providers whose configuration it does not know yet "
            f"({', '.join(unknown)}), as in the first update of a stack: it would stop half-way. Run "
            f"`make deploy STACK={stack}`, which follows no plan"
        )
    return _run("up", stack, *_UPDATE, *_policies(), *follow)


def drift(stack: str) -> Outcome:
    """What is not as the state says; changes nothing, nor the state. Its status is 0 without."""
    return _run("refresh", stack, "--preview-only", "--expect-no-changes")


def recover(stack: str) -> int:
    """The way back after a killed or interrupted update: cancel, refresh, update.

    The status is that of the refresh if it fails, else that of the update.
    """
    cli = Cli.find(stack)
    # Its status is not asked for: mostly there is nothing to cancel.
    cancel = [cli.program, "cancel", "-s", stack, "--yes", "--non-interactive"]
    subprocess.call(cancel, cwd=ROOT, env=cli.environment, stdin=subprocess.DEVNULL)
    refreshed = _run("refresh", stack, "--yes", "--skip-preview", "--clear-pending-creates")
    # No policy pack: this finishes what was already decided.
    return refreshed.status or _run("up", stack, *_UPDATE).status


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


def _run(command: str, stack: str, *options: str) -> Outcome:
    """Runs the CLI, whose output the user sees, and reads what it wrote into its event log."""
    cli = Cli.find(stack)
    # The event log is an option for programs that drive the CLI, such as Pulumi's own Automation API.
    environment = {**cli.environment, "PULUMI_DEBUG_COMMANDS": "true"}
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "events.json")
        arguments = [command, "-s", stack, *options, "--non-interactive", "--event-log", str(log)]
        with _left_to_the_engine():
            status = subprocess.call(
                [cli.program, *arguments], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL
            )
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    if status != 0 and not lines and (hint := without_backend()):
        sys.stderr.write(f"{hint}\n")
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
