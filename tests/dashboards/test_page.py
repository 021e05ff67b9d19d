"""The HTML page shows what Grafana would, asks Prometheus what Grafana would ask, and trusts no text."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import sys
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dashboards import bundle, page
from dashboards.page import __main__ as command
from dashboards.page import document, frames, grafana, variables, words
from dashboards.page.document import Mark, Page, Panel, Place, Report, Section, Series
from dashboards.page.grafana import Dashboard, Query, Window
from dashboards.page.variables import Value
from tests import browser
from tests.browser import Browser, Rendered
from tests.dashboards.prometheus_double import Result, serve
from tests.dashboards.scenes import TARGET

ROOM = Path(document.__file__).parent
WINDOW = Window(start=1000.0, end=1900.0, scrape=15.0)
EVIL = '</script><img src=x onerror="document.title=1"><!--<script>&'
"""A text that would run a script if it were taken for markup."""


def panel(kind: str = "timeseries", **more: Any) -> dict[str, Any]:
    """A panel in Grafana's words."""
    place = {"x": 0, "y": 1, "w": 12, "h": 8}
    return {"type": kind, "title": "Panel", "gridPos": place, "targets": [target("up")]} | more


def target(expr: str, ref: str = "A", legend: str = "", **more: Any) -> dict[str, Any]:
    return {"refId": ref, "expr": expr, "legendFormat": legend} | more


def dashboard(*panels: Mapping[str, Any], **more: Any) -> Dashboard:
    return Dashboard({"title": "Board", "uid": "board", "panels": list(panels)} | more)


def expressions(board: Dashboard, values: Mapping[str, Value] | None = None) -> list[str]:
    return [query.expression for query in board.queries(WINDOW, values or {})]


def matrix(*series: tuple[Mapping[str, str], Mapping[float, float]]) -> list[dict[str, Any]]:
    """An answer to a range query."""
    return [
        {"metric": labels, "values": [[time, str(value)] for time, value in samples.items()]}
        for labels, samples in series
    ]


def vector(*series: tuple[Mapping[str, str], float]) -> list[dict[str, Any]]:
    """An answer to an instant query."""
    return [{"metric": labels, "value": [WINDOW.end, str(value)]} for labels, value in series]


def shown(board: Dashboard, *answers: Sequence[Mapping[str, Any]] | Exception) -> Panel:
    """The first panel, with an answer for each of its queries."""
    queries = board.queries(WINDOW, {})
    return board.report(WINDOW, {}, dict(zip(queries, answers, strict=True))).panels[0]


class TestQueries:
    def test_a_range_has_points_at_whole_steps_that_a_scrape_apart_fill_the_panel(self) -> None:
        [query] = dashboard(panel()).queries(WINDOW, {})
        assert query == Query("up", start=990.0, end=1890.0, step=15.0)

    def test_a_long_range_has_about_a_point_for_each_pixel(self) -> None:
        week = Window(0.0, 7 * 86400.0, 15.0)
        [query] = dashboard(panel()).queries(week, {})
        assert 600 < (query.end - query.start) / query.step < 1000

    def test_an_instant_query_asks_for_the_end_alone(self) -> None:
        [query] = dashboard(panel(targets=[target("up", instant=True, range=False)])).queries(WINDOW, {})
        assert (query.end, query.step) == (WINDOW.end, 0)

    def test_the_same_question_is_asked_once(self) -> None:
        targets = [target("up"), target("up", "B")]
        assert expressions(dashboard(panel(targets=targets), panel())) == ["up"]

    def test_panels_of_a_folded_row_are_asked_for(self) -> None:
        row = {"type": "row", "title": "Row", "collapsed": True, "panels": [panel()]}
        assert expressions(dashboard(row)) == ["up"]

    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("$__rate_interval", "60s"),
            ("${__rate_interval}", "60s"),
            ("$__interval", "15s"),
            ("$__range", "900s"),
        ],
    )
    def test_grafanas_own_variables(self, text: str, written: str) -> None:
        assert expressions(dashboard(panel(targets=[target(f"rate(x[{text}])")]))) == [f"rate(x[{written}])"]

    def test_the_interval_of_a_query_is_the_least_step_and_that_of_the_rate(self) -> None:
        targets = [target("rate(x[$__rate_interval])", interval="1m")]
        [query] = dashboard(panel(targets=targets)).queries(WINDOW, {})
        assert (query.step, query.expression) == (60, "rate(x[240s])")

    @pytest.mark.parametrize(
        ("text", "length"), [("15m", 900), ("90s", 90), ("1h30m", 5400), ("7d", 604800), ("500ms", 0.5)]
    )
    def test_durations(self, text: str, length: float) -> None:
        assert grafana.seconds(text) == length

    @pytest.mark.parametrize("text", ["", "15", "m", "15 m", "15m!"])
    def test_what_is_no_duration_is_refused_with_the_way_to_write_one(self, text: str) -> None:
        with pytest.raises(ValueError, match="write it as"):
            grafana.seconds(text)


