"""The processes of a sandbox: started so that they can be found, found wherever they are, ended for sure.

Every process of a sandbox carries the environment variable `OVH_VLLM_SANDBOX` with the path of its folder,
`.sandbox`, and children inherit it: the daemon, Prometheus, the engine and whatever the engine starts. So
they are found, also when their parents were killed, and those of another checkout are not.

The variable alone does not make a process ours: a shell that sourced `.sandbox/env` hands it to an editor or
a test run as well. Only what a sandbox consists of is ended, see `belongs_to_sandbox`.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sandbox.toolchain.tools import TOOLS

MARK = "OVH_VLLM_SANDBOX"
"""Environment variable: absolute path of the sandbox's folder."""

_POLL_S = 0.05
_PROGRAMS = frozenset(name for tool in TOOLS for name in tool.binaries)
_PLUGIN_PREFIXES = ("pulumi-language-", "pulumi-resource-", "pulumi-analyzer-")
_INTERPRETER = re.compile(r"(ba|da)?sh|python[\d.]*")
_MODULE = re.compile(r"sandbox(\..+)?|pulumi\.dynamic")
_PROJECT_FILES = ("PulumiPolicy.yaml", "PulumiPlugin.yaml")


class ProcessError(Exception):
    """A process does not start, get ready or end; the message says which, and shows its last words."""


@dataclass(frozen=True)
class Process:
    """A process of a sandbox."""

    id: int
    started: int
    """Clock ticks since boot; tells it from a later process that was given the same id."""
    command: tuple[str, ...]


def mark(sandbox: Path) -> dict[str, str]:
    """Environment variables that every process of the sandbox in that folder has to be started with."""
    return {MARK: str(sandbox.resolve())}


def belongs_to_sandbox(command: Sequence[str]) -> bool:
    """Whether a marked process with this command line is part of the sandbox, rather than a user's own tool.

    Parts are Pulumi, Prometheus, promtool, Alertmanager and json_exporter; the engine's plugins, be they
    programs or scripts; dynamic providers; policy packs and plugins that a language host runs from their
    folder; the modules of the package `sandbox`.
    """
    if not command:
        return False
    if _is_ours(Path(command[0])):
        return True
    if not _INTERPRETER.fullmatch(Path(command[0]).name):
        return False
    arguments = iter(command[1:])
    for argument in arguments:
        if argument == "-m":
            return _MODULE.fullmatch(next(arguments, "")) is not None
        if argument == "-c":
            return False
        if not argument.startswith("-"):
            script = Path(argument)
            return _is_ours(script) or any((script / file).exists() for file in _PROJECT_FILES)
    return False


def _is_ours(program: Path) -> bool:
    return program.name in _PROGRAMS or program.name.startswith(_PLUGIN_PREFIXES)


def find(sandbox: Path) -> list[Process]:
    """The running processes of the sandbox in that folder, without the calling one and its ancestors."""
    excluded = _with_ancestors(os.getpid())
    ids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    processes = (_read(id_, sandbox.resolve()) for id_ in ids if id_ not in excluded)
    return [process for process in processes if process is not None]


def terminate(
    sandbox: Path, patience_s: float = 10.0, choice: Callable[[Process], bool] = lambda process: True
) -> list[Process]:
    """Ends the processes of the sandbox, all or those of the choice: asks them, and after `patience_s` kills.

    Processes that they start meanwhile are ended as well. Returns what was ended. Raises ProcessError when
    something survives even that (a process that hangs in the kernel).
    """
    ended: dict[Process, None] = {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        signalled: set[Process] = set()
        deadline = time.monotonic() + patience_s
        while running := [process for process in find(sandbox) if choice(process)]:
            for process in running:
                if process not in signalled:
                    with suppress(ProcessLookupError):
                        os.kill(process.id, number)
                    signalled.add(process)
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        ended |= dict.fromkeys(signalled)
        if not running:
            return list(ended)
    raise ProcessError(f"still running after SIGKILL: {', '.join(str(process.id) for process in running)}")


def _read(id_: int, sandbox: Path) -> Process | None:
    """The process if it belongs to the sandbox."""
    directory = Path("/proc", str(id_))
    try:
        if directory.stat().st_uid != os.geteuid():
            return None
        # What it was started with: a shell that sources the mark later on does not show it.
        environ = (directory / "environ").read_bytes()
        command = (directory / "cmdline").read_bytes()
        started = int(_stat(id_)[19])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # it has ended, or keeps to itself as only a foreign program does
    variables = dict(entry.partition(b"=")[::2] for entry in environ.split(b"\0"))
    value = variables.get(MARK.encode())
    words = tuple(os.fsdecode(word) for word in command.split(b"\0")[:-1])
    if not value or Path(os.fsdecode(value)).resolve() != sandbox or not belongs_to_sandbox(words):
        return None
    return Process(id_, started, words)


def _stat(id_: int) -> list[str]:
    """Fields of /proc/<id>/stat from the third one (state) on: [1] is the parent, [19] the start time."""
    # The second one, the program's name in brackets, may hold blanks and brackets itself.
    return Path("/proc", str(id_), "stat").read_text().rpartition(")")[2].split()


def _with_ancestors(id_: int) -> set[int]:
    ids = set()
    # An ancestor that ends meanwhile, or that another user's privacy hides, ends the chain.
    with suppress(FileNotFoundError, ProcessLookupError):
        while id_:
            ids.add(id_)
            id_ = int(_stat(id_)[1])
    return ids


@dataclass(frozen=True)
class Daemon:
    """A process that outlives the one that starts it.

    For as long as it lives it holds the lock on a file. It inherits it with the open file and needs to know
    nothing of it; the kernel releases it, so nothing that a dead one left behind looks alive.
    """

    name: str
    """What it is called in messages."""
    lock: Path
    log: Path
    """Gets its output appended; mode 600."""

    def running(self) -> bool:
        """Whether it runs now."""
        if not self.lock.exists():
            return False
        with self.lock.open() as file:
            return not _try_lock(file, fcntl.LOCK_SH)

    def start(
        self, command: Sequence[str], environ: Mapping[str, str], directory: Path
    ) -> subprocess.Popen[bytes]:
        """Starts it in a session of its own; raises ProcessError when it runs already.

        `environ` is all of its environment, `mark(…)` included. The caller may leave the result alone.
        """
        with self._open(self.lock) as lock, self._open(self.log) as log:
            # Somebody who only asks whether it runs holds the lock for a moment, too.
            deadline = time.monotonic() + 1.0
            while not _try_lock(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise ProcessError(f"{self.name} runs already: {self.lock} is locked")
                time.sleep(_POLL_S)
            return subprocess.Popen(
                command,
                cwd=directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Waits for the condition; ProcessError shows the end of the log if it ends or takes longer."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running():
                raise ProcessError(f"{self.name} has ended before it was ready. {self._last_words()}")
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} is not ready after {timeout_s:.0f} s. {self._last_words()}")
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([f"The end of {self.log}:", *lines[-20:]])

    @staticmethod
    def _open(path: Path) -> IO[bytes]:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(descriptor, 0o600)
        return os.fdopen(descriptor, "ab")


def _try_lock(file: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
