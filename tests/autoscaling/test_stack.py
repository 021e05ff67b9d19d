"""A stack file as a rehearsal's inputs: what is rehearsed is what would be deployed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaling.calibrate import Calibration
from autoscaling.rehearsal import assumptions
from autoscaling.stack import CHECKOUT, Stack, StackError, read
from autoscaling.traffic import parse
from components.prices import flavor_eur_per_hour
from components.settings import PROJECT, SettingsError, load
from tests.components.stacks import SERVICE, configuration

STACKS = ("dev", "prod", "sandbox")


def changed(folder: Path, **values: Any) -> Path:
    """A copy of the project whose stack prod has other values; None takes one away."""
    shutil.copy(CHECKOUT / "Pulumi.yaml", folder)
    content = yaml.safe_load((CHECKOUT / "Pulumi.prod.yaml").read_text(encoding="utf-8"))
    for key, value in values.items():
        content["config"].pop(f"{PROJECT}:{key}", None)
        if value is not None:
            content["config"][f"{PROJECT}:{key}"] = value
    (folder / "Pulumi.prod.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def prod(folder: Path, **values: Any) -> Stack:
    return read("prod", folder=changed(folder, **values))


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_is_rehearsed_as_the_program_would_deploy_it(name: str) -> None:
    stack = read(name)
    deployed = load(
        {**configuration(name), "serviceName": SERVICE}, secret=lambda key: False, environment={}, stack=name
    )
    endpoint, scaler = deployed.endpoint, stack.fleet.scaler
    assert stack.model == endpoint.model
    assert (scaler.replicas_min, scaler.replicas_max) == (endpoint.min_replicas, endpoint.max_replicas)
    assert scaler.target_value == float(endpoint.scaling_target)
    assert scaler.aggregation == endpoint.scaling_aggregation
    assert scaler.scale_up_stabilization_seconds == endpoint.scale_up_stabilization_seconds
    assert scaler.scale_down_stabilization_seconds == endpoint.scale_down_stabilization_seconds
    assert stack.fleet.metric == endpoint.scaling_metric
    assert stack.fleet.readiness == endpoint.readiness_probe
    assert stack.fleet.liveness == endpoint.liveness_probe
    assert stack.fleet.gpu_quota == endpoint.gpu_quota
    assert stack.objectives == deployed.monitoring.service_level_objectives.objectives


def test_the_reference_architecture_costs_what_the_price_list_says() -> None:
    assert read("prod").eur_per_replica_hour == flavor_eur_per_hour("h100-1-gpu")


def test_a_replica_of_more_gpus_costs_more_and_is_faster(tmp_path: Path) -> None:
    words = ["--tensor-parallel-size", "2"]
    stack = prod(tmp_path, gpuCount=2, maxReplicas=1, vllmArguments=words)
    one = flavor_eur_per_hour("h100-1-gpu")
    assert one is not None
    assert stack.eur_per_replica_hour == pytest.approx(2 * one)
    assert stack.fleet.gpus_per_replica == 2
    assert stack.fleet.parameters.step_seconds < read("prod").fleet.parameters.step_seconds


def test_the_arguments_of_vllm_are_heeded(tmp_path: Path) -> None:
    words = ["--max_num_seqs", "77", "--no-enable-prefix-caching"]
    parameters = prod(tmp_path, vllmArguments=words).fleet.parameters
    assert (parameters.max_num_seqs, parameters.prefix_caching) == (77, False)


def test_arguments_that_are_not_modelled_are_an_assumption(tmp_path: Path) -> None:
    words = ["--speculative_config", '{"num_speculative_tokens": 3}', "-dp=2", "--max-num-seqs", "77"]
    stack = prod(tmp_path, vllmArguments=words)
    named = {one.name: one.value for one in assumptions(stack, parse("poisson:rate=1,for=1m"))}
    assert named["vllmArguments"] == "as without --speculative-config, -dp"
    assert read("prod").unheeded == ()


def calibration(folder: Path, model: str) -> Path:
    path = folder / "h100.json"
    figures = Calibration(
        source="result.json",
        date="2026-11-20",
        model=model,
        step_seconds=0.02,
        sequence_seconds=0.0001,
        context_token_seconds=2e-7,
        prefill_tokens_per_second=9000,
        error=0.01,
        windows=500,
    )
    path.write_text(figures.model_dump_json(), encoding="utf-8")
    return path


def test_a_calibration_takes_the_place_of_published_figures(tmp_path: Path) -> None:
    published = read("prod")
    measured = read("prod", calibration=calibration(tmp_path, published.model))
    assert measured.fleet.parameters.step_seconds == 0.02
    assert measured.fleet.parameters.prefill_tokens_per_second == 9000
    assert measured.fleet.parameters.kv_blocks == published.fleet.parameters.kv_blocks
    assert "measured on 2026-11-20" in measured.speed
    assert "published figures of H100" in published.speed


def test_longer_requests_than_vllm_takes_are_known() -> None:
    assert read("prod").fleet.longest == 262_144
    assert read("prod").known_model


def test_a_calibration_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"is of the model acme/Other, and this stack serves mistralai/"):
        read("prod", calibration=calibration(tmp_path, "acme/Other"))


def test_a_file_that_is_no_calibration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(StackError, match=r"result\.json: no calibration"):
        read("prod", calibration=path)


def test_defaults_of_the_project_fill_what_a_stack_leaves_out(tmp_path: Path) -> None:
    scaler = prod(tmp_path, scalingTarget=None, scaleDownStabilizationSeconds=None).fleet.scaler
    assert (scaler.target_value, scaler.scale_down_stabilization_seconds) == (50, 300)


def test_most_replicas_are_those_that_the_settings_allow(tmp_path: Path) -> None:
    assert prod(tmp_path, gpuQuota=8).most_replicas == 8
    assert prod(tmp_path, gpuQuota=100).most_replicas == 10
    assert prod(tmp_path, gpuQuota=9, gpuCount=2).most_replicas == 4


def test_secrets_are_not_needed(tmp_path: Path) -> None:
    encrypted = {"secure": "v1:abc"}
    stack = prod(
        tmp_path,
        huggingFaceToken=encrypted,
        alertSlackUrl=encrypted,
        alertRoutes={"warning": ["slack"]},
        grafanaPrivateKey=encrypted,
        vllmEnvironment={"PROXY": encrypted},
        serviceName=encrypted,
    )
    assert stack.model == read("prod").model


def test_an_encrypted_setting_that_is_needed_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"Pulumi\.prod\.yaml: scalingTarget is encrypted.*--plaintext"):
        prod(tmp_path, scalingTarget={"secure": "v1:abc"})


def test_a_stack_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(StackError, match=r"no Pulumi\.staging\.yaml.*dev, prod, sandbox"):
        read("staging")


@pytest.mark.parametrize("text", ["- a\n- list\n", "config: text\n", "a: [\n"])
def test_a_file_that_is_no_stack_file_is_named(text: str, tmp_path: Path) -> None:
    folder = changed(tmp_path)
    (folder / "Pulumi.prod.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StackError, match=r"Pulumi\.prod\.yaml"):
        read("prod", folder=folder)


def test_mistakes_are_those_that_the_program_would_report(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        prod(tmp_path, minReplicas=5, scalingTargt="40", clusterName="")
    found = {mistake.key for mistake in error.value.mistakes}
    assert {"minReplicas", "scalingTargt", "clusterName"} <= found


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "metric": (
        {"scalingMetric": "vllm:num_preemptions_total"},
        r"scalingMetric .vllm:num_preemptions_total.*can be rehearsed",
    ),
    "model": (
        {"model": "meta-llama/Llama-3.3-70B-Instruct"},
        r"model meta-llama/.*gpuFlavor h100.*weights do not fit into 1 x H100.*90% .*larger GPU",
    ),
    "flavor": ({"gpuFlavor": "ai1-1-gpu"}, r"gpuFlavor ai1-1-gpu: no figures"),
    "argument": ({"vllmArguments": ["--max-num-seqs", "many"]}, r"vllmArguments: .*--max-num-seqs"),
    "gpus": ({"vllmArguments": ["--tensor-parallel-size", "2"]}, r"tensor-parallel-size 2 .*gpuCount is 1"),
    "probe": (
        {"livenessProbe": {"path": "/health", "port": 8000, "initialDelaySeconds": 10}},
        r"livenessProbe: it kills each container",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_cannot_be_rehearsed_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    values, expected = MISFITS[name]
    with pytest.raises(StackError, match=rf"Pulumi\.prod\.yaml cannot be rehearsed: .*{expected}"):
        prod(tmp_path, **values)
