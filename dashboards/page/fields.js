"use strict";
// What a field's configuration makes of a value: its colour, its text, one number for many.

const fields = (() => {
  const COLORS = {
    red: "#F2495C", orange: "#FF9830", yellow: "#FADE2A", green: "#73BF69", blue: "#5794F2", purple: "#B877D9",
    "super-light-red": "#FFA6B0", "light-red": "#FF7383", "semi-dark-red": "#E02F44", "dark-red": "#C4162A",
    "super-light-orange": "#FFCB7D", "light-orange": "#FFB357", "semi-dark-orange": "#FF780A", "dark-orange": "#FA6400",
    "super-light-yellow": "#FFF899", "light-yellow": "#FFEE52", "semi-dark-yellow": "#F2CC0C", "dark-yellow": "#E0B400",
    "super-light-green": "#C8F2C2", "light-green": "#96D98D", "semi-dark-green": "#56A64B", "dark-green": "#37872D",
    "super-light-blue": "#C0D8FF", "light-blue": "#8AB8FF", "semi-dark-blue": "#3274D9", "dark-blue": "#1F60C4",
    "super-light-purple": "#DEB6F2", "light-purple": "#CA95E5", "semi-dark-purple": "#A352CC", "dark-purple": "#8F3BB8",
    text: "#CCCCDC", transparent: "transparent", gray: "#808080", grey: "#808080", white: "#FFFFFF", black: "#000000",
  };
  /** Grafana's classic palette, the colours of series in their order. */
  const PALETTE = [
    COLORS.green, COLORS["semi-dark-yellow"], COLORS["light-blue"], COLORS["semi-dark-orange"], COLORS.red, COLORS.blue,
    COLORS.purple, "#705DA0", COLORS["dark-green"], COLORS.yellow, "#447EBC", "#C15C17", "#890F02", "#0A437C", "#6D1F62",
    "#584477", "#B7DBAB", "#F4D598", "#70DBED", "#F9BA8F", "#F29191", "#82B5D8", "#E5A8E2", "#AEA2E0", "#629E51",
    "#E5AC0E", "#64B0C8", "#E0752D", "#BF1B00", "#0A50A1", "#962D82", "#614D93",
  ];

  /** A colour as CSS: a name of Grafana's palette or a colour already. */
  const css = (name) => COLORS[name] ?? (/^(#[0-9a-f]{3,8}|rgba?\([\d., %]+\))$/i.test(name) ? name : COLORS.gray);

  /** A #rrggbb colour with an opacity. */
  function faded(color, opacity) {
    const [, red, green, blue] = /^#(..)(..)(..)/.exec(color) ?? [null, "80", "80", "80"];
    return `rgba(${parseInt(red, 16)}, ${parseInt(green, 16)}, ${parseInt(blue, 16)}, ${opacity})`;
  }

  const REDUCERS = {
    lastNotNull: ["Last *", (values) => known(values).at(-1)],
    last: ["Last", (values) => values.at(-1)],
    firstNotNull: ["First *", (values) => known(values)[0]],
    first: ["First", (values) => values[0]],
    min: ["Min", (values) => extreme(Math.min, values)],
    max: ["Max", (values) => extreme(Math.max, values)],
    mean: ["Mean", (values) => sum(values) / known(values).length],
    sum: ["Total", (values) => sum(values)],
    count: ["Count", (values) => values.length],
    range: ["Range", (values) => extreme(Math.max, values) - extreme(Math.min, values)],
    delta: ["Delta", (values) => known(values).reduce((total, value, index, all) => total + (index ? Math.max(0, value - all[index - 1]) : 0), 0)],
    diff: ["Difference", (values) => known(values).at(-1) - known(values)[0]],
  };
  const known = (values) => values.filter((value) => value !== null && !Number.isNaN(value));
  const sum = (values) => known(values).reduce((total, value) => total + value, 0);
  const extreme = (choose, values) => {
    const some = known(values);
    return some.length ? some.reduce((one, other) => choose(one, other)) : undefined;
  };

  /** Title of a reducer. */
  const title = (reducer) => REDUCERS[reducer]?.[0] ?? reducer;

  /** One value for many; null when there is none. */
  function reduce(reducer, values) {
    const value = REDUCERS[reducer]?.[1](values);
    return value === undefined || Number.isNaN(value) ? null : value;
  }

  /** Bounds of a field: its own, those of its unit, or those of its values. */
  function bounds(field, values) {
    const some = known(values).filter(Number.isFinite);
    const full = { percent: 100, percentunit: 1 }[field.unit];
    const low = field.min ?? (full ? 0 : some.length ? Math.min(...some) : 0);
    const high = field.max ?? full ?? (some.length ? Math.max(...some) : 100);
    return [low, high > low ? high : low + 1];
  }

  /** Thresholds as [value, colour], the first one from -∞ on; percentages become values between the bounds. */
  function steps(field, [low, high]) {
    const { mode = "absolute", steps: given = [] } = field.thresholds ?? {};
    const all = given.length ? given : [{ value: null, color: "green" }];
    return all.map(({ value, color }, index) => [
      index === 0 || value === null ? -Infinity : mode === "percentage" ? low + ((high - low) * value) / 100 : value,
      css(color),
    ]);
  }

  const stepColor = (value, limits) => limits.findLast(([least]) => value >= least)?.[1] ?? limits[0][1];

  /** The first mapping that fits a value, as {text, color}, either of them perhaps undefined. */
  function mapping(field, value) {
    for (const { type, options } of field.mappings ?? []) {
      if (type === "value" && value !== null && Object.hasOwn(options, String(value))) return options[String(value)];
      if (type === "range" && typeof value === "number"
        && value >= (options.from ?? -Infinity) && value <= (options.to ?? Infinity)) return options.result;
      if (type === "special") {
        const fits = { null: value === null, nan: Number.isNaN(value), "null+nan": value === null || Number.isNaN(value),
          true: value === true, false: value === false, empty: value === "" }[options.match];
        if (fits) return options.result;
      }
    }
    return undefined;
  }

  /** How one value of a series is shown: {text, color}. `index` is the place of the series in its panel. */
  function display(series, value, index = 0, limits = steps(series.field, bounds(series.field, series.values))) {
    const { field } = series;
    const mapped = mapping(field, value);
    const color = mapped?.color ? css(mapped.color)
      : field.color?.mode === "thresholds" || !field.color ? stepColor(value ?? -Infinity, limits) : seriesColor(series, index);
    if (mapped?.text) return { text: mapped.text, color };
    if (value === null) return { text: field.noValue ?? "", color };
    if (series.kind === "string" || typeof value === "string") return { text: String(value), color };
    if (series.kind === "time") return { text: units.dateTime(value), color };
    return { text: units.formatter(field.unit)(value, field.decimals), color };
  }

  /** Colour of a series in a chart. */
  function seriesColor({ field, values }, index) {
    const { mode, fixedColor } = field.color ?? {};
    if (mode === "fixed" || mode === "shades") return css(fixedColor ?? "gray");
    if (mode === "thresholds") return stepColor(reduce("lastNotNull", values) ?? -Infinity, steps(field, bounds(field, values)));
    return PALETTE[index % PALETTE.length];
  }

  return { css, faded, title, reduce, bounds, steps, stepColor, display, seriesColor };
})();
