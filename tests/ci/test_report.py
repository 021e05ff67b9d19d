"""What reviewers read: every change, what it costs, which policies it breaks, and never a secret."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi.runtime.rpc import UNKNOWN

from ci import report
from ci.report import Change, Run, Violation

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}
APP = "urn:pulumi:dev::ovh-vllm::a$pulumi-python:dynamic/ai-deploy:App::vllm"
STACK = "urn:pulumi:dev::ovh-vllm::pulumi:pulumi:Stack::ovh-vllm-dev"


def step(op: str, urn: str = APP, **more: Any) -> dict[str, Any]:
    return {"resourcePreEvent": {"metadata": {"op": op, "urn": urn, **more}}}


def outputs(op: str, old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    sides = {"old": old and {"outputs": old}, "new": {"outputs": new}}
    metadata = {"op": op, "urn": STACK, "type": "pulumi:pulumi:Stack", **sides}
    return {"resOutputsEvent": {"metadata": metadata}}


def sides(old: Any, new: Any) -> dict[str, Any]:
    return {"old": {"inputs": {"field": old}}, "new": {"inputs": {"field": new}}}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (1, 2, ["field: 1 → 2"]),
        ({"a": {"b": 1}}, {"a": {"b": 2}, "c": True}, ["field.a.b: 1 → 2", "field.c: (none) → true"]),
        ([1, 2], [1, 3], ["field[1]: 2 → 3"]),
        ([1], [1, 3], ["field: [1] → [1, 3]"]),
        ("x" * 100 + "1", "x" * 100 + "2", ["field: changed, too long to show"]),
        ("text", SECRET, ["field: text → [secret]"]),
        ({"a": 1, "token": SECRET}, {"a": 2, "token": SECRET}, ["field.a: 1 → 2"]),
        ([SECRET], [SECRET, 1], ["field: changed, too long to show"]),
        (1, UNKNOWN, ["field: 1 → (known after the update)"]),
    ],
)
def test_a_change_tells_each_property_before_and_after(old: Any, new: Any, told: list[str]) -> None:
    (change,) = report.read([step("update", **sides(old, new))]).changes
    assert list(change.properties) == told


def test_a_secret_that_changes_is_named_and_not_shown() -> None:
    (change,) = report.read([step("update", **sides(SECRET, SECRET), detailedDiff={"field": {}})]).changes
    assert change.properties == ("field",)


def test_deletions_and_replacements_come_first() -> None:
    names = ["create", "update", "replace", "delete", "same", "read", "create-replacement", "delete-replaced"]
    run = report.read(step(op, f"{APP}-{op}") for op in names)
    assert [change.operation for change in run.changes] == ["delete", "replace", "create", "update"]


def test_what_a_refresh_finds_is_told_by_its_outputs() -> None:
    found = {"op": "update", "urn": APP, "old": {"outputs": {"a": 1}}, "new": {"outputs": {"a": 2}}}
    run = report.read([step("refresh"), {"resOutputsEvent": {"metadata": found}}])
    assert [change.properties for change in run.changes] == [("a: 1 → 2",)]


def test_an_update_is_not_told_twice() -> None:
    over = {"resOutputsEvent": {"metadata": {"op": "update", "urn": APP}}}
    assert len(report.read([step("update"), over]).changes) == 1


@pytest.mark.parametrize(
    ("op", "old", "row"),
    [
        ("same", {"cost_eur_per_hour_max": 9.71}, "| most replicas | 9.71 | 12.81 | **+3.10** |"),
        ("same", {"cost_eur_per_hour_max": 12.81}, "| most replicas | 12.81 | 12.81 |  |"),
        ("same", {"model": "before costs were an output"}, "| most replicas | unknown | 12.81 |  |"),
        ("create", None, "| most replicas | 0.00 | 12.81 | **+12.81** |"),
    ],
)
def test_the_change_of_costs_is_told(op: str, old: dict[str, Any] | None, row: str) -> None:
    run = report.read([outputs(op, old, {"cost_eur_per_hour_max": 12.81, "kubeconfig": SECRET})])
    assert row in report.text("preview", "dev", run, ok=True).splitlines()


def test_violations_of_policies_are_told_mandatory_ones_first() -> None:
    events = [
        {
            "policyEvent": {
                "resourceUrn": APP,
                "message": f"{level}:\nPulumi.dev.yaml: image = x|y: pin it",
                "policyName": level,
                "enforcementLevel": level,
            }
        }
        for level in ("warning", "mandatory")
    ]
    text = report.text("preview", "dev", report.read(events), ok=False)
    first, second = (line for line in text.splitlines() if "Pulumi.dev.yaml" in line)
    assert "**mandatory**" in first
    assert "x&#124;y: pin it" in first
    assert "advisory" in second


def test_a_policy_pack_that_finds_nothing_is_told() -> None:
    run = report.read([{"summaryEvent": {"resourceChanges": {"same": 3}, "PolicyPacks": {"ovh-vllm": "1"}}}])
    assert "Policies: no violation." in report.text("preview", "dev", run, ok=True)


def test_a_failure_tells_the_errors() -> None:
    message = {"severity": "error", "urn": APP, "message": "GPU quota <exceeded>"}
    text = report.text("update", "dev", report.read([{"diagnosticEvent": message}]), ok=False)
    assert "### Update of dev: failed" in text
    assert "vllm: GPU quota &lt;exceeded&gt;" in text


def test_warnings_are_told_once_and_what_is_for_developers_is_not() -> None:
    events = [
        {"diagnosticEvent": {"severity": severity, "urn": APP, "message": f"about {severity}"}}
        for severity in ("warning", "warning", "debug", "info#err")
    ]
    text = report.text("preview", "dev", report.read(events), ok=True)
    assert text.count("vllm: about warning") == 1
    assert text.count("about") == 1


def test_a_failure_without_a_word_leads_to_the_log() -> None:
    assert "see the log of the run" in report.text("preview", "dev", Run(), ok=False)


@pytest.mark.parametrize(
    ("found", "headline"), [(0, "no drift"), (1, "1 resource not"), (2, "2 resources not")]
)
def test_a_drift_check_counts_what_is_not_as_deployed(found: int, headline: str) -> None:
    run = Run(changes=tuple(Change("update", "type", f"name-{number}", ()) for number in range(found)))
    assert headline in report.text("drift check", "dev", run, ok=not found)


def test_a_drift_check_that_could_not_look_does_not_say_that_there_is_none() -> None:
    text = report.text("drift check", "dev", Run(errors=("no route to host",)), ok=False)
    assert "failed" in text
    assert "no drift" not in text


TEXTS = st.text(min_size=1, max_size=3000)


@given(
    changes=st.lists(
        st.builds(Change, st.just("update"), TEXTS, TEXTS, st.lists(TEXTS).map(tuple)), max_size=20
    ),
    repeated=st.integers(1, 200),
    errors=st.lists(TEXTS.map(lambda text: text * 20), max_size=12),
    violations=st.lists(st.builds(Violation, TEXTS, st.just("mandatory"), TEXTS, TEXTS), max_size=10),
    notes=st.lists(TEXTS.map(lambda text: text * 20), max_size=3),
)
def test_github_takes_it_however_much_there_is(
    changes: list[Change], repeated: int, errors: list[str], violations: list[Violation], notes: list[str]
) -> None:
    said = tuple(errors)
    run = Run(tuple(changes * repeated), tuple(violations * 5), said, said, tuple(notes))
    text = report.text("preview", "dev", run, ok=False)
    assert len(text.encode()) <= report.LIMIT
    assert text.startswith(report.marker("preview", "dev"))


def test_changes_without_room_are_counted() -> None:
    run = Run(changes=tuple(Change("create", "type", f"name-{number:05}", ()) for number in range(2000)))
    text = report.text("preview", "dev", run, ok=True)
    rows = len(re.findall(r"name-\d{5}", text))
    assert f"{2000 - rows} more changes" in text
    assert 500 < rows < 2000


CANARY = "hf_canary0123456789abcdefghij"


@pytest.mark.parametrize(
    "run",
    [
        Run(errors=(f"refused {CANARY}",)),
        Run(notes=(f"Authorization: Bearer {CANARY}",)),
        Run(changes=(Change("update", "type", "vllm", (f"env.TOKEN: (none) → {CANARY}",)),)),
        Run(violations=(Violation("secrets", "mandatory", "vllm", f"env holds {CANARY}"),)),
    ],
    ids=["error", "note", "change", "violation"],
)
def test_a_secret_that_slipped_through_is_not_published(run: Run) -> None:
    assert CANARY not in report.text("preview", "dev", run, ok=True)
    passphrase = CANARY.replace("hf_", "")
    run = Run(errors=tuple(text.replace(CANARY, passphrase) for text in run.errors))
    assert passphrase not in report.text("preview", "dev", run, ok=True, secrets=[passphrase])


def test_texts_of_others_mention_nobody_and_leave_no_frame() -> None:
    hostile = "</pre>@admin `x` | --> <img src=x>"
    run = Run((Change("update", hostile, hostile, (hostile,)),), errors=(hostile,), notes=(hostile,))
    text = report.text("preview", "dev", run, ok=False)
    assert "<img" not in text
    assert text.count("</pre>") == text.count("<pre>") == 2
    (row,) = (line for line in text.splitlines() if line.startswith("| update"))
    assert row.count("|") == 5
    assert "@admin" not in html.unescape(row)


def test_texts_of_others_are_no_markdown() -> None:
    hostile = "![x](https://evil.example/x) [click](https://evil.example) `*_~ owner/name#1"
    run = Run(
        (Change("update", "type", hostile, (f"a: {hostile} → 1",)),),
        (Violation(hostile, "mandatory", hostile, hostile),),
    )
    rows = [line for line in report.text("preview", "dev", run, ok=False).splitlines() if "evil" in line]
    assert len(rows) == 2
    for row in rows:
        without_ours = row.replace("**mandatory**", "")
        assert not re.search(r"[`*_~\[\]()!]|https:|\w#\d", without_ours)
    shown = html.unescape(rows[0]).replace("\u200b", "")
    assert hostile in shown


def test_a_secret_is_found_whatever_signs_it_has() -> None:
    secret = "a_b<c>&d*e|f#g(h)"
    violation = Violation("secrets", "mandatory", "vllm", f"env holds {secret}")
    run = Run((Change("update", "type", "vllm", (f"x: {secret} → 1",)),), (violation,), (secret,))
    shown = html.unescape(report.text("preview", "dev", run, ok=False, secrets=[secret]))
    assert secret not in shown.replace("\u200b", "")
    assert shown.count("***") == 3


def test_a_plan_with_a_provider_that_is_not_known_yet_cannot_be_followed() -> None:
    def plan(address: str) -> dict[str, Any]:
        goal = {"inputDiff": {"adds": {"authUrl": address}}}
        return {"resourcePlans": {"urn:a$pulumi:providers:openstack::monitoring-openstack": {"goal": goal}}}

    assert report.unfollowable(plan(UNKNOWN)) == ["monitoring-openstack"]
    assert report.unfollowable(plan("https://auth.cloud.ovh.net/v3")) == []
