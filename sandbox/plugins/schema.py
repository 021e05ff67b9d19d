"""Schemas of bridged resources, and all that the Terraform bridge derives from them.

Pure but for environment variables that give defaults.

- Check: names made up, defaults, missing, unknown, ill-typed and conflicting arguments;
- the plan: what the state would be with the given inputs; the difference to the state is the diff;
- the form of state: every property present (None if unset), secrets wrapped, `__defaults`.

Sources: pulumi-terraform-bridge (pkg/tfbridge: schema.go, detailed_diff.go, check_failures.go, rawstate.go)
and terraform-plugin-sdk v2 (helper/schema), as of August 2026; recorded state.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sandbox.plugins.framework import PropertyChange
from sandbox.plugins.values import UNKNOWN, Object, Secret, has_unknown

State = dict[str, Any]
"""Properties of one resource as plain JSON values, without secrets' wrappers; `UNKNOWN` in a plan."""

Type = Literal["string", "int", "float", "bool", "list", "set", "map", "object"]

DEFAULTS: Final = "__defaults"


@dataclass(frozen=True)
class Field:
    """A property. Without any flag it is an optional input that state shows as it was given."""

    type: Type
    required: bool = False
    computed: bool = False
    """The provider fills it in: alone an output, with `optional` an input that may be left out."""
    optional: bool = False
    force_new: bool = False
    secret: bool = False
    auto_named: bool = False
    """A missing value becomes `<logical name>-<7 hex digits>`."""
    env: str | None = None
    """Environment variable that gives the default."""
    allowed: tuple[str, ...] = ()
    required_with: str | None = None
    conflicts_with: str | None = None
    left_out: bool = False
    """Absent from outputs unless set: the recorded provider version did not have it yet."""
    elements: Type = "string"
    """Type of the elements of a list, set or map."""
    fields: Mapping[str, Field] = field(default_factory=dict)
    """Properties of an object, or of the objects in a list or set; none for free-form values."""

    @property
    def is_input(self) -> bool:
        """Whether a program may set it."""
        return self.required or self.optional or not self.computed


Schema = Mapping[str, Field]


# --- Check


def validate(schema: Schema, inputs: Object, name: str) -> list[str]:
    """Reasons why Terraform would refuse `inputs` of the resource with logical name `name`."""
    return list(_failures(schema, inputs, f"{name}.", ""))


def _failures(schema: Schema, inputs: Object, path: str, terraform_path: str) -> Iterator[str]:
    for key, value in inputs.items():
        item = schema.get(key)
        if key == DEFAULTS or has_unknown(value):
            continue
        if item is None or not item.is_input:
            yield f"Invalid or unknown key. Examine values at '{path}{key}'."
            continue
        try:
            converted = _convert(item.type, value)
        except ValueError as error:
            yield f"{error}. Examine values at '{path}{key}'."
            continue
        if item.allowed and converted not in item.allowed:
            allowed = " ".join(item.allowed)
            yield f"Value {value} is not among valid values ([{allowed}]). Examine values at '{path}{key}'."
        if item.conflicts_with in inputs:
            yield (
                f'Conflicting configuration arguments. "{_snake(key)}": conflicts with '
                f"{_snake(str(item.conflicts_with))}. Examine values at '{path}{key}'."
            )
        if item.required_with and item.required_with not in inputs:
            names = f"{_snake(key)},{_snake(item.required_with)}"
            yield (
                f'Missing required argument. "{_snake(key)}": all of `{names}` must be specified. '
                f"Examine values at '{path}{key}'."
            )
        nested = value if isinstance(value, list) else [value]
        for index, element in enumerate(nested):
            if item.fields and isinstance(element, dict):
                where = f"{path}{key}[{index}]." if isinstance(value, list) else f"{path}{key}."
                yield from _failures(item.fields, element, where, f"{terraform_path}{_snake(key)}.{index}.")
    for key, item in schema.items():
        if item.required and key not in inputs and not (item.env and os.environ.get(item.env)):
            yield (
                f'Missing required argument. The argument "{terraform_path}{_snake(key)}" is required, '
                f"but no definition was found.. Examine values at '{path}{key}'."
            )


def with_defaults(schema: Schema, inputs: Object, olds: Object, name: str, seed: bytes) -> Object:
    """Inputs in the types of the schema, with names and defaults, and the list of these in `__defaults`.

    A default of the last time is kept (`olds`: old inputs), so that a name lasts for the resource's life.
    """
    completed: Object = {}
    for key, value in inputs.items():
        if key != DEFAULTS:
            completed[key] = _complete(schema[key], value) if key in schema else value
    defaults: list[str] = []
    was_default = olds.get(DEFAULTS)
    for key, item in schema.items():
        if key in completed or not (item.auto_named or item.env):
            continue
        default: Any = None
        if key in olds and (not isinstance(was_default, list) or key in was_default):
            default = olds[key]
        elif item.auto_named:
            default = f"{name}-{_random_suffix(seed)}"
        elif item.env:
            default = os.environ.get(item.env)
        if default:
            completed[key] = default
            defaults.append(key)
    return {**completed, DEFAULTS: [*sorted(defaults)]}


