"""Property values as a plugin sees them, and their form on the wire of Pulumi's protocol.

Plain Python values (None, bool, int, float, str, list, dict), and two wrappers, `Secret` and `Unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from google.protobuf import struct_pb2

# Signatures and sentinels of Pulumi's wire format (sdk/go/common/resource: plugin/rpc.go, properties.go).
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 (a marker, not a password)
_UNKNOWN_STRING: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_UNKNOWNS: Final = frozenset(
    {
        _UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)


@dataclass(frozen=True)
class Secret:
    """A value that Pulumi encrypts in state and masks in output; its text form does not show the value."""

    value: Value = field(repr=False)


class Unknown:
    """A value that a preview does not know yet; all instances are equal, `UNKNOWN` is one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unknown)

    def __hash__(self) -> int:
        return hash(Unknown)

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()

Value = None | bool | int | float | str | Secret | Unknown | list["Value"] | dict[str, "Value"]
"""A property value."""
Object = dict[str, Value]
"""A property map: inputs, outputs or provider configuration."""


def reveal(value: Value) -> Value:
    """The value without `Secret` wrappers, at any depth."""
    match value:
        case Secret():
            return reveal(value.value)
        case list():
            return [reveal(item) for item in value]
        case dict():
            return {key: reveal(item) for key, item in value.items()}
        case _:
            return value


def reveal_object(properties: Object) -> Object:
    """`reveal` of a property map."""
    return {key: reveal(value) for key, value in properties.items()}


def has_unknown(value: Value) -> bool:
    """Whether the value or a part of it is unknown."""
    match value:
        case Unknown():
            return True
        case Secret():
            return has_unknown(value.value)
        case list():
            return any(has_unknown(item) for item in value)
        case dict():
            return any(has_unknown(item) for item in value.values())
        case _:
            return False


def has_secret(value: Value) -> bool:
    """Whether the value or a part of it is a secret."""
    match value:
        case Secret():
            return True
        case list():
            return any(has_secret(item) for item in value)
        case dict():
            return any(has_secret(item) for item in value.values())
        case _:
            return False


def to_struct(properties: Object) -> struct_pb2.Struct:
    """Wire form of a property map."""
    return struct_pb2.Struct(fields={key: _to_wire(value) for key, value in properties.items()})


def from_struct(struct: struct_pb2.Struct) -> Object:
    """Property map of a wire form; numbers without a fraction become int."""
    return {key: _from_wire(value) for key, value in struct.fields.items()}


def _to_wire(value: Value) -> struct_pb2.Value:
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case Unknown():
            return struct_pb2.Value(string_value=_UNKNOWN_STRING)
        case Secret():
            return struct_pb2.Value(struct_value=to_struct({_SIGNATURE: _SECRET, "value": value.value}))
        case list():
            items = struct_pb2.ListValue(values=[_to_wire(item) for item in value])
            return struct_pb2.Value(list_value=items)
        case dict():
            return struct_pb2.Value(struct_value=to_struct(value))


def _from_wire(value: struct_pb2.Value) -> Value:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return UNKNOWN if value.string_value in _UNKNOWNS else value.string_value
        case "list_value":
            return [_from_wire(item) for item in value.list_value.values]
        case "struct_value":
            properties = from_struct(value.struct_value)
            # Assets and resource references carry other signatures and pass through as they are.
            return Secret(properties["value"]) if properties.get(_SIGNATURE) == _SECRET else properties
        case _:
            return None
