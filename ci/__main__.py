"""`python -m ci preview|deploy|drift|comment|issue|recover STACK`: what the make targets run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from ci import pulumi, report
from ci.github import GithubError, Repository
from ci.pulumi import Outcome, RefusedError
from stacks.cli import PulumiError, secrets


def _footer(environment: Mapping[str, str]) -> str:
    """Commit and run, as far as the runner tells."""
    commit, run = environment.get("GITHUB_SHA", ""), environment.get("GITHUB_RUN_ID", "")
    if not run:
        return ""
    url = f"{environment.get('GITHUB_SERVER_URL')}/{environment.get('GITHUB_REPOSITORY')}/actions/runs/{run}"
    return f"[Run {run}]({url}) of commit {commit[:12]}."


def _tell(kind: report.Kind, stack: str, outcome: Outcome, file: Path | None) -> int:
    if file is not None:
        ok, footer = outcome.status == 0, _footer(os.environ)
        file.write_text(
            report.text(kind, stack, outcome.run, ok=ok, footer=footer, secrets=secrets()), encoding="utf-8"
        )
    return outcome.status


def _drift(stack: str, file: Path | None) -> int:
    outcome = pulumi.drift(stack)
    status = _tell("drift check", stack, outcome, file)
    if outcome.run.changes:
        where = file or f"`make drift STACK={stack} COMMENT=file.md`"
        sys.stdout.write(f"{report.drift(outcome.run)}: {where} lists what differs\n")
    elif status == 0:
        sys.stdout.write(f"{report.drift(outcome.run)}\n")
    return status


def _text(file: Path, step: str, stack: str) -> str:
    """What `make <step>` has written for GitHub; raises RefusedError."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RefusedError(
            f"{file}: there is no such file; `make {step} STACK={stack} COMMENT={file}` writes it"
        ) from None


def _comment(stack: str, file: Path, pull_request: int) -> str:
    text = _text(file, "preview", stack)
    return Repository.of_the_run().comment(pull_request, report.marker("preview", stack), text)


def _issue(stack: str, file: Path) -> str:
    text = _text(file, "drift", stack)
    return Repository.of_the_run().issue(f"Drift of {stack}", report.marker("drift check", stack), text)


def main() -> int:
    """Runs one step; the exit status is that of the Pulumi CLI, 1, or 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m ci", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    for name, about in (
        ("preview", pulumi.preview.__doc__),
        ("deploy", pulumi.deploy.__doc__),
        ("drift", pulumi.drift.__doc__),
        ("comment", Repository.comment.__doc__),
        ("issue", Repository.issue.__doc__),
        ("recover", pulumi.recover.__doc__),
    ):
        step = steps.add_parser(name, help=(about or "").splitlines()[0])
        step.add_argument("stack")
        if name != "recover":
            required = name in ("comment", "issue")
            step.add_argument("--text", type=Path, required=required, help="file of Markdown")
        if name in ("preview", "deploy"):
            step.add_argument("--plan", type=Path, help="file of the plan")
        if name == "comment":
            step.add_argument("--pull-request", type=int, required=True)
    given = parser.parse_args()
    for file in (getattr(given, "text", None), getattr(given, "plan", None)):
        # Not found out when an update is over.
        if file is not None and not file.parent.is_dir():
            parser.error(f"{file}: there is no folder {file.parent}")
    try:
        match given.step:
            case "preview":
                return _tell("preview", given.stack, pulumi.preview(given.stack, given.plan), given.text)
            case "deploy":
                return _tell("update", given.stack, pulumi.deploy(given.stack, given.plan), given.text)
            case "drift":
                return _drift(given.stack, given.text)
            case "comment":
                sys.stdout.write(f"{_comment(given.stack, given.text, given.pull_request)}\n")
            case "issue":
                sys.stdout.write(f"{_issue(given.stack, given.text)}\n")
            case "recover":
                return pulumi.recover(given.stack)
    except (RefusedError, GithubError, PulumiError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
