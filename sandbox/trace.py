"""Errors as the log of the local cloud may show them."""

from __future__ import annotations

import traceback


def trace(error: BaseException) -> str:
    """Type of an error and the lines that led to it, for the log.

    Its text stays out: it may hold what a client has sent, such as the values of environment variables.
    """
    return f"{type(error).__name__} in\n{''.join(traceback.format_tb(error.__traceback__))}"
