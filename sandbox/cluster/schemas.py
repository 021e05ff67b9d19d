"""Validation of objects against the Kubernetes schemas and those of CustomResourceDefinitions.

Built-in kinds are checked against the schemas that the package `kubernetes_validate` ships for the cluster's
minor version (the nearest one not newer). Always strict: an unknown field is an error, as with
`fieldValidation=Strict`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import jsonschema
import referencing.jsonschema
from kubernetes_validate import utils
from referencing import Registry, Resource

from sandbox.cluster import errors
from sandbox.cluster.errors import ApiError, Cause
from sandbox.cluster.fields import Node
from sandbox.cluster.kinds import Kind, Object

_URI = "https://kubernetes.io/api/_definitions.json"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

QUANTITY = r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
"""A resource quantity such as `50Gi`."""


def _is_integer(_: Any, value: Any) -> bool:
    # The server decodes into Go integers: 80.0 is no integer there, though JSON schema takes it for one.
    return isinstance(value, int) and not isinstance(value, bool)


_Validator: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def schema_version(version: str) -> str:
    """The shipped schema for a cluster version such as `1.34.2-1`: the newest that is not newer than it."""
    wanted = _minor(version)
    shipped = sorted({*utils.all_versions()}, key=_minor)
    return next((str(name) for name in reversed(shipped) if _minor(name) <= wanted), str(shipped[0]))


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


@functools.cache
def _definitions(version: str) -> Mapping[str, Any]:
    """Strict definitions of a shipped version; parsing takes a moment, so once per process."""
    path = f"kubernetes-json-schema/v{version}-local-strict/_definitions.json"
    definitions: dict[str, Any] = dict(utils.schema_contents(path, version)["$defs"])
    # What OpenAPI v2 cannot say about these two types.
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {
        "type": ["string", "number"],
        "pattern": QUANTITY,
    }
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["integer", "string"]}
    for name, field in (("ServicePort", "protocol"), ("ContainerPort", "protocol")):
        # The default that completes the key of a list that is a map by port and protocol.
        definitions[f"io.k8s.api.core.v1.{name}"]["properties"][field]["default"] = "TCP"
    return definitions


@functools.cache
def _roots(version: str) -> Mapping[tuple[str, str, str], str]:
    """Names of the definitions by group, version and kind."""
    return {
        (entry["group"], entry["version"], entry["kind"]): name
        for name, definition in _definitions(version).items()
        for entry in definition.get("x-kubernetes-group-version-kind", ())
    }


@functools.cache
def _registry(version: str) -> Registry[Any]:
    contents = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": _definitions(version)}
    resource = Resource.from_contents(contents, default_specification=referencing.jsonschema.DRAFT202012)
    return cast("Registry[Any]", Registry().with_resource(_URI, resource))


class Schemas:
    """The schemas of one cluster version."""

    def __init__(self, version: str) -> None:
        self._version = schema_version(version)

    def node(self, kind: Kind) -> Node:
        """The schema that patches and field ownership go by."""
        definitions = _definitions(self._version)
        if not kind.custom:
            return Node(definitions[self._root(kind)], definitions)
        schema = dict(kind.schema or {})
        schema["properties"] = {**schema.get("properties", {}), "metadata": {"$ref": f"#/$defs/{_META}"}}
        return Node(schema, definitions)

    def check(self, kind: Kind, value: Object) -> None:
        """Refuses an object that its schema does not allow, with all that is wrong with it.

        Unknown fields, and wrong types in built-in kinds, are errors of decoding (400); the rest is 422.
        """
        if kind.custom:
            schema = strict(kind.schema or {})
            schema["properties"] = {
                **schema.get("properties", {}),
                "apiVersion": {},
                "kind": {},
                "metadata": {"$ref": f"{_URI}#/$defs/{_META}"},
            }
        else:
            schema = {"$ref": f"{_URI}#/$defs/{self._root(kind)}"}
        validator = _Validator(schema, registry=_registry(self._version))
        found = sorted(
            validator.iter_errors(value), key=lambda error: [str(part) for part in error.absolute_path]
        )
        if not found:
            return
        decoding = [text for error in found for text in _decoding(kind, error)]
        if decoding:
            raise errors.undecodable(kind.kind, kind.version, ", ".join(decoding))
        raise _invalid(kind, value, [cause for error in found for cause in _causes(error)])

    def _root(self, kind: Kind) -> str:
        return _roots(self._version)[(kind.group, kind.version, kind.kind)]


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A structural OpenAPI v3 schema as a JSON schema that refuses unknown fields."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-")}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        result["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        result["additionalProperties"] = strict(extra)
    elif (
        schema.get("type") == "object"
        and not schema.get("x-kubernetes-preserve-unknown-fields")
        and not extra
    ):
        result["additionalProperties"] = False
    if isinstance(schema.get("items"), Mapping):
        result["items"] = strict(schema["items"])
    return result


def fill(node: Node, value: Any) -> None:
    """Sets in place the defaults that a custom kind's schema holds."""
    if isinstance(value, dict):
        for key, field in node.raw.get("properties", {}).items():
            if "default" in field:
                value.setdefault(key, field["default"])
        for key, item in value.items():
            fill(node.field(key), item)
    elif isinstance(value, list):
        for item in value:
            fill(node.items, item)


