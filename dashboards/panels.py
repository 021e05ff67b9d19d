"""Panels of a Grafana dashboard as data; each kind knows how Grafana writes it down.

Nothing is left to Grafana's defaults that somebody would miss: its legends are hidden, its thresholds turn
red at 80 whatever the unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import bargauge, gauge, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import statetimeline as state_timeline
from grafana_foundation_sdk.builders import text as text_builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

DATASOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="prometheus")
"""The datasource that kube-prometheus-stack provisions."""

_GOOD, _WARNING, _BAD, _PLAIN = "green", "orange", "red", "blue"

_Drawn = TypeVar(
    "_Drawn",
    timeseries.Panel,
    stat.Panel,
    gauge.Panel,
    bargauge.Panel,
    heatmap.Panel,
    table.Panel,
    state_timeline.Panel,
)


@dataclass(frozen=True)
class Query:
    """An expression, and what its series are called: `{{label}}` stands for a label's value."""

    expr: str
    legend: str
    step: str = ""
    """Least time between two points, such as `1m`; `$__interval` in the expression is no shorter."""


@dataclass(frozen=True)
class Limits:
    """Colours of a value: each holds from its number on, the first one below all of them."""

    first: str
    others: tuple[tuple[float, str], ...] = ()

    @classmethod
    def rising(cls, warning: float, bad: float | None = None) -> Limits:
        """The lower the better."""
        return cls(_GOOD, ((warning, _WARNING), *(((bad, _BAD),) if bad is not None else ())))

    @classmethod
    def falling(cls, good: float, warning: float | None = None) -> Limits:
        """The higher the better: bad below `warning`, or below `good` if nothing is between them."""
        between = ((warning, _WARNING),) if warning is not None else ()
        return cls(_BAD, (*between, (good, _GOOD)))

    def steps(self) -> list[dashboard.Threshold]:
        """As Grafana writes them."""
        first = dashboard.Threshold(value=None, color=self.first)
        return [first, *(dashboard.Threshold(value=value, color=color) for value, color in self.others)]

    def override(self) -> dict[str, Any]:
        """Property of an override: these limits for some series of a panel."""
        return {"thresholds": dashboard.ThresholdsConfig(dashboard.ThresholdsMode.ABSOLUTE, self.steps())}


_UNLIMITED = Limits(_PLAIN)


