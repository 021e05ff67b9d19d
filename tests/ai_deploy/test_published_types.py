"""What we send and what the emulator answers, held against the types that OVHcloud publishes.

Two packages are the oracles (see `tests.published_types`). Both are older than the API: what they lack is
listed here, field by field, and nothing else may be unknown to them. The list was made from the OpenAPI
document of API v1 that OVHcloud's official CLI carries (ovh/ovhcloud-cli, commit 05c2be06,
internal/assets/api-schemas/cloud.json, schemas `cloud.project.ai.*`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import httpx
import pytest
from hypothesis import given
from pydantic import BaseModel

from components.ai_deploy import api, gate, spec, tokens
from components.ai_deploy.client import OvhClient
from components.ai_deploy.ownership import Owner, confirm
from components.ai_deploy.plan import plan
from components.ai_deploy.providers import AppProvider, TokenProvider
from components.ai_deploy.spec import create_body
from components.flavors import REGIONS
from sandbox.cloud import schema
from sandbox.cloud.app_machine import State
from tests import published_types
from tests.ai_deploy.clouds import Sky, floats, inputs
from tests.ai_deploy.specs import changes, specs
from tests.published_types import INTEGER, STRING, Types, array, record, reference
from tests.sandbox_cloud.fakes import PROJECT

STANDBY = "STANDBY"
"""State that the API knows and the control panel's types do not."""
WINDOWS = {
    "cooldownPeriodSeconds": INTEGER,
    "scaleUpStabilizationWindowSeconds": INTEGER,
    "scaleDownStabilizationWindowSeconds": INTEGER,
}
NEWER_THAN_THE_PANEL = {
    "app.ScalingAutomaticStrategyInput": WINDOWS,
    "app.ScalingAutomaticStrategy": WINDOWS,
    "Resources": {"flavorCount": INTEGER},
    "ResourcesInput": {"flavorCount": INTEGER},
    "capabilities.flavor.ResourcesPerUnit": {"gpu": INTEGER},
}
NEWER_THAN_THE_SDK = {
    "AppSpec": {"region": STRING, "partnerId": STRING, "livenessProbe": reference("Probe")},
    "AppUpdate": {
        "command": array(STRING),
        "envVars": array(record({"name": STRING, "value": STRING}, ["name"])),
        "flavor": STRING,
        "gpu": INTEGER,
        "cpu": INTEGER,
        "probe": reference("Probe"),
        "livenessProbe": reference("Probe"),
    },
    "Probe": {
        "initialDelaySeconds": INTEGER,
        "periodSeconds": INTEGER,
        "timeoutSeconds": INTEGER,
        "failureThreshold": INTEGER,
        "successThreshold": INTEGER,
    },
    "AppDeploymentStrategy": {"terminationGracePeriodSeconds": INTEGER},
    "AutomaticScalingStrategy": {
        **WINDOWS,
        "customMetrics": record(
            {
                "apiUrl": STRING,
                "format": STRING,
                "valueLocation": STRING,
                "targetValue": {"type": "number"},
                "aggregationType": STRING,
            }
        ),
    },
    "Volume": {
        # The native API has the sources beside mountPath, API v1 has deprecated that.
        "volumeSource": record(
            {
                "standalone": reference("StandaloneVolumeSource"),
                "dataStore": reference("DataStoreVolumeSource"),
                "publicGit": reference("PublicGitVolumeSource"),
                "publicSwift": reference("PublicSwiftVolumeSource"),
            }
        ),
        "volumeTarget": record({"targetDataStore": reference("DataStoreVolumeSource")}),
    },
    "StandaloneVolumeSource": {"name": STRING},
    "Resources": {"flavorCount": INTEGER},
    "ResourcesPerUnit": {"gpu": INTEGER},
    "TokenSpec": {"region": STRING},
}
NOT_REQUIRED_ANY_MORE = {
    # Since an app can be scaled on a metric of its own.
    "AutomaticScalingStrategy": ["averageUsageTarget", "resourceType"],
}


