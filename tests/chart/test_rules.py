"""The chart's own rules work on a managed cluster: what they ask for is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from sandbox.toolchain.chain import installed
from sandbox.toolchain.progress import UnavailableError
from sandbox.toolchain.tools import PROMETHEUS
from tests.chart.conftest import Render
from tests.chart.helm import Rendering
from tests.chart.variants import VARIANTS

HIDDEN = r"etcd|scheduler|controller-?manager|kube-?proxy"
"""Parts of a control plane that a managed cluster shows nothing of."""
MIXED = {"kubernetes-storage", "kubernetes-system-kubelet"}
"""Groups about the kubelet and about kube-state-metrics; one switch is for both."""
GIVEN = {"apiserver", "kubelet"}
"""Jobs by Services that are no part of the chart: the cluster's own and the operator's."""
_SELECTING = (promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re)


def jobs(rendering: Rendering) -> set[str]:
    """Labels `job` of all targets: a label of the Service that the monitor names, else the Service's name."""
    found = set(GIVEN)
    for monitor in rendering.of("ServiceMonitor"):
        spec = monitor["spec"]
        namespaces = spec.get("namespaceSelector", {}).get("matchNames", [monitor["metadata"]["namespace"]])
        for service in rendering.of("Service"):
            metadata = service["metadata"]
            if metadata["namespace"] in namespaces and (
                spec["selector"]["matchLabels"].items() <= metadata["labels"].items()
            ):
                found.add(metadata["labels"].get(spec.get("jobLabel"), metadata["name"]))
    return found


def asked(expression: str) -> set[str]:
    """Jobs that an expression reads, as written: texts, and alternatives of patterns."""
    found: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            for matcher in node.matchers.matchers:
                if matcher.name == "job" and matcher.op in _SELECTING:
                    found.update(matcher.value.split("|"))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_asks_for_what_a_managed_control_plane_hides(render: Render, name: str) -> None:
    rendering = render(name)
    alerts = [rule.get("alert", "") for group in rendering.groups() for rule in group["rules"]]
    names = [
        item["metadata"]["name"] for item in rendering.objects if item["kind"] != "CustomResourceDefinition"
    ]
    groups = [group["name"] for group in rendering.groups()]
    assert [text for text in (*alerts, *names, *groups) if re.search(HIDDEN, text, re.IGNORECASE)] == []
    assert "Watchdog" in alerts


@pytest.mark.parametrize("name", VARIANTS)
def test_every_alert_is_about_a_job_that_is_scraped(render: Render, name: str) -> None:
    """Else it never fires, or with absent() fires for ever."""
    rendering = render(name)
    unknown = {
        (job, rule["alert"])
        for group in rendering.groups()
        if name != "without-exporters" or group["name"] not in MIXED
        for rule in group["rules"]
        if "alert" in rule
        for job in asked(rule["expr"])
        if job not in jobs(rendering)
    }
    assert unknown == set()


def test_the_jobs_of_an_expression_are_found() -> None:
    subquery = 'max_over_time(y{job=~"two|three"}[1h:5m])'
    text = f'rate(x{{job="one"}}[5m]) / on () group_left () ({subquery} or absent(z{{job!="four"}}))'
    assert asked(text) == {"one", "two", "three"}


@pytest.mark.parametrize("name", ["prod"])
def test_prometheus_takes_the_rules(render: Render, name: str, tmp_path: Path) -> None:
    try:
        promtool = installed(PROMETHEUS).binaries["promtool"]
    except UnavailableError as error:
        pytest.skip(f"promtool is not there yet (make sandbox gets it): {error}")
    files = []
    for item in render(name).of("PrometheusRule"):
        path = tmp_path / f"{item['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(item["spec"]))
        files.append(str(path))
    run = subprocess.run(
        [promtool, "check", "rules", "--lint=none", *files], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
