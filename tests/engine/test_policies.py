"""The policy pack on the real engine: it lets the tracked stacks pass and stops what it is there to stop."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.engine import EngineError
from sandbox.files import write_private
from sandbox.project import CHECKOUT
from tests.engine.conftest import CANARY, Deployment

PACK = ("--policy-pack", str(CHECKOUT / "policy"))


@contextmanager
def settings(deployment: Deployment, stack: str, changes: dict[str, str]) -> Iterator[None]:
    """The stack with changed settings."""
    file = deployment.sandbox.folder.project / f"Pulumi.{stack}.yaml"
    before = file.read_text()
    pairs = [word for key, value in changes.items() for word in ("--plaintext", f"{key}={value}")]
    deployment.engine.capture("config", "set-all", "-s", stack, "--path", *pairs)
    try:
        yield
    finally:
        write_private(file, before)


def test_the_tracked_stacks_preview_with_the_same_program_and_pass(deployment: Deployment) -> None:
    """What is deployed (`sandbox`), and first previews, which know little (`dev`, `prod`)."""
    stacks = ("sandbox", "dev", "prod")

    def preview(stack: str) -> str:
        configuration = ("--policy-pack-config", str(CHECKOUT / "policy" / "config.json"))
        return deployment.engine.capture("preview", "-s", stack, *PACK, *configuration)

    with ThreadPoolExecutor() as pool:
        for stack, said in zip(stacks, pool.map(preview, stacks), strict=True):
            assert "✅ ovh-vllm@v" in said
            assert "can't run policy" not in said
            created = re.search(r"\+ (\d+) to create", said)
            assert (int(created[1]) if created else 0) > 20 or stack == "sandbox"


def test_a_preview_fails_and_says_which_key_to_change(deployment: Deployment, tmp_path: Path) -> None:
    configuration = tmp_path / "config.json"
    policies = {"known-storage-classes": "advisory", "bounded-replicas": {"maxReplicas": 3}}
    configuration.write_text(json.dumps({"all": "mandatory", **policies}))
    changes = {
        "region": "BHS",
        "environment": "production",
        "maxReplicas": "4",
        "containerUpdates": "restart",
        "nodeFlavor": "x9-99",
        "storageClass": "standard",
        "vllmArguments[0]": CANARY,
    }
    with settings(deployment, "dev", changes), pytest.raises(EngineError) as error:
        deployment.engine.capture("preview", "-s", "dev", *PACK, "--policy-pack-config", str(configuration))
    said = str(error.value)
    for level, policy, text in (
        ("mandatory", "european-regions", "Pulumi.dev.yaml: ovh-vllm:region = BHS: must be in one of GRA, "),
        ("mandatory", "production-protected", "Pulumi.dev.yaml: ovh-vllm:protect = []: must name cluster "),
        ("mandatory", "bounded-replicas", "Pulumi.dev.yaml: ovh-vllm:maxReplicas = 4: at most 3"),
        (
            "mandatory",
            "bounded-cost",
            "price of 1 node, x9-99; 10Gi of volumes, standard; 1Gi of volumes, standard: ",
        ),
        ("advisory", "known-storage-classes", "Pulumi.dev.yaml: ovh-vllm:storageClass = standard: "),
        ("mandatory", "no-secret-in-clear", "command.2 of vllm: holds a secret in plain text"),
        ("mandatory", "no-secret-in-clear", "ovh-vllm:vllmArguments: holds a secret in plain text"),
    ):
        assert f"[{level}]  {policy}  " in said
        assert text in said