@pytest.fixture(scope="session")
def panel() -> Types:
    """The control panel's types, brought up to date."""
    types = published_types.panel().corrected(NEWER_THAN_THE_PANEL, {})
    return types.with_value("app.AppStateEnum", STANDBY)


@pytest.fixture(scope="session")
def native() -> Types:
    """The SDK's types, brought up to date."""
    return published_types.native().corrected(NEWER_THAN_THE_SDK, NOT_REQUIRED_ANY_MORE)


@pytest.fixture(params=["panel", "native"], scope="session")
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(request.getfixturevalue(request.param), request.param)


@dataclass(frozen=True)
class Oracle:
    types: Types
    of: Literal["panel", "native"]

    def agrees(self, body: Any, names: Names | None) -> None:
        """Asserts that a body has the published type; None: that there is no body."""
        if names is None:
            assert body is None
        elif (name := getattr(names, self.of)) is not None:
            assert self.types.problems(name, body) == []


class Names(NamedTuple):
    """What a type is called by each oracle; None where it has none."""

    panel: str
    native: str | None


APP = Names("app.App", "App")
TOKEN = Names("token.Token", "Token")
REGION = Names("capabilities.Region", None)
FLAVOR = Names("capabilities.Flavor", "Flavor")


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    """Regular expression of what comes after `/ai`."""
    request: Names | None
    answer: Names | None
    many: bool = False
    """Whether the answer is a list of its type."""


OPERATIONS = [
    Operation("POST", "/app", Names("app.AppSpecInput", "AppSpec"), APP),
    Operation("GET", "/app", None, APP, many=True),
    Operation("GET", "/app/[^/]+", None, APP),
    Operation("PUT", "/app/[^/]+", Names("app.UpdateInput", "AppUpdate"), APP),
    Operation(
        "PUT", "/app/[^/]+/scalingstrategy", Names("app.ScalingStrategyInput", "ScalingStrategy"), None
    ),
    Operation("PUT", "/app/[^/]+/label", Names("Label", "LabelUpdate"), None),
    Operation(
        "PUT",
        "/app/[^/]+/image",
        Names("app.AppImageInput", "AppUpdateImage"),
        Names("GenericResponse", None),
    ),
    Operation("PUT", "/app/[^/]+/(start|stop)", None, None),
    Operation("DELETE", "/app/[^/]+", None, None),
    Operation("GET", "/app/[^/]+/log", None, Names("Logs", None)),
    Operation("POST", "/token", Names("token.TokenSpec", "TokenSpec"), TOKEN),
    Operation("GET", "/token", None, TOKEN, many=True),
    Operation("GET", "/token/[^/]+", None, TOKEN),
    Operation("POST", "/token/[^/]+/renew", None, TOKEN),
    Operation("DELETE", "/token/[^/]+", None, None),
    Operation("GET", "/capabilities/region", None, REGION, many=True),
    Operation("GET", "/capabilities/region/[^/]+", None, REGION),
    Operation("GET", "/capabilities/region/[^/]+/flavor", None, FLAVOR, many=True),
    Operation("GET", "/capabilities/quota", None, Names("capabilities.ProjectQuotas", "ProjectQuotas")),
    Operation("GET", "/capabilities/feature", None, Names("capabilities.Features", None)),
    Operation("GET", "/authorization", None, Names("AuthorizationStatus", None)),
]


def operation(method: str, path: str) -> Operation:
    found = [one for one in OPERATIONS if one.method == method and re.fullmatch(one.path, path)]
    assert len(found) == 1, f"{method} {path} is compared with no published type"
    return found[0]


@dataclass(frozen=True)
class Exchange:
    method: str
    path: str
    body: Any
    answer: Any

    def check(self, oracle: Oracle) -> Operation:
        which = operation(self.method, self.path)
        oracle.agrees(self.body, which.request)
        for answer in self.answer if which.many else [self.answer]:
            oracle.agrees(answer, which.answer)
        return which


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """Every request that our client sends from now on, and what it got."""
    seen: list[Exchange] = []
    send: Callable[..., Any] = OvhClient.request

    def request(client: OvhClient, method: str, path: str, body: Any = None, **options: Any) -> Any:
        answer = send(client, method, path, body, **options)
        seen.append(Exchange(method, path.partition("/ai")[2], body, answer))
        return answer

    monkeypatch.setattr(OvhClient, "request", request)
    return seen


