"""What OVHcloud publishes about AI Deploy's requests and answers, as JSON schemas to compare ours with.

Two packages say it: the types of the control panel (npm), made from API v1, and the models of OVHcloud's
Python SDK (PyPI), made from the older native API. They are got when a test asks for them, at fixed versions
and checksums, into the user's cache; nothing of them is in this repository. A test that needs one skips, with
the reason, where there is no npm or pip, or no registry to ask.
"""

from __future__ import annotations

import ast
import base64
import datetime
import functools
import hashlib
import io
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sandbox.toolchain import cache
from sandbox.toolchain.progress import ToolchainError

Schema = Mapping[str, Any]
INTEGER: Schema = {"type": "integer"}
STRING: Schema = {"type": "string"}

_SECONDS = 120
"""How long npm or pip may take."""
_REFERENCE = "#/definitions/"


def reference(name: str) -> Schema:
    """The type of that name."""
    return {"$ref": _REFERENCE + name}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def record(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """An object with these members and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class Types:
    """Published types by name."""

    definitions: Mapping[str, Schema]

    def values(self, enum: str) -> set[str]:
        """Values of an enum."""
        return set(self.definitions[enum]["enum"])

    def members(self, name: str) -> dict[str, Schema]:
        """Members of an object."""
        return dict(self.definitions[name]["properties"])

    def corrected(
        self, added: Mapping[str, Mapping[str, Schema]], optional: Mapping[str, Iterable[str]]
    ) -> Types:
        """These types with members that were `added` to API v1 since, and with members it does not require.

        What the types say already may not be said again: such a correction is out of date.
        """
        changed: dict[str, Schema] = {}
        for name in added.keys() | optional.keys():
            members, required = self.members(name), set(self.definitions[name]["required"])
            new, dropped = added.get(name, {}), set(optional.get(name, ()))
            assert not members.keys() & new.keys(), f"{name} is published with {members.keys() & new.keys()}"
            assert dropped <= required, f"{name} is published without the need of {dropped - required}"
            changed[name] = record({**members, **new}, required - dropped)
        return Types({**self.definitions, **changed})

    def with_value(self, enum: str, value: str) -> Types:
        """These types with one more value of an enum, which may not be published already."""
        assert value not in self.values(enum)
        return Types({**self.definitions, enum: {"enum": [*self.definitions[enum]["enum"], value]}})

    def problems(self, name: str, body: Any) -> list[str]:
        """What is wrong with a body of that type.

        API v1 shows null where the native API leaves a member out, and takes both for the same, so null
        counts as absent.
        """
        validator = jsonschema.Draft4Validator(
            # Draft 4 alone takes 8000.0 for no integer, as the API does.
            {**reference(name), "definitions": self.definitions},
            format_checker=_FORMATS,
        )
        return [
            f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(_given(body))
        ]


_FORMATS = jsonschema.FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date(value: object) -> bool:
    return not isinstance(value, str) or datetime.datetime.fromisoformat(value).tzinfo is not None


def _given(value: Any) -> Any:
    match value:
        case Mapping():
            return {key: _given(item) for key, item in value.items() if item is not None}
        case list():
            return [_given(item) for item in value]
        case _:
            return value


@dataclass(frozen=True)
class _Package:
    name: str
    version: str
    digest: str
    """Of the archive, as the registry writes it: algorithm, hyphen, base64."""
    command: Callable[[Path], list[str]]
    """Puts the archive into the folder it runs in."""


def _npm_pack(_directory: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed: comparison with {_PANEL.name} left out")
    return [npm, "pack", "--loglevel=error", "--fetch-retries=0", f"{_PANEL.name}@{_PANEL.version}"]


def _pip_download(directory: Path) -> list[str]:
    # pip looks into a source archive before it hands it out: it has to know the checksum first.
    algorithm, digest = _NATIVE.digest.split("-", 1)
    hexadecimal = base64.b64decode(digest).hex()
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{_NATIVE.name}=={_NATIVE.version} --hash={algorithm}:{hexadecimal}\n")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries=0", "--no-deps"]
    return [sys.executable, "-m", "pip", "download", *options, "--require-hashes", "-r", str(requirements)]


_PANEL = _Package(
    "@datatr-ux/ovhcloud-types",
    "1.0.84",
    "sha512-gnL+LtVakrmN4BDKt93zqhsclCWuFuIIIkojsjmG5DhCkIhdZ2AQIRltgLFanCRSa/1+iYXcJnyZ42B+loJTYA==",
    _npm_pack,
)
_NATIVE = _Package("ovhai", "0.1a4", "sha256-B/2SwvU/fW1ZEq+3+ki0C/ctmdQG3/9tp98jTrBlhQg=", _pip_download)


def _sources(package: _Package, inside: str, suffix: str) -> dict[str, str]:
    """Source files of a package by path, below and relative to the folder `inside` of its archive."""
    content = _archive(package)
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if path.startswith(inside) and path.endswith(suffix) and (file := archive.extractfile(member)):
                found[path.removeprefix(inside).removesuffix(suffix)] = file.read().decode()
    return found


def _archive(package: _Package) -> bytes:
    """The package's archive, from the cache if it is there."""
    directory = cache.root(os.environ).parent / "oracles"
    target = directory / f"{package.name.rpartition('/')[2]}-{package.version}"
    try:
        with cache.locked(directory, target.name, lambda _: None):
            if not target.exists():
                with cache.staged(target) as folder:
                    _download(package, folder)
    except ToolchainError as error:
        pytest.skip(str(error))
    return _checked(package, target)


def _download(package: _Package, folder: Path) -> None:
    command = package.command(folder)
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package.name} {package.version} could not be got in {_SECONDS} s: comparison left out")
    output = result.stdout + result.stderr
    assert "DO NOT MATCH THE HASHES" not in output, f"{package.name} {package.version} is another one by now"
    if result.returncode:
        lines = output.splitlines() or [f"exit status {result.returncode}"]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1])
        pytest.skip(f"{package.name} {package.version} could not be got ({reason}): comparison left out")
    _checked(package, folder)


