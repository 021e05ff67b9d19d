"use strict";
// Values as texts, as Grafana writes them: a unit, perhaps a number of decimals, three digits otherwise.

const units = (() => {
  const SHORT = ["", " K", " Mil", " Bil", " Tri", " Quadr"];
  const COUNT = ["", "K", "M", "B", "T"];
  const BINARY = [" ", " Ki", " Mi", " Gi", " Ti", " Pi"];
  const DECIMAL = [" ", " k", " M", " G", " T", " P"];
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

  const suffixed = (unit) => (value, decimals) => fixed(value, decimals) + (unit ? ` ${unit}` : "");

  /** Seconds, minutes, … of a value in `second` seconds. */
  const duration = (second) => (value, decimals) => {
    const size = Math.abs(value) * second;
    let [length, name] = [second, TIMES.find((item) => item[0] === second)[1]];
    for (const [least, unit] of TIMES) {
      if (size >= least && (size > 0 && Number.isFinite(size))) [length, name] = [least, unit];
    }
    const text = fixed((value * second) / length, decimals);
    return text + name + (length >= 60 && Number(text) !== 1 ? "s" : "");
  };

  const clock = (value) => {
    const two = (number) => String(Math.floor(number)).padStart(2, "0");
    const size = Math.abs(value);
    const text = `${two(size / 3600)}:${two((size % 3600) / 60)}:${two(size % 60)}`;
    return value < 0 ? `${text} ago` : text;
  };

  /** Years down to milliseconds: the first unit and `decimals` more. */
  const spelled = (second) => (value, decimals) => {
    const names = [["year", 31536000], ["month", 2592000], ["week", 604800], ["day", 86400], ["hour", 3600],
      ["minute", 60], ["second", 1], ["millisecond", 0.001]];
    let rest = Math.abs(value) * second;
    const parts = [];
    for (const [name, length] of names) {
      const count = Math.floor(rest / length + 1e-9);
      if (count === 0 && parts.length === 0) continue;
      parts.push(`${count} ${name}${count === 1 ? "" : "s"}`);
      rest -= count * length;
      if (parts.length > (decimals ?? 0)) break;
    }
    return parts.length ? parts.join(", ") + (value < 0 ? " ago" : "") : second === 1 ? "0 seconds" : "0 milliseconds";
  };

  const FORMATS = {
    none: suffixed(""),
    string: (value) => String(value),
    short: scaled(1000, SHORT),
    locale: (value, decimals) => value.toLocaleString("en-US", { maximumFractionDigits: decimals ?? 3 }),
    percent: (value, decimals) => `${fixed(value, decimals)}%`,
    // Without the dust of the multiplication: 0.07 is 7 %, not 7.00 %.
    percentunit: (value, decimals) => `${fixed(Number((100 * value).toPrecision(12)), decimals)}%`,
    bytes: scaled(1024, BINARY, "B"),
    decbytes: scaled(1000, DECIMAL, "B"),
    bits: scaled(1024, BINARY, "b"),
    decbits: scaled(1000, DECIMAL, "b"),
    binBps: scaled(1024, BINARY, "B/s"),
    Bps: scaled(1000, DECIMAL, "B/s"),
    bps: scaled(1000, DECIMAL, "b/s"),
    hertz: scaled(1000, DECIMAL, "Hz"),
    watt: scaled(1000, DECIMAL, "W"),
    celsius: suffixed("°C"),
    ns: duration(1e-9), "µs": duration(1e-6), ms: duration(1e-3), s: duration(1), m: duration(60),
    h: duration(3600), d: duration(86400),
    dtdurations: spelled(1), dtdurationms: spelled(0.001), dthms: clock,
    dateTimeAsIso: (value) => dateTime(value / 1000),
    dateTimeFromNow: (value) => fromNow(value / 1000),
    currencyEUR: scaled(1000, COUNT, "", "€"),
    currencyUSD: scaled(1000, COUNT, "", "$"),
    bool: (value) => (value ? "True" : "False"),
    bool_yes_no: (value) => (value ? "Yes" : "No"),
    bool_on_off: (value) => (value ? "On" : "Off"),
  };
  const RATES = { reqps: "req/s", ops: "ops/s", cps: "c/s", rps: "rd/s", wps: "wr/s", iops: "io/s", eps: "evt/s",
    mps: "msg/s", reqpm: "req/m", opm: "ops/m", cpm: "c/m", tokps: "tok/s" };
  for (const [unit, name] of Object.entries(RATES)) FORMATS[unit] = scaled(1000, COUNT, ` ${name}`);

  /** The function (value, decimals) → text of a unit; an unknown unit is a suffix. */
  function formatter(unit) {
    if (!unit) return FORMATS.none;
    if (Object.hasOwn(FORMATS, unit)) return FORMATS[unit];
    const [, key, rest] = /^(\w+):(.*)$/.exec(unit) ?? [];
    switch (key) {
      case "prefix": return (value, decimals) => rest + fixed(value, decimals);
      case "suffix": return suffixed(rest);
      case "count": return scaled(1000, COUNT, ` ${rest}`);
      case "currency": return scaled(1000, COUNT, "", rest);
      case "si": return scaled(1000, DECIMAL, rest);
      case "time": return (value) => dateTime(value / 1000);
      default: return suffixed(unit);
    }
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

  function fromNow(seconds) {
    const distance = seconds - Date.now() / 1000;
    const text = spelled(1)(Math.abs(distance), 0);
    return distance < 0 ? `${text} ago` : `in ${text}`;
  }

  /** Label of a tick of a time axis whose ticks are `step` seconds apart. */
  function tick(seconds, step) {
    if (step >= 86400) return day(seconds).slice(5).replace("-", "/");
    const hours = time(seconds, step < 60);
    return step >= 21600 ? `${day(seconds).slice(5).replace("-", "/")} ${hours}` : hours;
  }

  /** A length of time in words, as Grafana names a time range. */
  function range(seconds) {
    const [length, name] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]
      .find(([least]) => seconds >= least && seconds % least < 1) ?? [1, "second"];
    const count = Math.round(seconds / length);
    return `Last ${count} ${name}${count === 1 ? "" : "s"}`;
  }

  return { formatter, fixed, dateTime, tick, range };
})();