@given(wanted=specs)
def test_the_body_that_makes_an_app_is_a_published_one(oracle: Oracle, wanted: spec.AppSpec) -> None:
    oracle.agrees(create_body(wanted), operation("POST", "/app").request)


@given(pair=changes())
def test_the_body_of_every_change_is_a_published_one(
    oracle: Oracle, pair: tuple[spec.AppSpec, spec.AppSpec]
) -> None:
    old, new = pair
    for call in plan(floats(old.settings()), new.settings()).calls:
        oracle.agrees(dict(call.body), operation("PUT", f"/app/x{call.path}").request)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("AppImageInput", {"url": "a", "tag": "b"}),
        ("AppImageInput", {"url": 1}),
        ("AppImageInput", {"url": None}),
        ("AppImageInput", ["a"]),
        ("UpdateInput", {"command": "bash"}),
        ("UpdateInput", {"probe": {"port": "8000"}}),
        ("UpdateInput", {"envVars": [{"value": "without a name"}]}),
        ("ScalingStrategyInput", {"automatic": {"replicasMin": 1}}),
        ("ScalingAutomaticStrategyInput", {"replicasMin": 0, "replicasMax": 1, "resourceType": "GPU"}),
        (
            "ScalingAutomaticStrategyInput",
            {"replicasMin": 0, "replicasMax": 1, "cooldownPeriodSeconds": 60.0},
        ),
    ],
)
def test_the_comparison_with_the_panel_sees(panel: Types, name: str, body: Any) -> None:
    assert panel.problems(f"app.{name}", body)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("AppSpec", {"image": "a", "unknown": 1}),
        ("AppSpec", {"region": "GRA"}),
        ("AppSpec", {"image": "a", "defaultHttpPort": 8000.0}),
        ("AppSpec", {"image": "a", "labels": {"b": 1}}),
        ("AppStatus", {"history": [{"date": "yesterday", "state": "RUNNING"}]}),
        ("ScalingStrategy", {"automatic": {"replicasMin": 1, "replicasMax": 1, "resourceType": "GPU"}}),
        ("Volume", {"mountPath": "/a", "permission": "RO", "volumeSource": {"publicGit": {"uri": "b"}}}),
    ],
)
def test_the_comparison_with_the_sdk_sees(native: Types, name: str, body: Any) -> None:
    assert native.problems(name, body)


EVERYTHING: dict[str, Any] = {
    "command": ["bash", "-c", "exit"],
    "labels": {"team": "a"},
    "liveness_probe": {"path": "/health", "port": 8000},
    "scaling_strategy": {
        "automatic": {
            "replicasMin": 1,
            "replicasMax": 2,
            "customMetrics": {
                "apiUrl": "http://<SELF>:8000/metrics",
                "format": "PROMETHEUS",
                "valueLocation": "vllm:num_requests_running",
                "targetValue": 50,
            },
        }
    },
    "volumes": ["standalone:/hub:rw", "weights@s3/llm:/data:ro:cache"],
}
OTHERWISE: dict[str, Any] = {
    **EVERYTHING,
    "image": "other:1",
    "command": ["true"],
    "env": {"OTHER": "b"},
    "labels": {"stage": "b"},
    "flavor": "l4-1-gpu",
    "gpu": 2,
    "default_http_port": 8001,
    "grpc_port": 9000,
    "readiness_probe": {"path": "/v1/models", "port": 8001},
    "liveness_probe": {"path": "/health", "port": 8001},
    "deployment_strategy": {"maxSurge": "1"},
    "scaling_strategy": {"fixed": {"replicas": 1}},
}


