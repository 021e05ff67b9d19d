"""The API server of a deployed cluster, as who holds the stack's kubeconfig sees it."""

from __future__ import annotations

from pathlib import Path

import httpx
import yaml

from tests.sandbox_cluster.clusters import tls


def kubernetes_client(kubeconfig: str, directory: Path) -> httpx.Client:
    """A client of the cluster; `directory` takes a short-lived key file."""
    server = yaml.safe_load(kubeconfig)["clusters"][0]["cluster"]["server"]
    return httpx.Client(base_url=server, verify=tls(kubeconfig, directory), trust_env=False)
