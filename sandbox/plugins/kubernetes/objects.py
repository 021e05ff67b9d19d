"""Kubernetes objects as Pulumi properties. Pure."""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
from dataclasses import dataclass
from typing import Any, Final

from sandbox.plugins.framework import PluginError
from sandbox.plugins.kubernetes.api import Manifest
from sandbox.plugins.values import Object, Secret, Unknown, Value, has_secret, has_unknown

AUTONAMED: Final = "pulumi.com/autonamed"
SKIP_AWAIT: Final = "pulumi.com/skipAwait"
TIMEOUT_SECONDS: Final = "pulumi.com/timeoutSeconds"
PATCH_FORCE: Final = "pulumi.com/patchForce"
FIELD_MANAGER: Final = "pulumi.com/patchFieldManager"
DELETION_PROPAGATION: Final = "pulumi.com/deletionPropagationPolicy"

INPUTS: Final = "__inputs"
INITIAL_API_VERSION: Final = "__initialApiVersion"
FIELD_MANAGER_KEY: Final = "__fieldManager"

_SECRET_LENGTH: Final = 4
_CLIENT_SIDE: Final = frozenset(
    {
        ("kubectl", "Apply"),
        ("kubectl", "Update"),
        ("before-first-apply", "Update"),
        ("pulumi-kubernetes", "Update"),
        ("pulumi-resource-kubernetes", "Update"),
    }
)
"""Managers and operations whose fields the provider makes its own before it applies."""

_READ_ONLY: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)
"""Fields of metadata that only the server writes; a program that sends them is not listened to."""

_CLUSTER_SCOPED: Final = frozenset(
    {
        "APIService",
        "CSIDriver",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "StorageClass",
        "ValidatingWebhookConfiguration",
    }
)
"""Built-in kinds without a namespace, known without asking a server."""


@dataclass(frozen=True)
class Kind:
    """API version and kind of a resource, out of its type token."""

    api_version: str
    kind: str

    @classmethod
    def of(cls, token: str) -> Kind:
        """`kubernetes:apps/v1:Deployment` → (`apps/v1`, `Deployment`); the core group is `core/v1` → `v1`."""
        _, module, kind = token.split(":")
        if module.count("/") != 1:
            raise PluginError(f"apiVersion does not have both a group and a version: {module!r}")
        if kind.endswith("List"):
            raise PluginError(
                "list resources exist for compatibility with YAML manifests and Helm charts, and cannot be "
                "created directly. Use the underlying resource type instead"
            )
        if kind.endswith("Patch"):
            raise PluginError(f"{token}: Patch resources are not modelled by the sandbox's stand-in")
        return cls(module.removeprefix("core/"), kind)

    @property
    def header(self) -> Manifest:
        """`apiVersion` and `kind` as an object has them."""
        return {"apiVersion": self.api_version, "kind": self.kind}

    @property
    def cluster_scoped(self) -> bool:
        """Whether it is a built-in kind without a namespace."""
        return self.kind in _CLUSTER_SCOPED


def qualified_id(namespace: str, name: str) -> str:
    """Resource id: `<namespace>/<name>`, or `<name>` when there is no namespace."""
    return f"{namespace}/{name}" if namespace else name


def split_id(id: str) -> tuple[str, str]:
    """Namespace (may be empty) and name out of a resource id."""
    namespace, slash, name = id.partition("/")
    return (namespace, name) if slash else ("", namespace)


def random_hex(seed: bytes) -> str:
    """Eight hex digits that follow from the seed, as in an automatic name."""
    return hashlib.sha512(seed).hexdigest()[:8]


def metadata(manifest: Manifest) -> dict[str, Any]:
    """The object's metadata; empty when there is none or a preview does not know it."""
    found = manifest.get("metadata")
    return found if isinstance(found, dict) else {}


def annotation(manifest: Manifest, key: str) -> str:
    """Value of an annotation, empty when it is not there."""
    annotations = metadata(manifest).get("annotations")
    value = annotations.get(key, "") if isinstance(annotations, dict) else ""
    return value if isinstance(value, str) else ""


def with_name(manifest: Manifest, name: str) -> Manifest:
    """The object with an automatic name, marked as such."""
    old = metadata(manifest)
    annotations = old.get("annotations", {})
    if not isinstance(annotations, Unknown):
        annotations = annotations | {AUTONAMED: "true"}
    return manifest | {"metadata": old | {"name": name, "annotations": annotations}}


def with_namespace(manifest: Manifest, namespace: str) -> Manifest:
    """The object in a namespace; an empty one takes it out of any."""
    kept = {key: value for key, value in metadata(manifest).items() if key != "namespace"}
    return manifest | {"metadata": kept | ({"namespace": namespace} if namespace else {})}


def normal(manifest: Manifest) -> Manifest:
    """The form in which the server keeps what a program writes, so that equal meanings compare equal.

    Read-only metadata is dropped; `stringData` of a Secret becomes `data`, and `data` is coded afresh.
    The real plugin sends known kinds through their Go types, which normalises quantities as well.
    """
    result = copy.deepcopy(manifest)
    for key in _READ_ONLY:
        metadata(result).pop(key, None)
    if result.get("apiVersion") == "v1" and result.get("kind") == "Secret" and not has_unknown(result):
        _normalise_secret(result)
    return result


def _normalise_secret(secret: Manifest) -> None:
    data = {key: _recoded(value) for key, value in (secret.get("data") or {}).items()}
    for key, text in (secret.pop("stringData", None) or {}).items():
        data[key] = base64.b64encode(text.encode()).decode()
    if data:
        secret["data"] = data