def test_a_life_is_made_of_published_requests_and_answers(
    oracle: Oracle, sky: Sky, exchanges: list[Exchange]
) -> None:
    """Every call of our providers over the life of an app and a token."""
    apps, keys = sky.provider(AppProvider), sky.provider(TokenProvider)
    olds = inputs(**EVERYTHING)
    made = apps.create(olds)
    assert made.outs is not None
    confirm(sky.api, sky.app(made.id), Owner(olds["identity"], olds["resource"]))
    sky.in_state(made.id, "RUNNING")
    state = floats(made.outs)
    apps.update(made.id, state, inputs(olds=olds, **OTHERWISE))
    apps.read(made.id, state)
    sky.in_state(made.id, "RUNNING")
    sky.api.log(made.id)
    sky.api.stop_app(made.id)
    sky.in_state(made.id, "STOPPED")
    sky.api.start_app(made.id)
    apps.delete(made.id, state)
    token = keys.create(
        {
            "service_name": PROJECT,
            "identity": olds["identity"],
            "resource": "callers",
            "region": "GRA",
            "role": "ai_training_read",
            "label_selector": f"deploy-identity={olds['identity']}",
        }
    )
    assert token.outs is not None
    keys.read(token.id, token.outs)
    tokens.sweep(sky.api, olds["identity"], [token.id], sky.said.append)
    keys.delete(token.id, token.outs)
    done = [exchange.check(oracle) for exchange in exchanges]
    update = next(exchange.body for exchange in exchanges if exchange.body and "url" in exchange.body)
    assert len(update) == 10, "an update with every field was to be seen"
    ours = {one.path for one in done}
    left = {
        one.path for one in OPERATIONS if one.path not in ours and not one.path.startswith(("/cap", "/auth"))
    }
    assert left == {"/app/[^/]+/image", "/token/[^/]+/renew"}, "nobody sends these"


def test_what_only_users_ask_the_emulator_is_published(
    oracle: Oracle, sky: Sky, exchanges: list[Exchange]
) -> None:
    app = sky.provider(AppProvider).create(inputs(**EVERYTHING))
    token = sky.api.create_token({"name": "a", "region": "GRA", "role": "ai_training_operator"})
    for method, path, body in [
        ("PUT", f"/app/{app.id}/image", {"url": "other:1"}),
        ("POST", f"/token/{token['id']}/renew", None),
        ("GET", "/capabilities/region", None),
        *(
            ("GET", f"/capabilities/region/{region}{part}", None)
            for region in REGIONS
            for part in ("", "/flavor")
        ),
        ("GET", "/capabilities/quota", None),
        ("GET", "/capabilities/feature", None),
        ("GET", "/authorization", None),
    ]:
        sky.api.client.request(method, f"/cloud/project/{PROJECT}/ai{path}", body)
    for exchange in exchanges:
        exchange.check(oracle)


def in_every_state(sky: Sky) -> set[str]:
    """States that are shown, once there is an app in each of them."""
    sandbox = f"{sky.url.removesuffix('/1.0')}/sandbox"

    def make(name: str) -> str:
        return sky.api.create_app(create_body(spec.AppSpec.model_validate({**SMALL, "name": name}))).id

    def end(name: str) -> None:
        body = {"name": f"^{name}$", "state": name, "message": "for a test"}
        httpx.post(f"{sandbox}/end", json=body).raise_for_status()

    for state in ("QUEUED", "INITIALIZING", "SCALING", "STOPPING", "DELETING"):
        httpx.post(f"{sandbox}/stuck", json={"name": f"^{state}$", "state": state}).raise_for_status()
    apps = {state: make(state) for state in map(str, State) if state != State.DELETED}
    for state in ("STOPPING", "STOPPED", "DELETING"):
        sky.in_state(apps[state], "RUNNING")
    sky.api.stop_app(apps["STOPPING"])
    sky.api.stop_app(apps["STOPPED"])
    sky.api.delete_app(apps["DELETING"], force=True)
    end("FAILED")
    end("ERROR")
    return {sky.in_state(app_id, state).state for state, app_id in apps.items()}


SMALL = {"region": "GRA", "image": "i:1", "flavor": "ai1-1-cpu", "cpu": 1}


