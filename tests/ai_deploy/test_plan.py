from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from hypothesis import given

from components.ai_deploy.plan import Call, observed, plan, restarts
from components.ai_deploy.spec import AppSpec, create_body
from tests.ai_deploy.specs import apply, changes, created, specs


def through_the_engine(settings: dict[str, Any]) -> dict[str, Any]:
    """What the engine makes of settings: every number is a float, what is null is not there."""
    known = {name: value for name, value in settings.items() if value is not None}
    arrived: dict[str, Any] = json.loads(json.dumps(known), parse_int=float)
    return arrived


def integers(value: Any) -> bool:
    """Whether no float stands where the API wants an integer."""
    match value:
        case dict():
            return all(integers(item) for key, item in value.items() if key != "targetValue")
        case list():
            return all(map(integers, value))
        case _:
            return not isinstance(value, float)


def asked_for(live: dict[str, Any], spec: AppSpec) -> dict[str, Any]:
    """A living app without what follows from its flavor."""
    unit = "gpu" if spec.gpu else "cpu"
    resources = {key: live["resources"][key] for key in ("flavor", unit)}
    env = {item["name"]: item["value"] for item in live["envVars"]}
    return {**live, "resources": resources, "envVars": env, "command": live["command"] or []}


BASE = AppSpec.model_validate(
    {
        "name": "vllm",
        "region": "GRA",
        "image": "vllm/vllm-openai:v0.13.0",
        "flavor": "h100-1-gpu",
        "gpu": 1,
        "command": ["bash"],
        "env": {"HF_TOKEN": "hf_secret", "HF_HOME": "/hub"},
        "labels": {"team": "a", "env": "dev"},
        "default_http_port": 8000,
        "readiness_probe": {"path": "/v1/models", "port": 8000, "initialDelaySeconds": 300},
        "scaling_strategy": {
            "automatic": {
                "replicasMin": 1,
                "replicasMax": 3,
                "customMetrics": {
                    "apiUrl": "http://<SELF>:8000/metrics",
                    "format": "PROMETHEUS",
                    "valueLocation": "vllm:num_requests_running",
                    "targetValue": 50,
                },
            }
        },
        "volumes": ["standalone:/hub:rw"],
    }
)


def changed(**fields: Any) -> AppSpec:
    return AppSpec.model_validate({**BASE.model_dump(), **fields})


@given(changes())
def test_the_plan_leads_from_any_app_to_any_other_or_replaces_it(pair: tuple[AppSpec, AppSpec]) -> None:
    old, new = pair
    before = through_the_engine(old.settings())
    found = plan(before, new.settings())
    assert set(found.changed) == {key for key, value in new.settings().items() if value != before.get(key)}
    if found.replaced:
        assert not found.calls
        return
    after = functools.reduce(apply, found.calls, created(old))
    assert asked_for(after, new) == asked_for(created(new), new)
    assert not plan(observed(new.settings(), after), new.settings()).changed


@given(changes())
def test_no_change_is_ignored(pair: tuple[AppSpec, AppSpec]) -> None:
    """Every changed field is changed in place or makes a replacement."""
    old, new = pair
    found = plan(old.settings(), new.settings())
    assert bool(found.changed) == (old != new)
    assert bool(found.changed) == bool(found.calls or found.replaced)


@given(specs)
def test_what_the_platform_fills_in_is_no_difference(spec: AppSpec) -> None:
    seen = observed(through_the_engine(spec.settings()), created(spec))
    assert not plan(through_the_engine(seen), spec.settings()).changed


@given(changes())
def test_integers_leave_the_house_as_integers(pair: tuple[AppSpec, AppSpec]) -> None:
    old, new = pair
    again = AppSpec.model_validate(through_the_engine(new.settings()))
    assert again == new
    assert integers(create_body(again))
    assert all(integers(dict(call.body)) for call in plan(old.settings(), again.settings()).calls)