def _checked(package: _Package, folder: Path) -> bytes:
    path = next(path for path in folder.iterdir() if path.name.endswith((".tgz", ".tar.gz")))
    content = path.read_bytes()
    algorithm, digest = package.digest.split("-", 1)
    found = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
    assert found == digest, (
        f"{path} is not {package.name} {package.version}: delete it, and the test gets it anew"
    )
    return content


# The control panel's types: TypeScript declarations, one type a file.

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_IMPORT = re.compile(r"import \{ (\w+) \} from '([^']+)';")
_INTERFACE = re.compile(r"export interface \w+ \{(.*)\}", re.DOTALL)
_MEMBER = re.compile(r"\s*(\w+)(\??): (?:\{\s*\[key: string\]: ([^;{]+);\s*\}|([^;{]+));")
_ENUM = re.compile(r"export declare enum \w+ \{(.*)\}", re.DOTALL)
_ALIAS = re.compile(r"export type \w+ = ([^;]+);")
_PRIMITIVES: Mapping[str, Schema] = {
    "string": STRING,
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
}
_AI = "cloud.project.ai."


@functools.cache
def panel() -> Types:
    """Types of the control panel, by their name in the API without `cloud.project.ai.`, such as `app.App`."""
    files = _sources(_PANEL, "dist/", ".d.ts")
    wanted = [
        path for path in files if path.startswith(_AI.replace(".", "/")) and not path.endswith("/index")
    ]
    definitions: dict[str, Schema] = {}
    while wanted:
        path = wanted.pop()
        if (name := _type_name(path)) in definitions:
            continue
        text = _COMMENT.sub("", files[path])
        imports = {
            type_: posixpath.normpath(f"{posixpath.dirname(path)}/{place}")
            for type_, place in _IMPORT.findall(text)
        }
        definitions[name] = _declared(path, _IMPORT.sub("", text), imports)
        wanted += imports.values()
    return Types(definitions)


