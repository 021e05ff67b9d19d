"""Releases as Helm keeps them: a Secret `sh.helm.release.v1.<name>.v<revision>` for each revision. Pure.

It is coded as Helm codes it, so that `helm` itself could list what is here.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.cluster.chart import APP_VERSION, CHART, VERSION, hook_events
from sandbox.plugins.kubernetes import chart as charts
from sandbox.plugins.kubernetes.api import Manifest, Ref

DEPLOYED: Final = "deployed"
FAILED: Final = "failed"
SUPERSEDED: Final = "superseded"


@dataclass(frozen=True)
class Record:
    """One revision of a release."""

    name: str
    namespace: str
    revision: int
    status: str
    """`pending-{install,upgrade,rollback}`, `deployed`, `superseded`, `failed` or `uninstalling`."""
    description: str
    values: dict[str, Any] = field(repr=False)
    manifest: list[Manifest] = field(repr=False)
    hooks: list[Manifest] = field(repr=False)
    first_deployed: str
    last_deployed: str

    @property
    def pending(self) -> bool:
        """Whether an operation is under way, or was when its process died."""
        return self.status.startswith("pending-")


def encode(record: Record) -> Manifest:
    """The Secret in which a revision is kept."""
    release = {
        "name": record.name,
        "info": {
            "first_deployed": record.first_deployed,
            "last_deployed": record.last_deployed,
            "deleted": "",
            "description": record.description,
            "status": record.status,
        },
        "chart": {
            "metadata": {
                "name": CHART,
                "version": VERSION,
                "apiVersion": "v2",
                "appVersion": APP_VERSION,
            }
        },
        "config": record.values,
        # JSON is YAML: one document each.
        "manifest": "".join(f"---\n{json.dumps(item)}\n" for item in record.manifest),
        "hooks": [
            {
                "name": hook["metadata"]["name"],
                "kind": hook["kind"],
                "manifest": json.dumps(hook),
                "events": hook_events(hook),
                "weight": charts.weight(hook),
            }
            for hook in record.hooks
        ],
        "version": record.revision,
        "namespace": record.namespace,
    }
    # Coded twice: once by Helm, once because it is the data of a Secret.
    packed = base64.b64encode(gzip.compress(json.dumps(release).encode(), mtime=0))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"sh.helm.release.v1.{record.name}.v{record.revision}",
            "namespace": record.namespace,
            "labels": {
                "name": record.name,
                "owner": "helm",
                "status": record.status,
                "version": str(record.revision),
            },
        },
        "type": "helm.sh/release.v1",
        "data": {"release": base64.b64encode(packed).decode()},
    }


def decode(secret: Manifest) -> Record:
    """The revision that a Secret keeps."""
    packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    release = json.loads(gzip.decompress(packed))
    info = release["info"]
    documents = release["manifest"].split("---\n")
    return Record(
        name=release["name"],
        namespace=release["namespace"],
        revision=release["version"],
        status=info["status"],
        description=info["description"],
        values=release["config"] or {},
        manifest=[json.loads(document) for document in documents if document.strip()],
        hooks=[json.loads(hook["manifest"]) for hook in release["hooks"]],
        first_deployed=info["first_deployed"],
        last_deployed=info["last_deployed"],
    )


def resource_names(manifest: Iterable[Manifest]) -> dict[str, list[str]]:
    """Names of a release's objects by `<kind>.<group>/<apiVersion>`: the output `resourceNames`."""
    names: dict[str, set[str]] = {}
    for item in manifest:
        ref = Ref.of(item)
        group = ref.api_version.rpartition("/")[0]
        key = f"{ref.kind}.{group}/{ref.api_version}" if group else f"{ref.kind}/{ref.api_version}"
        names.setdefault(key, set()).add(f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name)
    return {key: sorted(found) for key, found in sorted(names.items())}
