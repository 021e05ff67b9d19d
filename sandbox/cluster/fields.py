"""Structure of objects: paths, field ownership (`managedFields`), and the four kinds of patch.

All of it is pure and driven by an object's schema, as in the real API server (structured-merge-diff): it
says which lists are maps by key (`ports` by port and protocol) and which values are atomic.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

Path = tuple[str, ...]
"""Elements as FieldsV1 writes them: `f:spec`, `k:{"port":80,"protocol":"TCP"}`, `v:"finalizer"`."""


class PatchError(ValueError):
    """A patch that cannot be applied to the object; the text says why."""


class Node:
    """The schema at one place of an object; unknown places have an empty schema, where lists are atomic."""

    def __init__(self, raw: Mapping[str, Any] | None, definitions: Mapping[str, Any]) -> None:
        raw = raw or {}
        while "$ref" in raw:
            target = definitions[raw["$ref"].rsplit("/", 1)[-1]]
            raw = {**target, **{key: value for key, value in raw.items() if key != "$ref"}}
        self.raw = raw
        self._definitions = definitions

    def declares(self, key: str) -> bool:
        """Whether `key` is a named field, as opposed to an entry of a map."""
        return key in self.raw.get("properties", {})

    def field(self, key: str) -> Node:
        """Schema of the value at `key` of an object."""
        if self.declares(key):
            return Node(self.raw["properties"][key], self._definitions)
        extra = self.raw.get("additionalProperties")
        return Node(extra if isinstance(extra, Mapping) else None, self._definitions)

    @property
    def items(self) -> Node:
        """Schema of the elements of a list."""
        items = self.raw.get("items")
        return Node(items if isinstance(items, Mapping) else None, self._definitions)

    @property
    def atomic_map(self) -> bool:
        """Whether an object here is owned and replaced as a whole."""
        return self.raw.get("x-kubernetes-map-type") == "atomic"

    @property
    def map_keys(self) -> tuple[str, ...]:
        """Fields that identify an element of the list here; empty when the list is no map."""
        if self.raw.get("x-kubernetes-list-type") != "map":
            return ()
        return tuple(self.raw.get("x-kubernetes-list-map-keys", ()))

    @property
    def is_set(self) -> bool:
        """Whether the list here is a set of scalars."""
        return self.raw.get("x-kubernetes-list-type") == "set"

    def element(self, item: Any) -> str:
        """The path element of `item` in the list here (a map or a set)."""
        if self.is_set:
            return f"v:{json.dumps(item)}"
        keys: dict[str, Any] = {}
        for key in self.map_keys:
            if key in item:
                keys[key] = item[key]
            elif "default" in self.items.field(key).raw:
                keys[key] = self.items.field(key).raw["default"]
        return f"k:{json.dumps(keys, separators=(',', ':'), sort_keys=True)}"


class _Branch:
    """Stands for the value of a path that has paths below it."""


_BRANCH = _Branch()

_UNOWNED: frozenset[Path] = frozenset(
    [("f:apiVersion",), ("f:kind",), ("f:metadata",)]
    + [
        ("f:metadata", f"f:{field}")
        for field in (
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        )
    ]
)
"""Fields that the server strips from every FieldsV1."""

_EMPTY_STRUCTS: frozenset[Path] = frozenset(
    tuple(f"f:{field}" for field in path.split("."))
    for path in (
        "spec",
        "status",
        "status.loadBalancer",
        "status.capacity",
        "spec.names",
        "spec.resources",
        "spec.strategy",
        "spec.updateStrategy",
        "spec.template",
        "spec.template.metadata",
        "spec.template.spec",
        "spec.template.spec.containers",
    )
)
"""Structs that Go's empty object of a built-in kind already has, so that creating one does not own them."""


def paths(node: Node, value: Any, prefix: Path = ()) -> dict[Path, Any]:
    """All paths of an object with their values; a value with paths below it counts as equal to any such."""
    found: dict[Path, Any] = {}
    if isinstance(value, dict) and value and not node.atomic_map:
        for key, item in value.items():
            found |= paths(node.field(key), item, (*prefix, f"f:{key}"))
        marker: Any = _BRANCH
    elif isinstance(value, list) and value and (node.map_keys or node.is_set):
        for item in value:
            found |= paths(node.items, item, (*prefix, node.element(item)))
        marker = _BRANCH
    else:
        marker = value
    if prefix:
        found[prefix] = marker
        return found
    return {path: item for path, item in found.items() if path[:2] not in _UNOWNED}