def _random_suffix(seed: bytes) -> str:
    return hashlib.sha256(seed).hexdigest()[:7] if seed else secrets.token_hex(4)[:7]


def _complete(item: Field, value: Any) -> Any:
    """An input value in the type of its schema; blocks inside it get a `__defaults` of their own."""
    if has_unknown(value):
        return value
    if isinstance(value, dict) and item.fields:
        return with_defaults(item.fields, value, {}, "", b"")
    if isinstance(value, list) and item.fields:
        return [_complete(item, element) for element in value]
    try:
        return _convert(item.type, value)
    except ValueError:
        return value  # reported by `validate`


_KINDS: Final = {dict: "an object", list: "a list", str: "a string", bool: "a bool", int: "a number"}


def _convert(type: Type, value: Any) -> Any:
    """The value in the type of the schema, from the forms that Terraform converts; ValueError otherwise."""
    match type:
        case "string" if isinstance(value, str):
            return value
        case "string" if isinstance(value, bool):
            return "true" if value else "false"
        case "string" if isinstance(value, int | float):
            return str(value)
        case "bool" if isinstance(value, bool):
            return value
        case "bool" if value in ("true", "false"):
            return value == "true"
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "int" if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            return int(value)
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        case "float" if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
            return float(value)
        case "list" | "set" if isinstance(value, list):
            return value
        case "map" | "object" if isinstance(value, dict):
            return value
        case _:
            # Not the value: it may be a secret, which the engine has unwrapped.
            raise ValueError(f"expected {type}, got {_KINDS.get(value.__class__, 'something else')}")


def without_nulls(properties: Object) -> Object:
    """Properties that are set, at every depth of objects."""
    return {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in properties.items()
        if value is not None
    }


def _snake(name: str) -> str:
    """Terraform's name of a property."""
    return re.sub(r"([A-Z])", lambda match: f"_{match[1].lower()}", name)


# --- Plan and diff


def plan(schema: Schema, prior: State | None, inputs: Object, ignore_changes: Sequence[str] = ()) -> State:
    """The state that Terraform would plan: `prior` is None for a new resource.

    What the provider computes keeps its value in an update and is unknown for a new resource. An input that
    is not set any more is removed, unless its value was a zero value anyway, which counts as not set.
    Names in `ignore_changes` keep their value; paths into a property are the engine's, which puts old inputs
    there.
    """
    given = _configuration(inputs)
    planned: State = {}
    for key, item in schema.items():
        old = None if prior is None else prior.get(key)
        value = given.get(key) if item.is_input else None
        if prior is not None and key in ignore_changes:
            planned[key] = old
        elif value is not None:
            unchanged = prior is not None and (_same(item, old, value) or not (old or value))
            planned[key] = old if unchanged else value
        elif item.computed:
            planned[key] = UNKNOWN if prior is None else old
        else:
            planned[key] = None if old else old
    return planned


def _configuration(inputs: Object) -> State:
    """Inputs as Terraform sees them: no nulls, no bookkeeping of the bridge."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items() if key != DEFAULTS and item is not None}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return value

    return {key: clean(value) for key, value in inputs.items() if key != DEFAULTS}


def _same(item: Field, old: Any, new: Any) -> bool:
    """Whether a configured value asks for no change of the old one."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = new if item.computed else {**old, **new}
        return all(_same(_member(item, key), old.get(key), new.get(key)) for key in keys)
    if isinstance(old, list) and isinstance(new, list):
        if item.type == "set" and item.elements != "object":
            return sorted(map(_text, old)) == sorted(map(_text, new))
        return len(old) == len(new) and all(
            _same(_element(item), one, other) for one, other in zip(old, new, strict=True)
        )
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def _member(item: Field, key: str) -> Field:
    return item.fields.get(key, _element(item))


def _element(item: Field) -> Field:
    if item.elements == "object" or (item.type == "object"):
        return Field("object", computed=item.computed, fields=item.fields)
    return Field(item.elements, computed=item.computed)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def changes_between(schema: Schema, prior: State, planned: State) -> dict[str, PropertyChange]:
    """Changes by property path from state to plan; the engine shows old outputs against new inputs."""
    changes: dict[str, PropertyChange] = {}
    for key, item in schema.items():
        for path, kind in _differences(item, key, prior.get(key), planned.get(key)):
            changes[path] = PropertyChange(kind, replace=item.force_new, input_diff=False)
    return changes