@pytest.mark.parametrize(
    ("field", "value", "calls"),
    [
        ("image", "vllm/vllm-openai:v0.14.0", [Call("", {"url": "vllm/vllm-openai:v0.14.0"})]),
        ("command", [], [Call("", {"command": []})]),
        ("flavor", "l4-1-gpu", [Call("", {"flavor": "l4-1-gpu"})]),
        ("gpu", 2, [Call("", {"gpu": 2})]),
        ("default_http_port", 9000, [Call("", {"defaultHttpPort": 9000})]),
        (
            "env",
            {"HF_HOME": "/hub", "NEW": "1"},
            [Call("", {"envVars": [{"name": "HF_TOKEN", "value": None}, {"name": "NEW", "value": "1"}]})],
        ),
        (
            "labels",
            {"team": "b", "new": "x"},
            [
                Call("/label", {"name": "env", "value": None}),
                Call("/label", {"name": "new", "value": "x"}),
                Call("/label", {"name": "team", "value": "b"}),
            ],
        ),
        (
            "scaling_strategy",
            {"fixed": {"replicas": 2}},
            [Call("/scalingstrategy", {"fixed": {"replicas": 2}})],
        ),
    ],
)
def test_a_change_in_place_touches_nothing_else(field: str, value: Any, calls: list[Call]) -> None:
    found = plan(BASE.settings(), changed(**{field: value}).settings())
    assert (found.changed, found.replaced, list(found.calls)) == ((field,), (), calls)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("region", "BHS"),
        ("volumes", []),
        ("unsecure_http", True),
        ("partner_id", "partner"),
        ("readiness_probe", None),
    ],
)
def test_what_no_call_can_change_replaces_the_app(field: str, value: Any) -> None:
    assert plan(BASE.settings(), changed(**{field: value}).settings()).replaced == (field,)


@pytest.mark.parametrize(
    ("field", "value", "anew"),
    [
        ("image", "other:1", True),
        ("env", {}, True),
        ("liveness_probe", {"port": 8000}, True),
        ("scaling_strategy", {"fixed": {"replicas": 2}}, False),
        ("labels", {}, False),
        ("deployment_strategy", {"maxSurge": "1"}, False),
    ],
)
def test_the_containers_are_made_anew_for_their_own_settings_only(field: str, value: Any, anew: bool) -> None:
    assert restarts(BASE.settings(), changed(**{field: value}).settings()) is anew


def test_what_was_changed_by_hand_is_seen() -> None:
    live = created(BASE)
    live["scalingStrategy"]["automatic"]["customMetrics"]["targetValue"] = 70
    live["image"] = "somebody:else"
    live["labels"]["extra"] = "by hand"
    live["envVars"].append({"name": "DEBUG", "value": "1"})
    live["resources"] |= {"flavor": "l4-1-gpu", "gpu": 2}
    live |= {"defaultHttpPort": 9000, "command": None, "probe": None}
    live["deploymentStrategy"]["maxSurge"] = "1"
    found = plan(observed(BASE.settings(), live), BASE.settings())
    assert set(found.changed) == {
        "scaling_strategy",
        "image",
        "labels",
        "env",
        "flavor",
        "gpu",
        "default_http_port",
        "command",
        "readiness_probe",
        "deployment_strategy",
    }
    assert not found.replaced


def test_an_answer_without_recent_fields_is_no_difference() -> None:
    live = created(BASE)
    automatic = live["scalingStrategy"]["automatic"]
    for field in ("cooldownPeriodSeconds", "scaleUpStabilizationWindowSeconds"):
        automatic[field] = None
    automatic |= {"resourceType": "CPU", "averageUsageTarget": 75, "somethingNew": 1}
    live["readinessProbe"] = live["probe"] = {**live["probe"], "successThreshold": None, "httpHeaders": []}
    assert not plan(observed(BASE.settings(), live), BASE.settings()).changed
