"""Tokens and their sweep against the emulated cloud."""

from __future__ import annotations

from typing import Any

import pytest

from components.ai_deploy.client import OvhApiError
from components.ai_deploy.providers import IdentityProvider, TokenProvider, TokenSweepProvider
from tests.ai_deploy.clouds import Sky
from tests.sandbox_cloud.fakes import PROJECT

IDENTITY = "0123456789abcdef"


def token_inputs(identity: str = IDENTITY, resource: str = "callers") -> dict[str, Any]:
    return {
        "service_name": PROJECT,
        "identity": identity,
        "resource": resource,
        "region": "GRA",
        "role": "ai_training_read",
        "label_selector": f"deploy-identity={identity}",
    }


def make(sky: Sky, **fields: Any) -> str:
    return sky.provider(TokenProvider).create(token_inputs(**fields)).id


def sweep_inputs(*ids: str) -> dict[str, Any]:
    return {"service_name": PROJECT, "identity": IDENTITY, "token_ids": list(ids)}


def test_a_token_opens_the_apps_of_its_deployment_and_may_only_call(sky: Sky) -> None:
    result = sky.provider(TokenProvider).create(token_inputs())
    assert result.outs is not None
    assert result.outs["value"]
    spec = sky.bodies("POST", "/token")[0]
    assert spec == {
        "name": result.outs["token_name"],
        "region": "GRA",
        "role": "ai_training_read",
        "labelSelector": f"deploy-identity={IDENTITY}",
    }
    assert spec["name"].startswith(f"callers-{IDENTITY}-")


def test_create_always_makes_another_token(sky: Sky) -> None:
    assert make(sky) != make(sky)
    assert len(sky.tokens) == 2


@pytest.mark.parametrize("fault", [{"lost_answer": True}, {"status": 500}], ids=["lost answer", "500"])
def test_a_token_whose_answer_was_lost_is_made_again_and_swept_up(sky: Sky, fault: dict[str, Any]) -> None:
    sky.fault("POST", "/token$", **fault)
    token = make(sky)
    sky.provider(TokenSweepProvider).create(sweep_inputs(token))
    assert sky.tokens == [token]


def test_a_token_whose_answer_was_lost_is_not_left_to_the_sweep(sky: Sky) -> None:
    sky.fault("POST", "/token$", lost_answer=True)
    token = make(sky)
    assert sky.tokens == [token]


@pytest.mark.parametrize("answer", [None, [], {}, 5])
def test_an_answer_without_a_token_is_asked_for_again(sky: Sky, answer: Any) -> None:
    sky.fault("POST", "/token$", status=200, body=answer)
    token = make(sky)
    assert sky.tokens == [token]


def test_a_refused_token_is_not_asked_for_again(sky: Sky) -> None:
    sky.fault("POST", "/token$", status=403, count=9, body={"message": "no"})
    with pytest.raises(OvhApiError, match="HTTP 403"):
        make(sky)
    assert sky.calls() == ["POST /token"]


def test_every_change_replaces_a_token() -> None:
    olds = token_inputs()
    provider = TokenProvider()
    for field in ("service_name", "identity", "region", "role", "label_selector"):
        diff = provider.diff("id", olds, {**olds, field: "other"})
        assert (diff.changes, diff.replaces) == (True, [field])
    assert not provider.diff("id", {**olds, "value": "secret"}, olds).changes


def test_reading_keeps_the_value_and_sees_a_revoked_token(sky: Sky) -> None:
    provider = sky.provider(TokenProvider)
    result = provider.create(token_inputs())
    assert result.outs is not None
    assert provider.read(result.id, result.outs).outs == result.outs
    provider.delete(result.id, result.outs)
    provider.delete(result.id, result.outs)
    assert provider.read(result.id, result.outs).id == ""


def test_the_sweep_deletes_what_state_does_not_hold_and_nobody_else_s(sky: Sky) -> None:
    held, left_behind = make(sky), make(sky, resource="prometheus")
    others = [
        make(sky, identity="fedcba9876543210"),
        # Looks alike, but is not named by us.
        sky.api.create_token({"name": f"my-{IDENTITY}", "region": "GRA", "role": "ai_training_read"})["id"],
    ]
    sky.provider(TokenSweepProvider).create(sweep_inputs(held))
    assert set(sky.tokens) == {held, *others}
    assert left_behind not in sky.tokens


def test_a_token_that_is_being_replaced_lives_until_the_engine_deletes_it(sky: Sky) -> None:
    """Callers and Prometheus move over after the sweep: deleting the old token in it would cost them 401s."""
    old, new, left_behind = make(sky), make(sky), make(sky)
    sky.provider(TokenSweepProvider).update("id", sweep_inputs(old), sweep_inputs(new))
    assert set(sky.tokens) == {old, new}
    assert left_behind not in sky.tokens


def test_the_end_of_a_deployment_leaves_no_token_of_it_and_those_of_others(sky: Sky) -> None:
    """The engine deletes the identity after all that state holds: what is left then was lost in a crash."""
    make(sky)
    make(sky, resource="prometheus")
    other = make(sky, identity="fedcba9876543210")
    sky.provider(IdentityProvider).delete(IDENTITY, {"service_name": PROJECT, "value": IDENTITY})
    assert sky.tokens == [other]