def applied_paths(node: Node, value: Any, prefix: Path = (), declared: bool = True) -> set[Path]:
    """Paths that a server-side apply of `value` owns: leaves, elements of lists and entries of maps."""
    found: set[Path] = set()
    leaf = True
    if isinstance(value, dict) and value and not node.atomic_map:
        leaf = False
        for key, item in value.items():
            found |= applied_paths(node.field(key), item, (*prefix, f"f:{key}"), node.declares(key))
    elif isinstance(value, list) and value and (node.map_keys or node.is_set):
        leaf = False
        for item in value:
            found |= applied_paths(node.items, item, (*prefix, node.element(item)), declared=False)
    if prefix:
        return found | {prefix} if leaf or not declared else found
    return {path for path in found if path[:2] not in _UNOWNED}


def encode(owned: Iterable[Path]) -> dict[str, Any]:
    """A FieldsV1 tree."""
    tree: dict[str, Any] = {}
    ordered = sorted(owned)
    for path in ordered:
        _descend(tree, path)
    for path in ordered:
        branch = _descend(tree, path)
        if branch:
            branch["."] = {}
    return _sorted(tree)


def decode(tree: Mapping[str, Any], prefix: Path = ()) -> set[Path]:
    """The paths of a FieldsV1 tree."""
    found: set[Path] = set()
    for key, below in tree.items():
        if key == ".":
            found.add(prefix)
        elif below:
            found |= decode(below, (*prefix, key))
        else:
            found.add((*prefix, key))
    return found


