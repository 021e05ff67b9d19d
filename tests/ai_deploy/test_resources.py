"""What a program hands to the engine: inputs as they go over the wire, secrets, references and no code."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks, rpc

from components.ai_deploy.providers import AppProvider
from components.ai_deploy.resources import App, Identity, Readiness, Token, TokenSweep
from components.ai_deploy.spec import AppSpec, CustomMetrics, Probe, ScalingStrategy
from components.generated import Password, SelfSignedCertificate
from tests.sandbox_cloud.fakes import PROJECT

TYPES = "pulumi-python:dynamic"


class Engine(mocks.Mocks):
    """Keeps what is registered, answers the outputs that a resource of the type has."""

    def __init__(self) -> None:
        self.registered: dict[str, tuple[str, dict[str, Any]]] = {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.registered[args.name] = (args.typ, args.inputs)
        computed: dict[str, Any] = {
            f"{TYPES}/ai-deploy:Identity": {"value": "0123456789abcdef"},
            f"{TYPES}/ai-deploy:Token": {"value": "token-secret", "token_name": "t"},
            f"{TYPES}/ai-deploy:App": {"url": "https://app", "monitoring_url": "https://m", "starts": 0},
            f"{TYPES}/ai-deploy:Readiness": {"url": "https://app"},
        }
        return f"{args.name}-id", {**args.inputs, **computed.get(args.typ, {})}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        return {}, []


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Fresh mocks for each test, and a loop for the SDK: `asyncio.run` of another test leaves none."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    engine = Engine()
    mocks.set_mocks(engine, project="ovh-vllm", stack="test")
    yield engine
    asyncio.set_event_loop(None)
    loop.close()


def scaling() -> ScalingStrategy:
    return ScalingStrategy.model_validate(
        {
            "automatic": {
                "replicasMin": 1,
                "replicasMax": 3,
                "customMetrics": CustomMetrics(
                    api_url="http://<SELF>:8000/metrics", value_location="x", target_value=50
                ),
            }
        }
    )


def app(**fields: Any) -> App:
    return App(
        "vllm",
        service_name=PROJECT,
        identity=pulumi.Output.from_input("0123456789abcdef"),
        name="vllm",
        region="GRA",
        image="vllm/vllm-openai:v0.13.0",
        flavor="h100-1-gpu",
        gpu=1,
        **fields,
    )


def collected(engine: Engine, program: Callable[[], pulumi.Output[Any]]) -> Any:
    """What the output that a program returns resolves to."""
    found: list[Any] = []

    test: Any = pulumi.runtime.test
    test(lambda: program().apply(found.append))()
    return found[0]


def test_an_app_is_declared_in_plain_json_that_the_provider_understands(engine: Engine) -> None:
    def program() -> pulumi.Output[Any]:
        return app(
            command=["bash", "-c", pulumi.Output.from_input("x")],
            env={"HF_TOKEN": pulumi.Output.secret("hf_canary"), "HF_HOME": "/hub"},
            labels={"team": "a"},
            default_http_port=8000,
            readiness_probe=Probe(path="/v1/models", port=8000, initial_delay_seconds=300),
            liveness_probe={"path": "/health", "port": 8000},
            scaling_strategy=pulumi.Output.from_input(scaling()),
            volumes=["standalone:/hub:rw"],
        ).url

    assert collected(engine, program) == "https://app"
    type_, inputs = engine.registered["vllm"]
    assert type_ == f"{TYPES}/ai-deploy:App"
    json.dumps(inputs)
    # The mocks hand over a map that holds a secret as a secret.
    assert rpc.is_rpc_secret(inputs["env"])
    checked = AppProvider().check({}, {**inputs, "env": rpc.unwrap_rpc_secret(inputs["env"])})
    assert not checked.failures
    assert AppSpec.model_validate(
        {name: checked.inputs[name] for name in AppSpec.model_fields}
    ) == AppSpec.model_validate(
        {
            "name": "vllm",
            "region": "GRA",
            "image": "vllm/vllm-openai:v0.13.0",
            "flavor": "h100-1-gpu",
            "gpu": 1,
            "command": ["bash", "-c", "x"],
            "env": {"HF_TOKEN": "hf_canary", "HF_HOME": "/hub"},
            "labels": {"team": "a"},
            "default_http_port": 8000,
            "readiness_probe": {"path": "/v1/models", "port": 8000, "initialDelaySeconds": 300},
            "liveness_probe": {"path": "/health", "port": 8000},
            "scaling_strategy": scaling(),
            "volumes": ["standalone:/hub:rw"],
        }
    )
    assert (inputs["service_name"], inputs["identity"], inputs["resource"]) == (
        PROJECT,
        "0123456789abcdef",
        "vllm",
    )


@pytest.mark.parametrize(
    ("make", "secret"),
    [
        (lambda: Token("t", service_name=PROJECT, identity="0", region="GRA"), "value"),
        (lambda: Password("p"), "value"),
        (lambda: SelfSignedCertificate("c", dns_names=["a"]), "key_pem"),
    ],
)
def test_secrets_are_secrets_to_the_engine(
    engine: Engine, make: Callable[[], Any], secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    register: Any = mocks.MockMonitor.RegisterResource

    def remember(monitor: mocks.MockMonitor, request: Any) -> Any:
        asked.append(request)
        return register(monitor, request)

    monkeypatch.setattr(mocks.MockMonitor, "RegisterResource", remember)
    collected(engine, lambda: make().id)
    assert secret in asked[-1].additionalSecretOutputs


def test_a_whole_endpoint_hangs_together(engine: Engine) -> None:
    def program() -> pulumi.Output[Any]:
        identity = Identity("identity", service_name=PROJECT)
        token = Token("callers", service_name=PROJECT, identity=identity.value, region="GRA")
        TokenSweep("sweep", service_name=PROJECT, identity=identity.value, token_ids=[token.id])
        ready = Readiness("gate", app=app(), token=token.value, model="m", timeout_seconds=90)
        return pulumi.Output.all(ready.url, ready.app_id, ready.model)

    assert collected(engine, program) == ["https://app", "vllm-id", "m"]
    token, sweep, gate = (engine.registered[name][1] for name in ("callers", "sweep", "gate"))
    assert token["label_selector"] == "deploy-identity=0123456789abcdef"
    assert token["role"] == "ai_training_read"
    assert sweep["token_ids"] == ["callers-id"]
    assert rpc.is_rpc_secret(gate["token"])
    assert {key: rpc.unwrap_rpc_secret(gate[key]) for key in gate.keys() - {"__provider"}} == {
        "service_name": PROJECT,
        "app_id": "vllm-id",
        "app_resource": "vllm",
        "identity": "0123456789abcdef",
        "monitoring_url": "https://m",
        "starts": 0,
        "resource": "gate",
        "token": "token-secret",
        "model": "m",
        "timeout_seconds": 90,
    }


def test_state_holds_a_reference_to_a_provider_and_no_code(engine: Engine) -> None:
    """Pickled code would show every change of it as a change of the resource, and tie state to a Python."""

    def program() -> pulumi.Output[Any]:
        identity = Identity("identity", service_name=PROJECT)
        token = Token("token", service_name=PROJECT, identity=identity.value, region="GRA")
        sweep = TokenSweep("sweep", service_name=PROJECT, identity=identity.value, token_ids=[token.id])
        ready = Readiness("gate", app=app(), token=token.value, model="m")
        certificate = SelfSignedCertificate("certificate", dns_names=["a"])
        return pulumi.Output.all(sweep.id, ready.url, certificate.id, Password("password").id)

    collected(engine, program)
    modules = {"ai-deploy": "components.ai_deploy.providers", "generated": "components.generated"}
    for type_, inputs in engine.registered.values():
        module, _, kind = type_.removeprefix(f"{TYPES}/").partition(":")
        pickled = base64.b64decode(inputs["__provider"])
        assert modules[module].encode() in pickled
        assert f"{kind}Provider".encode() in pickled
        assert len(pickled) < 90
    assert len(engine.registered) == 8