def _differences(item: Field, path: str, old: Any, new: Any) -> Iterator[tuple[str, str]]:
    if old is None or new is None:
        if old is not new:
            yield path, "delete" if new is None else "add"
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key in new or not item.computed:
                member = f"{path}.{key}" if re.fullmatch(r"\w+", key) else f'{path}["{key}"]'
                yield from _differences(_member(item, key), member, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_differences(item, path, old, new)
    elif not _same(item, old, new):
        yield path, "update"


def _list_differences(item: Field, path: str, old: list[Any], new: list[Any]) -> Iterator[tuple[str, str]]:
    if item.type == "set" and item.elements != "object":
        removed = {index for index, value in enumerate(old) if value not in new}
        added = {index for index, value in enumerate(new) if value not in old}
        for index in sorted(removed | added):
            kind = "update" if index in removed & added else "delete" if index in removed else "add"
            yield f"{path}[{index}]", kind
        return
    for index in range(max(len(old), len(new))):
        one = old[index] if index < len(old) else None
        other = new[index] if index < len(new) else None
        yield from _differences(_element(item), f"{path}[{index}]", one, other)


def named_by_hand(schema: Schema, news: Object) -> bool:
    """Whether an autonamed property has a name of the user's: two resources of one name may not coexist."""
    defaults = news.get(DEFAULTS)
    made_up = defaults if isinstance(defaults, list) else None
    return made_up is not None and any(
        item.auto_named and key in news and key not in made_up for key, item in schema.items()
    )


# --- State


def to_outputs(schema: Schema, state: State) -> Object:
    """Form of `state` in Pulumi: every property of the schema, sensitive ones wrapped."""
    outputs: Object = {}
    for key, item in schema.items():
        value = state.get(key)
        if value is None and item.left_out:
            continue
        outputs[key] = _output(item, value)
    return outputs


def _output(item: Field, value: Any) -> Any:
    if isinstance(value, list):
        value = [_output(_element(item), element) for element in value]
        if item.type == "set" and all(isinstance(element, str) for element in value):
            value = sorted(value)  # the order in which Terraform keeps sets of strings
    elif isinstance(value, dict) and item.fields:
        value = {
            key: _output(item.fields[key], member) if key in item.fields else member
            for key, member in value.items()
        }
    return Secret(value) if item.secret and value is not None else value


def raw_state_delta(schema: Schema, state: State) -> Object:
    """`__pulumi_raw_state_delta`: what Pulumi's form of the state does not say about Terraform's.

    Covers resources whose lists, sets and maps hold strings, which is all that the stand-ins need it for.
    """
    deltas: Object = {}
    for key, item in schema.items():
        if state.get(key) is not None and item.type in ("list", "set"):
            deltas[key] = {"arr": {}}
        elif state.get(key) is not None and item.type == "map":
            deltas[key] = {"map": {}}
    return {"obj": {"ps": deltas} if deltas else {}}


def empty_as_planned(state: State, planned: State) -> State:
    """Terraform's rule after an apply: an empty collection where none was planned counts as none."""
    return {
        key: None if value in ([], {}) and planned.get(key) is None else value for key, value in state.items()
    }


def refreshed_inputs(inputs: Object, state: State) -> Object:
    """Old inputs with the values that state has now; keys that were not set stay unset."""

    def refresh(old: Any, new: Any) -> Any:
        if isinstance(old, dict) and isinstance(new, dict):
            return {key: refresh(value, new[key]) for key, value in old.items() if key in new}
        if isinstance(old, list) and isinstance(new, list):
            if sorted(map(_text, old)) == sorted(map(_text, new)):
                return old
            return [refresh(one, other) for one, other in zip(old, new, strict=False)]
        return new

    refreshed: Object = {}
    for key, value in inputs.items():
        if key in state:
            refreshed[key] = refresh(value, state[key])
    defaults = inputs.get(DEFAULTS)
    kept = (
        [key for key in defaults if refreshed.get(str(key)) == inputs.get(str(key))]
        if isinstance(defaults, list)
        else []
    )
    # The bridge drops an empty list here, as the recorded state after a refresh shows.
    return {**refreshed, DEFAULTS: kept} if kept else refreshed


def imported_inputs(schema: Schema, state: State) -> Object:
    """Inputs with which the program would describe an imported resource."""
    inputs: Object = {
        key: state[key]
        for key, item in schema.items()
        if item.is_input and (item.required or state.get(key)) and state.get(key) is not None
    }
    return {**inputs, DEFAULTS: []}
