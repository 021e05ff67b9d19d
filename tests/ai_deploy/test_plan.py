from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.ai_deploy.api import App
from components.ai_deploy.plan import Call, Plan, differences, observed, plan, restarting
from components.ai_deploy.providers import AppProvider
from components.ai_deploy.spec import AppSpec, create_body
from tests.ai_deploy.clouds import Listener, floats, inputs
from tests.ai_deploy.specs import apply, changes, changes_in_place, created, forgetful, noises, specs

Pair = tuple[AppSpec, AppSpec]
ANEW = {"name", "region", "volumes", "unsecure_http", "partner_id"}
"""Fields that no endpoint takes."""
OPTIONAL = {"gpu", "cpu", "grpc_port", "readiness_probe", "liveness_probe"}
"""Fields that no endpoint takes away."""
CONTAINERS = {"image", "command", "env", "flavor", "default_http_port"} | OPTIONAL
"""Fields whose change gives the replicas new containers."""
CANARY = "canary-0f1e2d"
"""Part of every value of an environment that is to be kept secret."""


def arrived(spec: AppSpec) -> dict[str, Any]:
    """Settings as the engine hands them on: every number is a float, what is null is not there."""
    known: dict[str, Any] = floats(spec.settings())
    return known


def integers(value: Any) -> bool:
    """Whether no float stands where the API wants an integer."""
    match value:
        case dict():
            return all(integers(item) for key, item in value.items() if key != "targetValue")
        case list():
            return all(map(integers, value))
        case _:
            return not isinstance(value, float)


def fields(live: Mapping[str, Any]) -> dict[str, Any]:
    """What a living app has, by field of `AppSpec`; each variable and label is a field of its own."""
    return {
        **{f"env {item['name']}": item["value"] for item in live["envVars"]},
        **{f"label {name}": value for name, value in live["labels"].items()},
        **{name: live["resources"].get(name) or None for name in ("flavor", "gpu", "cpu")},
        "image": live["image"],
        "command": live["command"] or [],
        "default_http_port": live["defaultHttpPort"],
        "grpc_port": live["grpcPort"],
        "readiness_probe": live["probe"],
        "liveness_probe": live["livenessProbe"],
        "deployment_strategy": live["deploymentStrategy"],
        "scaling_strategy": live["scalingStrategy"],
    }


def asked_for(live: Mapping[str, Any], spec: AppSpec) -> dict[str, Any]:
    """`fields` without what follows from the flavor."""
    return {name: value for name, value in fields(live).items() if name != ("cpu" if spec.gpu else "gpu")}


def carried_out(found: Plan, live: dict[str, Any]) -> dict[str, Any]:
    """The app after the calls of a plan."""
    assert not found.replaced
    return functools.reduce(apply, found.calls, live)


def with_secrets(spec: AppSpec) -> AppSpec:
    """The app with variables whose values can be told from all else."""
    return spec.model_copy(update={"env": {name: f"{CANARY}{value}" for name, value in spec.env.items()}})


def touched(old: AppSpec, new: AppSpec) -> set[str]:
    """Which of `fields` differ."""
    before, after = fields(created(old)), fields(created(new))
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


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


@given(changes() | changes_in_place())
def test_the_plan_leads_from_any_app_to_any_other_or_replaces_it(pair: Pair) -> None:
    old, new = pair
    before, after = arrived(old), new.settings()
    found = plan(before, after)
    differ = {name for name, value in after.items() if value != before.get(name)}
    assert set(found.changed) == differ
    assert bool(differ) == (old != new)
    taken_away = {name for name in differ & OPTIONAL if after[name] is None}
    assert set(found.replaced) == (differ & ANEW) | taken_away
    if found.replaced:
        assert not found.calls
    else:
        live = carried_out(found, created(old))
        assert asked_for(live, new) == asked_for(created(new), new)
        assert not plan(observed(arrived(new), live), new.settings()).changed


@given(specs)
def test_there_is_nothing_to_do_for_what_is_there(spec: AppSpec) -> None:
    for old in (spec.settings(), arrived(spec), dict(reversed(spec.settings().items()))):
        assert plan(old, spec.settings()) == Plan((), (), ())


@given(changes_in_place(), specs)
def test_a_plan_touches_nothing_that_did_not_change(pair: Pair, other: AppSpec) -> None:
    """Whatever the app has by then, and nobody knows of: fields, variables and labels."""
    old, new = pair
    live = created(other)
    before, after = fields(live), fields(carried_out(plan(arrived(old), new.settings()), live))
    may = touched(old, new)
    if may & {"flavor", "gpu", "cpu"}:
        # What a flavor alone makes of the count is not documented: they go together.
        may |= {"flavor", "gpu", "cpu"}
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} <= may


