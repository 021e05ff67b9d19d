"""Apps: create, read, update, delete against the emulated cloud, faults included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pulumi.output import UNKNOWN
from pulumi.runtime import rpc

from components.ai_deploy import client, removal
from components.ai_deploy.api import App
from components.ai_deploy.client import OvhApiError
from components.ai_deploy.creation import create
from components.ai_deploy.engine import Engine
from components.ai_deploy.errors import DeployError
from components.ai_deploy.ownership import Owner, confirm, mark_ready
from components.ai_deploy.plan import Call
from components.ai_deploy.providers import AppProvider, IdentityProvider
from components.ai_deploy.spec import AppSpec
from components.unknowns import is_unknown
from tests.ai_deploy.clouds import FAST, SPEED, Sky, clouds, floats, inputs
from tests.sandbox_cloud.fakes import PROJECT

NEVER = "00000000-0000-4000-8000-000000000000"
OURS = Owner("0123456789abcdef", "vllm")
SCALING = {"automatic": {"replicasMin": 1, "replicasMax": 3, "resourceType": "CPU", "averageUsageTarget": 75}}


def made(sky: Sky, **fields: Any) -> tuple[AppProvider, str, dict[str, Any]]:
    """A provider, and an app that it made: id and state."""
    provider = sky.provider(AppProvider)
    result = provider.create(inputs(**fields))
    assert result.outs is not None
    return provider, result.id, floats(result.outs)


def by_hand(sky: Sky, owner: Owner, *, confirmed: bool) -> App:
    spec = AppSpec(name="x", region="GRA", image="i:1", flavor="l4-1-gpu", gpu=1)
    app = create(sky.api, spec, owner, sky.said.append)
    if confirmed:
        confirm(sky.api, app, owner)
    return app


def before_the_second_attempt(sky: Sky, act: Callable[[], None]) -> Engine:
    """An engine that does something when an app is asked for once more."""

    class Watcher(Engine):
        def require(self, action: str) -> None:
            if action.startswith("POST") and "POST /app" in sky.calls():
                act()

    return Watcher(None)


def test_create_returns_before_the_app_runs_but_with_its_url(tmp_path: Path) -> None:
    with clouds(tmp_path, startup=1e9) as sky:
        _, app_id, outs = made(sky)
        app = sky.app(app_id)
        assert app.state != "RUNNING"
        assert outs["url"] == app.url is not None
        assert outs["monitoring_url"].endswith(f"var-app={app_id}")


def test_create_waits_a_minute_at_most_for_the_url(tmp_path: Path) -> None:
    with clouds(tmp_path, speed=0.001) as sky:
        _, app_id, outs = made(sky)
        assert sky.apps == [app_id]
        assert "url" not in outs


def test_an_app_says_whose_it_is(sky: Sky) -> None:
    _, first, _ = made(sky, labels={"team": "a"})
    _, second, _ = made(sky, resource="other")
    labels = [dict(sky.app(app_id).labels) for app_id in (first, second)]
    nonces = {label.pop("deploy-nonce") for label in labels}
    assert len(nonces) == 2
    ours = {"deploy-identity": "0123456789abcdef", "ovh/type": "app"}
    assert labels == [
        {"team": "a", "deploy-resource": "vllm", "ovh/id": first, **ours},
        {"deploy-resource": "other", "ovh/id": second, **ours},
    ]


def test_leftovers_of_a_crash_are_deleted_before_a_new_app_is_made(sky: Sky) -> None:
    leftover = by_hand(sky, OURS, confirmed=False)
    kept = {
        by_hand(sky, Owner("fedcba9876543210", "vllm"), confirmed=False).id,
        by_hand(sky, Owner("0123456789abcdef", "other"), confirmed=False).id,
    }
    _, app_id, _ = made(sky, flavor="l4-1-gpu")
    assert set(sky.apps) == {app_id, *kept}
    order = sky.calls()
    last_create = len(order) - 1 - order[::-1].index("POST /app")
    assert order.index(f"DELETE /app/{leftover.id}") < last_create
    assert any(leftover.id in text for text in sky.said)


def test_a_confirmed_app_is_no_leftover(sky: Sky) -> None:
    """`up --replace`: the engine deletes the old app itself, after the new one serves."""
    old = by_hand(sky, OURS, confirmed=True)
    _, app_id, _ = made(sky)
    assert set(sky.apps) == {old.id, app_id}


@pytest.mark.parametrize(
    "fault",
    [
        {"lost_answer": True},
        {"status": 500},
        {"status": 502, "body": "<html>Bad gateway</html>"},
        {"status": 429},
    ],
    ids=["lost answer", "500", "502 HTML", "429"],
)
def test_a_create_that_met_a_fault_ends_with_one_app(sky: Sky, fault: dict[str, Any]) -> None:
    sky.fault("POST", "/ai/app$", **fault)
    _, app_id, _ = made(sky)
    assert sky.apps == [app_id]


def test_an_app_that_appears_after_its_answer_was_given_up_is_deleted(sky: Sky) -> None:
    """The first attempt acts, but the search does not see its app; the second attempt makes another one."""
    sky.fault("POST", "/ai/app$", lost_answer=True)
    sky.fault("GET", "labelSelector=deploy-nonce", status=200, body=[], count=100)
    provider = sky.provider(AppProvider)
    # The list of apps is true again from the second attempt on.
    provider.engine = before_the_second_attempt(sky, sky.clear_faults)
    result = provider.create(inputs())
    assert sky.apps == [result.id]
    assert sky.calls().count("POST /app") == 2


def test_an_accepted_app_is_never_lost_to_a_failing_read(sky: Sky) -> None:
    sky.fault("GET", "/ai/app/[0-9a-f-]+$", status=403, count=1000, body={"message": "no"})
    provider = sky.provider(AppProvider)
    result = provider.create(inputs())
    assert sky.apps == [result.id]
    assert any("was accepted" in text for text in sky.said)


def test_an_app_that_cannot_be_made_says_so_and_leaves_nothing(sky: Sky) -> None:
    sky.fault("POST", "/ai/app$", status=500, count=1000, body={"message": "database is down"})
    with pytest.raises(
        DeployError, match=r"database is down.*the next `pulumi up` or `pulumi destroy` deletes it first"
    ):
        sky.provider(AppProvider).create(inputs())
    assert sky.apps == []


def test_a_refused_quota_names_quota_and_what_was_wanted(tmp_path: Path) -> None:
    with clouds(tmp_path, gpu_quota=1) as sky:
        with pytest.raises(DeployError) as caught:
            sky.provider(AppProvider).create(inputs(gpu=2, scaling_strategy=SCALING))
        assert sky.apps == []
    text = str(caught.value)
    for words in ("quota", "2 GPU", "up to 3 replicas with 2 GPU (h100-1-gpu) each", "support"):
        assert words in text
    assert "hf_canary" not in text


def test_a_missing_right_is_named(tmp_path: Path) -> None:
    right = "publicCloudProject:apiovh:ai/app/create"
    with clouds(tmp_path, denied_actions=frozenset({right})) as sky, pytest.raises(DeployError, match=right):
        sky.provider(AppProvider).create(inputs())


def test_an_error_that_echoes_the_environment_is_redacted(sky: Sky) -> None:
    sky.fault("POST", "/ai/app$", status=400, body={"message": "bad env HF_TOKEN=hf_canary_secret"})
    with pytest.raises(DeployError, match=r"bad env HF_TOKEN=\*\*\*"):
        sky.provider(AppProvider).create(inputs())


def test_reading_what_was_made_is_no_difference(sky: Sky) -> None:
    provider, app_id, outs = made(sky, scaling_strategy=SCALING, labels={"team": "a"})
    confirm(sky.api, sky.app(app_id), OURS)
    sky.in_state(app_id, "RUNNING")
    seen = provider.read(app_id, outs)
    assert seen.id == app_id
    news = inputs(scaling_strategy=SCALING, labels={"team": "a"}, olds=floats(seen.inputs))
    diff = provider.diff(app_id, floats(seen.outs), news)
    assert (diff.changes, diff.replaces) == (False, [])
    assert floats(seen.outs) == outs


def test_an_app_that_is_gone_reads_as_gone(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    provider.delete(app_id, outs)
    assert provider.read(app_id, outs).id == ""
    assert provider.read(NEVER, outs).id == ""


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (Call("/scalingstrategy", {"fixed": {"replicas": 2}}), "scaling_strategy"),
        (Call("", {"url": "somebody/else:1"}), "image"),
        (Call("/label", {"name": "by", "value": "hand"}), "labels"),
        (Call("/label", {"name": "deploy-identity", "value": None}), "identity"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_changed_by_hand_is_found_and_put_back(sky: Sky, call: Call, field: str) -> None:
    provider, app_id, outs = made(sky)
    before = dict(sky.app(app_id).spec)
    sky.api.change_app(app_id, call)
    seen = provider.read(app_id, outs)
    assert seen.outs is not None
    assert seen.outs[field] != outs[field]
    olds, news = floats(seen.outs), inputs(olds=floats(seen.inputs))
    diff = provider.diff(app_id, olds, news)
    assert (diff.changes, diff.replaces) == (True, [])
    provider.update(app_id, olds, news)
    assert sky.app(app_id).spec == before


def test_a_stopped_app_is_started_again_and_counted(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    sky.in_state(app_id, "RUNNING")
    sky.api.stop_app(app_id)
    sky.in_state(app_id, "STOPPED")
    seen = provider.read(app_id, outs)
    again = provider.read(app_id, floats(seen.outs))
    assert again.inputs == seen.inputs, "a second refresh must not count twice"
    assert provider.diff(app_id, floats(seen.outs), outs).changes, "the refresh itself must show it"
    olds, news = floats(seen.outs), inputs(olds=floats(seen.inputs))
    diff = provider.diff(app_id, olds, news)
    assert (diff.changes, diff.replaces) == (True, [])
    result = provider.update(app_id, olds, news)
    assert result.outs is not None
    assert result.outs["starts"] == outs["starts"] + 1
    sky.in_state(app_id, "RUNNING")
    assert not provider.diff(app_id, floats(result.outs), inputs(olds=floats(result.outs))).changes


def test_an_app_started_by_hand_meanwhile_needs_nothing(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    seen = provider.read(app_id, outs)
    assert not provider.diff(app_id, floats(seen.outs), inputs(olds=floats(seen.inputs))).changes


def test_an_update_makes_the_documented_calls_and_no_others(sky: Sky) -> None:
    provider, app_id, outs = made(sky, labels={"team": "a", "old": "x"})
    sky.in_state(app_id, "RUNNING")
    before = len(sky.calls())
    changes: dict[str, Any] = {
        "image": "vllm/vllm-openai:v0.14.0",
        "env": {"HF_TOKEN": "hf_canary_other", "HF_HOME": "/hub"},
        "scaling_strategy": SCALING,
        "labels": {"team": "b"},
    }
    news = inputs(olds=outs, **changes)
    diff = provider.diff(app_id, outs, news)
    assert (diff.changes, diff.replaces) == (True, [])
    result = provider.update(app_id, outs, news)
    app = f"/app/{app_id}"
    assert sky.calls()[before:] == [
        f"PUT {app}",
        f"PUT {app}/scalingstrategy",
        f"PUT {app}/label",
        f"PUT {app}/label",
    ]
    assert sky.bodies("PUT", app_id)[-1].keys() == {"url", "envVars"}
    spec = sky.app(app_id).spec
    assert spec["image"] == "vllm/vllm-openai:v0.14.0"
    assert {item["name"]: item["value"] for item in spec["envVars"]} == changes["env"]
    assert result.outs is not None
    assert result.outs["starts"] == outs["starts"] + 1
    assert not provider.diff(app_id, floats(result.outs), inputs(olds=floats(result.outs), **changes)).changes


def test_scaling_and_labels_do_not_count_as_starts(sky: Sky) -> None:
    _, _, outs = made(sky)
    assert inputs(olds=outs, scaling_strategy=SCALING, labels={"a": "b"})["starts"] == outs["starts"]


def test_taking_a_failed_change_back_counts_as_well(sky: Sky) -> None:
    """A hash of the settings would be as at first, and nobody would look whether the old image comes up."""
    provider, app_id, outs = made(sky)
    changed = inputs(olds=outs, image="bad:1")
    middle = provider.update(app_id, outs, changed).outs
    assert inputs(olds=floats(middle))["starts"] == outs["starts"] + 2


def test_an_update_cut_off_half_way_says_what_was_done_and_can_be_repeated(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    news = inputs(olds=outs, image="other:1", scaling_strategy=SCALING)
    sky.fault("PUT", "/scalingstrategy", status=400, body={"message": "no"})
    with pytest.raises(DeployError, match="Of 2 changes 1 were made"):
        provider.update(app_id, outs, news)
    result = provider.update(app_id, outs, news)
    assert floats(provider.read(app_id, floats(result.outs)).outs) == floats(result.outs)


def test_a_failed_app_is_started_by_the_change_that_mends_it(tmp_path: Path) -> None:
    with clouds(tmp_path, pullable_images=frozenset({"good:1"})) as sky:
        provider, app_id, outs = made(sky, image="bad:1")
        sky.in_state(app_id, "FAILED")
        provider.update(app_id, outs, inputs(olds=outs, image="good:1"))
        sky.in_state(app_id, "RUNNING")


def test_delete_stops_waits_and_deletes(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    sky.in_state(app_id, "RUNNING")
    before = len(sky.calls())
    provider.delete(app_id, outs)
    assert sky.apps == []
    assert sky.calls()[before:] == [f"PUT /app/{app_id}/stop", f"DELETE /app/{app_id}"]
    provider.delete(app_id, outs)
    provider.delete(NEVER, outs)


@pytest.mark.parametrize(
    "refusal", [{"status": 400}, {"status": 200, "count": 1000}], ids=["refused", "ignored"]
)
def test_an_app_that_does_not_stop_is_deleted_by_force(
    sky: Sky, refusal: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "STOP_SECONDS", 10)
    provider, app_id, outs = made(sky)
    sky.in_state(app_id, "RUNNING")
    sky.fault("PUT", "/stop$", body=None, **refusal)
    provider.delete(app_id, outs)
    assert sky.apps == []
    assert sky.calls()[-1] == f"DELETE /app/{app_id}?force=true"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
@pytest.mark.parametrize("fault", [{"lost_answer": True}, {"status": 503}], ids=["lost answer", "503"])
def test_a_delete_that_met_a_fault_still_deletes(sky: Sky, method: str, fault: dict[str, Any]) -> None:
    provider, app_id, outs = made(sky)
    sky.in_state(app_id, "RUNNING")
    sky.fault(method, f"/ai/app/{app_id}", **fault)
    provider.delete(app_id, outs)
    assert sky.apps == []


def test_wrong_credentials_say_so(sky: Sky) -> None:
    provider = sky.provider(AppProvider)
    provider._configuration = {**provider._configuration, "ovh:applicationSecret": "wrong-secret-value"}
    with pytest.raises(OvhApiError, match="application secret or the consumer key is wrong") as caught:
        provider.read(NEVER, inputs())
    assert "wrong-secret-value" not in str(caught.value)


class TestCheck:
    """`check` is pure: no cloud."""

    def failures(self, **fields: Any) -> dict[str, str]:
        props = {**inputs(), **fields}
        return {failure.property: failure.reason for failure in AppProvider().check({}, props).failures}

    def test_mistakes_name_the_field(self) -> None:
        assert "pattern" in self.failures(region="gra")["region"]
        assert (
            "replicasMax 1 is less"
            in self.failures(scaling_strategy={"automatic": {"replicasMin": 2.0, "replicasMax": 1.0}})[
                "scaling_strategy.automatic"
            ]
        )
        assert "give gpu for a GPU flavor" in self.failures(cpu=1.0)[""]

    def test_managed_labels_are_refused(self) -> None:
        assert (
            "'deploy-confirmed' is written by" in self.failures(labels={"deploy-confirmed": "true"})["labels"]
        )

    def test_no_value_of_the_environment_is_shown(self) -> None:
        assert "canary" not in str(self.failures(env={"HF_TOKEN": ["canary"], "A": ""}))

    def test_values_not_known_yet_pass_and_the_rest_is_checked(self) -> None:
        props = {**inputs(), "env": {"HF_TOKEN": UNKNOWN}, "identity": UNKNOWN}
        checked = AppProvider().check({}, props)
        assert not checked.failures
        assert checked.inputs["env"] == {"HF_TOKEN": UNKNOWN}
        assert checked.inputs["default_http_port"] == 8000
        assert self.failures(gpu=UNKNOWN, image=UNKNOWN, region="gra").keys() == {"region"}

    def test_a_change_to_a_value_not_known_yet_shows_as_a_change(self) -> None:
        olds = inputs()
        news = inputs(olds=olds, env={"HF_TOKEN": UNKNOWN})
        assert is_unknown(news["starts"])
        diff = AppProvider().diff("id", olds, news)
        assert (diff.changes, diff.replaces) == (True, [])
        region = AppProvider().diff("id", olds, inputs(olds=olds, region=UNKNOWN))
        assert (region.changes, region.replaces) == (True, ["region"])


@pytest.mark.parametrize("answer", [None, {}, ["text"], 5])
@pytest.mark.parametrize(
    "path", [r"labelSelector=deploy-identity", r"labelSelector=deploy-nonce", r"/ai/app/[0-9a-f-]+$"]
)
def test_an_answer_of_another_form_loses_no_app(sky: Sky, path: str, answer: Any) -> None:
    sky.fault("GET", path, status=200, body=answer, count=1000)
    provider = sky.provider(AppProvider)
    try:
        made = [provider.create(inputs()).id]
    except OvhApiError as error:
        assert "was expected" in str(error)
        made = []
    assert sky.apps == made


def test_an_app_that_comes_after_its_request_timed_out_is_found(
    sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "REQUEST_TIMEOUT", 2.0)
    # Carried out 30 s after the client has given up, on the clock of the provider.
    sky.fault("POST", "/ai/app$", delay_seconds=2 + 30 / SPEED)
    _, app_id, _ = made(sky)
    assert sky.apps == [app_id]
    assert sky.calls().count("POST /app") == 1


def test_a_change_that_the_platform_does_not_show_is_named(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    sky.fault("PUT", f"/ai/app/{app_id}/scalingstrategy", status=200)
    provider.update(app_id, outs, inputs(olds=outs, scaling_strategy=SCALING))
    assert any("does not show them (scaling_strategy)" in text for text in sky.said)


@pytest.mark.parametrize(
    "path", ["$", "/label$", "/scalingstrategy$"], ids=["update", "label", "scalingstrategy"]
)
def test_an_answer_that_repeats_the_environment_is_redacted_whatever_was_asked(sky: Sky, path: str) -> None:
    provider, app_id, outs = made(sky, env={"KEY": "old-secret-value"})
    echo = {"message": "spec: KEY=old-secret-value, now new-secret-value"}
    sky.fault("PUT", f"/ai/app/{app_id}{path}", status=400, body=echo)
    news = inputs(olds=outs, env={"KEY": "new-secret-value"}, labels={"team": "a"}, scaling_strategy=SCALING)
    with pytest.raises(DeployError, match=r"spec: KEY=\*\*\*, now \*\*\*"):
        provider.update(app_id, outs, news)


def test_a_variable_set_by_hand_is_a_secret_to_the_engine(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    sky.api.change_app(app_id, Call("", {"envVars": [{"name": "BY_HAND", "value": "by-hand-secret"}]}))
    seen = provider.read(app_id, outs)
    for props in (seen.inputs, seen.outs):
        assert props is not None
        assert rpc.unwrap_rpc_secret(props["env"]["BY_HAND"]) == "by-hand-secret"
        assert all(map(rpc.is_rpc_secret, props["env"].values()))


def test_containers_changed_behind_the_back_of_state_are_waited_for_again(sky: Sky) -> None:
    """An update that was killed after its call: `refresh` finds the new image, `up` no difference in it."""
    provider, app_id, outs = made(sky, container_updates="restart")
    sky.in_state(app_id, "RUNNING")
    sky.api.change_app(app_id, Call("", {"url": "new:1"}))
    seen = provider.read(app_id, outs)
    again = provider.read(app_id, floats(seen.outs))
    assert floats(again.inputs) == floats(seen.inputs), "a second refresh must not forget it"
    olds = floats(again.outs)
    news = inputs(olds=floats(again.inputs), image="new:1", container_updates="restart")
    assert news["starts"] == outs["starts"] + 1
    assert provider.diff(app_id, olds, news).changes
    result = provider.update(app_id, olds, news)
    assert sky.calls()[-2:] == [f"PUT /app/{app_id}/stop", f"PUT /app/{app_id}/start"]
    after = floats(result.outs)
    assert not provider.diff(
        app_id, after, inputs(olds=after, image="new:1", container_updates="restart")
    ).changes


def test_a_change_of_an_app_that_was_deleted_by_hand_says_so(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    sky.api.delete_app(app_id, force=True)
    for _ in FAST.polls(60 * SPEED):
        if not sky.apps:
            break
    with pytest.raises(DeployError, match="does not exist any more: `pulumi refresh`"):
        provider.update(app_id, outs, inputs(olds=outs, image="other:1"))


def test_a_project_that_the_credentials_cannot_see_is_not_an_app_that_is_gone(sky: Sky) -> None:
    """Another account's credentials in the shell: `destroy` would forget everything, and it would bill on."""
    provider, app_id, outs = made(sky)
    elsewhere = {**outs, "service_name": "f" * 32}
    for forget in (provider.read, provider.delete):
        with pytest.raises(OvhApiError, match="HTTP 404"):
            forget(app_id, elsewhere)


