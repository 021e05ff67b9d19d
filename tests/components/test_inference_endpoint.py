"""One app, two tokens and a gate that everybody else follows."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pulumi
import pytest

from autoscaling.arguments import parse
from components.ai_deploy.providers import AppProvider
from components.ai_deploy.spec import AppSpec, create_body
from components.inference_endpoint import InferenceEndpoint, served_model
from tests.components import mocks
from tests.components.mocks import AI, Deployment, Secret, deploy, settings
from tests.components.stacks import SERVICE

ARTICLE_ENVIRONMENT = {
    "OUTLINES_CACHE_DIR": "/tmp/.outlines",
    "HF_HOME": "/hub",
    "HF_DATASETS_TRUST_REMOTE_CODE": "1",
    "HF_HUB_ENABLE_HF_TRANSFER": "0",
}


def endpoint(
    stack: str = "prod", *, protect: bool = False, failing: str = "", preview: bool = False, **changes: str
) -> Deployment:
    def program() -> None:
        made = InferenceEndpoint(
            "vllm", settings(stack, **changes).endpoint, service_name=SERVICE, protect=protect
        )
        for name in InferenceEndpoint.__annotations__:
            pulumi.export(name, getattr(made, name))

    return deploy(program, stack=stack, failing={failing}, preview=preview)


@pytest.fixture(scope="module")
def prod() -> Deployment:
    return endpoint(huggingFaceToken=mocks.HUGGING_FACE_TOKEN)


def app(deployment: Deployment) -> dict[str, Any]:
    return deployment.one(f"{AI}:App").inputs


def environment(deployment: Deployment) -> dict[str, str]:
    """The app's environment; each value has to be a secret."""
    env = app(deployment)["env"]
    assert all(isinstance(value, Secret) for value in env.values())
    return {name: secret.value for name, secret in env.items()}


def body(deployment: Deployment) -> dict[str, Any]:
    """What `POST /app` gets for the app, without the labels of its owner."""
    inputs = {**app(deployment), "env": environment(deployment)}
    fields = {name: inputs[name] for name in AppSpec.model_fields if name in inputs}
    return create_body(AppSpec.model_validate(fields))


def test_prod_is_the_app_of_the_reference_architecture(prod: Deployment) -> None:
    assert body(prod) == {
        "name": "vllm-ministral-14B-autoscaling-custom-metric",
        "region": "GRA",
        "image": "vllm/vllm-openai:v0.13.0",
        "resources": {"flavor": "h100-1-gpu", "gpu": 1},
        "command": [
            "bash",
            "-c",
            "python3 -m vllm.entrypoints.openai.api_server --model mistralai/Ministral-3-14B-Instruct-2512 "
            "--tokenizer_mode mistral --load_format mistral --config_format mistral "
            "--enable-auto-tool-choice --tool-call-parser mistral --enable-prefix-caching",
        ],
        "envVars": [
            {"name": name, "value": value}
            for name, value in sorted({**ARTICLE_ENVIRONMENT, "HF_TOKEN": mocks.HUGGING_FACE_TOKEN}.items())
        ],
        "defaultHttpPort": 8000,
        "probe": {
            "path": "/v1/models",
            "port": 8000,
            "initialDelaySeconds": 300,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
            "successThreshold": 1,
        },
        # The article's bare probe restarts a container that is still downloading its weights after 330 s.
        "livenessProbe": {
            "path": "/health",
            "port": 8000,
            "initialDelaySeconds": 300,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 120,
            "successThreshold": 1,
        },
        "scalingStrategy": {
            "automatic": {
                "replicasMin": 1,
                "replicasMax": 3,
                "customMetrics": {
                    "apiUrl": "http://<SELF>:8000/metrics",
                    "format": "PROMETHEUS",
                    "valueLocation": "vllm:num_requests_running",
                    "targetValue": 50.0,
                    "aggregationType": "AVERAGE",
                },
                "cooldownPeriodSeconds": 300,
                "scaleUpStabilizationWindowSeconds": 0,
                "scaleDownStabilizationWindowSeconds": 300,
            }
        },
        "deploymentStrategy": {
            "maxSurge": "25%",
            "maxUnavailable": "25%",
            "progressDeadlineSeconds": 3600,
            "terminationGracePeriodSeconds": 30,
        },
        "volumes": [
            {
                "mountPath": path,
                "permission": "RW",
                "cache": False,
                "volumeSource": {"standalone": {}},
            }
            for path in ("/hub", "/workspace")
        ],
        "unsecureHttp": False,
    }


@pytest.mark.parametrize("stack", ["dev", "prod", "sandbox"])
def test_the_provider_accepts_the_app_of_every_stack(stack: str) -> None:
    deployment = endpoint(stack)
    result = AppProvider().check({}, {**app(deployment), "env": environment(deployment)})
    assert result.failures == []


