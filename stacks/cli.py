"""The Pulumi CLI: which one, in which environment, and what it answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.ai_deploy.redact import redact
from sandbox.toolchain import ToolchainError, ensure
from sandbox.toolchain.tools import PULUMI, find_version

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder."""
_SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "GITHUB_TOKEN",
    "GOOGLE_CREDENTIALS",
    "HF_TOKEN",
    "OVH_ACCESS_TOKEN",
    "OVH_APPLICATION_SECRET",
    "OVH_CLIENT_SECRET",
    "OVH_CONSUMER_KEY",
    "PULUMI_ACCESS_TOKEN",
    "PULUMI_CONFIG_PASSPHRASE",
)
_LONGEST_ERROR = 300
_NO_BACKEND = (
    "no backend is chosen: `. .sandbox/env` for the sandbox, docs/going-live.md step 5 for the cloud"
)


class PulumiError(Exception):
    """The CLI did not do what it was asked; the text is what it said, in one line and without secrets."""


class UnknownStackError(PulumiError):
    """A stack without a stack file, a slip of the pen most likely; the text says which stacks there are."""


class NoCliError(PulumiError):
    """There is no CLI to be had; the text has several lines: what was tried and what to install."""


def secrets(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The values of the variables that no text may show: those of the CLI, its backends and the clouds."""
    return [value for name in _SECRETS if (value := environment.get(name))]


def without_backend(environment: Mapping[str, str] = os.environ) -> str:
    """What to say after a failure where no backend is chosen, by a variable or `pulumi login`; else ""."""
    if environment.get("PULUMI_BACKEND_URL") or environment.get("PULUMI_ACCESS_TOKEN"):
        return ""
    home = environment.get("PULUMI_CREDENTIALS_PATH") or environment.get("PULUMI_HOME")
    with suppress(OSError, ValueError, AttributeError):
        kept = Path(home or Path.home() / ".pulumi", "credentials.json").read_text(encoding="utf-8")
        if json.loads(kept).get("current"):
            return ""
    return _NO_BACKEND


@dataclass(frozen=True)
class Cli:
    """A Pulumi CLI that is new enough."""

    program: str
    environment: Mapping[str, str] = field(repr=False)
    """What to run it in: the program runs with this Python and its packages."""

    @classmethod
    def find(cls, stack: str) -> Cli:
        """The CLI of PATH unless it is too old, else the toolchain's, for commands about `stack`.

        Raises UnknownStackError before a CLI is built, NoCliError without one, PulumiError.
        """
        _known(stack)
        found = shutil.which("pulumi")
        try:
            program = found if found and _is_new_enough(found) else str(ensure(_say, (PULUMI,)).pulumi)
        except ToolchainError as error:
            raise NoCliError(str(error)) from error
        path = [str(Path(sys.executable).parent), str(Path(program).parent), os.environ.get("PATH", "")]
        return cls(program, {**os.environ, "PATH": os.pathsep.join(filter(None, path))})

    def query(self, *arguments: str) -> Any:
        """The JSON that a command prints which changes nothing; raises PulumiError."""
        done = subprocess.run(
            [self.program, *arguments, "--non-interactive"],
            cwd=ROOT,
            # The news of a newer version would be the last thing that it says.
            env={**self.environment, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PulumiError("; ".join(filter(None, (_error(done), without_backend(self.environment)))))
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise PulumiError(f"`pulumi {' '.join(arguments)}` did not answer with JSON") from None


def _known(stack: str) -> None:
    # Pulumi Cloud knows a stack as organization/stack, too.
    file = f"Pulumi.{stack.rpartition('/')[2]}.yaml"
    if not (ROOT / file).is_file():
        names = sorted(
            path.name.split(".", 1)[1].removesuffix(".yaml") for path in ROOT.glob("Pulumi.*.yaml")
        )
        raise UnknownStackError(f"there is no {file}; the stacks are {', '.join(names)}")


def _is_new_enough(program: str) -> bool:
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # Another one would work on other stacks: that of a sandbox refuses a shell of the sandbox before it.
        raise PulumiError(f"{program}: {_error(done)}")
    version = find_version(done.stdout)
    return version is not None and version >= PULUMI.minimum


def _error(done: subprocess.CompletedProcess[str]) -> str:
    """The error that a command ended with: from `error:` on, else all that it said."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if line.startswith("error:")), 0)
    said = " ".join(lines[first:]).removeprefix("error:").strip() or f"status {done.returncode}"
    return redact(said, secrets())[:_LONGEST_ERROR]


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
