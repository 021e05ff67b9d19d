"""The Pulumi CLI, run on the sandbox's project with the sandbox's environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class EngineError(Exception):
    """A Pulumi command failed; its own output has told why."""


@dataclass(frozen=True)
class Engine:
    """Runs Pulumi commands; `environment` is what `.sandbox/env` exports."""

    pulumi: Path
    environment: Mapping[str, str] = field(repr=False)

    def run(self, *arguments: str) -> None:
        """Runs a command whose output the user sees; raises EngineError when it fails.

        Ctrl-C reaches the engine, too: it is waited for while it finishes what it has begun and writes its
        state, then KeyboardInterrupt goes on.
        """
        interrupted: KeyboardInterrupt | None = None
        with subprocess.Popen(
            [self.pulumi, *arguments], env=self._environment(), stdin=subprocess.DEVNULL
        ) as process:
            while process.returncode is None:
                try:
                    process.wait()
                except KeyboardInterrupt as error:
                    interrupted = error
        if interrupted is not None:
            raise interrupted
        if process.returncode != 0:
            raise EngineError(f"pulumi {' '.join(arguments)} ended with status {process.returncode}")

    def capture(self, *arguments: str) -> str:
        """Runs a command and returns its output; EngineError holds what it said when it fails."""
        result = subprocess.run(
            [self.pulumi, *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            said = (result.stdout + result.stderr).strip()
            raise EngineError(f"pulumi {' '.join(arguments)} ended with status {result.returncode}:\n{said}")
        return result.stdout

    def outputs(self, stack: str) -> dict[str, Any]:
        """The outputs of a stack, secrets shown."""
        outputs: dict[str, Any] = json.loads(
            self.capture("stack", "output", "--json", "--show-secrets", "-s", stack)
        )
        return outputs

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """The resources in the state of a stack, secrets hidden."""
        exported = json.loads(self.capture("stack", "export", "-s", stack))
        resources: list[dict[str, Any]] = exported["deployment"]["resources"]
        return resources

    def stacks(self) -> dict[str, int]:
        """The stacks of the project and how many resources each holds."""
        listed = json.loads(self.capture("stack", "ls", "--json"))
        return {stack["name"]: stack.get("resourceCount", 0) for stack in listed}

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}