def _descend(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    for element in path:
        tree = tree.setdefault(element, {})
    return tree


def _sorted(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: _sorted(tree[key]) for key in sorted(tree)}


class Ownership:
    """Who set which fields of an object: its `metadata.managedFields`, to read, change and write back."""

    def __init__(self, managed_fields: Iterable[Mapping[str, Any]]) -> None:
        self._entries = [(dict(entry), decode(entry.get("fieldsV1", {}))) for entry in managed_fields]

    def entries(self) -> list[dict[str, Any]]:
        """`managedFields`; managers that own nothing are left out."""
        return [{**entry, "fieldsV1": encode(owned)} for entry, owned in self._entries if owned]

    def owned(self, manager: str, operation: str, subresource: str) -> set[Path]:
        """Fields of one manager."""
        for entry, owned in self._entries:
            if _key(entry) == (manager, operation, subresource):
                return set(owned)
        return set()

    def others(self, path: Path, manager: str, operation: str, subresource: str) -> list[dict[str, Any]]:
        """Entries of other managers that own `path`."""
        return [
            entry
            for entry, owned in self._entries
            if path in owned and _key(entry) != (manager, operation, subresource)
        ]

    def give(self, entry: Mapping[str, Any], owned: set[Path], taken: set[Path]) -> None:
        """Makes the manager of `entry` own exactly `owned`; all others lose `taken`."""
        changed = False
        for index, (other, fields) in enumerate(self._entries):
            if _key(other) != _key(entry):
                self._entries[index] = (other, fields - taken)
            elif fields == owned:
                changed = True
            else:
                self._entries[index] = (dict(entry), owned)
                changed = True
        if not changed and owned:
            self._entries.append((dict(entry), owned))


def _key(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return (entry["manager"], entry["operation"], entry.get("subresource", ""))


def changes(node: Node, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> tuple[set[Path], set[Path]]:
    """Paths set or changed, and paths removed, between two versions of an object (None: it is created)."""
    before = paths(node, old) if old is not None else {}
    after = paths(node, new)
    changed = {path for path, value in after.items() if path not in before or not _same(before[path], value)}
    if old is None and node.raw.get("x-kubernetes-group-version-kind"):
        changed -= _EMPTY_STRUCTS & {path for path, value in after.items() if value is _BRANCH}
    return changed, set(before) - set(after)


def _same(left: Any, right: Any) -> bool:
    if left is _BRANCH or right is _BRANCH:
        return left is right
    return bool(left == right)


def merge_applied(node: Node, live: Any, applied: Any) -> Any:
    """`applied` laid over `live`, as a server-side apply does it."""
    if isinstance(live, dict) and isinstance(applied, dict) and not node.atomic_map:
        merged = dict(live)
        for key, value in applied.items():
            merged[key] = merge_applied(node.field(key), live[key], value) if key in live else value
        return merged
    if isinstance(live, list) and isinstance(applied, list) and (node.map_keys or node.is_set):
        elements = {node.element(item): item for item in live}
        for item in applied:
            name = node.element(item)
            elements[name] = merge_applied(node.items, elements[name], item) if name in elements else item
        return list(elements.values())
    return applied


def remove(node: Node, value: Any, gone: set[Path], kept: set[Path]) -> Any:
    """`value` without the paths `gone`; a container goes only when nothing in `kept` lies below it."""
    branches = {path[:length] for path in kept for length in range(1, len(path) + 1)}
    return _remove(node, value, (), gone, branches)


_GONE = object()


def _remove(node: Node, value: Any, prefix: Path, gone: set[Path], kept: set[Path]) -> Any:
    if prefix in gone and prefix not in kept:
        return _GONE
    if isinstance(value, dict) and not node.atomic_map:
        items = {
            key: _remove(node.field(key), item, (*prefix, f"f:{key}"), gone, kept)
            for key, item in value.items()
        }
        left = {key: item for key, item in items.items() if item is not _GONE}
        return _GONE if value and not left and prefix and prefix not in kept else left
    if isinstance(value, list) and (node.map_keys or node.is_set):
        elements = [_remove(node.items, item, (*prefix, node.element(item)), gone, kept) for item in value]
        rest = [item for item in elements if item is not _GONE]
        return _GONE if value and not rest and prefix not in kept else rest
    return value


def merge_patch(live: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def strategic_merge_patch(node: Node, live: Any, patch: Any) -> Any:
    """Kubernetes' strategic merge patch with its directives `$patch`, `$retainKeys`, `$setElementOrder`."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    merged = dict(live) if isinstance(live, dict) else {}
    if "$retainKeys" in patch:
        merged = {key: value for key, value in merged.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        directive, _, field = key.partition("/")
        if directive == "$deleteFromPrimitiveList":
            merged[field] = [item for item in merged.get(field, []) if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = _merge_list(node.field(key), merged.get(key) or [], value)
        else:
            merged[key] = strategic_merge_patch(node.field(key), merged.get(key), value)
    for key, order in patch.items():
        directive, _, field = key.partition("/")
        if directive == "$setElementOrder" and field in merged:
            merged[field] = _reorder(node.field(field), merged[field], order)
    return merged


def _merge_list(node: Node, live: list[Any], patch: list[Any]) -> list[Any]:
    if "merge" not in str(node.raw.get("x-kubernetes-patch-strategy", "")).split(","):
        return patch
    key = node.raw.get("x-kubernetes-patch-merge-key")
    if key is None:
        return live + [item for item in patch if item not in live]
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    elements = {item.get(key): item for item in live}
    for item in patch:
        if key not in item:
            raise PatchError(f"map with {sorted(item)} does not contain declared merge key: {key}")
        if item.get("$patch") == "delete":
            elements.pop(item[key], None)
        else:
            elements[item[key]] = strategic_merge_patch(node.items, elements.get(item[key]), item)
    return list(elements.values())


def _reorder(node: Node, items: list[Any], order: list[Any]) -> list[Any]:
    key = node.raw.get("x-kubernetes-patch-merge-key")
    wanted = [item[key] if key else item for item in order]

    def position(item: Any) -> int:
        name = item.get(key) if key else item
        return wanted.index(name) if name in wanted else len(wanted)

    return sorted(items, key=position)


def json_patch(live: Any, operations: Any) -> Any:
    """RFC 6902."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    document = copy.deepcopy(live)
    for operation in operations:
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            # The value of an operation may be secret: only its place is named.
            place = {key: operation[key] for key in ("op", "path", "from") if key in operation}
            raise PatchError(f"operation {json.dumps(place)} cannot be applied: {error}") from error
    return document


def _operate(document: Any, operation: Mapping[str, Any]) -> Any:
    kind = operation["op"]
    target = _pointer(operation["path"])
    if kind == "test":
        if _lookup(document, target) != operation["value"]:
            raise PatchError("testing value failed")
        return document
    if kind in ("move", "copy"):
        value = copy.deepcopy(_lookup(document, _pointer(operation["from"])))
        if kind == "move":
            document = _change(document, _pointer(operation["from"]), "remove", None)
        return _change(document, target, "add", value)
    if kind not in ("add", "remove", "replace"):
        raise PatchError(f"unknown operation {kind!r}")
    return _change(document, target, kind, copy.deepcopy(operation.get("value")))


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise PatchError(f"a JSON pointer starts with a slash: {text!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _lookup(document: Any, pointer: list[str]) -> Any:
    for part in pointer:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _change(document: Any, pointer: list[str], kind: str, value: Any) -> Any:
    if not pointer:
        return value
    parent, last = _lookup(document, pointer[:-1]), pointer[-1]
    if isinstance(parent, list):
        if kind == "add":
            parent.insert(len(parent) if last == "-" else int(last), value)
        elif kind == "remove":
            parent.pop(int(last))
        else:
            parent[int(last)] = value
    elif kind == "remove":
        del parent[last]
    elif kind == "replace" and last not in parent:
        raise PatchError(f"no field {last!r} to replace")
    else:
        parent[last] = value
    return document