class TestVariables:
    def value(self, answers: Sequence[str], **definition: Any) -> Value:
        return variables.parse({"name": "replica", "type": "query", **definition}).value(answers)

    def test_several_values_become_a_regular_expression_of_just_these(self) -> None:
        value = self.value(["1.5", "a|b"], multi=True, current={"value": ["1.5", "a|b"]})
        assert variables.in_query('x{r=~"$replica"}', {"replica": value}) == r'x{r=~"(1\\.5|a\\|b)"}'
        assert value.text == "1.5 + a|b"

    def test_all_are_the_values_found_or_what_the_dashboard_says(self) -> None:
        everything = {"includeAll": True, "multi": True, "current": {"value": ["$__all"]}}
        found = self.value(["a", "b"], **everything)
        assert (variables.in_query("$replica", {"replica": found}), found.text) == ("(a|b)", "All")
        said = self.value(["a", "b"], allValue=".*", **everything)
        assert variables.in_query("${replica}", {"replica": said}) == ".*"

    def test_a_single_value_cannot_end_the_string_that_it_is_in(self) -> None:
        value = self.value(['a"} or b{x="'])
        assert variables.in_query('x{r="$replica"}', {"replica": value}) == r'x{r="a\"} or b{x=\""}'

    def test_the_first_value_is_chosen_where_the_saved_one_is_gone(self) -> None:
        assert self.value(["b", "a"], sort=1, current={"value": "gone"}).values == ("a",)

    def test_values_keep_the_order_of_prometheus_unless_they_are_to_be_sorted(self) -> None:
        assert self.value(["b", "a"], includeAll=True).values == ("b", "a")
        assert self.value(["b", "a"], includeAll=True, sort=1).values == ("a", "b")

    @pytest.mark.parametrize("unknown", [{"type": "interval"}, {"regex": "/pod-(.*)/"}, {"sort": 3}])
    def test_a_variable_of_another_kind_is_refused_by_name(self, unknown: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"variable replica: .* {next(iter(unknown))}"):
            self.value([], **unknown)

    def test_values_of_a_label_are_asked_with_the_variables_before(self) -> None:
        variable = variables.parse(
            {"name": "r", "type": "query", "query": {"query": 'label_values(up{m=~"$m"}, replica)'}}
        )
        assert grafana.lookup(variable, {"m": Value(("a",), "a")}) == ("replica", 'up{m=~"a"}')

    def test_another_query_of_a_variable_is_refused_by_name(self) -> None:
        variable = variables.parse({"name": "r", "type": "query", "query": "query_result(up)"})
        with pytest.raises(ValueError, match=r"variable r: .*label_values"):
            grafana.lookup(variable, {})


