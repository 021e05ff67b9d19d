"""One branch fails, the other is built; the next update finishes the rest; destroy leaves nothing."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from sandbox.engine import EngineError
from tests.engine.conftest import Deployment

QUOTA = {"class": "Client::Forbidden::QuotaExceeded", "message": "4 GPUs in use, quota 4"}
NO_CAPACITY = {"class": "Server::Error", "message": "no capacity"}


@contextmanager
def failing(deployment: Deployment, path: str, body: dict[str, str]) -> Iterator[None]:
    """Creations at the path fail meanwhile."""
    faults = f"{deployment.sandbox.connection.api}/sandbox/faults"
    fault = {"method": "POST", "path": path, "count": 100, "status": 403, "body": body}
    httpx.post(faults, json=fault).raise_for_status()
    try:
        yield
    finally:
        httpx.delete(faults).raise_for_status()


def made(deployment: Deployment, before: list[str]) -> set[str]:
    """Kinds of which the cloud has more than before."""
    return set(Counter(deployment.kinds()) - Counter(before))


def answers(deployment: Deployment) -> bool:
    """Whether the endpoint of dev serves its model to who has the client token."""
    outputs = deployment.engine.outputs("dev")
    trusted = ssl.create_default_context(cafile=deployment.sandbox.connection.ca_bundle)
    bearer = {"Authorization": f"Bearer {outputs['client_token']}"}
    listed = httpx.get(f"{outputs['openai_base_url']}/models", headers=bearer, verify=trusted)
    return [model["id"] for model in listed.raise_for_status().json()["data"]] == [outputs["model"]]


ON_A_LOAD_BALANCER = {
    "grafanaAccess": "load-balancer",
    "grafanaPort": "8443",
    "grafanaSourceRanges[0]": "127.0.0.0/8",
}


@pytest.fixture
def load_balancer(deployment: Deployment) -> Iterator[None]:
    """Grafana of dev on a load balancer, whose address is an output that never comes without a cluster."""
    for key, value in ON_A_LOAD_BALANCER.items():
        deployment.engine.capture("config", "set", "-s", "dev", "--path", key, value)
    yield
    for key in ON_A_LOAD_BALANCER:
        deployment.engine.capture("config", "rm", "-s", "dev", key.partition("[")[0])


def finishes(deployment: Deployment, missing: str, before: list[str]) -> None:
    """The next update makes what was missing, and destroy leaves nothing of dev."""
    engine = deployment.engine
    engine.capture("preview", "-s", "dev")
    engine.capture("up", "-s", "dev", "--yes", "--skip-preview", "--continue-on-error")
    engine.capture("preview", "-s", "dev", "--expect-no-changes")
    assert deployment.kinds().count(missing) == before.count(missing) + 1
    engine.capture("destroy", "-s", "dev", "--yes", "--skip-preview")
    assert deployment.kinds() == before


def test_a_refused_gpu_leaves_the_monitoring_and_the_next_update_makes_the_app(
    deployment: Deployment,
) -> None:
    before = deployment.kinds()
    with failing(deployment, r"/ai/app$", QUOTA), pytest.raises(EngineError, match="4 GPUs in use") as error:
        deployment.engine.capture("up", "-s", "dev", "--yes", "--skip-preview", "--continue-on-error")
    assert made(deployment, before) >= {"cluster", "node-pool", "volume"}, str(error.value)
    assert "ai-app" not in made(deployment, before)
    finishes(deployment, "ai-app", before)


@pytest.mark.usefixtures("load_balancer")
def test_a_refused_cluster_leaves_the_endpoint_and_the_next_update_makes_the_cluster(
    deployment: Deployment,
) -> None:
    """What serves is among the stack's outputs, although Grafana's address never came."""
    engine, before = deployment.engine, deployment.kinds()
    with (
        failing(deployment, r"/kube$", NO_CAPACITY),
        pytest.raises(EngineError, match="no capacity") as error,
    ):
        engine.capture("up", "-s", "dev", "--yes", "--skip-preview", "--continue-on-error")
    assert made(deployment, before) >= {"ai-app", "ai-token"}, str(error.value)
    assert "cluster" not in made(deployment, before)
    assert answers(deployment)
    assert engine.outputs("dev").get("grafana_url") is None
    finishes(deployment, "cluster", before)


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