def test_dev_runs_a_fixed_replica() -> None:
    assert app(endpoint("dev"))["scaling_strategy"] == {"fixed": {"replicas": 1}}


PROBE_9000 = json.dumps({"path": "/health", "port": 9000})


def test_another_port_reaches_vllm() -> None:
    inputs = app(endpoint("dev", port="9000", livenessProbe=PROBE_9000, readinessProbe=PROBE_9000))
    assert inputs["default_http_port"] == 9000
    assert shlex.split(inputs["command"][2])[-2:] == ["--port", "9000"]


def test_two_bounds_mean_automatic_scaling_on_the_port_of_the_app() -> None:
    changed = endpoint(
        "dev",
        maxReplicas="2",
        scalingTarget="12.5",
        port="9000",
        livenessProbe=PROBE_9000,
        readinessProbe=PROBE_9000,
    )
    scaling = app(changed)["scaling_strategy"]
    assert scaling["automatic"]["replicasMax"] == 2
    assert scaling["automatic"]["customMetrics"]["apiUrl"] == "http://<SELF>:9000/metrics"
    assert scaling["automatic"]["customMetrics"]["targetValue"] == 12.5


def test_an_argument_reaches_vllm_as_it_was_written() -> None:
    argument = json.dumps({"method": "it's", "n": 3})
    arguments = json.dumps(["--speculative-config", argument])
    command = app(endpoint("dev", vllmArguments=arguments))["command"]
    assert shlex.split(command[2])[-2:] == ["--speculative-config", argument]


def test_the_hugging_face_token_travels_as_a_secret_and_without_a_warning(prod: Deployment) -> None:
    assert environment(prod) == {**ARTICLE_ENVIRONMENT, "HF_TOKEN": mocks.HUGGING_FACE_TOKEN}
    texts = [text for resource in prod.resources for text in mocks.plain(resource.inputs)]
    assert not [text for text in texts if mocks.HUGGING_FACE_TOKEN in text]
    assert prod.warnings == []


def test_without_a_hugging_face_token_a_warning_names_the_model_and_who_needs_one() -> None:
    deployment = endpoint("dev")
    assert "HF_TOKEN" not in app(deployment)["env"]
    (warning,) = deployment.warnings
    assert "mistralai/Ministral-3-3B-Instruct-2512" in warning
    assert "Gated models" in warning
    assert "meta-llama/*" in warning
    assert "huggingFaceToken -s dev`" in warning


def test_tokens_may_call_this_deployment_and_nothing_else(prod: Deployment) -> None:
    tokens = prod.of(f"{AI}:Token")
    assert {token.name for token in tokens} == {"vllm-client-token-1", "vllm-scraper-token-1"}
    for token in tokens:
        assert token.inputs["role"] == "ai_training_read"
        assert token.inputs["label_selector"] == f"deploy-identity={mocks.IDENTITY}"
        assert token.inputs["identity"] == mocks.IDENTITY
        assert token.inputs["region"] == "GRA"
        assert token.inputs["service_name"] == SERVICE


def test_the_app_carries_the_identity_that_the_tokens_select(prod: Deployment) -> None:
    assert app(prod)["identity"] == mocks.IDENTITY
    assert app(prod)["resource"] == "vllm"
    assert app(prod)["service_name"] == SERVICE


def test_the_sweep_keeps_both_tokens(prod: Deployment) -> None:
    sweep = prod.one(f"{AI}:TokenSweep").inputs
    assert sweep["token_ids"] == ["id-vllm-client-token-1", "id-vllm-scraper-token-1"]
    assert (sweep["identity"], sweep["service_name"]) == (mocks.IDENTITY, SERVICE)


@pytest.mark.parametrize(("keep", "valid"), [("true", [3, 2]), ("false", [3])])
def test_the_previous_generation_of_tokens_stays_valid_as_long_as_it_is_kept(
    keep: str, valid: list[int]
) -> None:
    deployment = endpoint("dev", tokenGeneration="3", keepPreviousTokens=keep)
    users = ("client", "scraper")
    names = [f"vllm-{user}-token-{generation}" for user in users for generation in valid]
    assert sorted(token.name for token in deployment.of(f"{AI}:Token")) == sorted(names)
    kept = deployment.one(f"{AI}:TokenSweep").inputs["token_ids"]
    assert kept == [f"id-{name}" for name in names]


def test_the_first_generation_of_tokens_has_no_previous_one() -> None:
    deployment = endpoint("dev", tokenGeneration="1", keepPreviousTokens="true")
    assert len(deployment.of(f"{AI}:Token")) == 2