def test_every_state_of_the_emulator_is_shown_with_published_words(
    oracle: Oracle, sky: Sky, exchanges: list[Exchange]
) -> None:
    # A deleted app is not found any more.
    assert in_every_state(sky) == set(State) - {State.DELETED}
    for exchange in exchanges:
        exchange.check(oracle)


def test_every_published_state_means_something_to_us(panel: Types) -> None:
    waited_for = {"QUEUED", "INITIALIZING", "SCALING", "STOPPING"}
    groups = [api.RESTING, api.LEAVING, gate._CALLABLE_STATES, waited_for]
    assert set().union(*groups) == panel.values("app.AppStateEnum")
    assert sum(map(len, groups)) == len(panel.values("app.AppStateEnum")), "a state means one thing"
    assert set(State) == panel.values("app.AppStateEnum") - {STANDBY}


def literal(model: type[BaseModel], field: str) -> set[str]:
    """Values of a field that is a choice, or an optional one."""
    kinds = get_args(model.model_fields[field].annotation)
    return {value for kind in kinds for value in get_args(kind) or (kind,)} - {type(None)}


@pytest.mark.parametrize("models", [spec, schema], ids=["ours", "the emulator's"])
@pytest.mark.parametrize(
    ("model", "field", "enum"),
    [
        ("CustomMetrics", "format", "app.CustomMetricsFormatEnum"),
        ("CustomMetrics", "aggregation_type", "app.CustomMetricsAggregationTypeEnum"),
        ("Automatic", "resource_type", "app.ScalingAutomaticStrategyResourceTypeEnum"),
        ("Volume", "permission", "VolumePermissionEnum"),
    ],
)
def test_choices_are_the_published_ones(panel: Types, models: Any, model: str, field: str, enum: str) -> None:
    names = {"Automatic": {spec: "AutomaticScaling", schema: "AutomaticStrategy"}[models]}
    assert literal(getattr(models, names.get(model, model)), field) == panel.values(enum)


def test_roles_are_published_ones(panel: Types) -> None:
    assert set(get_args(tokens.Role)) < panel.values("TokenRoleEnum")
    assert literal(schema.TokenSpec, "role") == panel.values("TokenRoleEnum")


DEPRECATED = {
    *("id", "region", "container", "prefix"),
    *("standalone", "dataStore", "publicGit", "publicSwift", "targetDataStore"),
}
"""Members of a volume that API v1 has moved to its source and target; the emulator refuses them."""


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (schema.AppSpec, "app.AppSpecInput"),
        (schema.AppUpdate, "app.UpdateInput"),
        (schema.ImageUpdate, "app.AppImageInput"),
        (schema.LabelUpdate, "Label"),
        (schema.TokenSpec, "token.TokenSpec"),
        (schema.EnvVar, "job.JobEnv"),
        (schema.EnvPatch, "Env"),
        (schema.ProbeSpec, "app.ProbeInput"),
        (schema.DeploymentStrategy, "app.DeploymentStrategy"),
        (schema.ScalingStrategy, "app.ScalingStrategyInput"),
        (schema.FixedStrategy, "app.ScalingFixedStrategyInput"),
        (schema.AutomaticStrategy, "app.ScalingAutomaticStrategyInput"),
        (schema.CustomMetrics, "app.AutomaticScalingStrategyCustomMetricsInput"),
        (schema.Resources, "ResourcesInput"),
        (schema.Volume, "volume.Volume"),
        (schema.VolumeSource, "volume.VolumeSource"),
        (schema.VolumeTarget, "volume.VolumeTarget"),
        (schema.DataStore, "volume.DataStore"),
        (schema.Standalone, "volume.Standalone"),
        (schema.PublicUrl, "volume.PublicGit"),
        (schema.PublicUrl, "volume.PublicSwift"),
    ],
)
def test_the_emulator_takes_the_published_members(panel: Types, model: type[BaseModel], name: str) -> None:
    deprecated = DEPRECATED if model is schema.Volume else set()
    assert {field.alias for field in model.model_fields.values()} == panel.members(name).keys() - deprecated