def _recoded(encoded: str) -> str:
    try:
        return base64.b64encode(base64.b64decode("".join(encoded.split()), validate=True)).decode()
    except binascii.Error:
        return encoded  # the server refuses it, naming the key


def pruned(source: Any, shape: Any) -> Any:
    """The part of `source` that `shape` has too: keys of objects, and as many items of lists of objects.

    Compared with inputs, this leaves out what the server and others added to the live object.
    """
    if isinstance(source, dict) and isinstance(shape, dict):
        return {key: pruned(value, shape[key]) for key, value in source.items() if key in shape}
    if isinstance(source, list) and isinstance(shape, list):
        return [pruned(item, like) for item, like in zip(source, shape, strict=False)]
    return source


def with_secrets(outs: Object, ins: Object) -> Object:
    """`outs` with secrets where `ins` has them; `data` and `stringData` of a Secret are always secret.

    Objects are compared key by key; a list with a secret in it is secret as a whole.
    """
    if outs.get("kind") == "Secret":
        return {
            key: _hidden(value) if key in ("data", "stringData") else value for key, value in outs.items()
        }
    return {key: _with_secrets(value, ins[key]) if key in ins else value for key, value in outs.items()}


def _with_secrets(out: Value, source: Value) -> Value:
    if isinstance(out, dict) and isinstance(source, dict):
        return with_secrets(out, source)
    return _hidden(out) if has_secret(source) else out


def _hidden(value: Value) -> Value:
    return value if isinstance(value, Secret) else Secret(value)


def state(inputs: Manifest, live: Manifest, given: Object, api_version: str, manager: str) -> Object:
    """What goes into Pulumi's state: the live object, the inputs it came from, and who manages its fields.

    `given` are the inputs with their secrets.
    """
    return with_secrets(live, given) | {
        INPUTS: with_secrets(inputs, given),
        INITIAL_API_VERSION: api_version,
        FIELD_MANAGER_KEY: manager,
    }


def parse_state(outputs: Manifest) -> tuple[Manifest, Manifest]:
    """Inputs and live object out of revealed state."""
    live = {key: value for key, value in outputs.items() if key != INPUTS}
    return outputs.get(INPUTS) or {}, live


def masked(text: str, given: Object) -> str:
    """A message without the secret strings of `given` (short ones, which could be any word, stay)."""
    words = _secret_words(given, hidden=given.get("kind") == "Secret")
    for word in sorted(words, key=len, reverse=True):  # one may be part of another
        text = text.replace(word, "[secret]")
    return text


def _secret_words(value: Value, hidden: bool) -> set[str]:
    match value:
        case Secret():
            return _secret_words(value.value, hidden=True)
        case dict():
            # Of a Secret object only the data is secret, not its kind or name.
            below = {key: hidden and key not in ("apiVersion", "kind", "metadata", "type") for key in value}
            return {word for key, item in value.items() for word in _secret_words(item, below[key])}
        case list():
            return {word for item in value for word in _secret_words(item, hidden)}
        case str() if hidden and len(value) >= _SECRET_LENGTH:
            return {value}
        case _:
            return set()


def taken_over(managed_fields: list[dict[str, Any]], manager: str) -> list[dict[str, Any]] | None:
    """Field ownership after `manager` took what was made without server-side apply; None if there is nothing.

    Objects are created by a plain POST, whose fields belong to `pulumi-kubernetes` with operation `Update`;
    an apply under another name would conflict with them.
    """
    taken = [entry for entry in managed_fields if _takeable(entry)]
    if not taken:
        return None
    ours = [
        entry for entry in managed_fields if entry["manager"] == manager and entry["operation"] == "Apply"
    ]
    entry = (ours or taken)[0] | {"manager": manager, "operation": "Apply"}
    for other in [*ours, *taken]:
        entry["fieldsV1"] = _union(entry.get("fieldsV1", {}), other.get("fieldsV1", {}))
    rest = [other for other in managed_fields if other not in ours and other not in taken]
    return [entry, *rest]


def _takeable(entry: dict[str, Any]) -> bool:
    return (entry["manager"], entry["operation"]) in _CLIENT_SIDE and not entry.get("subresource")


def _union(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return first | {key: _union(first.get(key, {}), fields) for key, fields in second.items()}


def owners(managed_fields: list[dict[str, Any]], path: tuple[str | int, ...]) -> set[str]:
    """Managers of the field at `path`, which is one of names only (an index owns nothing)."""
    found = set()
    for entry in managed_fields:
        fields: dict[str, Any] | None = entry.get("fieldsV1")
        for key in path:
            fields = None if fields is None else fields.get(f"f:{key}")
        if fields is not None:
            found.add(entry["manager"])
    return found


def value_at(manifest: Manifest, path: tuple[str | int, ...]) -> tuple[Any, ...]:
    """The value at `path` as a tuple of one; empty when there is none."""
    value: Any = manifest
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return ()
        value = value[key]
    return (value,)


def with_value(manifest: Manifest, path: tuple[str | int, ...], value: tuple[Any, ...]) -> Manifest:
    """The object with another value at `path`; an empty tuple takes the value away."""
    key, below = str(path[0]), path[1:]
    if below:
        inner = manifest.get(key)
        return manifest | {key: with_value(inner if isinstance(inner, dict) else {}, below, value)}
    rest = {name: item for name, item in manifest.items() if name != key}
    return rest | ({key: value[0]} if value else {})
