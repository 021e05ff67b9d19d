from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from components.ai_deploy.spec import AppSpec, Volume, create_body
from tests.ai_deploy.clouds import floats
from tests.ai_deploy.specs import changes, specs

MINIMAL = {"name": "a", "region": "GRA", "image": "i:1", "flavor": "h100-1-gpu", "gpu": 1}
CUSTOM = {"apiUrl": "http://<SELF>:8000/metrics", "valueLocation": "x", "targetValue": 50}
METRIC = {"customMetrics": CUSTOM}


def test_the_reference_architecture_as_a_body() -> None:
    """Every parameter of the article, with the wire names of the API."""
    spec = AppSpec.model_validate(
        {
            "name": "vllm-ministral-14B-autoscaling-custom-metric",
            "region": "GRA",
            "image": "vllm/vllm-openai:v0.13.0",
            "flavor": "h100-1-gpu",
            "gpu": 1.0,
            "command": ["bash", "-c", "python3 -m vllm.entrypoints.openai.api_server"],
            "env": {"HF_TOKEN": "hf_x", "HF_HOME": "/hub"},
            "labels": {"ai_deploy_token": "my_operator_token"},
            "default_http_port": 8000.0,
            "liveness_probe": {"path": "/health", "port": 8000.0, "initialDelaySeconds": 300.0},
            "readiness_probe": {"path": "/v1/models", "port": 8000, "initialDelaySeconds": 300},
            "scaling_strategy": {
                "automatic": {
                    "replicasMin": 1.0,
                    "replicasMax": 3.0,
                    "customMetrics": {**CUSTOM, "format": "PROMETHEUS", "aggregationType": "AVERAGE"},
                }
            },
            "volumes": ["standalone:/hub:rw", "standalone:/workspace:rw"],
        }
    )
    probe = {
        "port": 8000,
        "initialDelaySeconds": 300,
        "periodSeconds": 10,
        "timeoutSeconds": 1,
        "failureThreshold": 3,
        "successThreshold": 1,
    }
    volume = {"permission": "RW", "cache": False, "volumeSource": {"standalone": {}}}
    body = create_body(spec)
    assert body == {
        "name": "vllm-ministral-14B-autoscaling-custom-metric",
        "region": "GRA",
        "image": "vllm/vllm-openai:v0.13.0",
        "command": ["bash", "-c", "python3 -m vllm.entrypoints.openai.api_server"],
        "defaultHttpPort": 8000,
        "unsecureHttp": False,
        "labels": {"ai_deploy_token": "my_operator_token"},
        "envVars": [{"name": "HF_HOME", "value": "/hub"}, {"name": "HF_TOKEN", "value": "hf_x"}],
        "resources": {"flavor": "h100-1-gpu", "gpu": 1},
        "volumes": [{"mountPath": "/hub", **volume}, {"mountPath": "/workspace", **volume}],
        "livenessProbe": {"path": "/health", **probe},
        "probe": {"path": "/v1/models", **probe},
        "scalingStrategy": {
            "automatic": {
                "replicasMin": 1,
                "replicasMax": 3,
                "customMetrics": {
                    "apiUrl": "http://<SELF>:8000/metrics",
                    "format": "PROMETHEUS",
                    "valueLocation": "x",
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
            "progressDeadlineSeconds": 600,
            "terminationGracePeriodSeconds": 30,
        },
    }
    # 8000.0 == 8000 in Python, not for the API.
    assert type(body["defaultHttpPort"]) is int
    assert type(body["livenessProbe"]["port"]) is int


def holds_null(value: Any) -> bool:
    match value:
        case dict():
            return any(map(holds_null, value.values()))
        case list():
            return any(map(holds_null, value))
        case _:
            return value is None


@given(changes())
def test_no_setting_is_lost_on_the_way_to_a_body(pair: tuple[AppSpec, AppSpec]) -> None:
    one, other = pair
    assert (create_body(one) == create_body(other)) == (one == other)
    assert not holds_null(create_body(one))


@given(specs)
def test_settings_come_back_from_the_engine_as_they_were(spec: AppSpec) -> None:
    again = AppSpec.model_validate(floats(spec.settings()))
    assert again == spec
    # Equal numbers can still be of different kinds, and then are different JSON.
    assert repr(again.settings()) == repr(spec.settings())


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (
            "standalone:/hub:rw",
            {"mountPath": "/hub", "permission": "RW", "cache": False, "volumeSource": {"standalone": {}}},
        ),
        (
            "weights@s3/llm/v1:/data:RO:cache",
            {
                "mountPath": "/data",
                "permission": "RO",
                "cache": True,
                "volumeSource": {"dataStore": {"alias": "s3", "container": "weights", "prefix": "llm/v1"}},
            },
        ),
        (
            "weights@s3:/data",
            {
                "mountPath": "/data",
                "permission": "RW",
                "cache": False,
                "volumeSource": {"dataStore": {"alias": "s3", "container": "weights"}},
            },
        ),
    ],
)
def test_volumes_as_the_command_line_writes_them(text: str, wire: dict[str, Any]) -> None:
    assert Volume.model_validate(text).wire() == wire
    assert Volume.model_validate(wire).wire() == wire


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gpu": None}, "give gpu for a GPU flavor"),
        ({"cpu": 2}, "give gpu for a GPU flavor"),
        ({"gpu": 1.5}, "integer"),
        ({"region": "gra"}, "pattern"),
        ({"default_http_port": 0}, "greater than or equal to 1"),
        ({"volumes": ["standalone:hub:rw"]}, "write standalone:/path:rw"),
        ({"volumes": ["standalone:/hub", "standalone:/hub"]}, "same mountPath"),
        ({"volumes": [{"mountPath": "/a", "volumeSource": {}}]}, "give one of standalone"),
        ({"env": {"A": ""}}, "A is empty"),
        ({"env": {"A=B": "c"}}, "no name of an environment variable"),
        ({"labels": {"ovh/id": "x"}}, "belong to the platform"),
        ({"labels": {"deploy-nonce": "x"}}, "written by the program itself"),
        ({"env": {"": "x"}}, "no name of an environment variable"),
        ({"liveness_probe": {"port": 1, "successThreshold": 2}}, "successThreshold must be 1"),
        ({"scaling_strategy": {}}, "either fixed or automatic"),
        (
            {"scaling_strategy": {"automatic": {"replicasMin": 3, "replicasMax": 2, **METRIC}}},
            "replicasMax 2 is less than replicasMin 3",
        ),
        (
            {"scaling_strategy": {"automatic": {"replicasMin": 1, "replicasMax": 2}}},
            "either customMetrics, or resourceType",
        ),
        (
            {"scaling_strategy": {"automatic": {"replicasMin": 1, "replicasMax": 2, "resourceType": "CPU"}}},
            "either customMetrics, or resourceType",
        ),
        (
            {
                "scaling_strategy": {
                    "automatic": {"replicasMin": 1, "replicasMax": 2, "resourceType": "CPU", **METRIC}
                }
            },
            "either customMetrics, or resourceType",
        ),
        (
            {
                "scaling_strategy": {
                    "automatic": {"replicasMin": 0, "replicasMax": 2, "cooldownPeriodSeconds": 59, **METRIC}
                }
            },
            "at least 60",
        ),
        (
            {
                "scaling_strategy": {
                    "automatic": {
                        "replicasMin": 1,
                        "replicasMax": 2,
                        "customMetrics": {**CUSTOM, "targetValue": 0},
                    }
                }
            },
            "greater than 0",
        ),
        ({"sshPublicKeys": []}, "not permitted"),
    ],
)
def test_mistakes_are_refused_with_the_reason(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AppSpec.model_validate({**MINIMAL, **fields})


def test_a_mistake_in_the_environment_does_not_show_its_values() -> None:
    with pytest.raises(ValidationError) as caught:
        AppSpec.model_validate({**MINIMAL, "env": {"HF_TOKEN": ["hf_secret"], "OTHER": ""}})
    assert "hf_secret" not in str(caught.value)