class TestAnswers:
    def test_where_a_series_has_no_value_there_is_a_gap(self) -> None:
        drawn = shown(dashboard(panel()), matrix(({"a": "1"}, {990.0: 1.0, 1020.0: 3.0})))
        assert drawn.times[:3] == [990.0, 1005.0, 1020.0]
        assert drawn.series[0].values[:4] == [1.0, None, 3.0, None]
        assert len(drawn.series[0].values) == len(drawn.times) == 61

    def test_series_of_all_queries_are_on_the_same_times(self) -> None:
        board = dashboard(panel(targets=[target("a"), target("b", "B", interval="1m")]))
        drawn = shown(board, matrix(({}, {990.0: 1.0})), matrix(({}, {960.0: 2.0})))
        assert drawn.times[:3] == [960.0, 990.0, 1005.0]
        assert [item.values[:2] for item in drawn.series] == [[None, 1.0], [2.0, None]]

    @pytest.mark.parametrize(
        ("legend", "labels", "name"),
        [
            ("p95 {{ replica }}", {"replica": "7"}, "p95 7"),
            ("{{absent}}x", {"replica": "7"}, "x"),
            ("", {"__name__": "up", "job": "a"}, 'up{job="a"}'),
            ("", {}, "Value"),
        ],
    )
    def test_series_are_named_by_the_legend(self, legend: str, labels: dict[str, str], name: str) -> None:
        board = dashboard(panel(targets=[target("x", legend=legend)]))
        assert [item.name for item in shown(board, matrix((labels, {990.0: 1}))).series] == [name]

    def test_a_table_has_a_row_for_each_label_value_and_a_column_for_each_query(self) -> None:
        table = panel(
            "table",
            targets=[
                target("age", "A", format="table", instant=True),
                target("load", "B", format="table", instant=True),
            ],
            transformations=[
                {"id": "merge", "options": {}},
                {
                    "id": "organize",
                    "options": {
                        "excludeByName": {"Time": True},
                        "indexByName": {"replica": 0, "Value #A": 1, "Value #B": 2},
                        "renameByName": {"Value #A": "age", "Value #B": "load"},
                    },
                },
            ],
            fieldConfig={
                "defaults": {"unit": "short"},
                "overrides": [
                    {
                        "matcher": {"id": "byName", "options": "age"},
                        "properties": [{"id": "unit", "value": "s"}, {"id": "custom.align", "value": "auto"}],
                    }
                ],
            },
        )
        one, other = {"replica": "1"}, {"replica": "2"}
        drawn = shown(dashboard(table), vector((one, 5.0), (other, 6.0)), vector((other, 0.5)))
        assert {item.name: list(item.values) for item in drawn.series} == {
            "replica": ["1", "2"],
            "age": [5.0, 6.0],
            "load": [None, 0.5],
        }
        assert [item.field["unit"] for item in drawn.series] == ["short", "s", "short"]
        assert drawn.series[1].field["custom"] == {"align": "auto"}

    def test_buckets_of_a_heatmap_are_in_order_and_count_their_own(self) -> None:
        heatmap = panel("heatmap", targets=[target("b", format="heatmap", legend="{{le}}")])
        answer = matrix(*(({"le": le}, {990.0: n}) for le, n in [("+Inf", 9), ("10.0", 7), ("5.0", 4)]))
        drawn = shown(dashboard(heatmap), answer)
        assert [(item.name, item.values[0]) for item in drawn.series] == [
            ("5.0", 4),
            ("10.0", 3),
            ("+Inf", 2),
        ]

    def test_an_override_leaves_other_series_and_the_defaults_alone(self) -> None:
        defaults = {"unit": "s", "custom": {"lineWidth": 1}}
        properties = [{"id": "custom.lineWidth", "value": 3}]
        override = {"matcher": {"id": "byName", "options": "p95"}, "properties": properties}
        one, other = (frames.Field(name, "number", [1.0]) for name in ("p95", "p99"))
        assert frames.configured(one, defaults, [override]) == {"unit": "s", "custom": {"lineWidth": 3}}
        assert frames.configured(other, defaults, [override]) == {"unit": "s", "custom": {"lineWidth": 1}}

    def test_nothing_but_nan_is_no_data(self) -> None:
        board = dashboard(panel())
        assert shown(board, []).empty
        assert shown(board, matrix(({}, {990.0: math.nan}))).empty
        assert not shown(board, matrix(({}, {990.0: math.inf}))).empty
        assert not shown(board, matrix(({}, {990.0: 0.0}))).empty

    def test_an_error_of_one_query_is_shown_beside_the_data_of_another(self) -> None:
        board = dashboard(panel(targets=[target("a"), target("b", "B")]))
        drawn = shown(board, ValueError("timed out"), matrix(({}, {990.0: 1.0})))
        assert (drawn.error, drawn.empty) == ("timed out", False)

    @pytest.mark.parametrize(
        ("more", "named"),
        [
            ({"type": "piechart"}, "no panels of type piechart"),
            ({"timeFrom": "1h"}, "timeFrom of a panel"),
            ({"targets": [target("up", hide=True)]}, "hide of a query"),
            ({"targets": [target("up", instant=True, range=True)]}, "both instant and range"),
            ({"targets": [target("up", format="logs")]}, "format logs"),
            ({"targets": [target("up", legend="__auto")]}, "legendFormat '__auto'"),
            ({"targets": [target('up{r="${r:csv}"}')]}, "variable ${r:csv}"),
            ({"targets": [target("up offset $__range_s")]}, "variable $__range_s"),
            ({"transformations": [{"id": "sortBy"}]}, "transformation sortBy"),
            ({"transformations": [{"id": "merge", "disabled": True}]}, "disabled of a transformation"),
            ({"fieldConfig": {"overrides": [{"matcher": {"id": "byType"}}]}}, "matcher byType"),
            ({"fieldConfig": {"defaults": {"unit": "furlong"}}}, "unit 'furlong'"),
        ],
    )
    def test_what_the_page_does_not_know_is_an_error_that_names_it(
        self, more: dict[str, Any], named: str
    ) -> None:
        assert named in shown(dashboard(panel(**more)), matrix(({}, {990.0: 1.0}))).problem

    def test_rows_are_sections_whose_panels_keep_their_places(self) -> None:
        def at(y: int, x: int = 0) -> dict[str, Any]:
            return panel(gridPos={"x": x, "y": y, "w": 12, "h": 8})

        row = {"type": "row", "title": "Open", "gridPos": {"x": 0, "y": 8, "w": 24, "h": 1}}
        folded = {"type": "row", "title": "Folded", "panels": [at(30)]}
        board = dashboard(at(0), row, at(9), at(9, 12), at(17), folded)
        report = board.report(WINDOW, {}, {query: [] for query in board.queries(WINDOW, {})})
        places = [
            (part.title, [(p.place.column, p.place.row) for p in part.panels]) for part in report.sections
        ]
        assert places == [("", [(0, 0)]), ("Open", [(0, 0), (12, 0), (0, 8)]), ("Folded", [(0, 0)])]

    def test_annotations_are_the_periods_in_which_their_series_are_above_zero(self) -> None:
        annotation = {"name": "Alert", "expr": "ALERTS", "step": "1m", "iconColor": "red", "enable": True}
        annotation |= {"titleFormat": "{{alertname}}", "textFormat": "it is {{severity}}"}
        board = dashboard(annotations={"list": [annotation, {**annotation, "expr": "off", "enable": False}]})
        [query] = board.queries(WINDOW, {})
        samples = {960.0: 1.0, 1020.0: 2.0, 1080.0: 0.0, 1140.0: 1.0, 1500.0: 1.0}
        answer = matrix(({"alertname": "Slow", "severity": "warning"}, samples))
        marks = board.report(WINDOW, {}, {query: answer}).marks
        assert [(mark.start, mark.end) for mark in marks] == [(960, 1020), (1140, 1140), (1500, 1500)]
        assert (marks[0].title, marks[0].text) == ("Slow", "it is warning")

    def test_html_in_a_text_panel_is_text(self) -> None:
        drawn = shown(dashboard(panel("text", targets=[], options={"content": f"**bold** {EVIL}"})))
        assert "<strong>bold</strong>" in drawn.markup
        assert "<img" not in drawn.markup


def series(name: str, values: Sequence[float | str | None], kind: Any = "number", **field: Any) -> Series:
    return Series(name, values, field, kind)