@given(changes_in_place(), st.randoms(use_true_random=False))
def test_a_plan_is_the_same_whatever_order_things_come_in(pair: Pair, random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(item)) for key, item in value.items()]
            random.shuffle(items)
            return dict(items)
        return value

    old, new = pair[0].settings(), pair[1].settings()
    found, again = plan(old, new), plan(shuffled(old), shuffled(new))
    assert (found.changed, found.calls) == (again.changed, again.calls)
    assert [list(call.body) for call in found.calls if not call.path] == [
        list(call.body) for call in again.calls if not call.path
    ]


@given(st.data(), specs)
def test_an_app_that_nobody_touched_shows_no_difference(data: st.DataObject, spec: AppSpec) -> None:
    live = data.draw(noises(created(spec)))
    for shown in (live, forgetful(live)):
        seen = observed(arrived(spec), shown)
        assert not plan(floats(seen), spec.settings()).changed
        assert not restarting(floats(seen), spec.settings())
        assert not differences(spec.settings(), shown)


@given(st.data(), changes_in_place())
def test_what_was_changed_by_hand_is_put_back(data: st.DataObject, pair: Pair) -> None:
    wanted, by_hand = pair
    live = carried_out(plan(wanted.settings(), by_hand.settings()), created(wanted))
    seen = observed(arrived(wanted), data.draw(noises(live)))
    found = plan(floats(seen), wanted.settings())
    # What was never asked for may stay: nothing takes it away from a living app.
    added = {name for name, value in wanted.settings().items() if value is None}
    assert set(found.changed) == set(plan(wanted.settings(), by_hand.settings()).changed) - added
    again = fields(carried_out(found, live))
    assert {**again, **dict.fromkeys(added)} == {**fields(created(wanted)), **dict.fromkeys(added)}


@given(st.data(), changes())
def test_an_app_to_be_taken_over_is_compared_field_by_field(data: st.DataObject, pair: Pair) -> None:
    wanted, there = map(with_secrets, pair)
    lines = differences(wanted.settings(), data.draw(noises(created(there))))
    assert CANARY not in "".join(lines)
    names = {line.partition(":")[0].partition(".")[0] for line in lines}
    differ = set(plan(there.settings(), wanted.settings()).changed)
    # An app on a CPU has no GPUs, and one on a GPU has CPUs: they follow from the flavor.
    units = {"gpu", "cpu"}
    assert names - units == differ - units
    assert bool(names & units) <= bool(differ & units)


@given(changes())
def test_the_provider_sees_every_change_and_no_other(pair: Pair) -> None:
    old, new = map(with_secrets, pair)
    said: list[str] = []
    provider = AppProvider()
    provider.engine = Listener(said)
    there = inputs(**old.settings())
    wanted = inputs(olds=there, **new.settings())
    found = plan(there, wanted)
    result = provider.diff("id", there, wanted)
    assert result.changes == (old != new)
    assert set(result.replaces or ()) == set(found.replaced)
    anew = bool(set(found.changed) & CONTAINERS)
    assert wanted["starts"] == there["starts"] + anew
    assert bool(said) == (anew and not found.replaced)
    assert CANARY not in "".join(said)
    # Once it is done there is nothing left to do.
    again = inputs(olds=wanted, **new.settings())
    assert again == wanted
    assert not provider.diff("id", {**wanted, "url": "https://x"}, again).changes


@given(changes())
def test_integers_leave_the_house_as_integers(pair: Pair) -> None:
    old, new = pair
    again = AppSpec.model_validate(arrived(new))
    assert again == new
    assert integers(create_body(again))
    assert all(integers(dict(call.body)) for call in plan(arrived(old), again.settings()).calls)


@given(changes_in_place())
def test_values_of_the_environment_are_not_for_the_eye(pair: Pair) -> None:
    """Neither in a preview nor where somebody prints or logs what we hold."""
    old, new = map(with_secrets, pair)
    found = plan(arrived(old), new.settings())
    printed = logging.LogRecord("a", 10, "b", 1, "%s %s %r", (found, new, found.calls), None).getMessage()
    printed += f"{old} {found!r} {App('id', created(new), {})}"
    assert CANARY not in printed