@dataclass(frozen=True, kw_only=True)
class Panel(ABC):
    """What all kinds have in common."""

    title: str
    description: str
    """How to read it: what is normal, what is not, and what to do then."""
    unit: str
    """A unit of Grafana, such as `s`, `percentunit` (1 is 100 %) or `short`."""
    queries: Sequence[Query] = ()
    width: int = 8
    """Of the 24 columns of Grafana's grid."""
    height: int = 8
    """In rows of the grid."""
    minimum: float | None = 0
    maximum: float | None = None
    decimals: int | None = None
    limits: Limits | None = None
    """Where a value begins to be too much or too little."""
    nothing: str = "no data"
    """What is shown where there is no value."""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Properties of single series, by their names."""

    @abstractmethod
    def builder(self) -> Builder[dashboard.Panel]:
        """As the library writes it down."""

    def _dressed(self, panel: _Drawn, colors: dashboard.FieldColorModeId) -> _Drawn:
        """The panel with everything but its queries and the options of its kind."""
        thresholds = builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE)
        panel = (
            panel.title(self.title)
            .description(self.description)
            .datasource(DATASOURCE)
            .unit(self.unit)
            .no_value(self.nothing)
            .thresholds(thresholds.steps((self.limits or _UNLIMITED).steps()))
            .color_scheme(builders.FieldColor().mode(colors))
            .span(self.width)
            .height(self.height)
        )
        if self.minimum is not None:
            panel = panel.min(self.minimum)
        if self.maximum is not None:
            panel = panel.max(self.maximum)
        if self.decimals is not None:
            panel = panel.decimals(self.decimals)
        for name, properties in self.overrides.items():
            values = [dashboard.DynamicConfigValue(key, value) for key, value in properties.items()]
            panel = panel.override_by_name(name, values)
        return panel

    def _targets(self, format_: PromQueryFormat, *, instant: bool) -> list[Builder[Any]]:
        """The queries, named A, B, C, …; instant ones ask for the end of the time range only."""
        targets: list[Builder[Any]] = []
        for reference, query in zip(ascii_uppercase, self.queries, strict=False):
            target = prometheus.Dataquery().ref_id(reference).expr(query.expr).legend_format(query.legend)
            if query.step:
                target = target.interval(query.step)
            targets.append((target.instant() if instant else target.range()).format(format_))
        return targets


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Values over time. Limits are dashed lines."""

    stacked: bool = False
    bars: bool = False
    stepped: bool = False
    """Whether a value holds until the next one, as whole numbers do."""
    logarithmic: bool = False
    axis: str = ""
    """Label of the axis, for what the unit does not say."""
    roomy: float | None = None
    """How far the axis goes at least, so that noise near 0 does not look like trouble.

    Without it the axis goes to the maximum or the first limit: by itself it does not grow to a dashed line.
    """

    def builder(self) -> timeseries.Panel:
        """A time series panel."""
        panel = self._dressed(timeseries.Panel(), dashboard.FieldColorModeId.PALETTE_CLASSIC)
        legend = (
            common_builders.VizLegendOptions()
            .show_legend(True)
            .placement(common.LegendPlacement.BOTTOM)
            .display_mode(common.LegendDisplayMode.LIST)
            .calcs(["lastNotNull"])
        )
        tooltip = (
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        limited = (
            common.GraphThresholdsStyleMode.DASHED if self.limits else common.GraphThresholdsStyleMode.OFF
        )
        panel = (
            panel.targets(self._targets(PromQueryFormat.TIME_SERIES, instant=False))
            .legend(legend)
            .tooltip(tooltip)
            .draw_style(common.GraphDrawStyle.BARS if self.bars else common.GraphDrawStyle.LINE)
            .fill_opacity(60 if self.bars else 20 if self.stacked else 0)
            .show_points(common.VisibilityMode.AUTO)
            .thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(limited))
            .axis_label(self.axis)
        )
        if self.stacked:
            mode = common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A")
            panel = panel.stacking(mode)
        if self.stepped:
            panel = panel.line_interpolation(common.LineInterpolation.STEP_AFTER)
        roomy = self.roomy
        if roomy is None and self.maximum is None and self.limits:
            roomy = self.limits.others[0][0]
        if roomy is not None:
            panel = panel.axis_soft_max(roomy)
        if self.logarithmic:
            scale = common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
            panel = panel.scale_distribution(scale)
        return panel


@dataclass(frozen=True, kw_only=True)
class Numbers(Panel):
    """The latest values in large figures, one for each series, coloured by the limits."""

    history: bool = True
    """Whether to draw how the value came about; without it only the end of the time range is asked for."""

    def builder(self) -> stat.Panel:
        """A stat panel."""
        panel = self._dressed(stat.Panel(), dashboard.FieldColorModeId.THRESHOLDS)
        return (
            panel.targets(self._targets(PromQueryFormat.TIME_SERIES, instant=not self.history))
            .reduce_options(_latest())
            .graph_mode(common.BigValueGraphMode.AREA if self.history else common.BigValueGraphMode.NONE)
            .color_mode(common.BigValueColorMode.VALUE)
            .text_mode(
                common.BigValueTextMode.VALUE_AND_NAME
                if _many(self.queries)
                else common.BigValueTextMode.VALUE
            )
        )


@dataclass(frozen=True, kw_only=True)
class Dial(Panel):
    """The latest value between its bounds."""

    def builder(self) -> gauge.Panel:
        """A gauge."""
        panel = self._dressed(gauge.Panel(), dashboard.FieldColorModeId.THRESHOLDS)
        return (
            panel.targets(self._targets(PromQueryFormat.TIME_SERIES, instant=True))
            .reduce_options(_latest())
            .show_threshold_markers(True)
        )


