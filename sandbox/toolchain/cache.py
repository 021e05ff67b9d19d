"""The tools' place outside the checkout, which all checkouts of a user share."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sandbox.toolchain.progress import Progress, ToolchainError, elapsed


def root(environ: Mapping[str, str]) -> Path:
    """`$XDG_CACHE_HOME/ovh-vllm/toolchain`, with ~/.cache where that is unset, empty or no absolute path."""
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "ovh-vllm" / "toolchain"


@contextmanager
def locked(directory: Path, name: str, progress: Progress) -> Iterator[None]:
    """Holds the lock `name` of the cache; says so when another process has it and waits.

    Raises ToolchainError when the cache cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / f"{name}.lock").open("w")
    except OSError as error:
        raise ToolchainError(
            f"the cache {directory} cannot be written ({error.strerror}): name another with XDG_CACHE_HOME"
        ) from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with elapsed(progress, f"waiting for another process that prepares {name}"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target` when the block ends well: a reader finds all of it or nothing.

    The caller holds the target's lock, so what lies here from before was left by a killed process.
    """
    prefix = f".{target.name}."
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)  # an orphaned compiler may still write there
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        yield directory
        directory.chmod(0o755)  # mkdtemp keeps others out
        directory.rename(target)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
