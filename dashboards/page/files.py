"""Files that somebody waits for: each is there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def check(path: Path) -> None:
    """Finds out, before there is anything to lose, whether a file can be written; raises OSError."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, a file of that name is to be written")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"no file can be made in {path.parent.resolve()}")


def write(path: Path, parts: Iterable[str]) -> None:
    """Replaces a file in one step; raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