FULL: dict[str, Any] = {
    **BASE.model_dump(),
    "grpc_port": 9000,
    "liveness_probe": {"path": "/health", "port": 8000},
    "partner_id": "a",
}
USAGE = {"automatic": {"replicasMin": 1, "replicasMax": 3, "resourceType": "CPU", "averageUsageTarget": 75}}
METRIC = BASE.settings()["scaling_strategy"]
ELSEWHERE = [
    ("name", "other"),
    ("region", "BHS"),
    ("image", "other:1"),
    ("flavor", "l4-1-gpu"),
    ("gpu", 2),
    ("command", ["bash", "-c"]),
    ("env", {"HF_TOKEN": "other", "HF_HOME": "/hub"}),
    ("labels", {"team": "b", "env": "dev"}),
    ("default_http_port", 8001),
    ("grpc_port", 9001),
    ("unsecure_http", True),
    ("partner_id", "b"),
    *(
        (f"{probe}.{name}", value)
        for probe in ("readiness_probe", "liveness_probe")
        for name, value in {
            "path": "/x",
            "port": 8001,
            "initialDelaySeconds": 1,
            "periodSeconds": 11,
            "timeoutSeconds": 2,
            "failureThreshold": 4,
        }.items()
    ),
    ("readiness_probe.successThreshold", 2),
    ("deployment_strategy.maxSurge", "1"),
    ("deployment_strategy.maxUnavailable", "1"),
    ("deployment_strategy.progressDeadlineSeconds", 601),
    ("deployment_strategy.terminationGracePeriodSeconds", 31),
    ("scaling_strategy.automatic.replicasMin", 2),
    ("scaling_strategy.automatic.replicasMax", 4),
    ("scaling_strategy.automatic.cooldownPeriodSeconds", 301),
    ("scaling_strategy.automatic.scaleUpStabilizationWindowSeconds", 1),
    ("scaling_strategy.automatic.scaleDownStabilizationWindowSeconds", 301),
    ("scaling_strategy.automatic.customMetrics.apiUrl", "http://<SELF>:8001/metrics"),
    ("scaling_strategy.automatic.customMetrics.format", "JSON"),
    ("scaling_strategy.automatic.customMetrics.valueLocation", "x"),
    ("scaling_strategy.automatic.customMetrics.targetValue", 50.5),
    ("scaling_strategy.automatic.customMetrics.aggregationType", "SUM"),
]


def leaves(path: str, value: Any) -> set[str]:
    """Paths of all settings; variables, labels and volumes count as one each."""
    if isinstance(value, dict) and path not in ("env", "labels"):
        return set().union(*(leaves(f"{path}.{key}".lstrip("."), item) for key, item in value.items()))
    return {path}


def test_no_setting_is_missing_below() -> None:
    fixed = {"cpu", "volumes", "liveness_probe.successThreshold"}
    assert leaves("", AppSpec.model_validate(FULL).settings()) == {path for path, _ in ELSEWHERE} | fixed


@pytest.mark.parametrize(("path", "value"), ELSEWHERE, ids=[path for path, _ in ELSEWHERE])
def test_each_setting_counts_by_itself(path: str, value: Any) -> None:
    """In a plan, in a refresh and in a take-over."""
    old = AppSpec.model_validate(FULL)
    settings = old.settings()
    *parents, last = path.split(".")
    functools.reduce(dict.__getitem__, parents, settings)[last] = value
    new = AppSpec.model_validate(arrived(AppSpec.model_validate(settings)))
    field = path.partition(".")[0]
    assert plan(arrived(old), new.settings()).changed == (field,)
    assert restarting(arrived(old), new.settings()) == ((field,) if field in CONTAINERS else ())
    assert [line.partition(":")[0] for line in differences(new.settings(), created(old))] == [
        {"env": "env.HF_TOKEN", "labels": "labels.team"}.get(path, path)
    ]
    if field not in ANEW:
        assert plan(observed(arrived(new), created(old)), new.settings()).changed == (field,)


WIRE = {
    "readiness_probe": "probe",
    "liveness_probe": "livenessProbe",
    "deployment_strategy": "deploymentStrategy",
}


@pytest.mark.parametrize("path", [path for path, _ in ELSEWHERE if path.partition(".")[0] in WIRE])
def test_what_an_app_to_be_taken_over_does_not_show_is_the_default(path: str) -> None:
    """Were it taken for what is wanted, the difference would never be found."""
    field, _, member = path.partition(".")
    value = dict(ELSEWHERE)[path]
    port = {} if field == "deployment_strategy" else {"port": 8000}
    wanted = changed(**{field: {**port, member: value}})
    live = created(wanted)
    del live[WIRE[field]][member]
    assert [line.partition(":")[0] for line in differences(wanted.settings(), live)] == [path]


@pytest.mark.parametrize(
    ("field", "value", "calls"),
    [
        ("image", "vllm/vllm-openai:v0.14.0", [Call("", {"url": "vllm/vllm-openai:v0.14.0"})]),
        ("command", [], [Call("", {"command": []})]),
        ("flavor", "l4-1-gpu", [Call("", {"flavor": "l4-1-gpu", "gpu": 1})]),
        ("gpu", 2, [Call("", {"flavor": "h100-1-gpu", "gpu": 2})]),
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
def test_a_change_in_place_is_these_calls(field: str, value: Any, calls: list[Call]) -> None:
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
