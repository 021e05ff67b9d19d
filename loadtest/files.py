"""The files of a result; each is there as a whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loadtest.client import Answer


def write(path: Path, parts: Iterable[str]) -> None:
    """Replaces a file in one step; raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def result_json(document: Mapping[str, Any], answers: Iterable[Answer]) -> Iterator[str]:
    """The JSON of a result with the gaps of each request, which are too many to be put together first."""
    yield json.dumps(document, allow_nan=False)[:-1]
    yield ', "itls": ['
    for number, answer in enumerate(answers):
        gaps = () if answer.kind else answer.gaps
        yield f"{', ' if number else ''}[{', '.join(f'{gap:.4g}' for gap in gaps)}]"
    yield "]}\n"
