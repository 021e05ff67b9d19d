"use strict";
// Values as texts, as Grafana writes them: a unit, perhaps a number of decimals, three digits otherwise.

const units = (() => {
  const SHORT = ["", " K", " Mil", " Bil", " Tri", " Quadr"];
  const COUNT = ["", "K", "M", "B", "T"];
  const BINARY = [" ", " Ki", " Mi", " Gi", " Ti", " Pi"];
  const TIMES = [
    [1e-9, " ns"], [1e-6, " µs"], [1e-3, " ms"], [1, " s"], [60, " min"],
    [3600, " hour"], [86400, " day"], [604800, " week"], [31556900, " year"],
  ];

  /** Decimals that leave about three digits; none for whole numbers. */
  function decimalsFor(value) {
    if (Number.isInteger(value)) return 0;
    return Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  }

  function fixed(value, decimals) {
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "-∞";
    return value.toFixed(Math.min(decimals ?? decimalsFor(value), 20));
  }

  /** In thousands (or 1024s) with a suffix for each power. */
  const scaled = (factor, suffixes, unit = "", prefix = "") => (value, decimals) => {
    const size = Math.abs(value);
    let power = 0;
    if (Number.isFinite(size)) {
      while (power < suffixes.length - 1 && size >= factor ** (power + 1)) power += 1;
    }
    const sign = prefix && value < 0 ? "-" : "";
    return sign + prefix + fixed((prefix ? size : value) / factor ** power, decimals) + suffixes[power] + unit;
  };

  /** Seconds, minutes, … of a value in seconds. */
  function duration(value, decimals) {
    const size = Math.abs(value);
    const [length, name] = (Number.isFinite(size) && TIMES.findLast(([least]) => size >= least)) || [1, " s"];
    const text = fixed(value / length, decimals);
    return text + name + (length >= 60 && Number(text) !== 1 ? "s" : "");
  }

  const FORMATS = {
    none: fixed,
    short: scaled(1000, SHORT),
    // Without the dust of the multiplication: 0.07 is 7 %, not 7.00 %.
    percentunit: (value, decimals) => `${fixed(Number((100 * value).toPrecision(12)), decimals)}%`,
    bytes: scaled(1024, BINARY, "B"),
    reqps: scaled(1000, COUNT, " req/s"),
    s: duration,
    dateTimeAsIso: (value) => dateTime(value / 1000),
    currencyEUR: scaled(1000, COUNT, "", "€"),
  };

  /** The function (value, decimals) → text of a unit. Of an unknown one it writes the number alone. */
  function formatter(unit = "none") {
    if (unit.startsWith("count:")) return scaled(1000, COUNT, ` ${unit.slice(6)}`);
    return Object.hasOwn(FORMATS, unit) ? FORMATS[unit] : FORMATS.none;
  }

  const pad = (number) => String(number).padStart(2, "0");

  function time(seconds, withSeconds = true) {
    const date = new Date(seconds * 1000);
    return `${pad(date.getHours())}:${pad(date.getMinutes())}${withSeconds ? `:${pad(date.getSeconds())}` : ""}`;
  }

  function day(seconds) {
    const date = new Date(seconds * 1000);
    return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  }

  /** Local date and time of unix seconds. */
  const dateTime = (seconds) => `${day(seconds)} ${time(seconds)}`;

  /** Hours, minutes and seconds since 0. */
  function elapsed(seconds, withSeconds = true) {
    const whole = Math.round(seconds);
    const parts = [Math.floor(whole / 3600), pad(Math.floor(whole / 60) % 60)];
    return [...parts, ...(withSeconds ? [pad(whole % 60)] : [])].join(":");
  }

  /** A moment on the axis of a report: a date and time, or the time since its beginning. */
  const moment = (report, seconds) => (report.elapsed ? elapsed(seconds) : dateTime(seconds));

  /** Label of a tick of a report's time axis whose ticks are `step` seconds apart. */
  function tick(report, seconds, step) {
    if (report.elapsed) return elapsed(seconds, step < 60);
    if (step >= 86400) return day(seconds).slice(5).replace("-", "/");
    const hours = time(seconds, step < 60);
    return step >= 21600 ? `${day(seconds).slice(5).replace("-", "/")} ${hours}` : hours;
  }

  /** A length of time in words, as Grafana names a time range. */
  function range(report) {
    const seconds = report.end - report.start;
    const [length, name] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]
      .find(([least]) => seconds >= least && seconds % least < 1) ?? [1, "second"];
    const count = Math.round(seconds / length);
    return `${report.elapsed ? "" : "Last "}${count} ${name}${count === 1 ? "" : "s"}`;
  }

  return { formatter, dateTime, moment, tick, range };
})();
