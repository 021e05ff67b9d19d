"""One branch fails, the other is built; the next update finishes the rest; destroy leaves nothing."""

from __future__ import annotations

import ssl

import httpx
import pytest

from sandbox.engine import EngineError
from tests.engine.conftest import Deployment

QUOTA = {"class": "Client::Forbidden::QuotaExceeded", "message": "4 GPUs in use, quota 4"}


def fail_next(deployment: Deployment, path: str, body: dict[str, str]) -> None:
    """Makes creations at the path fail until the faults are cleared."""
    fault = {"method": "POST", "path": path, "count": 100, "status": 403, "body": body}
    httpx.post(f"{deployment.sandbox.connection.api}/sandbox/faults", json=fault).raise_for_status()


def heal(deployment: Deployment) -> None:
    httpx.delete(f"{deployment.sandbox.connection.api}/sandbox/faults").raise_for_status()


def answers(deployment: Deployment) -> bool:
    """Whether the endpoint of dev serves its model to who has the client token."""
    outputs = deployment.engine.outputs("dev")
    trusted = ssl.create_default_context(cafile=deployment.sandbox.connection.ca_bundle)
    bearer = {"Authorization": f"Bearer {outputs['client_token']}"}
    listed = httpx.get(f"{outputs['openai_base_url']}/models", headers=bearer, verify=trusted)
    return [model["id"] for model in listed.raise_for_status().json()["data"]] == [outputs["model"]]


@pytest.mark.parametrize(
    ("path", "message", "built", "missing"),
    [
        pytest.param(
            r"/ai/app$", "4 GPUs in use", {"cluster", "node-pool", "volume"}, "ai-app", id="refused GPU"
        ),
        pytest.param(r"/kube$", "no capacity", {"ai-app", "ai-token"}, "cluster", id="refused cluster"),
    ],
)
def test_a_failed_branch_costs_not_the_other_and_the_next_update_finishes(
    deployment: Deployment, path: str, message: str, built: set[str], missing: str
) -> None:
    engine = deployment.engine
    before = deployment.kinds()
    fail_next(
        deployment, path, QUOTA if missing == "ai-app" else {"class": "Server::Error", "message": message}
    )
    try:
        with pytest.raises(EngineError, match=message) as error:
            engine.capture("up", "-s", "dev", "--yes", "--skip-preview", "--continue-on-error")
    finally:
        heal(deployment)
    after = deployment.kinds()
    assert {kind for kind in built if after.count(kind) > before.count(kind)} == built, str(error.value)
    assert after.count(missing) == before.count(missing)

    if missing == "cluster":
        assert answers(deployment)

    engine.capture("preview", "-s", "dev")
    engine.capture("up", "-s", "dev", "--yes", "--skip-preview", "--continue-on-error")
    engine.capture("preview", "-s", "dev", "--expect-no-changes")
    assert deployment.kinds().count(missing) == before.count(missing) + 1

    engine.capture("destroy", "-s", "dev", "--yes", "--skip-preview")
    assert deployment.kinds() == before


def test_outputs_of_what_serves_are_stored_although_those_of_grafana_never_come(
    deployment: Deployment,
) -> None:
    """Grafana's address is read from a load balancer, and that is never made without a cluster."""
    engine = deployment.engine
    before = deployment.kinds()
    changes = {
        "grafanaAccess": "load-balancer",
        "grafanaPort": "8443",
        "grafanaSourceRanges[0]": "127.0.0.0/8",
    }
    for key, value in changes.items():
        engine.capture("config", "set", "-s", "dev", "--path", key, value)
    fail_next(deployment, r"/kube$", {"class": "Server::Error", "message": "no capacity"})
    try:
        with pytest.raises(EngineError, match="no capacity"):
            engine.capture("up", "-s", "dev", "--yes", "--skip-preview", "--continue-on-error")
        assert answers(deployment)
        assert engine.outputs("dev").get("grafana_url") is None
    finally:
        heal(deployment)
        engine.capture("destroy", "-s", "dev", "--yes", "--skip-preview")
        for key in changes:
            engine.capture("config", "rm", "-s", "dev", key.partition("[")[0])
    assert deployment.kinds() == before


def test_destroy_keeps_the_reserved_address_of_prod_and_nothing_else(deployment: Deployment) -> None:
    engine = deployment.engine
    before = deployment.kinds()
    engine.capture("up", "-s", "prod", "--yes", "--skip-preview", "--continue-on-error")
    address = engine.outputs("prod")["grafana_reserved_address"]
    with pytest.raises(EngineError, match="protected"):
        engine.capture("destroy", "-s", "prod", "--yes", "--skip-preview")
    engine.capture("state", "unprotect", "--all", "--yes", "-s", "prod")
    engine.capture("destroy", "-s", "prod", "--yes", "--skip-preview")
    assert deployment.kinds() == sorted([*before, "floating-ip"])
    assert address in [thing["name"] for thing in deployment.sandbox.resources()]
