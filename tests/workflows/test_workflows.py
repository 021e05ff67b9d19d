"""The workflows are sound, may do what they need and no more, and every step of them is a make target."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.toolchain import ToolchainError, ensure
from sandbox.toolchain.tools import ACTIONLINT

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@dataclass(frozen=True)
class Job:
    """A job of a workflow."""

    workflow: str
    name: str
    text: dict[str, Any]
    triggers: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = self.text["steps"]
        return steps

    @property
    def runs(self) -> list[str]:
        return [step["run"] for step in self.steps if "run" in step]

    @property
    def stack_is_changed(self) -> bool:
        return any("make deploy" in run for run in self.runs)

    @property
    def secrets(self) -> set[str]:
        return set(re.findall(r"secrets\.(\w+)", yaml.safe_dump(self.text)))


def load(file: Path) -> dict[str, Any]:
    content: dict[Any, Any] = yaml.safe_load(file.read_text())
    # YAML 1.1 takes the key `on` for true.
    content["on"] = content.pop(True)
    return content


def jobs() -> Iterator[Job]:
    for file in FILES:
        workflow = load(file)
        for name, job in workflow["jobs"].items():
            yield Job(file.stem, name, job, workflow["on"])


JOBS = [*jobs()]


@pytest.fixture(params=JOBS, ids=lambda job: f"{job.workflow}-{job.name}")
def job(request: pytest.FixtureRequest) -> Job:
    found: Job = request.param
    return found


def named(workflow: str, name: str) -> Job:
    return next(job for job in JOBS if (job.workflow, job.name) == (workflow, name))


def test_actionlint_finds_nothing() -> None:
    try:
        (found,) = ensure(lambda line: None, (ACTIONLINT,)).found
    except ToolchainError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no actionlint: {error}")
    lint = str(found.binaries["actionlint"])
    # What else is installed here (shellcheck, pyflakes) must not decide.
    command = [lint, "-no-color", "-shellcheck=", "-pyflakes=", *map(str, FILES)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_every_step_is_a_make_target(job: Job) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for run in job.runs:
        step = re.fullmatch(r"(?:\. \.sandbox/env && )?make ([a-z-]+)((?: [A-Z_]+=[\w.\"$-]+)*)", run)
        assert step is not None, f"{run} is no make target"
        assert step[1] in targets
        # An expression in a script is code of whoever wrote what it stands for.
        assert "${{" not in run


def test_every_action_is_pinned_by_commit_with_its_version(job: Job) -> None:
    text = (ROOT / ".github" / "workflows" / f"{job.workflow}.yml").read_text()
    for step in job.steps:
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
            assert re.search(rf"uses: {re.escape(step['uses'])} # v\d+\.\d+\.\d+\n", text), step["uses"]


def test_a_version_of_an_action_is_one_commit() -> None:
    pins = re.findall(r"uses: (\S+) # (\S+)", "".join(file.read_text() for file in FILES))
    actions = {pin.partition("@")[0] for pin, _ in pins}
    assert len(set(pins)) == len(actions)


WRITES = {
    ("pull-request", "preview"): {"pull-requests"},
    ("drift", "drift"): {"issues"},
}


def test_a_job_may_read_the_code_and_write_what_it_must_alone(job: Job) -> None:
    permissions = dict(job.text["permissions"])
    assert permissions.pop("contents") == "read"
    assert set(permissions) == WRITES.get((job.workflow, job.name), set())
    assert set(permissions.values()) <= {"write"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_is_permitted_by_default(file: Path) -> None:
    assert load(file)["permissions"] == {}


def test_the_token_is_not_left_in_the_checkout(job: Job) -> None:
    for step in job.steps:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_secrets_go_to_the_one_step_that_needs_them(job: Job) -> None:
    assert "secrets." not in yaml.safe_dump(job.text.get("env", {}))
    for step in job.steps:
        if "uses" in step:
            assert "secrets." not in yaml.safe_dump(step)


def test_a_job_with_secrets_has_an_environment_that_may_withhold_them(job: Job) -> None:
    assert bool(job.secrets) == ("environment" in job.text)


def test_forks_get_no_secrets_and_run_on_no_machine_of_ours() -> None:
    assert not any("pull_request_target" in job.triggers or "workflow_run" in job.triggers for job in JOBS)
    ours, theirs = (named("pull-request", name) for name in ("preview", "preview-in-the-sandbox"))
    same = "github.event.pull_request.head.repo.full_name == github.repository"
    assert same in ours.text["if"]
    assert same.replace("==", "!=") in theirs.text["if"]
    for job in (theirs, named("pull-request", "test")):
        assert job.secrets == set()
        assert job.text["runs-on"] == "ubuntu-24.04"


def test_a_stack_is_updated_by_one_run_at_a_time_which_nothing_cuts_off() -> None:
    changing = [job for job in JOBS if job.stack_is_changed]
    groups = {job.name: job.text["concurrency"] for job in changing}
    assert groups == {
        stack: {"group": f"stack-{stack}", "cancel-in-progress": False} for stack in ("dev", "prod")
    }
    # A drift check in the group of the updates would take the place of one that waits.
    assert named("drift", "drift").text["concurrency"]["group"].startswith("drift-")


def test_what_is_not_on_main_is_not_deployed() -> None:
    """A workflow can be started by hand on any branch; the other jobs need the first one."""
    assert "github.ref == 'refs/heads/main'" in named("deploy", "dev").text["if"]


def test_prod_follows_the_plan_that_its_reviewers_saw() -> None:
    plan, prod = named("deploy", "plan-prod"), named("deploy", "prod")
    assert plan.text["needs"] == "dev"
    assert prod.text["needs"] == "plan-prod"
    assert prod.text["environment"] == "prod"
    assert plan.text["environment"] == "prod-preview"
    (planned,), (followed,) = plan.runs, prod.runs
    assert "PLAN=plan.json" in planned and "GITHUB_STEP_SUMMARY" in planned
    assert "PLAN=plan.json" in followed
    (kept,) = (step["with"] for step in plan.steps if "upload-artifact" in step.get("uses", ""))
    (taken,) = (step["with"] for step in prod.steps if "download-artifact" in step.get("uses", ""))
    assert kept["name"] == taken["name"]
    assert kept["retention-days"] <= 7


def test_the_backend_is_chosen_by_one_variable() -> None:
    for job in JOBS:
        if job.secrets:
            text = yaml.safe_dump(job.text)
            assert "PULUMI_BACKEND_URL: ${{ vars.PULUMI_BACKEND_URL }}" in text
            assert {"AWS_SECRET_ACCESS_KEY", "PULUMI_ACCESS_TOKEN"} <= job.secrets
