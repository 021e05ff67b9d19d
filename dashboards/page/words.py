"""Which of Grafana's words for a panel this page draws; another one is an error of its panel, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

Kind = Literal["timeseries", "stat", "gauge", "bargauge", "heatmap", "table", "state-timeline", "text"]

_Values = frozenset[Any] | None
"""What a word may say; None: anything."""

UNITS = frozenset({"", "none", "short", "s", "percentunit", "bytes", "reqps", "currencyEUR", "dateTimeAsIso"})
"""Besides these `count:…`, such as `count:tokens/s`."""
_COLORS = frozenset({"red", "orange", "yellow", "green", "blue", "purple", "transparent"})
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


def _one(*values: Any) -> frozenset[Any]:
    return frozenset(values)


_FIELD: Mapping[str, _Values] = {
    "unit": UNITS,
    "decimals": None,
    "min": None,
    "max": None,
    "noValue": None,
    "thresholds.mode": _one("absolute"),
    "thresholds.steps": None,
    "color.mode": _one("thresholds", "palette-classic", "fixed"),
    "color.fixedColor": None,
    "mappings": None,
    "custom.align": _one("auto"),
    "custom.inspect": None,
    "custom.axisLabel": None,
    "custom.axisSoftMax": None,
    "custom.drawStyle": _one("line", "bars"),
    "custom.fillOpacity": None,
    "custom.lineInterpolation": _one("linear", "stepAfter"),
    "custom.lineStyle.fill": _one("solid", "dash"),
    "custom.lineStyle.dash": None,
    "custom.lineWidth": None,
    "custom.scaleDistribution.type": _one("linear", "log"),
    "custom.scaleDistribution.log": _one(10),
    "custom.showPoints": _one("auto"),
    "custom.stacking.mode": _one("none", "normal"),
    "custom.stacking.group": None,
    "custom.thresholdsStyle.mode": _one("off", "dashed"),
}
_LEGEND: Mapping[str, _Values] = {
    "legend.showLegend": _one(True),
    "legend.displayMode": _one("list"),
    "legend.placement": _one("bottom"),
    "legend.calcs": _one("lastNotNull"),
}
_LATEST: Mapping[str, _Values] = {
    "reduceOptions.values": _one(False),
    "reduceOptions.calcs": _one("lastNotNull"),
}
_OPTIONS: Mapping[str, Mapping[str, _Values]] = {
    "timeseries": {**_LEGEND, "tooltip.mode": _one("multi"), "tooltip.sort": _one("desc")},
    "stat": {
        **_LATEST,
        "colorMode": _one("value"),
        "graphMode": _one("area", "none"),
        "orientation": _one("auto"),
        "textMode": _one("value", "value_and_name"),
    },
    "gauge": {**_LATEST, "showThresholdMarkers": _one(True)},
    "bargauge": {
        **_LATEST,
        "displayMode": _one("basic"),
        "orientation": _one("horizontal"),
        "showUnfilled": _one(True),
    },
    "heatmap": {
        "calculate": _one(False),
        "color.mode": _one("scheme"),
        "color.scheme": _one("Oranges"),
        "color.reverse": _one(False),
    },
    "state-timeline": {**_LEGEND, "mergeValues": _one(True), "showValue": _one("never")},
    "table": {"showHeader": _one(True), "footer.show": _one(False), "frameIndex": _one(0)},
    "text": {"mode": _one("markdown")},
}
"""Options that are not listed change nothing that somebody could read wrongly."""
_AXIS = ("unit", "min", "max", "custom.axisSoftMax", "custom.scaleDistribution.type")


def unknown(kind: str, options: Mapping[str, Any], fields: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the page cannot draw of a panel of this kind with these options and fields of its series."""
    if kind not in get_args(Kind):
        yield f"this page draws no panels of type {kind}, only {', '.join(get_args(Kind))}"
        return
    for path, value in _flat(options):
        if path in _OPTIONS[kind] and not _allowed(path, value, _OPTIONS[kind][path]):
            yield _sentence(path, value)
    for field in fields:
        for path, value in _flat(field):
            # What Grafana writes of something that is off needs no word of its own.
            off = path not in _FIELD and (not value or value in ("auto", "none"))
            if not off and not _allowed(path, value, _FIELD.get(path, frozenset())):
                yield _sentence(path, value)
        yield from _colors(field)
    if kind == "timeseries":
        axes = [dict(_flat(field)) for field in fields]
        for path in _AXIS:
            if len({axis.get(path) for axis in axes}) > 1:
                yield f"this page draws one axis, and the series of the panel differ in {path}"


def _colors(field: Mapping[str, Any]) -> Iterator[str]:
    """Colours, and the mappings that bring some, that the page does not have."""
    named = [step["color"] for step in field.get("thresholds", {}).get("steps", [])]
    named += [field["color"]["fixedColor"]] if "fixedColor" in field.get("color", {}) else []
    for mapping in field.get("mappings", []):
        if mapping["type"] != "value":
            yield _sentence("mappings", mapping["type"])
        else:
            named += [result["color"] for result in mapping["options"].values() if "color" in result]
    for color in named:
        if color not in _COLORS and not _HEX.fullmatch(color):
            yield _sentence("color", color)


def _flat(words: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Paths such as `custom.lineWidth`, and their values."""
    for key, value in words.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def _allowed(path: str, value: Any, values: _Values) -> bool:
    if values is None or (path == "unit" and str(value).startswith("count:")):
        return True
    return all(item in values for item in (value if isinstance(value, list) else [value]))


def _sentence(path: str, value: Any) -> str:
    return f"this page does not know {path} {value!r}"
