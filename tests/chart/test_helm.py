"""helm and the chart are found where a user has them, and what is missing is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chart.conftest import Render
from tests.chart.helm import Chart, MissingError, find
from tests.chart.variants import VARIANTS

VERSION = "1.2.3"


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose helm has its cache in `cache`."""
    (tmp_path / "cache").mkdir()
    helm = tmp_path / "bin" / "helm"
    helm.parent.mkdir()
    helm.write_text(f'#!/bin/sh\n[ "$*" = "env HELM_REPOSITORY_CACHE" ] && echo "{tmp_path}/cache"\n')
    helm.chmod(0o700)
    return {"PATH": f"{helm.parent}:{os.environ['PATH']}"}


def test_the_chart_that_is_named_is_taken(machine: dict[str, str], tmp_path: Path) -> None:
    for named in (str(tmp_path), "oci://registry.example/charts/kube-prometheus-stack"):
        assert find(VERSION, machine | {"CHART": named}).reference == named


def test_the_cache_of_helm_is_looked_into(machine: dict[str, str], tmp_path: Path) -> None:
    archive = tmp_path / "cache" / f"kube-prometheus-stack-{VERSION}.tgz"
    archive.touch()
    assert find(VERSION, machine) == Chart(str(tmp_path / "bin" / "helm"), str(archive), VERSION)


def test_what_is_missing_is_said(machine: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=rf"kube-prometheus-stack {VERSION}: name .* with CHART="):
        find(VERSION, machine)
    with pytest.raises(MissingError, match="no such folder or archive"):
        find(VERSION, machine | {"CHART": str(tmp_path / "nothing")})
    with pytest.raises(MissingError, match="install helm 3, or name one with HELM="):
        find(VERSION, {"PATH": str(tmp_path)})
    with pytest.raises(MissingError, match="HELM="):
        find(VERSION, machine | {"HELM": str(tmp_path / "nothing")})


def test_the_chart_is_the_pinned_one(render: Render, chart: Chart) -> None:
    labels = render("prod").one("Prometheus", "monitoring-prometheus")["metadata"]["labels"]
    assert labels["chart"] == f"kube-prometheus-stack-{chart.version}"


def test_values_that_the_chart_refuses_are_noticed(chart: Chart) -> None:
    values = VARIANTS["prod"].values()
    values["grafana"]["grafana.ini"]["security"] = {"admin_password": "literal"}
    with pytest.raises(AssertionError, match=r"helm refuses the values.*admin_password"):
        chart.render(values, "1.34")
