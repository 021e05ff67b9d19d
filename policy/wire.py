"""Between the engine's messages, as pulumi-policy hands them over, and `facts.Resource`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi_policy.policy
from pulumi_policy import PolicyResource, ResourceValidationArgs, proxy
from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY

from components.settings import PROJECT
from policy.facts import UNKNOWN, Resource, Secret

_UNKNOWN = {value for name, value in vars(proxy).items() if name.startswith("UNKNOWN_")}


def keep_secrets_marked() -> None:
    """Makes pulumi-policy hand over what is a secret as `Secret`, and what is unknown as UNKNOWN.

    The engine marks both. The library takes the marks of secrets off (its issue 241, open since 2020), so no
    policy could tell whether a token is one, and gives up on a whole policy that looks at something unknown.
    Without this, in a version that does not look here, every secret counts as plain and previews fail.
    """
    pulumi_policy.policy.deserialize_properties = marked  # type: ignore[assignment,attr-defined]


def marked(value: Any, _secrets: bool = False) -> Any:
    """A value of a message with `Secret` and UNKNOWN in place of the marks."""
    match value:
        case dict() if value.get(SPECIAL_SIG_KEY) == SPECIAL_SECRET_SIG:
            return Secret(marked(value["value"]))
        case dict():
            return {key: marked(item) for key, item in value.items()}
        case list():
            return [marked(item) for item in value]
        case str() if value in _UNKNOWN:
            return UNKNOWN
        case _:
            return value


def resource(args: ResourceValidationArgs | PolicyResource) -> Resource:
    """The facts about a resource."""
    # A provider written in Python gets all settings of the stack.
    provider = args.provider.props if args.provider else {}
    prefix = f"{PROJECT}:"
    return Resource(
        type=args.resource_type,
        name=args.name,
        urn=args.urn,
        properties=_plain(args.props),
        protect=args.opts.protect,
        secret_outputs=frozenset(args.opts.additional_secret_outputs),
        settings={
            key.removeprefix(prefix): value for key, value in provider.items() if key.startswith(prefix)
        },
    )


def _plain(value: Any) -> Any:
    """A value out of the library's own kinds of maps and lists."""
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case str():
            return value
        case Sequence():
            return [_plain(item) for item in value]
        case _:
            return value