def report(*panels: Panel, **more: Any) -> Report:
    return Report("key", "Report", 1000.0, 1900.0, [Section("Row", panels)], **more)


def one_panel(kind: str, *content: Series, options: Mapping[str, Any] | None = None, **more: Any) -> Panel:
    times = [1000.0 + 100 * index for index in range(10)]
    place = Place(0, 0, 24, 8)
    return Panel(kind, f"A {kind}", place, options=options or {}, times=times, series=content, **more)


class TestDocument:
    def test_no_text_ends_the_element_that_it_is_in(self) -> None:
        evil = series(EVIL, [1.0] * 10, unit=EVIL, noValue=EVIL)
        bad = Panel("timeseries", EVIL, Place(0, 0, 12, 8), EVIL, times=[1.0], series=[evil], error=EVIL)
        made = document.page([Report(EVIL, EVIL, 0, 1, [Section(EVIL, [bad])], {EVIL: EVIL})], made=0).html
        assert Counter(re.findall(r"</?script\b", made, re.I)) == {"<script": 2, "</script": 2}
        assert "<img" not in made
        data = re.search(r'id="data">(.*?)</script>', made, re.S)
        assert data is not None
        assert json.loads(data[1])["reports"][0]["title"] == EVIL

    def test_the_page_loads_nothing_and_runs_no_other_script(self) -> None:
        made = document.page([report()], made=0).html
        assert not re.search(r"<(link|img|iframe|object)\b|\bsrc=|url\(|@import", made)
        script = re.findall(r"<script>(.*?)</script>", made, re.S)
        assert len(script) == 1
        digest = b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', made)
        assert policy is not None
        assert policy[1].split("; ")[:2] == ["default-src 'none'", f"script-src 'sha256-{digest}'"]

    def test_it_counts_panels_without_data_and_with_errors(self) -> None:
        full, empty = one_panel("stat", series("a", [1.0] * 10)), one_panel("gauge")
        bad = one_panel("table", error="refused")
        made = document.page([report(full, empty, bad)], made=0)
        assert (made.panels, made.empty, made.errors) == (
            3,
            ["Report / A gauge"],
            {"Report / A table": "refused"},
        )
        assert '<body data-panels="3" data-empty="1" data-errors="1">' in made.html

    @pytest.mark.parametrize(
        ("kind", "options", "field", "named"),
        [
            ("piechart", {}, {}, "type piechart"),
            ("stat", {"colorMode": "background"}, {}, "colorMode 'background'"),
            ("stat", {"reduceOptions": {"calcs": ["mean"]}}, {}, "reduceOptions.calcs ['mean']"),
            ("timeseries", {"legend": {"placement": "right"}}, {}, "legend.placement 'right'"),
            ("heatmap", {"color": {"scheme": "Spectral"}}, {}, "color.scheme 'Spectral'"),
            ("timeseries", {}, {"unit": "furlong"}, "unit 'furlong'"),
            ("timeseries", {}, {"displayName": "x"}, "displayName 'x'"),
            ("timeseries", {}, {"custom": {"drawStyle": "points"}}, "custom.drawStyle 'points'"),
            ("timeseries", {}, {"color": {"mode": "fixed", "fixedColor": "pink"}}, "color 'pink'"),
            ("stat", {}, {"thresholds": {"mode": "percentage"}}, "thresholds.mode 'percentage'"),
            ("stat", {}, {"thresholds": {"steps": [{"value": None, "color": "pink"}]}}, "color 'pink'"),
            ("stat", {}, {"mappings": [{"type": "range", "options": {}}]}, "mappings 'range'"),
        ],
    )
    def test_words_that_it_does_not_know_are_errors_by_their_names(
        self, kind: str, options: dict[str, Any], field: dict[str, Any], named: str
    ) -> None:
        drawn = one_panel(kind, series("a", [1.0] * 10, **field), options=options)
        [error] = document.page([report(drawn)], made=0).errors.values()
        assert named in error

    def test_what_is_off_or_left_to_the_page_is_no_error(self) -> None:
        off = {"hideFrom": {"viz": False}, "gradientMode": "none", "axisPlacement": "auto"}
        assert one_panel("timeseries", series("a", [1.0] * 10, custom=off)).problem == ""

    def test_lines_in_two_units_have_no_common_axis(self) -> None:
        lines = series("a", [1.0] * 10, unit="s"), series("b", [1.0] * 10, unit="bytes")
        assert "differ in unit" in one_panel("timeseries", *lines).problem
        assert one_panel("stat", *lines).problem == ""

    def test_numbers_that_json_does_not_know_arrive(self) -> None:
        made = document.page(
            [report(one_panel("stat", series("a", [math.inf, -math.inf, math.nan])))], made=0
        )
        assert '"values":["Infinity","-Infinity",null]' in made.html

    def test_the_vendored_library_is_what_its_page_says(self) -> None:
        listed = dict(re.findall(r"`([\w.]+)` \| `([0-9a-f]{64})`", (ROOM / "vendor/README.md").read_text()))
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (ROOM / "vendor").iterdir()
            if path.name != "README.md"
        }
        assert listed == found
        version = re.search(r"uPlot\) (\S+),", (ROOM / "vendor/README.md").read_text())
        assert version is not None
        assert f"(v{version[1]})" in (ROOM / "vendor/uPlot.iife.min.js").read_text()[:100]


