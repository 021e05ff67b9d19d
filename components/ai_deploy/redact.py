"""Takes secrets out of text that people or logs will see."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_SHORTEST = 8
"""Shorter values are no credentials, and hiding each "1" of an environment would hide the message."""

_PATTERNS = (
    re.compile(r"(?i)(\bbearer\s+)[^\s\"',;<>]+"),
    re.compile(r"(\bhf_)[A-Za-z0-9]{20,}"),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with each of `secrets` (8 characters or more), Bearer and Hugging Face tokens as `***`.

    Also finds a secret in the escaped form that it has inside JSON.
    """
    forms = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _SHORTEST:
            text = text.replace(form, "***")
    for pattern in _PATTERNS:
        text = pattern.sub(r"\1***", text)
    return text
