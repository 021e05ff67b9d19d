"""Values that a preview does not know yet, as a dynamic provider meets them in `check` and `diff`."""

from __future__ import annotations

from typing import Any

from pulumi.output import Unknown
from pulumi.runtime.rpc import UNKNOWN


def is_unknown(value: Any) -> bool:
    """Whether a value, or anything inside it, is not known yet.

    The SDK hands over objects of its class Unknown; what a provider returns holds the marker text.
    """
    match value:
        case dict():
            return any(map(is_unknown, value.values()))
        case list():
            return any(map(is_unknown, value))
        case _:
            return isinstance(value, Unknown) or bool(value == UNKNOWN)