def everything(path: str, parameters: Mapping[str, str]) -> Result:
    """An answer to whatever a dashboard asks: some replicas, buckets and objectives at once."""
    if "/label/" in path:
        return ["one", "two"]
    labels = [
        {"replica": replica, "slo": slo, "le": le, "sampler": "0", "model_name": "m", "alertname": "A"}
        for replica, slo, le in [("1700000000", "success", "0.5"), ("1700000600", "availability", "+Inf")]
    ]
    if path.endswith("query"):
        return [
            {"metric": own, "value": [float(parameters["time"]), f"{0.5 + index}"]}
            for index, own in enumerate(labels)
        ]
    start, end, step = (float(parameters[name]) for name in ("start", "end", "step"))
    times = [start + index * step for index in range(int((end - start) / step) + 1)]
    return [
        {"metric": own, "values": [[time, str(1 + index + math.sin(time / 120))] for time in times]}
        for index, own in enumerate(labels)
    ]


@pytest.fixture(scope="module")
def ours() -> Page:
    """Our dashboards, with an answer to whatever they ask."""
    with serve(everything) as url:
        return page.render(bundle.dashboards(TARGET), url, seconds=900, end=1_700_001_000)


class TestRender:
    def test_every_panel_of_our_dashboards_has_its_data(self, ours: Page) -> None:
        own = [
            panel
            for text in bundle.dashboards(TARGET).values()
            for panel in json.loads(text)["panels"]
            if panel["type"] != "row"
        ]
        assert (ours.panels, ours.errors, ours.empty) == (len(own), {}, [])
        assert len(ours.answers) == sum(len(panel.get("targets") or []) for panel in own)
        assert all(len(values) == 2 for values in ours.answers.values())

    def test_what_prometheus_refuses_is_an_error_of_its_panel(self) -> None:
        text = json.dumps({"title": "Board", "panels": [panel(title="Bad"), panel(targets=[target("ok")])]})

        def answers(path: str, parameters: Mapping[str, str]) -> Result:
            return "too many samples" if parameters["query"] == "up" else everything(path, parameters)

        with serve(answers) as url:
            made = page.render({"board.json": text}, url, seconds=900)
        assert made.errors == {"Board / Bad": "execution: too many samples"}
        assert made.answers["Board / Bad / A"] == []
        assert made.empty == []

    def test_the_values_of_variables_are_in_the_queries(self) -> None:
        asked: list[str] = []

        def answers(path: str, parameters: Mapping[str, str]) -> Result:
            asked.append(parameters.get("query") or f"{path} {parameters['match[]']}")
            return everything(path, parameters)

        definition = {"name": "r", "type": "query", "query": "label_values(up, replica)", "includeAll": True}
        board = {"title": "B", "templating": {"list": [definition]}, "panels": [panel(title="Of $r")]}
        board["panels"][0]["targets"] = [target('up{r=~"$r"}')]  # type: ignore[index]
        with serve(answers) as url:
            made = page.render({"b.json": json.dumps(board)}, url, seconds=900)
        assert asked == ["/api/v1/label/replica/values up", 'up{r=~"(one|two)"}']
        assert '"title":"Of All"' in made.html
        assert '"facts":{"r":"All"}' in made.html

    def test_a_variable_without_an_answer_is_an_error_of_the_page(self) -> None:
        definition = {"name": "r", "type": "query", "query": "label_values(up, replica)"}
        board = {"title": "B", "templating": {"list": [definition]}, "panels": [panel()]}
        with (
            serve(lambda *_: b"<html>Who are you?</html>") as url,
            pytest.raises(ValueError, match="401 <html>"),
        ):
            page.render({"b.json": json.dumps(board)}, url)

    def test_the_command_writes_the_page_and_says_what_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, output = tmp_path / "board.json", tmp_path / "page.html"
        source.write_text(json.dumps({"title": "Board", "panels": [panel(title="Hole")]}))
        with serve(lambda *_: []) as url:
            arguments = ["page", "--prometheus", url, "--output", str(output), "--range", "15m", str(source)]
            monkeypatch.setattr(sys, "argv", arguments)
            assert command.main() == 0
        assert "no data in Board / Hole" in capsys.readouterr().out
        assert output.read_text().startswith("<!doctype html>")

    def test_the_command_says_when_there_is_no_prometheus(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, output = tmp_path / "board.json", tmp_path / "page.html"
        source.write_text(json.dumps({"title": "Board", "panels": [panel()]}))
        with serve(lambda *_: []) as url:
            pass
        monkeypatch.setattr(sys, "argv", ["page", "--prometheus", url, "--output", str(output), str(source)])
        assert command.main() == 1
        assert f"no answer from {url}" in capsys.readouterr().err
        assert not output.exists()

    @pytest.mark.parametrize(
        ("text", "folder", "said"),
        [
            ("{}", ".", "board.json is no dashboard: it has no title"),
            ("[]", ".", "board.json is no dashboard: it has no title"),
            ("{", ".", "board.json is no JSON"),
            (json.dumps({"title": "Board"}), "missing", "there is no folder"),
        ],
    )
    def test_the_command_says_why_there_is_no_page(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        text: str,
        folder: str,
        said: str,
    ) -> None:
        source, output = tmp_path / "board.json", tmp_path / folder / "page.html"
        source.write_text(text)
        with serve(lambda *_: []) as url:
            monkeypatch.setattr(
                sys, "argv", ["page", "--prometheus", url, "--output", str(output), str(source)]
            )
            assert command.main() == 1
        assert said in capsys.readouterr().err

    def test_the_command_says_how_to_write_a_range(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [
            "--prometheus",
            "http://127.0.0.1:9",
            "--output",
            str(tmp_path / "page.html"),
            "--range",
            "foo",
        ]
        monkeypatch.setattr(sys, "argv", ["page", *words, "board.json"])
        assert command.main() == 1
        assert capsys.readouterr().err == "'foo' is no duration; write it as 90s, 15m, 1h30m or 7d\n"

    def test_the_command_says_that_an_address_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, output = tmp_path / "board.json", tmp_path / "page.html"
        source.write_text(json.dumps({"title": "Board"}))
        url = "http://localhost:port"
        monkeypatch.setattr(sys, "argv", ["page", "--prometheus", url, "--output", str(output), str(source)])
        assert command.main() == 1
        assert f"no answer from {url}: Invalid port" in capsys.readouterr().err


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return browser.find(tmp_path_factory.mktemp("browser"))


class TestWithoutABrowser:
    @pytest.fixture(autouse=True)
    def none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.delenv("CHROME", raising=False)
        monkeypatch.delenv("CI", raising=False)

    def test_tests_are_skipped_with_the_remedy(self, tmp_path: Path) -> None:
        with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
            browser.find(tmp_path)

    def test_ci_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match="no browser on PATH"):
            browser.find(tmp_path)

    def test_a_wrong_address_of_one_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHROME", "/nowhere/chrome")
        with pytest.raises(pytest.skip.Exception, match="CHROME=/nowhere/chrome is no program"):
            browser.find(tmp_path)


@pytest.mark.parametrize(("end", "said"), [("exit 7", "exit status 7"), ("exec sleep 60", "timed out")])
def test_a_browser_that_fails_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, said: str
) -> None:
    program = tmp_path / "chrome"
    program.write_text(f"#!/bin/sh\necho 'no usable sandbox' >&2\n{end}\n")
    program.chmod(0o755)
    monkeypatch.setenv("CHROME", str(program))
    monkeypatch.setattr(browser, "_SECONDS", 0.5)
    with pytest.raises(AssertionError, match=f"(?s){said}.*no usable sandbox"):
        browser.find(tmp_path).render(tmp_path / "page.html")


