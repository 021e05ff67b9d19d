"""Values that are not known: in a preview of what is still to be made, in an update of what failed."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pulumi
from pulumi.output import Unknown
from pulumi.runtime.rpc import UNKNOWN

T = TypeVar("T")


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


def required(output: pulumi.Output[str]) -> pulumi.Output[str]:
    """The output as a required input of a resource that is to be skipped when the output's resource failed.

    With `--continue-on-error` the engine skips what depends on a failed resource, but has its inputs checked
    first, without the values that are not known. A required input that is missing fails the check, and that
    ends the whole update, the branches that have nothing to do with it included. So an update is given a text
    instead, which nobody gets to see.
    """

    async def value() -> str:
        if pulumi.runtime.is_dry_run() or await output.is_known():
            # Never None here: the value is known, or nobody looks at it.
            return await output.future() or ""
        return "failed"

    async def known() -> bool:
        return not pulumi.runtime.is_dry_run() or await output.is_known()

    return pulumi.Output(
        output.resources(),
        asyncio.ensure_future(value()),
        asyncio.ensure_future(known()),
        output.is_secret(),
    )


_OUTPUTS_SECONDS = 5.0
"""For the stack's outputs to reach the engine. It takes milliseconds, and nothing tells when they have."""


def held_back(text: str, needs: pulumi.Output[Any], others: pulumi.Output[Any]) -> pulumi.Output[str]:
    """The text, at once when `needs` is known; when it failed, not before `others` is settled and stored.

    The engine ends an update, with `--continue-on-error` too, at the first object whose provider does not
    exist. An object that has this text among its inputs lets `others` finish first, and the outputs of the
    stack be stored: without these nobody has the token of an endpoint that serves.
    """

    async def value() -> str:
        if await failed(needs):
            await others.is_known()
            await asyncio.sleep(_OUTPUTS_SECONDS)
        return text

    return pulumi.Output.from_input(value())


def unless_failed(needs: pulumi.Output[Any], output: pulumi.Output[T]) -> pulumi.Output[T | None]:
    """The output, or None once `needs` has failed: an output of the stack must wait for nothing held back."""

    async def chosen() -> Any:
        return None if await failed(needs) else output

    return pulumi.Output.from_input(chosen())


async def failed(output: pulumi.Output[Any]) -> bool:
    """Whether the output's resource has failed: in an update, everything else becomes known."""
    return not pulumi.runtime.is_dry_run() and not await output.is_known()
