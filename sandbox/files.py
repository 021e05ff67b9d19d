"""Files of a sandbox: each is there as a whole or not at all, and nobody else may read it."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replaces a file in one step, with `mode` from its first byte on; its folder is made with mode 700."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def write_if_different(path: Path, text: str, mode: int = 0o600) -> None:
    """Replaces a file as `write_private` does, unless it holds the text already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_private(path, text, mode)