def opened(chromium: Browser, folder: Path, *reports: Report, anchor: str = "") -> Rendered:
    file = folder / "page.html"
    file.write_text(document.page(reports, made=1900).html)
    rendered = chromium.render(file, anchor=anchor)
    assert rendered.body.get("data-failures") is None
    assert "Refused to" not in rendered.console
    return rendered


def texts(rendered: Rendered, name: str) -> list[str]:
    """Texts of the elements of a class."""
    return [element.text for element in rendered.having("class", name)]


class TestInTheBrowser:
    """What the page is once its scripts have run."""

    def test_our_dashboards_are_drawn(self, ours: Page, chromium: Browser, tmp_path: Path) -> None:
        made, file = ours, tmp_path / "dashboards.html"
        file.write_text(made.html)
        rendered = chromium.render(file)
        assert rendered.body.get("data-failures") is None
        panels = rendered.having("data-kind")
        assert len(panels) == made.panels
        kinds = Counter(panel.attributes["data-kind"] for panel in panels)
        charts = kinds["timeseries"] + kinds["heatmap"] + kinds["state-timeline"]
        canvases = [element for element in rendered.elements if element.tag == "canvas"]
        assert len(canvases) == charts
        assert all(int(canvas.attributes["width"]) > 100 for canvas in canvases)
        assert rendered.body["data-drawn"] == str(made.panels)

    def test_untrusted_texts_are_shown_and_nothing_more(self, chromium: Browser, tmp_path: Path) -> None:
        kinds = ("timeseries", "stat", "gauge", "bargauge", "table", "state-timeline", "heatmap")
        evil = [
            one_panel(kind, series(EVIL, [1.0] * 10, unit=f"count:{EVIL}"), description=EVIL)
            for kind in kinds
        ]
        report_ = report(*evil, facts={EVIL: EVIL}, links={EVIL: "javascript:document.title=1"})
        rendered = opened(chromium, tmp_path, report_)
        tags = Counter(element.tag for element in rendered.elements)
        assert (tags["img"], tags["script"], tags["title"]) == (0, 2, 1)
        assert not [element for element in rendered.having("href") if "script" in element.attributes["href"]]
        assert next(element.text for element in rendered.elements if element.tag == "title") == "Report"
        assert EVIL.replace("&", "&amp;") not in rendered.dom
        assert texts(rendered, "bubble") == [EVIL] * len(kinds)

    def test_values_have_their_units_and_the_colours_of_their_thresholds(
        self, chromium: Browser, tmp_path: Path
    ) -> None:
        limits = {"steps": [{"value": None, "color": "green"}, {"value": 0.8, "color": "red"}]}
        field = {"unit": "percentunit", "thresholds": limits, "color": {"mode": "thresholds"}}
        low, high = series("low", [0.1] * 9 + [0.25], **field), series("high", [0.955] * 10, **field)
        stat = one_panel("stat", low, high)
        bar = one_panel("bargauge", low, high)
        mapped = {"type": "value", "options": {"1": {"text": "fires", "color": "purple"}}}
        text = one_panel("stat", series("alert", [1.0] * 10, mappings=[mapped], **field))
        rendered = opened(chromium, tmp_path, report(stat, bar, text))
        numbers = [(item.text, item.attributes["style"]) for item in rendered.having("class", "number")]
        green, red, purple = "rgb(115, 191, 105)", "rgb(242, 73, 92)", "rgb(184, 119, 217)"
        assert [value for value, _ in numbers] == ["25%", "95.5%", "25%", "95.5%", "fires"]
        for (_, style), color in zip(numbers, [green, red, green, red, purple], strict=True):
            assert f"color: {color}" in style
        fills = [item.attributes["style"] for item in rendered.having("class", "fill")]
        assert ["width: 25%" in fills[0], "width: 95.5%" in fills[1]] == [True, True]

    def test_a_legend_tells_the_last_value(self, chromium: Browser, tmp_path: Path) -> None:
        drawn = one_panel(
            "timeseries",
            series("ttft", [1.0, 2.5, *[1.0] * 6, 0.25, None], unit="s"),
            options={"legend": {"calcs": ["lastNotNull"]}},
        )
        assert texts(opened(chromium, tmp_path, report(drawn)), "legend") == ["ttftLast *: 250 ms"]

    def test_rows_of_a_table_are_in_the_order_that_is_asked_for(
        self, chromium: Browser, tmp_path: Path
    ) -> None:
        columns = series("name", list("abcd"), "string"), series("age", [20.0, None, 100.0, 3.0])
        tables = [
            one_panel("table", *columns, options={"sortBy": [{"displayName": "age", "desc": desc}]})
            for desc in (False, True)
        ]
        rendered = opened(chromium, tmp_path, report(*tables))
        cells = [item.text for item in rendered.elements if item.tag == "td"]
        assert "".join(cells[::2]) == "dacb" + "cadb"

    def test_a_soft_maximum_holds_for_nothing_but_zeros(self, chromium: Browser, tmp_path: Path) -> None:
        limits = {"steps": [{"value": None, "color": "blue"}, {"value": 0.04, "color": "red"}]}
        custom = {"axisSoftMax": 0.05, "thresholdsStyle": {"mode": "dashed"}}
        zeros = series("a", [0.0] * 10, unit="percentunit", thresholds=limits, custom=custom)
        file, image = tmp_path / "page.html", tmp_path / "page.png"
        file.write_text(document.page([report(one_panel("timeseries", zeros))], made=1900).html)
        chromium.screenshot(file, image, width=800, height=500)
        panel_at = 105  # under the head of the page and of its row
        red = [
            index // 800
            for index, (r, g, b) in enumerate(pixels(image))
            if index >= 800 * panel_at and r > 100 > g
        ]
        assert red
        assert panel_at + 60 < red[0] < panel_at + 100

    def test_a_table_shows_columns_in_their_units(self, chromium: Browser, tmp_path: Path) -> None:
        columns = (
            series("replica", ["7", "8"], "string"),
            series("age", [90.0, None], unit="s", noValue="-"),
            series("used", [1536.0, 0.0], unit="bytes"),
        )
        rendered = opened(chromium, tmp_path, report(one_panel("table", *columns)))
        cells = [item.text for item in rendered.elements if item.tag in ("th", "td")]
        assert cells == ["replica", "age", "used", "7", "1.50 mins", "1.50 KiB", "8", "-", "0 B"]

    def test_lanes_of_thresholds_are_named_as_grafana_does_and_others_by_their_mappings(
        self, chromium: Browser, tmp_path: Path
    ) -> None:
        limits = {"steps": [{"value": None, "color": "green"}, {"value": 5, "color": "red"}]}
        values: list[float | None] = [0.0, 1.0, 7.0, None, 0.0]
        merged = series("a", values, thresholds=limits, color={"mode": "thresholds"}, unit="none")
        texts_ = {"0": {"text": "quiet"}, "1": {"text": "loud"}, "7": {"text": "louder"}}
        mapping = [{"type": "value", "options": texts_}]
        mapped = series("b", values, mappings=mapping, color={"mode": "fixed", "fixedColor": "blue"})
        lanes = [one_panel("state-timeline", item) for item in (merged, mapped)]
        rendered = opened(chromium, tmp_path, report(*lanes))
        assert texts(rendered, "legend") == ["< 55+", "quietloudlouder"]

    def test_no_data_and_errors_are_said_in_the_panel(self, chromium: Browser, tmp_path: Path) -> None:
        nothing = one_panel("timeseries", nothing="no data yet")
        rendered = opened(
            chromium, tmp_path, report(nothing, one_panel("stat"), one_panel("stat", error="bad"))
        )
        assert texts(rendered, "nothing") == ["no data yet", "No data"]
        assert texts(rendered, "problem") == ["bad"]
        assert [item.attributes["data-state"] for item in rendered.having("data-kind")] == [
            "empty",
            "empty",
            "error",
        ]

    def test_an_address_chooses_the_report(self, chromium: Browser, tmp_path: Path) -> None:
        first, second = (
            report(one_panel("stat", series("a", [1.0] * 10))),
            Report("other", "Other", 0, 60, []),
        )
        chosen = texts(opened(chromium, tmp_path, first, second, anchor="other"), "chosen")
        assert chosen == ["Other"]
        rendered = opened(chromium, tmp_path, first, second)
        assert texts(rendered, "chosen") == ["Report"]
        assert texts(rendered, "range") == ["Last 15 minutes"]

    def test_lines_lanes_cells_and_marks_are_on_the_canvas(self, chromium: Browser, tmp_path: Path) -> None:
        lines = one_panel("timeseries", series("a", [1.0] * 10, custom={"lineWidth": 9}))
        lane = series(
            "b", [1.0] * 10, color={"mode": "fixed", "fixedColor": "blue"}, custom={"fillOpacity": 100}
        )
        cells = [series(le, [count] * 10, unit="s") for le, count in (("1", 0.0), ("2", 5.0), ("3", 9.0))]
        panels = [lines, one_panel("state-timeline", lane), one_panel("heatmap", *cells)]
        for index, item in enumerate(panels):
            panels[index] = Panel(**{**vars(item), "place": Place(0, index * 6, 24, 6)})
        mark = Mark(1400, 1400, "Gone", "", "purple")
        file, image = tmp_path / "page.html", tmp_path / "page.png"
        file.write_text(document.page([report(*panels, marks=[mark])], made=1900).html)
        chromium.screenshot(file, image, width=800, height=840)
        colors = Counter(pixels(image))
        line, box, few, many = (0x73, 0xBF, 0x69), (0x57, 0x94, 0xF2), (0x7F, 0x27, 0x04), (0xFF, 0xF5, 0xEB)
        for color, least in ((line, 1500), (box, 5000), (few, 1500), (many, 1500)):
            assert colors[color] > least, (color, colors.most_common(12))
        assert colors[(0xB8, 0x77, 0xD9)] > 20


