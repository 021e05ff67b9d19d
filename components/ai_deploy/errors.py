"""What users are told: while something goes on, and when it did not work out."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""Shows a message to the user."""


class DeployError(Exception):
    """Something did not work out; the text says what, where, and what to do. It holds no secret."""
