"""The tracked stacks as the policies see them, and ways to spoil them."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from policy import pack
from policy.checks import Violation
from policy.facts import PYTHON_PROVIDER, STACK, UNKNOWN, Resource, Secret
from tests.components import mocks
from tests.components.stacks import CHECKOUT, SERVICE, configuration

STACKS = ("dev", "prod", "sandbox")
RULES: tuple[pack.Rule[Any], ...] = (*pack.ON_RESOURCES, *pack.ON_STACK)


@cache
def declared(stack: str, *, preview: bool = False) -> tuple[Resource, ...]:
    """What the program declares with every secret and receiver, and the stack itself with its outputs."""
    changes = {**mocks.RECEIVERS, "serviceName": SERVICE, "huggingFaceToken": mocks.HUGGING_FACE_TOKEN}
    hidden = ["huggingFaceToken", *mocks.RECEIVER_KEYS]
    settings: dict[str, Any] = configuration(stack) | changes
    deployment = mocks.deploy(
        lambda: runpy.run_path(str(CHECKOUT / "__main__.py"), run_name="__main__"),
        config=settings,
        secrets=hidden,
        stack=stack,
        preview=preview,
    )
    settings |= {key: Secret(settings[key]) for key in hidden}
    resources = [
        Resource(
            item.type,
            item.name,
            item.urn,
            _facts(item.inputs),
            item.protect,
            item.secret_outputs,
            settings if "dynamic" in item.type else {},
        )
        for item in deployment.resources
    ]
    start = f"urn:pulumi:{stack}::ovh-vllm"
    keys = {f"ovh-vllm:{key}": value for key, value in settings.items()}
    return (
        Resource(STACK, f"ovh-vllm-{stack}", f"{start}::{STACK}::it", _facts(deployment.outputs)),
        Resource(PYTHON_PROVIDER, "default", f"{start}::{PYTHON_PROVIDER}::default", keys),
        *resources,
    )


def _facts(value: Any) -> Any:
    match value:
        case mocks.Secret():
            return Secret(_facts(value.value))
        case mocks.UNKNOWN:
            return UNKNOWN
        case dict():
            return {key: _facts(item) for key, item in value.items()}
        case list():
            return [_facts(item) for item in value]
        case _:
            return value


def violations(policy: str, resources: Sequence[Resource], **config: Any) -> list[Violation]:
    """What a policy says of resources, with its defaults and what `config` has instead."""
    for rule in pack.ON_RESOURCES:
        if rule.name == policy:
            found = [rule.check(resource, {**rule.defaults, **config}) for resource in resources]
            return [violation for each in found for violation in each]
    (whole,) = (rule for rule in pack.ON_STACK if rule.name == policy)
    return list(whole.check(resources, {**whole.defaults, **config}))


def spoiled(
    resources: Sequence[Resource], type_: str, change: Callable[[dict[str, Any]], object], **fields: Any
) -> list[Resource]:
    """The resources, of which all of a type have changed properties (`change` gets a copy) and `fields`."""
    result = []
    for resource in resources:
        if resource.type == type_:
            properties = copy.deepcopy(dict(resource.properties))
            change(properties)
            resource = replace(resource, properties=properties, **fields)
        result.append(resource)
    return result
