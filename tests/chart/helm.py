"""The real chart, rendered by the real helm."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.monitoring_stack import CHART, NAMESPACE
from components.monitoring_values import RELEASE

Object = dict[str, Any]
Identity = tuple[str, str, str]
"""Kind, namespace ("-" without one) and name of an object."""

_SECONDS = 300
"""An `oci://` chart is downloaded."""


class _Loader(yaml.CSafeLoader):
    """Takes a bare `=`, an operator in a definition's list, for the text that it is to Kubernetes."""


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:value", _text)


class MissingError(Exception):
    """helm or the chart is not at hand; the message says how to name one."""


@dataclass(frozen=True)
class Rendering:
    """The objects of a release."""

    objects: list[Object]

    def one(self, kind: str, name: str) -> Object:
        """The only object of that kind and name."""
        (item,) = (item for item in self.of(kind) if item["metadata"]["name"] == name)
        return item

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def identities(self) -> set[Identity]:
        """What there is."""
        return {identity(item) for item in self.objects}

    def groups(self) -> Iterator[Object]:
        """The rule groups of all PrometheusRules."""
        for item in self.of("PrometheusRule"):
            yield from item["spec"]["groups"]

    def alertmanager_config(self) -> str:
        """What Alertmanager would read."""
        return decoded(self.one("Secret", f"alertmanager-{RELEASE}-alertmanager"))["alertmanager.yaml"]


@dataclass(frozen=True)
class Chart:
    """The chart, and the helm that renders it."""

    helm: str
    reference: str
    """A folder, an archive or an `oci://` address."""
    version: str
    """Such as `88.5.3`."""

    def render(self, values: Mapping[str, Any], kubernetes: str) -> Rendering:
        """All objects of the release with these values, in a cluster of a version such as `1.34`.

        Raises AssertionError with helm's own words when the chart does not take the values.
        """
        options = ["--namespace", NAMESPACE, "--kube-version", f"{kubernetes}.0", "--include-crds"]
        options += ["--values", "-"]
        if self.reference.startswith("oci://"):
            options += ["--version", self.version]
        run = subprocess.run(
            [self.helm, "template", RELEASE, self.reference, *options],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert run.returncode == 0, f"helm refuses the values: {run.stderr.strip()}"
        return Rendering([item for item in yaml.load_all(run.stdout, _Loader) if item])


def find(version: str, environ: Mapping[str, str] = os.environ) -> Chart:
    """The chart that `CHART` names, else the one that helm, or Pulumi's helm, keeps in its cache.

    helm is the program that `HELM` names, else the one on PATH. Raises MissingError.
    """
    helm = shutil.which(environ.get("HELM") or "helm", path=environ.get("PATH"))
    if helm is None:
        raise MissingError("no helm: install helm 3, or name one with HELM=<path>")
    if named := environ.get("CHART"):
        if not named.startswith("oci://") and not Path(named).exists():
            raise MissingError(f"CHART={named}: there is no such folder or archive")
        return Chart(helm, named, version)
    cache = subprocess.run([helm, "env", "HELM_REPOSITORY_CACHE"], capture_output=True, text=True, check=True)
    archive = Path(cache.stdout.strip()) / f"{CHART}-{version}.tgz"
    if not archive.exists():
        raise MissingError(
            f"no chart {CHART} {version}: name a folder, an archive or an oci:// address with CHART=…, "
            "or let `helm pull` put the archive into helm's cache"
        )
    return Chart(helm, str(archive), version)


def identity(item: Mapping[str, Any]) -> Identity:
    """Kind, namespace and name."""
    return item["kind"], item["metadata"].get("namespace", "-"), item["metadata"]["name"]


def decoded(secret: Mapping[str, Any]) -> dict[str, str]:
    """The contents of a Secret as text."""
    return {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}
