"use strict";
// Charts with a time axis, drawn by uPlot: lines, lanes of states, heatmaps.

const charts = (() => {
  const INK = "rgb(204, 204, 220)";
  const GRID = "rgba(240, 250, 255, 0.09)";
  const FONT = "12px Inter, Helvetica, Arial, sans-serif";
  /** Colours of a heatmap from few to many: Grafana's scheme Oranges on dark ground. */
  const HEAT = ["#7f2704", "#a63603", "#d94801", "#f16913", "#fd8d3c", "#fdae6b", "#fdd0a2", "#fee6ce", "#fff5eb"];
  const pen = document.createElement("canvas").getContext("2d");
  /** The charts of each report: they share the zoom. */
  const groups = new Map();

  const element = (tag, className = "", text = "") => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  };

  function textWidth(texts) {
    pen.font = FONT;
    return Math.max(0, ...texts.map((text) => pen.measureText(text ?? "").width));
  }

  /** Null where there is nothing that can be drawn. */
  const drawable = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

  const axisOfTime = (report) => ({
    stroke: INK, font: FONT, size: 24, gap: 5, space: 85,
    grid: { stroke: GRID, width: 1 }, ticks: { stroke: GRID, width: 1, size: 4 },
    values: (_, splits, __, ___, step) => splits.map((seconds) => units.tick(report, seconds, step)),
  });

  const axisOfValues = (scale, label, grid, values, more = {}) => ({
    scale, side: 3, stroke: INK, font: FONT, gap: 5, values,
    ...(label ? { label, labelFont: FONT, labelSize: 18, labelGap: 0 } : {}),
    size: (_, texts) => Math.ceil(textWidth(texts ?? []) + 14),
    grid: { show: grid, stroke: GRID, width: 1 }, ticks: { stroke: GRID, width: 1, size: 4 },
    ...more,
  });

  /** A chart in `box`: what uPlot needs besides what all charts have in common. */
  function plot(box, report, options, data, rows) {
    const tip = tooltip(box, report, rows);
    const chart = new uPlot({
      width: Math.max(box.clientWidth, 60), height: Math.max(box.clientHeight, 40),
      padding: [8, 12, 0, 0], legend: { show: false },
      cursor: { sync: { key: report.key }, points: { show: false }, drag: { x: true, y: false }, y: false, ...options.cursor,
        bind: { dblclick: () => () => { reset(report.key); return null; } } },
      series: options.series, axes: [axisOfTime(report), ...options.axes], bands: options.bands ?? [],
      // Time since a beginning has no time zone.
      ...(report.elapsed ? { tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") } : {}),
      scales: { x: { time: true, min: report.start, max: report.end, auto: false }, ...options.scales },
      hooks: {
        draw: [options.over, (u) => drawMarks(u, report)],
        setCursor: [tip],
      },
    }, data, box);
    chart.window = { min: report.start, max: report.end };
    groups.set(report.key, [...(groups.get(report.key) ?? []), chart]);
    new ResizeObserver(() => {
      const [width, height] = [box.clientWidth, box.clientHeight];
      if (width > 60 && height > 40 && (width !== chart.width || height !== chart.height)) chart.setSize({ width, height });
    }).observe(box);
    return chart;
  }

  function reset(key) {
    for (const chart of groups.get(key) ?? []) chart.setScale("x", chart.window);
  }

  /** What is under the cursor, beside it: `rows(chart, index)` gives [colour, name, value] of each line. */
  function tooltip(box, report, rows) {
    const tip = document.getElementById("tip") ?? document.body.appendChild(Object.assign(element("div"), { id: "tip", hidden: true }));
    box.addEventListener("mouseleave", () => { tip.hidden = true; });
    return (chart) => {
      const { idx, left, top } = chart.cursor;
      if (!box.matches(":hover")) return;
      const lines = idx === null || left < 0 ? [] : rows(chart, idx);
      tip.hidden = lines.length === 0;
      if (tip.hidden) return;
      tip.replaceChildren(element("div", "when", units.moment(report, chart.data[0][idx])), ...lines.map(([color, name, value]) => {
        const line = element("div", "line");
        line.append(swatch(color), element("span", "name", name), element("span", "value", value));
        return line;
      }));
      const place = chart.over.getBoundingClientRect();
      const right = place.left + left + 16 + tip.offsetWidth < innerWidth;
      tip.style.left = `${place.left + left + (right ? 16 : -16 - tip.offsetWidth)}px`;
      tip.style.top = `${Math.min(place.top + top + 12, innerHeight - tip.offsetHeight - 8)}px`;
    };
  }

  function swatch(color) {
    const made = element("i", "swatch");
    made.style.background = color;
    return made;
  }

  /** Vertical lines (or areas) of what happened, with a small triangle at the time axis. */
  function drawMarks(chart, report) {
    const { ctx, bbox } = chart;
    clipped(chart, 8 * devicePixelRatio);
    const flags = [];
    const { min, max } = chart.scales.x;
    for (const { start, end, color, title, text } of report.marks.filter((mark) => mark.end >= min && mark.start <= max)) {
      const [from, to] = [chart.valToPos(start, "x", true), chart.valToPos(end, "x", true)];
      const ink = fields.css(color);
      [ctx.strokeStyle, ctx.fillStyle, ctx.lineWidth] = [ink, fields.faded(ink, 0.1), devicePixelRatio];
      if (to - from > 1) ctx.fillRect(from, bbox.top, to - from, bbox.height);
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      for (const at of to - from > 1 ? [from, to] : [from]) {
        ctx.beginPath();
        ctx.moveTo(at, bbox.top);
        ctx.lineTo(at, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.setLineDash([]);
      ctx.fillStyle = ink;
      const [bottom, half] = [bbox.top + bbox.height, 4 * devicePixelRatio];
      if (to - from > 1) ctx.fillRect(from, bottom, to - from, half);
      ctx.beginPath();
      ctx.moveTo(from - half, bottom + half * 1.5);
      ctx.lineTo(from + half, bottom + half * 1.5);
      ctx.lineTo(from, bottom);
      ctx.fill();
      const flag = element("span", "mark");
      flag.style.left = `${chart.valToPos(Math.max(start, min), "x") - 5}px`;
      flag.title = [title, text, units.moment(report, start) + (end > start ? ` – ${units.moment(report, end)}` : "")].filter(Boolean).join("\n");
      flags.push(flag);
    }
    ctx.restore();
    chart.over.querySelectorAll(".mark").forEach((flag) => flag.remove());
    chart.over.append(...flags);
  }

  /** Scale of the axis of values. */
  function scaleOf({ min, max, custom: { axisSoftMax, scaleDistribution } = {} }) {
    if (scaleDistribution?.type === "log") {
      return { distr: 3, log: 10, range: (_, low, high) => uPlot.rangeLog(low > 0 ? low : 1, high > 0 ? high : 10, 10, true) };
    }
    return {
      range: (_, low, high) => {
        if (low === null) [low, high] = [0, 0];
        if (low === 0 && high === 0 && axisSoftMax == null) high = 1;
        const bound = (hard, soft) => ({ pad: 0.1, hard: hard ?? undefined, soft: soft ?? 0, mode: soft == null ? 3 : 1 });
        const [least, most] = uPlot.rangeNum(low, high, { min: bound(min), max: bound(max, axisSoftMax) });
        const bottom = min ?? least;
        return [bottom, Math.max(max ?? most, bottom + 1e-9)];
      },
    };
  }

  /** Values of stacked series upon each other; `bands` fill from each to the one below it. */
  function stacked(series, lines) {
    const [sums, below, bands] = [new Map(), new Map(), []];
    const result = lines.map((values, index) => {
      const { mode = "none", group = "A" } = series[index].field.custom?.stacking ?? {};
      if (mode === "none") return values;
      const total = (sums.get(group) ?? values.map(() => 0)).map((sum, at) => sum + (values[at] ?? 0));
      if (below.has(group)) bands.push({ series: [index + 1, below.get(group) + 1] });
      sums.set(group, total);
      below.set(group, index);
      return total.map((sum, at) => (values[at] === null ? null : sum));
    });
    return { lines: result, bands };
  }

  // Each kind of chart: the entries of its legend, and how it is drawn once the legend has taken its room.

  function timeseries(panel, report) {
    const all = panel.series.filter((item) => item.kind === "number");
    const color = all.map(fields.seriesColor);
    const { lines, bands } = stacked(all, all.map((item) => item.values.map(drawable)));
    const field = all[0]?.field ?? {};
    const format = units.formatter(field.unit);
    const axis = axisOfValues("y", field.custom?.axisLabel, true, (_, splits) => ticks(splits, format, field.decimals), { space: 30 });
    const rows = (chart, index) => all.map((item, at) => ({ item, at, value: item.values[index] ?? null }))
      .filter(({ at, value }) => value !== null && chart.series[at + 1].show)
      .sort((one, other) => other.value - one.value)
      .map(({ item, at, value }) => [color[at], item.name, fields.display(item, value, at).text]);
    const draw = (box) => plot(box, report, {
      axes: [axis], bands, scales: { y: scaleOf(field) },
      series: [{}, ...all.map((item, at) => line(item, color[at]))],
      over: (u) => drawThresholds(u, field),
    }, [panel.times, ...lines], rows);
    return { draw, entries: all.map((item, at) => ({ item, color: color[at], at: at + 1 })) };
  }

  /** Texts at an axis: with as many decimals as needed if those of the field make two of them the same. */
  function ticks(splits, format, decimals) {
    const texts = splits.map((value) => (value === null ? "" : format(value, decimals)));
    return decimals !== undefined && new Set(texts).size < texts.length ? ticks(splits, format) : texts;
  }

  /** How uPlot draws a series. */
  function line({ name, field: { custom = {} } }, color) {
    const { drawStyle = "line", lineWidth = 1, fillOpacity = 0, lineInterpolation = "linear", lineStyle } = custom;
    const bars = drawStyle === "bars";
    return {
      label: name, stroke: color, width: lineWidth,
      fill: fillOpacity === 0 ? undefined : fields.faded(color, fillOpacity / 100),
      paths: bars ? uPlot.paths.bars({ size: [0.7, 100] })
        : lineInterpolation === "stepAfter" ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear(),
      dash: lineStyle?.fill === "dash" ? lineStyle.dash ?? [10, 10] : undefined,
      points: {
        size: 5, fill: color, width: 0, show: bars ? false : undefined,
        // A value between two gaps is no line: it is shown as a point.
        filter: (u, at, show) => (show || bars ? null : alone(u.data[at])),
      },
    };
  }

  const alone = (values) => values.flatMap((value, at) =>
    (value !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null ? [at] : []));

  /** Thresholds as dashed lines. */
  function drawThresholds(chart, field) {
    if ((field.custom?.thresholdsStyle?.mode ?? "off") === "off") return;
    const { ctx, bbox } = chart;
    const { min, max } = chart.scales.y;
    ctx.save();
    ctx.setLineDash([10 * devicePixelRatio, 10 * devicePixelRatio]);
    for (const [least, color] of fields.steps(field)) {
      if (least < min || least > max) continue;
      const y = chart.valToPos(least, "y", true);
      [ctx.strokeStyle, ctx.lineWidth] = [fields.faded(color, 0.7), 2 * devicePixelRatio];
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  }

  /** Nothing is drawn outside of the chart until the context is restored. */
  function clipped({ ctx, bbox }, below = 0) {
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height + below);
    ctx.clip();
  }

  /** Lanes: each series a row of boxes, equal neighbours in one. */
  function lanes(panel, report) {
    const all = panel.series.filter((item) => item.kind !== "time");
    const count = all.length;
    const show = all.map(shownAs);
    const step = panel.times.length > 1 ? Math.min(...panel.times.slice(1).map((time, at) => time - panel.times[at])) : 15;
    const middle = all.map((_, at) => count - at - 0.5);
    const height = panel.options.rowHeight ?? 0.9;
    const boxes = (u) => {
      const { ctx } = u;
      clipped(u);
      all.forEach((item, at) => {
        const [top, bottom] = [middle[at] + height / 2, middle[at] - height / 2].map((y) => u.valToPos(y, "lanes", true));
        for (const [start, end, { color }] of runs(panel.times, item.values.map(show[at]), step)) {
          const [from, to] = [u.valToPos(start, "x", true), u.valToPos(end, "x", true)];
          ctx.fillStyle = fields.faded(color, (item.field.custom?.fillOpacity ?? 70) / 100);
          ctx.fillRect(from, top, to - from, bottom - top);
        }
      });
      ctx.restore();
    };
    const names = [...all].reverse().map((item) => item.name);
    const draw = (box) => plot(box, report, {
      axes: [axisOfValues("lanes", "", false, () => names, { splits: () => [...middle].reverse(), ticks: { show: false } })],
      scales: { lanes: { range: () => [0, count] } },
      series: [{}, ...all.map(() => ({ scale: "lanes", paths: () => null, points: { show: false } }))],
      over: boxes,
    }, [panel.times, ...all.map((_, at) => panel.times.map(() => middle[at]))], (_, index) => all.flatMap((item, at) => {
      const shown = show[at](item.values[index] ?? null);
      return shown ? [[shown.color, item.name, shown.text]] : [];
    }));
    const seen = all.flatMap((item, at) => item.values.map(show[at])).filter((shown) => shown !== null);
    const states = new Map(seen.map(({ text, color }) => [text, color]));
    return { draw, entries: [...states].map(([name, color]) => ({ item: { name, values: [], field: {} }, color })) };
  }

  /** The function from a value of a lane to its {text, color}; null where the lane is empty. */
  function shownAs(item, index) {
    const limits = fields.steps(item.field);
    // Like Grafana: what is coloured by thresholds is shown as the threshold that it is above.
    const byThreshold = item.kind === "number" && item.field.color?.mode === "thresholds";
    const format = (value) => units.formatter(item.field.unit)(value, item.field.decimals);
    return (value) => {
      if (value === null || Number.isNaN(value)) return null;
      if (!byThreshold) return fields.display(item, value, index);
      const at = limits.findLastIndex(([least]) => value >= least);
      const text = at > 0 ? `${format(limits[at][0])}+` : limits.length > 1 ? `< ${format(limits[1][0])}` : "";
      return { text, color: limits[Math.max(at, 0)][1] };
    };
  }

  /** Boxes of a lane as [start, end, shown]; a value lasts until the next point. */
  function runs(times, values, step) {
    const found = [];
    times.forEach((time, at) => {
      const value = values[at] ?? null;
      if (value === null) return;
      const last = found.at(-1);
      if (last && last[2].text === value.text && last[2].color === value.color && time - last[1] < step / 2) last[1] = time + step;
      else found.push([time, time + step, value]);
    });
    return found;
  }

  /** Buckets of a histogram over time: the more in a bucket, the brighter. */
  function heatmap(panel, report) {
    const rows = panel.series;
    const hidden = panel.options.filterValues?.le ?? 1e-9;
    const counts = rows.flatMap((item) => item.values).filter((value) => value > hidden);
    const [least, most] = counts.length ? [counts.reduce((a, b) => Math.min(a, b)), counts.reduce((a, b) => Math.max(a, b))] : [0, 1];
    const color = (value) => {
      const place = (most > least ? (value - least) / (most - least) : 1) * (HEAT.length - 1);
      return mixed(HEAT[Math.floor(place)], HEAT[Math.ceil(place)], place % 1);
    };
    const format = units.formatter(panel.options.yAxis?.unit ?? rows[0]?.field.unit);
    const bound = (item) => {
      const le = Number(item.labels.le ?? item.name);
      return Number.isNaN(le) ? item.name : format(le);
    };
    const step = panel.times.length > 1 ? panel.times[1] - panel.times[0] : 15;
    const cells = (u) => {
      const gap = (panel.options.cellGap ?? 1) * devicePixelRatio;
      clipped(u);
      rows.forEach((item, row) => {
        const [bottom, top] = [u.valToPos(row, "buckets", true), u.valToPos(row + 1, "buckets", true)];
        item.values.forEach((value, at) => {
          if (!(value > hidden)) return;
          const [from, to] = [panel.times[at] - step, panel.times[at]].map((time) => u.valToPos(time, "x", true));
          u.ctx.fillStyle = color(value);
          u.ctx.fillRect(from, top, Math.max(1, to - from - gap), Math.max(1, bottom - top - gap));
        });
      });
      u.ctx.restore();
    };
    const draw = (box) => plot(box, report, {
      axes: [axisOfValues("buckets", "", false, (_, splits) => splits.map((row) => (row > 0 ? bound(rows[row - 1]) : "")), {
        splits: (u) => {
          const every = Math.max(1, Math.ceil((rows.length * 18) / Math.max(u.bbox.height / devicePixelRatio, 1)));
          return [...Array(rows.length + 1).keys()].filter((row) => (rows.length - row) % every === 0);
        },
      })],
      scales: { buckets: { range: () => [0, rows.length] } },
      series: [{}, ...rows.map(() => ({ scale: "buckets", paths: () => null, points: { show: false } }))],
      over: cells,
    }, [panel.times, ...rows.map((_, row) => panel.times.map(() => row))], (u, index) => {
      const row = Math.floor(u.posToVal(u.cursor.top, "buckets"));
      const value = rows[row]?.values[index];
      return value > hidden ? [[color(value), `up to ${bound(rows[row])}`, units.formatter("short")(value)]] : [];
    });
    return { draw, scale: { colors: HEAT, least, most } };
  }

  function mixed(one, other, share) {
    const [a, b] = [one, other].map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
    return `rgb(${a.map((part, at) => Math.round(part + (b[at] - part) * share)).join(", ")})`;
  }

  return { element, swatch, timeseries, lanes, heatmap };
})();