def _type_name(path: str) -> str:
    return path.replace("/", ".").removeprefix(_AI)


def _declared(path: str, text: str, imports: Mapping[str, str]) -> Schema:
    def schema(type_: str) -> Schema:
        if type_.endswith("[]"):
            return array(schema(type_.removesuffix("[]")))
        return _PRIMITIVES.get(type_) or reference(_type_name(imports[type_]))

    if found := _INTERFACE.search(text):
        properties: dict[str, Schema] = {}
        required = []
        for name, optional, values, type_ in _MEMBER.findall(found[1]):
            properties[name] = (
                {"type": "object", "additionalProperties": schema(values)} if values else schema(type_)
            )
            required += [] if optional else [name]
        left = _MEMBER.sub("", found[1]).strip()
        assert not left, f"{path}: not understood: {left}"
        return record(properties, required)
    if found := _ENUM.search(text):
        return {"enum": re.findall(r'= "([^"]*)"', found[1])}
    found = _ALIAS.search(text)
    assert found, f"{path}: not understood"
    return schema(found[1])


# The SDK's models: Python classes with annotated fields, and a `to_dict` that names them as JSON does.


@functools.cache
def native() -> Types:
    """Models of the Python SDK by class name, such as `AppSpec`."""
    definitions: dict[str, Schema] = {}
    for text in _sources(_NATIVE, "ovhai/models/", ".py").values():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                definitions[node.name] = _model(node)
    return Types(definitions)


def _model(node: ast.ClassDef) -> Schema:
    values = [
        item.value.value
        for item in node.body
        if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
    ]
    if any(isinstance(base, ast.Name) and base.id == "Enum" for base in node.bases):
        return {"enum": values}
    fields = {
        item.target.id: item
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    additional = _annotated(fields.pop("additional_properties").annotation)
    if not fields and additional["additionalProperties"]:
        return additional
    names = _wire_names(node)
    return record(
        {names[field]: _annotated(item.annotation) for field, item in fields.items()},
        (names[field] for field, item in fields.items() if item.value is None),
    )


def _wire_names(node: ast.ClassDef) -> dict[str, str]:
    """Field to the key that `to_dict` writes it under."""
    found: dict[str, str] = {}
    to_dict = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "to_dict")
    for item in ast.walk(to_dict):
        match item:
            case ast.Assign([ast.Subscript(ast.Name("field_dict"), ast.Constant(str(key)))], ast.Name(field)):
                found[field] = key
            case ast.Dict(keys, values):
                for key_, value in zip(keys, values, strict=True):
                    if isinstance(key_, ast.Constant) and isinstance(value, ast.Name):
                        found[value.id] = str(key_.value)
    return found


_BUILTINS: Mapping[str, Schema] = {
    "str": STRING,
    "int": INTEGER,
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Any": {},
}


def _annotated(node: ast.expr) -> Schema:
    match node:
        case ast.Name(name) | ast.Constant(str(name)):
            known = _BUILTINS.get(name)
            return reference(name) if known is None else known
        case ast.Attribute(ast.Name("datetime"), "datetime"):
            return {"type": "string", "format": "date-time"}
        case ast.Subscript(ast.Name("List"), items):
            return array(_annotated(items))
        case ast.Subscript(ast.Name("Dict"), ast.Tuple([_, values])):
            return {"type": "object", "additionalProperties": _annotated(values)}
        case ast.Subscript(ast.Name("Union"), ast.Tuple(members)):
            kinds = [_annotated(member) for member in members if ast.unparse(member) not in ("None", "Unset")]
            return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        case _:
            raise AssertionError(f"not understood: {ast.unparse(node)}")