def pixels(image: Path) -> list[tuple[int, int, int]]:
    """Colours of a PNG of 8 bits without transparency or with it."""
    data = image.read_bytes()[8:]
    packed = b""
    while data:
        length, kind = struct.unpack(">I4s", data[:8])
        if kind == b"IHDR":
            width, height, _, color = struct.unpack(">IIBB", data[8:18])
        elif kind == b"IDAT":
            packed += data[8 : 8 + length]
        data = data[12 + length :]
    size = {2: 3, 6: 4}[color]
    raw, above = zlib.decompress(packed), bytes(width * size)
    found = []
    for row in range(height):
        start = row * (width * size + 1)
        line = bytearray(raw[start + 1 : start + 1 + width * size])
        for index in range(len(line)):
            left = line[index - size] if index >= size else 0
            corner = above[index - size] if index >= size else 0
            line[index] = (line[index] + _filtered(raw[start], left, above[index], corner)) & 255
        above = bytes(line)
        found += [tuple(line[index : index + 3]) for index in range(0, len(line), size)]
    return found  # type: ignore[return-value]


def _filtered(kind: int, left: int, up: int, corner: int) -> int:
    """What PNG's filter of this kind adds to a byte."""
    if kind < 4:
        return (0, left, up, (left + up) // 2)[kind]
    guess = left + up - corner
    return min((left, up, corner), key=lambda byte: abs(guess - byte))


FORMATS = [
    ("s", None, 1.5e-06, "1.50 µs"), ("s", None, 0.25, "250 ms"), ("s", None, 1.234, "1.23 s"),
    ("s", None, 0, "0 s"), ("s", None, 60, "1 min"), ("s", None, 5400, "1.50 hours"),
    ("s", 0, 86400, "1 day"), ("s", None, -0.5, "-500 ms"), ("s", None, "-Infinity", "-∞ s"),
    ("percentunit", None, 0.07, "7%"), ("percentunit", 2, 0.99951, "99.95%"),
    ("short", None, 1234, "1.23 K"), ("short", None, 2500000, "2.50 Mil"), ("short", None, 42, "42"),
    ("short", None, "Infinity", "∞"), ("none", None, 12345.678, "12346"), ("none", 1, 2, "2.0"),
    ("none", None, 0.1234, "0.123"), ("none", None, "NaN", "NaN"), ("", None, 5, "5"),
    ("bytes", None, 1024, "1 KiB"), ("bytes", None, 53687091200, "50 GiB"), ("bytes", None, 0, "0 B"),
    ("reqps", None, 12.5, "12.5 req/s"), ("reqps", None, 1200, "1.20K req/s"),
    ("currencyEUR", 2, 3.1, "€3.10"), ("currencyEUR", 2, 1532.82, "€1.53K"),
    ("currencyEUR", None, -2, "-€2"), ("count:tokens/s", None, 2500, "2.50K tokens/s"),
    ("dateTimeAsIso", None, 1_700_000_000_000, f"{datetime.fromtimestamp(1_700_000_000)}"),
]  # fmt: skip
"""Unit, decimals, value and Grafana's text."""


def test_values_are_written_as_grafana_writes_them(chromium: Browser, tmp_path: Path) -> None:
    assert {case[0] for case in FORMATS} == {*words.UNITS, "count:tokens/s"}
    cases = json.dumps([case[:3] for case in FORMATS])
    script = f"""{(ROOM / "units.js").read_text()}
    document.body.dataset.texts = JSON.stringify({cases}.map(([unit, decimals, value]) =>
      units.formatter(unit)(Number(value), decimals ?? undefined)));"""
    file = tmp_path / "units.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><body><script>{script}</script>")
    written = json.loads(chromium.render(file).body["data-texts"])
    assert written == [case[3] for case in FORMATS]