def test_an_app_is_taken_over_only_when_an_id_is_given() -> None:
    app_id = "0b1c2d3e-0000-4000-8000-000000000000"
    assert app(endpoint("dev", adoptAppId=app_id))["adopt"] == app_id
    assert "adopt" not in app(endpoint("dev"))


def test_labels_of_the_stack_reach_the_app() -> None:
    labelled = endpoint("dev", appLabels=json.dumps({"ai_deploy_token": "my_operator_token"}))
    assert app(labelled)["labels"] == {"ai_deploy_token": "my_operator_token"}


def test_the_gate_waits_for_the_app_with_the_token_of_callers(prod: Deployment) -> None:
    gate = prod.one(f"{AI}:Readiness").inputs
    assert gate["app_id"] == "id-vllm"
    assert gate["starts"] == mocks.STARTS
    assert gate["token"] == Secret(mocks.CLIENT_TOKEN)
    assert gate["model"] == "mistralai/Ministral-3-14B-Instruct-2512"
    assert gate["timeout_seconds"] == 3600
    assert gate["service_name"] == SERVICE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "mistralai/Ministral-3-3B-Instruct-2512"),
        (["--served-model-name", "small", "alias"], "small"),
        (["--served-model-name=small"], "small"),
        (["--served_model_name", "small"], "small"),
        (["--served-model-name", "large", "--served_model_name=small"], "small"),
    ],
)
def test_the_gate_looks_for_the_name_under_which_the_model_is_served(
    arguments: list[str], expected: str
) -> None:
    changed = settings("dev", vllmArguments=json.dumps(arguments)).endpoint
    assert served_model(changed) == expected
    # Rehearsals and the sandbox's replicas read it themselves.
    assert parse(["--model", changed.model, *arguments]).served_model_names[0] == expected


def test_the_identity_is_in_state_before_anything_that_costs_money(prod: Deployment) -> None:
    identity = prod.one(f"{AI}:Identity").urn
    assert all(identity in resource.needs for resource in (prod.one(f"{AI}:App"), *prod.of(f"{AI}:Token")))


def test_only_the_app_is_protected_and_only_where_asked_for(prod: Deployment) -> None:
    def protected(deployment: Deployment) -> list[str]:
        return [resource.type for resource in deployment.resources if resource.protect]

    assert protected(endpoint(protect=True)) == [f"{AI}:App"]
    assert protected(prod) == []


def test_addresses_are_those_of_the_gate_and_no_secrets(prod: Deployment) -> None:
    assert prod.outputs["app_id"] == "id-vllm"
    assert prod.outputs["url"] == mocks.ENDPOINT
    assert prod.outputs["openai_base_url"] == f"{mocks.ENDPOINT}/v1"
    assert prod.outputs["ready_host"] == "app-1.app.gra.ai.cloud.ovh.net"
    assert prod.outputs["model"] == "mistralai/Ministral-3-14B-Instruct-2512"
    assert prod.outputs["platform_dashboard_url"] == mocks.PLATFORM_DASHBOARD


FOLLOWERS = {"app_id", "url", "openai_base_url", "ready_host", "model", "platform_dashboard_url"}


def test_a_gate_that_fails_takes_away_no_app_and_no_token_and_shows_no_address() -> None:
    deployment = endpoint(failing=f"{AI}:Readiness")
    assert [resource.type for resource in deployment.skipped] == [f"{AI}:Readiness", f"{AI}:Verdict"]
    outputs = deployment.outputs
    assert {name for name, value in outputs.items() if value is mocks.UNKNOWN} == FOLLOWERS
    assert outputs["client_token"] == Secret(mocks.CLIENT_TOKEN)


def test_a_refused_app_leaves_the_tokens_and_fails_what_needs_it() -> None:
    deployment = endpoint(failing=f"{AI}:App")
    assert [resource.type for resource in deployment.skipped] == [
        f"{AI}:App",
        f"{AI}:Readiness",
        f"{AI}:Verdict",
    ]
    assert len(deployment.of(f"{AI}:Token")) == 2
    assert len(deployment.of(f"{AI}:TokenSweep")) == 1


def test_the_first_preview_knows_what_nothing_has_to_be_made_for() -> None:
    preview = endpoint(preview=True)
    assert preview.outputs["model"] == "mistralai/Ministral-3-14B-Instruct-2512"
    assert preview.outputs["url"] is mocks.UNKNOWN


def test_both_tokens_are_secret_outputs() -> None:
    secrets: dict[str, bool] = {}

    async def program() -> None:
        made = InferenceEndpoint("vllm", settings("dev").endpoint, service_name=SERVICE, protect=False)
        secrets["client"] = await made.client_token.is_secret()
        secrets["scraper"] = await made.scraper_token.is_secret()
        secrets["url"] = await made.url.is_secret()

    deploy(program)
    assert secrets == {"client": True, "scraper": True, "url": False}