def test_an_app_that_another_deployment_has_taken_over_is_neither_read_nor_deleted(sky: Sky) -> None:
    provider, app_id, outs = made(sky)
    sky.api.change_app(app_id, Call("/label", {"name": "deploy-identity", "value": "fedcba9876543210"}))
    for touch in (provider.read, provider.delete):
        with pytest.raises(DeployError, match=r"belongs to the deployment fedcba9876543210 now"):
            touch(app_id, outs)
    assert sky.apps == [app_id]


def test_an_app_that_a_first_attempt_made_is_found_when_the_second_is_refused(sky: Sky) -> None:
    """The list of apps lags behind; the second attempt is refused for the GPU that the first one holds."""
    sky.fault("POST", "/ai/app$", lost_answer=True)
    sky.fault("POST", "/ai/app$", status=403, body={"message": "GPU quota exceeded"})
    sky.fault("GET", "labelSelector=deploy-nonce", status=200, body=[], count=100)

    def refuse() -> None:
        # The list is true again once the second attempt has been refused.
        sky.clear_faults()
        sky.fault("POST", "/ai/app$", status=403, body={"message": "GPU quota exceeded"})

    provider = sky.provider(AppProvider)
    provider.engine = before_the_second_attempt(sky, refuse)
    result = provider.create(inputs())
    assert sky.apps == [result.id]


def test_an_app_that_lives_is_no_leftover_though_a_label_of_it_was_taken_off(sky: Sky) -> None:
    alive = by_hand(sky, OURS, confirmed=True)
    mark_ready(sky.api, sky.app(alive.id), deadline=FAST.now() + 60)
    sky.api.change_app(alive.id, Call("/label", {"name": "deploy-confirmed", "value": None}))
    _, app_id, _ = made(sky)
    assert set(sky.apps) == {alive.id, app_id}


def test_the_end_of_a_deployment_names_an_app_that_the_state_does_not_hold(sky: Sky) -> None:
    """Taken out of the state on purpose, or lost with an older checkpoint: nobody else would mention it."""
    known = by_hand(sky, OURS, confirmed=True)
    leftover = by_hand(sky, Owner(OURS.identity, "other"), confirmed=False)
    sky.provider(IdentityProvider).delete(OURS.identity, {"service_name": PROJECT, "value": OURS.identity})
    assert sky.apps == [known.id]
    assert any(known.id in text and "bills until" in text for text in sky.said)
    assert any(leftover.id in text and "left over" in text for text in sky.said)
