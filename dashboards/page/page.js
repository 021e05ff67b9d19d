"use strict";
// The page: a tab for each report, its rows, and in them the panels.

(() => {
  const { element, swatch } = charts;
  const SVG = "http://www.w3.org/2000/svg";
  const report = (error) => { document.body.dataset.failures = [document.body.dataset.failures, String(error)].filter(Boolean).join("; "); };
  addEventListener("error", (event) => report(event.message));

  /** Texts "Infinity" stand for numbers that JSON does not know. */
  const revived = ({ kind, values, ...rest }) => ({
    ...rest, kind, values: kind === "string" ? values : values.map((value) => (typeof value === "string" ? Number(value) : value)),
  });

  function drawn(tag, attributes, ...children) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /** Each series of a panel as one value: {name, value, text, color, item}. */
  function values(panel) {
    return panel.series.filter((item) => item.kind === "number").map((item, at) => {
      const value = fields.latest(item.values);
      return { name: item.name, value, item, ...fields.display(item, value, at) };
    });
  }

  /** Size of a font that fits `text` into a box. */
  const fit = (text, width, height, largest) =>
    Math.max(12, Math.min(height, (width / Math.max(text.length, 1)) * 1.7, largest));

  // Panels that show one value for a series ------------------------------------------------------------------

  function stat(box, panel) {
    const all = values(panel);
    const [width, height] = [box.clientWidth, box.clientHeight];
    const named = panel.options.textMode === "value_and_name" || (panel.options.textMode !== "value" && all.length > 1);
    const below = height > width;
    box.classList.add("tiles", below ? "below" : "beside");
    const [w, h] = below ? [width, height / all.length] : [width / all.length, height];
    const longest = all.reduce((text, entry) => (entry.text.length > text.length ? entry.text : text), "");
    const size = fit(longest, w - 24, (h - (named ? 22 : 0)) * 0.55, 72);
    for (const { name, text, color, item } of all) {
      const tile = element("div", "tile");
      if (panel.options.graphMode !== "none" && item.values.length > 1) tile.append(sparkline(item, color, w, h));
      if (named) tile.append(element("div", "name", name));
      const value = element("div", "number", text);
      Object.assign(value.style, { fontSize: `${size}px`, color });
      tile.append(value);
      box.append(tile);
    }
  }

  function sparkline({ values: all, field }, color, width, height) {
    const known = all.filter((value) => Number.isFinite(value));
    const [low, high] = [field.min ?? Math.min(...known), Math.max(...known)];
    const top = height * 0.72;
    const y = (value) => height - 2 - (high > low ? (value - low) / (high - low) : 0.4) * (height - top - 4);
    const points = all.flatMap((value, at) =>
      (Number.isFinite(value) ? [`${((at / (all.length - 1)) * width).toFixed(1)},${y(value).toFixed(1)}`] : []));
    const [first, last] = [points[0]?.split(",")[0], points.at(-1)?.split(",")[0]];
    return drawn("svg", { class: "sparkline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" },
      drawn("polygon", { points: `${first},${height} ${points.join(" ")} ${last},${height}`, fill: color, opacity: 0.2 }),
      drawn("polyline", { points: points.join(" "), fill: "none", stroke: color, "stroke-width": 1 }));
  }

  function gauge(box, panel) {
    const all = values(panel);
    box.classList.add("tiles", "beside");
    const [width, height] = [box.clientWidth / all.length, box.clientHeight - (all.length > 1 ? 18 : 0)];
    const radius = Math.max(20, Math.min(width / 2 - 14, height / 1.75 - 8));
    for (const { name, value, text, color, item } of all) {
      const [low, high] = fields.bounds(item.field, item.values);
      const share = (number) => Math.min(1, Math.max(0, (number - low) / (high - low)));
      const tile = element("div", "tile dial");
      const thick = radius * 0.22;
      const picture = drawn("svg", { width: 2 * radius + 8, height: radius * 1.75 + 8, viewBox: `${-radius - 4} ${-radius - 4} ${2 * radius + 8} ${radius * 1.75 + 8}` },
        arc(radius - thick / 2 - 6, 0, 1, thick, "#2c2f36"));
      if (value !== null) picture.append(arc(radius - thick / 2 - 6, 0, share(value), thick, color));
      const limits = fields.steps(item.field);
      limits.forEach(([least, ink], at) => picture.append(arc(radius - 2, share(least), share(limits[at + 1]?.[0] ?? Infinity), 4, ink)));
      const size = fit(text, radius * 1.25, radius * 0.5, 60);
      const label = drawn("text", { x: 0, y: size * 0.35, "text-anchor": "middle", "font-size": size, "font-weight": 500, fill: color });
      label.textContent = text;
      picture.append(label);
      tile.append(picture);
      if (all.length > 1) tile.append(element("div", "name", name));
      box.append(tile);
    }
  }

  /** Part of a dial that spans 240 degrees, from share `from` to share `to`. */
  function arc(radius, from, to, width, color) {
    const point = (share) => {
      const angle = ((150 + 240 * share) * Math.PI) / 180;
      return `${(radius * Math.cos(angle)).toFixed(2)} ${(radius * Math.sin(angle)).toFixed(2)}`;
    };
    const large = (to - from) * 240 > 180 ? 1 : 0;
    return drawn("path", { d: `M ${point(from)} A ${radius} ${radius} 0 ${large} 1 ${point(to)}`, fill: "none", stroke: color, "stroke-width": to > from ? width : 0 });
  }

  function bargauge(box, panel) {
    box.classList.add("bars");
    for (const { name, value, text, color, item } of values(panel)) {
      const [low, high] = fields.bounds(item.field, panel.series.flatMap((other) => other.values));
      const bar = element("div", "bar");
      const fill = element("div", "fill");
      fill.style.width = `${value === null ? 0 : Math.min(1, Math.max(0, (value - low) / (high - low))) * 100}%`;
      fill.style.borderRightColor = color;
      fill.style.background = fields.faded(color, 0.4);
      const track = element("div", "track");
      track.append(fill);
      const number = element("div", "number", text);
      number.style.color = color;
      bar.append(element("div", "name", name), track, number);
      box.append(bar);
    }
  }

  // Tables and texts -----------------------------------------------------------------------------------------

  function table(box, panel) {
    box.classList.add("scroll");
    const grid = element("table", "data");
    const columns = panel.series;
    const aligned = ({ kind }) => (kind === "number" ? "right" : "");
    const head = grid.createTHead().insertRow();
    for (const item of columns) head.append(element("th", aligned(item), item.name));
    const body = grid.createTBody();
    for (const row of order(panel)) {
      const line = body.insertRow();
      for (const item of columns) {
        const cell = line.insertCell();
        cell.textContent = fields.display(item, item.values[row]).text;
        cell.className = aligned(item);
      }
    }
    box.append(grid);
  }

  /** Rows of a table in the order that its options ask for; what has no value is last. */
  function order({ series, options }) {
    const rows = [...(series[0]?.values ?? []).keys()];
    const [{ displayName, desc = false } = {}] = options.sortBy ?? [];
    const values = series.find((item) => item.name === displayName)?.values;
    const sign = desc ? -1 : 1;
    return values ? rows.sort((one, other) => {
      const [a, b] = [values[one], values[other]];
      return a === null || b === null ? (a === null) - (b === null) : a < b ? -sign : a > b ? sign : 0;
    }) : rows;
  }

  function text(box, panel) {
    box.classList.add("scroll", "markdown");
    // Made of the dashboard's own Markdown, in which HTML is escaped.
    box.innerHTML = panel.markup;
  }

  // Legends --------------------------------------------------------------------------------------------------

  /** The legend of a chart; `chart()` is the chart once it is drawn. */
  function legend(panel, { entries = [], scale }, chart) {
    if (scale) return ramp(scale);
    if (!entries.length) return null;
    const box = element("div", "legend list");
    const toggles = entries.map((entry) => {
      const { item, color, at } = entry;
      const label = element("span", "entry");
      label.append(swatch(color), element("span", "", item.name));
      const value = panel.options.legend?.calcs?.length ? fields.latest(item.values) : null;
      if (value !== null) {
        const { text } = fields.display({ ...item, field: { ...item.field, mappings: [] } }, value);
        label.append(element("span", "calc", `Last *: ${text}`));
      }
      if (at) label.addEventListener("click", (event) => choose(chart(), entries, entry, event.ctrlKey || event.metaKey, toggles));
      return label;
    });
    box.append(...toggles);
    return box;
  }

  /** A click shows one series alone or all again; with Ctrl it takes one away or back. */
  function choose(chart, shown, entry, one, toggles) {
    const visible = ({ at }) => chart.series[at].show;
    const alone = visible(entry) && shown.every((other) => other === entry || !visible(other));
    for (const other of shown) {
      const show = one ? visible(other) !== (other === entry) : alone || other === entry;
      if (show !== visible(other)) chart.setSeries(other.at, { show });
    }
    shown.forEach((other, at) => toggles[at].classList.toggle("off", !visible(other)));
  }

  /** Colours of a heatmap from few to many. */
  function ramp({ colors, least, most }) {
    const box = element("div", "legend ramp");
    const strip = element("span", "strip");
    strip.style.background = `linear-gradient(to right, ${colors.join(", ")})`;
    const short = units.formatter("short");
    box.append(element("span", "", short(least)), strip, element("span", "", short(most)));
    return box;
  }

  // The page -------------------------------------------------------------------------------------------------

  const CHARTS = { timeseries: charts.timeseries, "state-timeline": charts.lanes, heatmap: charts.heatmap };
  const FIGURES = { stat, gauge, bargauge, table, text };

  function frame(panel) {
    const { column, row, width, height } = panel.place;
    const box = element("section", column + width > 16 ? "panel right-half" : "panel");
    box.style.gridArea = `${row + 1} / ${column + 1} / span ${height} / span ${width}`;
    Object.assign(box.dataset, { kind: panel.kind, title: panel.title, state: panel.error ? "error" : panel.empty ? "empty" : "full" });
    const head = element("header");
    head.append(element("h3", "", panel.title));
    if (panel.description) {
      const info = element("button", "info", "i");
      info.setAttribute("aria-label", panel.description);
      info.append(element("span", "bubble", panel.description));
      head.append(info);
    }
    if (panel.error) head.append(Object.assign(element("span", "warning", "!"), { title: panel.error }));
    if (panel.title || panel.description) box.append(head);
    box.append(element("div", "body"));
    return box;
  }

  function fill(box, panel, own) {
    const body = box.querySelector(".body");
    if (panel.error) body.append(element("p", "problem", panel.error));
    if (panel.empty && !panel.error) body.append(element("p", "nothing", panel.nothing || "No data"));
    if (panel.empty || !(Object.hasOwn(CHARTS, panel.kind) || Object.hasOwn(FIGURES, panel.kind))) return;
    const content = element("div", "content");
    body.append(content);
    try {
      if (Object.hasOwn(FIGURES, panel.kind)) {
        FIGURES[panel.kind](content, panel);
        return;
      }
      const prepared = CHARTS[panel.kind](panel, own);
      let chart = null;
      const made = legend(panel, prepared, () => chart);
      if (made) body.append(made);
      chart = prepared.draw(content);
    } catch (error) {
      report(`${panel.title}: ${error.stack ?? error}`);
      content.replaceChildren(element("p", "problem", String(error)));
    }
  }

  function tab(own) {
    const main = element("main");
    main.hidden = true;
    const bar = element("div", "bar-of-facts");
    for (const [name, value] of Object.entries(own.facts)) {
      const fact = element("span", "fact");
      fact.append(element("span", "name", name), element("span", "value", value));
      bar.append(fact);
    }
    const marks = new Map(own.marks.map((mark) => [mark.title, mark.color]));
    for (const [title, color] of marks) {
      const fact = element("span", "fact");
      fact.append(swatch(fields.css(color)), element("span", "name", title));
      bar.append(fact);
    }
    for (const [title, address] of Object.entries(own.links)) {
      // Nothing but the web: an address may also be a script.
      if (/^https?:/i.test(address)) bar.append(Object.assign(element("a", "fact", title), { href: address, rel: "noreferrer", target: "_blank" }));
    }
    if (own.description) bar.append(element("p", "about", own.description));
    main.append(bar);
    const waiting = [];
    for (const section of own.sections) {
      const grid = element("div", "grid");
      const panels = section.panels.map((panel) => ({ ...panel, series: panel.series.map(revived) }));
      if (section.title) {
        const row = element("h2", "row", section.title);
        row.addEventListener("click", () => { grid.hidden = row.classList.toggle("folded"); });
        main.append(row);
      }
      main.append(grid);
      for (const panel of panels) {
        const box = frame(panel);
        grid.append(box);
        waiting.push(() => fill(box, panel, own));
      }
    }
    return { main, draw: () => { waiting.splice(0).forEach((draw) => draw()); } };
  }

  function build({ made, reports }) {
    const page = document.getElementById("page");
    const head = element("header", "top");
    const crumbs = element("nav", "crumbs");
    const when = element("span", "range");
    head.append(element("span", "logo"), crumbs, when, Object.assign(element("span", "refreshed", `Refreshed ${units.dateTime(made)}`), { title: "The data of this page are of this moment" }));
    page.append(head);
    const tabs = reports.map((own) => ({ own, ...tab(own), link: Object.assign(element("a", "", own.title), { href: `#${encodeURIComponent(own.key)}` }) }));
    crumbs.append(element("span", "", "Dashboards"), ...tabs.map(({ link }) => link));
    page.append(...tabs.map(({ main }) => main));
    const show = () => {
      const chosen = tabs.find(({ own }) => `#${encodeURIComponent(own.key)}` === location.hash) ?? tabs[0];
      for (const { main, link, own } of tabs) {
        main.hidden = own !== chosen.own;
        link.classList.toggle("chosen", own === chosen.own);
      }
      if (!chosen) return;
      const { start, end } = chosen.own;
      when.textContent = units.range(chosen.own);
      when.title = `${units.moment(chosen.own, start)} to ${units.moment(chosen.own, end)}`;
      // A hidden chart has no size: each tab is drawn when it is seen.
      chosen.draw();
      document.body.dataset.drawn = document.querySelectorAll(".panel[data-state=full] .content").length;
    };
    addEventListener("hashchange", show);
    show();
  }

  build(JSON.parse(document.getElementById("data").textContent));
})();
