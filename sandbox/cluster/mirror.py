"""Objects of the cluster as YAML files, for people to look at; nothing reads them back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from sandbox.cluster.kinds import Object
from sandbox.cluster.storage import ObjectStore
from sandbox.files import write_private

HIDDEN = "<not on disk: the sandbox keeps Secrets in memory only>"
"""Stands in the files for each value of a Secret."""

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Mirror:
    """Keeps `<directory>/<namespace or _cluster>/<kind>/<name>.yaml` (mode 600) as the stored objects are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[Path, str] = {}
        self._saving: asyncio.Future[None] | None = None

    async def reconcile(self, store: ObjectStore) -> None:
        """Writes what changed since the last call and removes what is gone."""
        current: dict[Path, str] = {}
        texts: dict[Path, Object] = {}
        for header in list(store.headers()):
            path = self._directory / (header.namespace or "_cluster") / header.kind / f"{header.name}.yaml"
            current[path] = header.resource_version
            if self._written.get(path) != header.resource_version:
                value = store.get(header.kind, header.namespace, header.name)
                if value is not None:
                    texts[path] = shown(value)
        gone = self._written.keys() - current.keys()
        # A thread cannot be cancelled: `stop` waits for it.
        self._saving = asyncio.get_running_loop().run_in_executor(None, _save, texts, gone)
        await asyncio.shield(self._saving)
        self._written = current

    async def stop(self) -> None:
        """Removes the files: what they show has ended with the cluster."""
        if self._saving is not None:
            await asyncio.wait([self._saving])  # one that failed has been told of
        if self._directory.exists():
            await asyncio.to_thread(shutil.rmtree, self._directory)


def shown(value: Object) -> Object:
    """The object as the files show it: without managedFields, and Secrets without their values."""
    metadata = {key: item for key, item in value["metadata"].items() if key != "managedFields"}
    result = {**value, "metadata": metadata}
    if value["kind"] == "Secret":
        result["data"] = dict.fromkeys(value.get("data", {}), HIDDEN)
        if _LAST_APPLIED in metadata.get("annotations", {}):
            metadata["annotations"] = {**metadata["annotations"], _LAST_APPLIED: HIDDEN}
    return result


class _Dumper(yaml.CSafeDumper):
    """Writes texts of several lines as such."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _save(texts: Mapping[Path, Object], gone: set[Path]) -> None:
    for path in gone:
        path.unlink(missing_ok=True)
    for path, value in texts.items():
        text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
        write_private(path, text)