@dataclass(frozen=True, kw_only=True)
class Bars(Panel):
    """The latest values of many series as bars side by side."""

    def builder(self) -> bargauge.Panel:
        """A bar gauge."""
        panel = self._dressed(bargauge.Panel(), dashboard.FieldColorModeId.THRESHOLDS)
        return (
            panel.targets(self._targets(PromQueryFormat.TIME_SERIES, instant=True))
            .reduce_options(_latest())
            .orientation(common.VizOrientation.HORIZONTAL)
            .display_mode(common.BarGaugeDisplayMode.BASIC)
            .show_unfilled(True)
        )


@dataclass(frozen=True, kw_only=True)
class Heatmap(Panel):
    """How many values fell into each bucket of a histogram; the query keeps `le`."""

    def builder(self) -> heatmap.Panel:
        """A heatmap of buckets that Prometheus has counted."""
        panel = self._dressed(heatmap.Panel(), dashboard.FieldColorModeId.THRESHOLDS)
        colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
        return (
            panel.targets(self._targets(PromQueryFormat.HEATMAP, instant=False))
            .calculate(False)
            .color(colors.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5))
            .y_axis(heatmap.YAxisConfig().unit(self.unit))
            .cell_gap(1)
            .show_legend()
        )


@dataclass(frozen=True, kw_only=True)
class Lanes(Panel):
    """A lane for each series, coloured by its value; gaps are times without the series."""

    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Text and colour of single values."""

    def builder(self) -> state_timeline.Panel:
        """A state timeline."""
        # With thresholds Grafana names the lanes' values after the steps, whatever they are mapped to.
        by_limits = dashboard.FieldColorModeId.THRESHOLDS
        by_name = dashboard.FieldColorModeId.PALETTE_CLASSIC
        panel = self._dressed(state_timeline.Panel(), by_name if self.names else by_limits)
        legend = (
            common_builders.VizLegendOptions()
            .show_legend(True)
            .placement(common.LegendPlacement.BOTTOM)
            .display_mode(common.LegendDisplayMode.LIST)
        )
        mapped: dict[str, dashboard.ValueMappingResult] = {
            value: dashboard.ValueMappingResult(text=text, color=color)
            for value, (text, color) in self.names.items()
        }
        return (
            panel.targets(self._targets(PromQueryFormat.TIME_SERIES, instant=False))
            .mappings([dashboard.ValueMap(mapped)] if mapped else [])
            .legend(legend)
            .show_value(common.VisibilityMode.NEVER)
            .merge_values(True)
            .row_height(0.8)
        )


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """A row for each value of a label and a column for each query, which keeps that label alone."""

    label: str
    sorted_by: str
    """The column by which rows are sorted, the least first."""

    def builder(self) -> table.Panel:
        """A table."""
        panel = self._dressed(table.Panel(), dashboard.FieldColorModeId.THRESHOLDS)
        columns = {
            f"Value #{reference}": query.legend
            for reference, query in zip(ascii_uppercase, self.queries, strict=False)
        }
        order = {name: index for index, name in enumerate((self.label, *columns))}
        return (
            panel.targets(self._targets(PromQueryFormat.TABLE, instant=True))
            .with_transformation(dashboard.DataTransformerConfig("merge", options={}))
            .with_transformation(
                dashboard.DataTransformerConfig(
                    "organize",
                    options={
                        "excludeByName": {"Time": True},
                        "indexByName": order,
                        "renameByName": columns,
                    },
                )
            )
            .show_header(True)
            .sort_by([common_builders.TableSortByFieldState().display_name(self.sorted_by).desc(False)])
            .cell_height(common.TableCellHeight.SM)
        )


@dataclass(frozen=True, kw_only=True)
class Text(Panel):
    """Words instead of values."""

    markdown: str
    unit: str = ""

    def builder(self) -> text_builders.Panel:
        """A text panel."""
        return (
            text_builders.Panel()
            .title(self.title)
            .description(self.description)
            .mode(TextMode.MARKDOWN)
            .content(self.markdown)
            .span(self.width)
            .height(self.height)
        )


def _latest() -> common_builders.ReduceDataOptions:
    return common_builders.ReduceDataOptions().values(False).calcs(["lastNotNull"])


def _many(queries: Sequence[Query]) -> bool:
    """Whether names are needed to tell values apart."""
    return len(queries) > 1 or any("{{" in query.legend for query in queries)
