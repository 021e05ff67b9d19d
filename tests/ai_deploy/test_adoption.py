"""Apps that are there already: taken over, replaced, changed, left behind, and at the quota."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.ai_deploy import adoption, removal
from components.ai_deploy.api import App
from components.ai_deploy.creation import create
from components.ai_deploy.errors import DeployError
from components.ai_deploy.ownership import Owner, confirm, leftovers
from components.ai_deploy.plan import Call
from components.ai_deploy.providers import AppProvider, IdentityProvider, Props
from components.ai_deploy.removal import retire
from components.ai_deploy.spec import AppSpec
from sandbox.cloud.settings import Delays
from tests.ai_deploy.clouds import FAST, Sky, clouds, floats, inputs
from tests.sandbox_cloud.fakes import PROJECT

OURS = Owner("0123456789abcdef", "vllm")
SOMEBODY = Owner("fedcba9876543210", "vllm")
PATIENT: dict[str, Any] = {
    "speed": 100,
    "delays": Delays(queued=1, initializing=1, image_pull=1, app_deletion=1),
}
"""A cloud in which apps come up at once, and no deadline passes while this machine is busy."""
NEVER = "00000000-0000-4000-8000-000000000000"
SPEC = AppSpec.model_validate(
    {
        "name": "vllm",
        "region": "GRA",
        "image": "vllm/vllm-openai:v0.13.0",
        "flavor": "l4-1-gpu",
        "gpu": 1,
        "env": {"HF_TOKEN": "hf_canary_secret"},
        "defaultHttpPort": 8000,
        "readinessProbe": {"path": "/v1/models", "port": 8000},
    }
)


@pytest.fixture
def sky(tmp_path: Path) -> Iterator[Sky]:
    with clouds(tmp_path, **PATIENT) as running:
        yield running


def by_hand(sky: Sky, **fields: Any) -> str:
    """An app as somebody makes it in the control panel, who leaves most to the platform."""
    body = {
        "name": "vllm",
        "region": "GRA",
        "image": "vllm/vllm-openai:v0.13.0",
        "resources": {"flavor": "l4-1-gpu", "gpu": 1},
        "envVars": [{"name": "HF_TOKEN", "value": "hf_canary_secret"}],
        "defaultHttpPort": 8000,
        "probe": {"path": "/v1/models", "port": 8000},
        **fields,
    }
    app = sky.api.create_app({key: value for key, value in body.items() if value is not None})
    return sky.in_state(app.id, "RUNNING").id


def ours(sky: Sky, owner: Owner = OURS, *, ready: bool = False) -> App:
    """An app that state holds; `ready`: it has passed the gate."""
    app = create(sky.api, SPEC, owner, sky.said.append)
    label(sky, app.id, "confirmed", "true")
    if ready:
        label(sky, app.id, "ready", "true")
    return sky.in_state(app.id, "RUNNING")


def label(sky: Sky, app_id: str, name: str, value: str | None) -> None:
    sky.api.change_app(app_id, Call("/label", {"name": f"deploy-{name}", "value": value}))


class TestTakingOver:
    @pytest.mark.parametrize(
        ("field", "value", "line"),
        [
            ("name", "other", 'name: "other" → "vllm"'),
            ("region", "BHS", 'region: "BHS" → "GRA"'),
            ("image", "other:1", 'image: "other:1" → "vllm/vllm-openai:v0.13.0"'),
            ("resources", {"flavor": "l4-1-gpu", "gpu": 2}, "gpu: 2 → 1"),
            ("resources", {"flavor": "h100-1-gpu", "gpu": 1}, 'flavor: "h100-1-gpu" → "l4-1-gpu"'),
            ("command", ["serve"], 'command: ["serve"] → []'),
            ("envVars", None, "env.HF_TOKEN: (none) → (hidden)"),
            ("envVars", [{"name": "HF_TOKEN", "value": "hf_other"}], "env.HF_TOKEN: (hidden) → (hidden)"),
            ("labels", {"team": "a"}, 'labels.team: "a" → (none)'),
            ("grpcPort", 9000, "grpc_port: 9000 → (none)"),
            ("probe", {"path": "/health", "port": 8000}, 'readiness_probe.path: "/health" → "/v1/models"'),
            (
                "probe",
                {"path": "/v1/models", "port": 8000, "periodSeconds": 5},
                "readiness_probe.periodSeconds: 5 → 10",
            ),
            ("livenessProbe", {"path": "/health"}, 'liveness_probe.path: "/health" → (none)'),
            ("scalingStrategy", {"fixed": {"replicas": 2}}, "scaling_strategy.fixed.replicas: 2 → 1"),
            (
                "deploymentStrategy",
                {"progressDeadlineSeconds": 3600},
                "deployment_strategy.progressDeadlineSeconds: 3600 → 600",
            ),
            ("unsecureHttp", True, "unsecure_http: true → false"),
        ],
        ids=lambda value: value if str(value).isalpha() else "",
    )
    def test_a_setting_that_disagrees_is_named_with_both_values(
        self, sky: Sky, field: str, value: Any, line: str
    ) -> None:
        app_id = by_hand(sky, **{field: value})
        assert adoption.obstacles(sky.api.find_app(app_id), SPEC, OURS) == [line]
        before = sky.calls()
        with pytest.raises(DeployError) as caught:
            adoption.take_over(sky.api, app_id, SPEC, OURS, sky.said.append)
        assert line in str(caught.value)
        assert sky.calls() == before, "nothing of it is touched"

    def test_what_nobody_has_set_counts_as_the_platform_s_default(self, sky: Sky) -> None:
        """Else an app would be taken over that differs, and nothing would ever find out."""
        app_id = by_hand(sky)
        patient = SPEC.model_copy(
            update={
                "deployment_strategy": SPEC.deployment_strategy.model_copy(
                    update={"progress_deadline_seconds": 3600}
                )
            }
        )
        assert adoption.obstacles(sky.api.find_app(app_id), SPEC, OURS) == []
        assert adoption.obstacles(sky.api.find_app(app_id), patient, OURS) == [
            "deployment_strategy.progressDeadlineSeconds: 600 → 3600"
        ]

    def test_an_app_that_does_not_exist_or_is_going_says_so(self, sky: Sky) -> None:
        app_id = by_hand(sky)
        sky._sandbox("POST", "stuck", {"state": "DELETING", "name": "vllm"})
        sky.api.delete_app(app_id, force=True)
        for id_ in (NEVER, app_id):
            [line] = adoption.obstacles(sky.api.find_app(id_), SPEC, OURS)
            assert line.startswith("does not exist")

    def test_an_app_of_another_deployment_is_not_taken(self, sky: Sky) -> None:
        app = ours(sky, SOMEBODY)
        [line] = adoption.obstacles(sky.api.find_app(app.id), SPEC, OURS)
        assert "belongs to the deployment fedcba9876543210" in line
        assert "deploy-identity" in line, "the way out"

    def test_an_app_of_another_resource_of_the_deployment_is_not_taken(self, sky: Sky) -> None:
        app = ours(sky, Owner(OURS.identity, "other"))
        [line] = adoption.obstacles(sky.api.find_app(app.id), SPEC, OURS)
        assert "belongs to the resource other" in line

    def test_only_a_label_is_written_that_makes_the_app_nobody_s_leftover(self, sky: Sky) -> None:
        """Until state holds it, a crash must not let a later `create` delete it."""
        app_id = by_hand(sky)
        before = len(sky.calls())
        taken = adoption.take_over(sky.api, app_id, SPEC, OURS, sky.said.append)
        assert taken is not None
        assert sky.calls()[before:] == [f"PUT /app/{app_id}/label"]
        assert sky.app(app_id).labels["deploy-nonce"] == taken[1]
        removal.remove_leftovers(sky.api, leftovers(sky.api, OURS.identity), sky.said.append)
        assert sky.apps == [app_id]

    def test_a_later_take_over_is_told_from_the_first(self, sky: Sky) -> None:
        app_id = by_hand(sky)
        first = adoption.take_over(sky.api, app_id, SPEC, OURS, sky.said.append)
        assert first is not None
        assert not adoption.taken_over_since(sky.api, app_id, first[1])
        adoption.take_over(sky.api, app_id, SPEC, OURS, sky.said.append)
        assert adoption.taken_over_since(sky.api, app_id, first[1])
        sky.api.delete_app(app_id, force=True)
        assert not adoption.taken_over_since(sky.api, NEVER, first[1])


class TestTheProviderTakesOver:
    def adopting(self, app_id: str, **fields: Any) -> Props:
        # Only the cloud knows whether the app may be taken over: `create` asks it.
        return {**inputs(flavor="l4-1-gpu", **fields), "adopt": app_id}

    def test_a_preview_shows_each_obstacle_at_the_setting(self, sky: Sky) -> None:
        app_id = by_hand(sky, image="other:1", labels={"team": "a"})
        result = sky.provider(AppProvider).check({}, self.adopting(app_id))
        assert [(failure.property, failure.reason) for failure in result.failures] == [
            ("adopt", f'app {app_id}: image: "other:1" → "vllm/vllm-openai:v0.13.0"'),
            ("adopt", f'app {app_id}: labels.team: "a" → (none)'),
        ]

    def test_once_it_is_in_state_the_app_is_compared_no_more(self, sky: Sky) -> None:
        """A change of the program is a change in place then, not a disagreement."""
        app_id = by_hand(sky)
        provider = sky.provider(AppProvider)
        outs = floats(provider.create(self.adopting(app_id)).outs)
        assert provider.check(outs, {**self.adopting(app_id), "image": "other:1"}).failures == []

    @pytest.mark.parametrize("adopt", [None, "same"])
    def test_whether_the_id_stays_in_the_program_makes_no_difference(
        self, sky: Sky, adopt: str | None
    ) -> None:
        app_id = by_hand(sky)
        provider = sky.provider(AppProvider)
        outs = floats(provider.create(self.adopting(app_id)).outs)
        news = {**inputs(flavor="l4-1-gpu", olds=outs), "adopt": adopt and app_id}
        diff = provider.diff(app_id, outs, floats(news))
        assert (diff.changes, diff.replaces) == (False, [])

    def test_another_id_replaces_the_app_by_that_one(self, sky: Sky) -> None:
        first, second = by_hand(sky), by_hand(sky)
        provider = sky.provider(AppProvider)
        outs = floats(provider.create(self.adopting(first)).outs)
        news = {**inputs(flavor="l4-1-gpu", olds=outs), "adopt": second}
        assert provider.diff(first, outs, floats(news)).replaces == ["adopt"]

    def test_a_take_over_whose_answer_was_lost_is_made_again(self, sky: Sky) -> None:
        app_id = by_hand(sky)
        provider = sky.provider(AppProvider)
        assert {provider.create(self.adopting(app_id)).id for _ in range(2)} == {app_id}
        assert sky.apps == [app_id]

    def test_replaced_before_the_gate_the_app_is_not_deleted_as_the_old_one(self, sky: Sky) -> None:
        """The engine deletes the old id after the new one is made: they are the same."""
        app_id = by_hand(sky)
        provider = sky.provider(AppProvider)
        first, second = (floats(provider.create(self.adopting(app_id)).outs) for _ in range(2))
        provider.delete(app_id, first)
        assert sky.apps == [app_id]
        assert any("is kept" in text for text in sky.said)
        provider.delete(app_id, second)
        assert sky.apps == []

    def test_replaced_after_the_gate_a_new_app_is_made(self, sky: Sky) -> None:
        old = by_hand(sky)
        provider = sky.provider(AppProvider)
        outs = floats(provider.create(self.adopting(old)).outs)
        confirm(sky.api, sky.app(old), OURS)
        new = provider.create(self.adopting(old))
        assert new.id != old
        assert new.outs is not None
        assert "adopted_nonce" not in new.outs
        provider.delete(old, outs)
        assert sky.apps == [new.id]

    def test_an_id_that_stays_in_the_program_does_not_hinder_later_replacements(self, sky: Sky) -> None:
        old = by_hand(sky)
        provider = sky.provider(AppProvider)
        outs = floats(provider.create(self.adopting(old)).outs)
        confirm(sky.api, sky.app(old), OURS)
        provider.delete(old, outs)
        assert provider.create(self.adopting(old)).id != old

    def test_a_refresh_keeps_by_what_the_take_over_is_known(self, sky: Sky) -> None:
        app_id = by_hand(sky)
        provider = sky.provider(AppProvider)
        outs = floats(provider.create(self.adopting(app_id)).outs)
        confirm(sky.api, sky.app(app_id), OURS)
        seen = provider.read(app_id, outs)
        assert seen.outs is not None
        assert seen.outs["adopted_nonce"] == outs["adopted_nonce"]
        news = inputs(flavor="l4-1-gpu", olds=outs, image="other:1")
        updated = provider.update(app_id, outs, news).outs
        assert updated is not None
        assert updated["adopted_nonce"] == outs["adopted_nonce"]


class TestRetiring:
    """With `--continue-on-error` the engine deletes the old app although the new one is not ready."""

    def test_an_app_that_serves_is_kept_while_its_replacement_is_not_ready(self, sky: Sky) -> None:
        old, new = ours(sky, ready=True), ours(sky)
        with pytest.raises(DeployError) as caught:
            retire(sky.api, old.id, OURS)
        for words in (f"app {old.id} is kept", f"app {new.id}", "RUNNING", "not ready", "`pulumi up`"):
            assert words in str(caught.value)
        assert set(sky.apps) == {old.id, new.id}
        assert sky.app(old.id).state == "RUNNING"

    def test_it_goes_when_the_replacement_is_ready(self, sky: Sky) -> None:
        old, new = ours(sky, ready=True), ours(sky, ready=True)
        retire(sky.api, old.id, OURS)
        assert sky.apps == [new.id]

    @pytest.mark.parametrize(
        "other", [Owner(OURS.identity, "other"), SOMEBODY], ids=["other resource", "other deployment"]
    )
    def test_apps_of_others_do_not_keep_it(self, sky: Sky, other: Owner) -> None:
        old, stranger = ours(sky, ready=True), ours(sky, other)
        retire(sky.api, old.id, OURS)
        assert sky.apps == [stranger.id]

    def test_an_app_that_never_served_is_not_kept(self, sky: Sky) -> None:
        old, new = ours(sky), ours(sky)
        retire(sky.api, old.id, OURS)
        assert sky.apps == [new.id]

    def test_an_app_that_rests_is_not_kept(self, sky: Sky) -> None:
        old, new = ours(sky, ready=True), ours(sky)
        sky.api.stop_app(old.id)
        sky.in_state(old.id, "STOPPED")
        retire(sky.api, old.id, OURS)
        assert sky.apps == [new.id]

    def test_a_destroy_of_both_waits_until_the_replacement_goes(self, sky: Sky) -> None:
        old, new = ours(sky, ready=True), ours(sky)
        looks = 0

        def sleep(seconds: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                sky.api.delete_app(new.id, force=True)
            FAST.sleep(seconds)

        api = sky.api
        object.__setattr__(api.client, "clock", type(FAST)(FAST.now, sleep))
        retire(api, old.id, OURS)
        assert old.id not in sky.apps
        assert looks >= 3


class TestContainerUpdates:
    def changed(self, sky: Sky, how: str, **fields: Any) -> str:
        """The id of an app that ran, and whose image was changed."""
        provider = sky.provider(AppProvider)
        result = provider.create(inputs(container_updates=how))
        outs = floats(result.outs)
        sky.in_state(result.id, "RUNNING")
        provider.update(result.id, outs, inputs(olds=outs, container_updates=how, **fields))
        return result.id

    def test_a_rollout_is_waited_for_and_nothing_said(self, sky: Sky) -> None:
        app_id = self.changed(sky, "roll", image="other:1")
        assert sky.said == []
        assert [entry["state"] for entry in sky.app(app_id).status["history"]].count("SCALING") == 2

    def test_where_none_shows_the_user_is_told_and_the_app_left_alone(self, tmp_path: Path) -> None:
        with clouds(tmp_path, **PATIENT, update_mode="restart-required") as sky:
            app_id = self.changed(sky, "roll", image="other:1")
            [said] = sky.said
            for words in (f"app {app_id}", "no rollout", "stop the app", "`restart`"):
                assert words in said
            assert sky.calls()[-1] == f"PUT /app/{app_id}"
            assert sky.app(app_id).state == "RUNNING"

    @pytest.mark.parametrize("mode", ["roll", "restart-required"])
    def test_a_restart_stops_waits_and_starts(self, tmp_path: Path, mode: str) -> None:
        with clouds(tmp_path, **PATIENT, update_mode=mode) as sky:
            app_id = self.changed(sky, "restart", image="other:1")
            assert sky.calls()[-3:] == [f"PUT /app/{app_id}{end}" for end in ("", "/stop", "/start")]
            app = sky.in_state(app_id, "RUNNING")
            states = [entry["state"] for entry in app.status["history"]]
            assert states[states.index("STOPPED") :][:2] == ["STOPPED", "QUEUED"]

    @pytest.mark.parametrize("how", ["roll", "restart"])
    def test_scaling_and_labels_neither_wait_nor_restart(self, sky: Sky, how: str) -> None:
        app_id = self.changed(sky, how, labels={"team": "a"}, scaling_strategy={"fixed": {"replicas": 2.0}})
        assert sky.calls()[-2:] == [f"PUT /app/{app_id}/scalingstrategy", f"PUT /app/{app_id}/label"]

    def test_an_app_that_does_not_stop_says_so_and_keeps_the_change(
        self, sky: Sky, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(removal, "STOP_SECONDS", 10)
        sky._sandbox("POST", "stuck", {"state": "STOPPING", "name": "vllm"})
        with pytest.raises(
            DeployError, match=r"still STOPPING after 10 s\. The changes are made; `pulumi up`"
        ):
            self.changed(sky, "restart", image="other:1")
        [app_id] = sky.apps
        assert sky.app(app_id).spec["image"] == "other:1"

    def test_another_way_of_updates_is_no_change_of_the_app(self, sky: Sky) -> None:
        provider = sky.provider(AppProvider)
        result = provider.create(inputs())
        outs = floats(result.outs)
        news = inputs(olds=outs, container_updates="restart")
        assert not provider.diff(result.id, outs, news).changes

    def test_a_way_that_does_not_exist_is_refused(self) -> None:
        [failure] = AppProvider().check({}, {**inputs(), "container_updates": "reboot"}).failures
        assert failure.property == "container_updates"
        assert "roll" in failure.reason
        assert "restart" in failure.reason


class TestWhatACrashLeftBehind:
    def test_the_end_of_a_deployment_deletes_its_apps_that_state_never_held(self, sky: Sky) -> None:
        """State knows every other one, and the engine has deleted them before."""
        lost = [create(sky.api, SPEC, Owner(OURS.identity, name), sky.said.append) for name in ("a", "b")]
        kept = {ours(sky).id, create(sky.api, SPEC, SOMEBODY, sky.said.append).id}
        sky.provider(IdentityProvider).delete(
            OURS.identity, {"service_name": PROJECT, "value": OURS.identity}
        )
        assert set(sky.apps) == kept
        for app in lost:
            assert any(app.id in text for text in sky.said)


class TestQuota:
    def refused(self, sky: Sky) -> str:
        with pytest.raises(DeployError) as caught:
            sky.provider(AppProvider).create(inputs(flavor="l4-1-gpu", gpu=2))
        return str(caught.value)

    def test_a_refusal_names_quota_what_was_wanted_and_who_uses_it(self, tmp_path: Path) -> None:
        with clouds(tmp_path, **PATIENT, gpu_quota=2) as sky:
            user = by_hand(sky, name="somebody")
            stopped = by_hand(sky, name="resting")
            sky.api.stop_app(stopped)
            sky.in_state(stopped, "STOPPED")
            said = self.refused(sky)
            assert "Wanted: 1 replica with 2 GPU (l4-1-gpu)" in said
            assert f"In use: 1 GPU by apps (somebody {user} 1)" in said
            assert "Quota of the project: 2 GPU" in said
            assert stopped not in said

    def test_without_the_right_to_read_it_the_quota_is_unknown(self, tmp_path: Path) -> None:
        denied = frozenset({"publicCloudProject:apiovh:ai/capabilities/quota/get"})
        with clouds(tmp_path, **PATIENT, gpu_quota=1, denied_actions=denied) as sky:
            said = self.refused(sky)
            assert "Quota of the project: unknown (4 GPU unless OVHcloud has raised it)" in said

    def test_a_list_that_fails_does_not_hide_the_refusal(self, tmp_path: Path) -> None:
        with clouds(tmp_path, **PATIENT, gpu_quota=1) as sky:
            sky.fault("GET", "/ai/app$", status=403, count=100, body={"message": "no list"})
            said = self.refused(sky)
            assert "GPU quota exceeded" in said
            assert "In use: unknown" in said

    def test_an_app_that_cannot_be_started_again_for_want_of_quota_says_so(self, tmp_path: Path) -> None:
        with clouds(tmp_path, **PATIENT, gpu_quota=1) as sky:
            provider = sky.provider(AppProvider)
            result = provider.create(inputs(flavor="l4-1-gpu"))
            outs = floats(result.outs)
            sky.in_state(result.id, "RUNNING")
            sky.api.stop_app(result.id)
            sky.in_state(result.id, "STOPPED")
            other = by_hand(sky, name="somebody")
            seen = provider.read(result.id, outs)
            olds, news = floats(seen.outs), inputs(flavor="l4-1-gpu", olds=floats(seen.inputs))
            with pytest.raises(DeployError) as caught:
                provider.update(result.id, olds, news)
            assert f"App {result.id} rests and bills nothing" in str(caught.value)
            assert f"In use: 1 GPU by apps (somebody {other} 1)" in str(caught.value)
