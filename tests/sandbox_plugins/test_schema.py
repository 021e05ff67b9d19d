"""What the bridge derives from a schema, apart from any plugin."""

from __future__ import annotations

import pytest

from sandbox.plugins.schema import (
    Field,
    State,
    changes_between,
    plan,
    raw_state_delta,
    to_outputs,
    validate,
    with_defaults,
)
from sandbox.plugins.values import UNKNOWN, Object, Secret

SCHEMA = {
    "size": Field("int", optional=True, computed=True),
    "note": Field("string"),
    "flag": Field("bool"),
    "ranges": Field("set"),
    "zones": Field("list", force_new=True),
    "labels": Field("map"),
    "rules": Field("set", optional=True, computed=True, elements="object", fields={"names": Field("set")}),
    "token": Field("string", computed=True, secret=True),
}


def diff(prior: State, inputs: Object) -> dict[str, str]:
    """Kind of change by path."""
    full: State = {**dict.fromkeys(SCHEMA), **prior}
    changes = changes_between(SCHEMA, full, plan(SCHEMA, full, inputs))
    return {
        path: change.kind + (" by replacement" if change.replace else "") for path, change in changes.items()
    }


@pytest.mark.parametrize(
    ("prior", "inputs", "expected"),
    [
        ({"note": ""}, {}, {}),
        ({"note": "x"}, {}, {"note": "delete"}),
        ({"size": 3}, {}, {}),
        ({"size": 3}, {"size": 4}, {"size": "update"}),
        ({}, {"flag": False, "note": "", "zones": []}, {}),
        ({"flag": True}, {"flag": False}, {"flag": "update"}),
        ({"ranges": ["a", "b"]}, {"ranges": ["b", "a"]}, {}),
        ({"ranges": ["a", "b"]}, {"ranges": ["b", "c"]}, {"ranges[0]": "delete", "ranges[1]": "add"}),
        ({"ranges": ["a"]}, {"ranges": ["a", UNKNOWN]}, {"ranges[1]": "add"}),
        (
            {"zones": ["a", "b"]},
            {"zones": ["b", "a"]},
            {"zones[0]": "update by replacement", "zones[1]": "update by replacement"},
        ),
        ({"labels": {"a.b": "1"}}, {"labels": {"c": "1"}}, {'labels["a.b"]': "delete", "labels.c": "add"}),
        ({"rules": [{"names": ["x", "y"]}]}, {"rules": [{"names": ["y", "x"]}]}, {}),
        ({"rules": [{"names": ["x"]}]}, {"rules": [{"names": ["z"]}]}, {"rules[0].names[0]": "update"}),
        ({"note": "x"}, {"note": UNKNOWN}, {"note": "update"}),
        ({}, {"note": UNKNOWN}, {"note": "add"}),
    ],
)
def test_a_diff_shows_what_terraform_would_change(
    prior: State, inputs: Object, expected: dict[str, str]
) -> None:
    assert diff(prior, inputs) == expected


def test_a_new_resource_has_unknown_outputs() -> None:
    planned = plan(SCHEMA, None, {"note": "x"})
    assert planned["token"] == planned["size"] == UNKNOWN
    assert (planned["note"], planned["labels"]) == ("x", None)
    assert to_outputs(SCHEMA, planned)["token"] == Secret(UNKNOWN)


def test_inputs_take_the_types_of_the_schema() -> None:
    inputs = with_defaults(SCHEMA, {"size": "4", "note": 7, "flag": "true"}, {}, "n", b"")
    assert inputs == {"size": 4, "note": "7", "flag": True, "__defaults": []}


def test_a_value_of_a_wrong_type_is_not_shown() -> None:
    (failure,) = validate(SCHEMA, {"size": "s3cret"}, "n")
    assert failure == "expected int, got a string. Examine values at 'n.size'."


def test_raw_state_says_which_objects_are_maps_and_which_arrays_are_lists() -> None:
    assert raw_state_delta(SCHEMA, {"note": "x", "zones": [], "labels": {"a": "b"}}) == {
        "obj": {"ps": {"zones": {"arr": {}}, "labels": {"map": {}}}}
    }
    assert raw_state_delta(SCHEMA, {"note": "x"}) == {"obj": {}}