def dotted(parts: Iterable[Any]) -> str:
    """`spec.ports[0].port`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "<root>"


def shown(value: Any) -> str:
    """A value as the real server quotes it, cut when it is long."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _invalid(kind: Kind, value: Object, causes: list[Cause]) -> ApiError:
    return errors.invalid(kind.kind, kind.group, str(value.get("metadata", {}).get("name", "")), causes)


def _decoding(kind: Kind, error: Any) -> list[str]:
    path = list(error.absolute_path)
    if error.validator == "additionalProperties":
        known = set(error.schema.get("properties", {}))
        unknown = sorted(key for key in error.instance if key not in known)
        return [f'strict decoding error: unknown field "{dotted([*path, key])}"' for key in unknown]
    if error.validator == "type" and not kind.custom:
        wanted = _type_names(error.validator_value)
        place = dotted([kind.kind, *(part for part in path if not isinstance(part, int))])
        got = _json_type(error.instance)
        if kind.kind == "Secret":
            got = got.split(" ")[0]  # never show what may be secret
        text = f"cannot unmarshal {got} into Go struct field {place} of type {wanted}"
        return [f"json: {text} (at {dotted(path)})"]
    if error.validator == "pattern" and error.validator_value == QUANTITY:
        place = f"{dotted(path)}: {shown(error.instance)}"
        return [f"quantities must match the regular expression '{QUANTITY}' ({place})"]
    return []


def _type_names(types: str | list[str]) -> str:
    names = [types] if isinstance(types, str) else [name for name in types if name != "null"]
    return " or ".join(names)


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return f"number {value!r}"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _causes(error: Any) -> list[Cause]:
    path = dotted(error.absolute_path)
    value = error.instance
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in value]
        return [
            Cause("FieldValueRequired", "Required value", dotted([*error.absolute_path, name]))
            for name in missing
        ]
    if error.validator == "enum":
        allowed = ", ".join(f'"{item}"' for item in error.validator_value)
        return [
            Cause(
                "FieldValueNotSupported",
                f"Unsupported value: {shown(value)}: supported values: {allowed}",
                path,
            )
        ]
    if error.validator == "type":
        types = _type_names(error.validator_value)
        text = f"Invalid value: {shown(value)}: {path} in body must be of type {types}"
        return [Cause("FieldValueTypeInvalid", text, path)]
    rules = {
        "pattern": "should match '{}'",
        "minLength": "should be at least {} chars long",
        "minItems": "should have at least {} items",
        "minimum": "should be greater than or equal to {}",
        "maximum": "should be less than or equal to {}",
    }
    rule = rules.get(error.validator, f"breaks the rule {error.validator} {{}}").format(error.validator_value)
    return [Cause("FieldValueInvalid", f"Invalid value: {shown(value)}: {path} in body {rule}", path)]
