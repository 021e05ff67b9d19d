"""How the engine and the policies understand each other, as far as it takes no engine to tell."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY
from pulumi_policy.proxy import UNKNOWN_NUMBER_VALUE, UNKNOWN_STRING_VALUE

from policy import wire
from policy.facts import UNKNOWN, Secret
from tests.components.stacks import CHECKOUT
from tests.policy.stacks import RULES

FOLDER = CHECKOUT / "policy"
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(), st.just(UNKNOWN)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
        inner.map(Secret),
    ),
    max_leaves=12,
)


def message(value: Any) -> Any:
    """A value as it is in a message of the engine."""
    match value:
        case Secret():
            return {SPECIAL_SIG_KEY: SPECIAL_SECRET_SIG, "value": message(value.value)}
        case dict():
            return {key: message(item) for key, item in value.items()}
        case list():
            return [message(item) for item in value]
        case _:
            return UNKNOWN_STRING_VALUE if value is UNKNOWN else value


@given(VALUES)
def test_secrets_and_unknown_values_are_told_apart_from_all_others(value: Any) -> None:
    assert wire.marked(message(value)) == value


def test_what_is_unknown_is_unknown_whatever_its_type() -> None:
    assert wire.marked({"a": UNKNOWN_NUMBER_VALUE}) == {"a": UNKNOWN}


def test_the_configuration_names_policies_that_exist() -> None:
    configured = json.loads((FOLDER / "config.json").read_text())
    assert configured.keys() <= {"all", *(rule.name for rule in RULES)}
    assert configured["all"] == "mandatory"


def test_the_pack_runs_in_the_environment_of_the_project() -> None:
    project = yaml.safe_load((FOLDER / "PulumiPolicy.yaml").read_text())
    virtualenv = (FOLDER / project["runtime"]["options"]["virtualenv"]).resolve()
    program = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
    assert virtualenv == CHECKOUT / program["runtime"]["options"]["virtualenv"]


def test_the_page_lists_every_policy_with_its_configuration() -> None:
    page = (CHECKOUT / "docs" / "policies.md").read_text()
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    assert rows.keys() == {rule.name for rule in RULES}
    for rule in RULES:
        for name, default in rule.defaults.items():
            shown = f"{default:g}" if isinstance(default, int | float) else ", ".join(default)
            assert f"`{name}` ({shown})" in rows[rule.name]
