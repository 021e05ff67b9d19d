"use strict";
// What a field's configuration makes of a value: its colour, its text, one number for many.

const fields = (() => {
  const COLORS = {
    red: "#F2495C", orange: "#FF9830", yellow: "#FADE2A", green: "#73BF69", blue: "#5794F2", purple: "#B877D9",
    transparent: "transparent",
  };
  /** Grafana's classic palette, the colours of series in their order. */
  const PALETTE = [
    COLORS.green, "#F2CC0C", "#8AB8FF", "#FF780A", COLORS.red, COLORS.blue, COLORS.purple, "#705DA0", "#37872D",
    COLORS.yellow, "#447EBC", "#C15C17", "#890F02", "#0A437C", "#6D1F62", "#584477", "#B7DBAB", "#F4D598", "#70DBED",
    "#F9BA8F", "#F29191", "#82B5D8", "#E5A8E2", "#AEA2E0", "#629E51", "#E5AC0E", "#64B0C8", "#E0752D", "#BF1B00",
    "#0A50A1", "#962D82", "#614D93",
  ];

  /** A colour as CSS: a name of Grafana's or #rrggbb; gray for what is neither. */
  const css = (name) => COLORS[name] ?? (/^#[0-9a-f]{6}$/i.test(name) ? name : "#808080");

  /** A #rrggbb colour with an opacity. */
  function faded(color, opacity) {
    const [, red, green, blue] = /^#(..)(..)(..)/.exec(color) ?? [null, "80", "80", "80"];
    return `rgba(${parseInt(red, 16)}, ${parseInt(green, 16)}, ${parseInt(blue, 16)}, ${opacity})`;
  }

  const known = (values) => values.filter((value) => value !== null && !Number.isNaN(value));

  /** The last value that there is; null if there is none. */
  const latest = (values) => known(values).at(-1) ?? null;

  /** Bounds of a field: its own, those of its unit, or those of its values. */
  function bounds(field, values) {
    const some = known(values).filter(Number.isFinite);
    const share = field.unit === "percentunit";
    const low = field.min ?? (share || !some.length ? 0 : Math.min(...some));
    const high = field.max ?? (share ? 1 : some.length ? Math.max(...some) : 100);
    return [low, high > low ? high : low + 1];
  }

  /** Thresholds as [value, colour], the first one from -∞ on. */
  const steps = ({ thresholds }) => (thresholds?.steps?.length ? thresholds.steps : [{ color: "green" }])
    .map(({ value, color }, index) => [index === 0 ? -Infinity : value, css(color)]);

  const stepColor = (value, limits) => limits.findLast(([least]) => value >= least)?.[1] ?? limits[0][1];

  /** The text and the colour that a value is mapped to, either of them perhaps undefined. */
  const mapping = (field, value) =>
    (field.mappings ?? []).find(({ options }) => Object.hasOwn(options, String(value)))?.options[String(value)];

  /** How one value of a series is shown: {text, color}. `index` is the place of the series in its panel. */
  function display(series, value, index = 0) {
    const { field } = series;
    const mapped = mapping(field, value);
    const color = mapped?.color ? css(mapped.color)
      : field.color?.mode === "thresholds" || !field.color ? stepColor(value ?? -Infinity, steps(field)) : seriesColor(series, index);
    if (mapped?.text) return { text: mapped.text, color };
    if (value === null) return { text: field.noValue ?? "", color };
    if (series.kind === "string") return { text: value, color };
    if (series.kind === "time") return { text: units.dateTime(value), color };
    return { text: units.formatter(field.unit)(value, field.decimals), color };
  }

  /** Colour of a series in a chart. */
  function seriesColor({ field, values }, index) {
    const { mode, fixedColor } = field.color ?? {};
    if (mode === "fixed") return css(fixedColor);
    if (mode === "thresholds") return stepColor(latest(values) ?? -Infinity, steps(field));
    return PALETTE[index % PALETTE.length];
  }

  return { css, faded, latest, bounds, steps, display, seriesColor };
})();
