/** The ladder: the effect of each optimization with its interval, its verdict and the outcome of its hypothesis. */

import * as address from "../address.js";
import { draw, panel } from "../blocks.js";
import { chart, load } from "../chart.js";
import { content, count, el, message } from "../dom.js";
import * as model from "../model.js";
import { table } from "../table.js";

export async function show(root) {
  load();
  const ladder = await model.effects();
  root.append(...draw(ladder.above));
  if (!ladder.table) return;
  const { filters } = ladder;
  const results = el("div", { class: "found" });
  const update = () => {
    const query = address.get();
    const matches = (entry) => filters.every(({ key, values }) => !query[key] || values[entry] === query[key]);
    const kept = new Set([...filters[0].values.keys()].filter(matches));
    clear.hidden = kept.size === ladder.table.rows;
    results.replaceChildren(...(kept.size ? found(ladder, kept) : [nothing]));
  };
  const nothing = message("empty", "No comparison matches these filters.", "Choose “Clear filters” above.");
  const selects = filters.map((filter) => select(filter, update));
  const clear = el("button", { type: "button", class: "more", onclick: clearAll }, "Clear filters");
  function clearAll() {
    for (const { element } of selects) element.value = "";
    address.set(Object.fromEntries(filters.map(({ key }) => [key, ""])), { replace: true });
    update();
    selects[0].element.focus(); // the focused button is hidden
  }
  root.append(el("div", { class: "filters" }, ...selects.map(({ label }) => label), clear), results);
  update();
}

function select({ key, title, values, options }, update) {
  const current = address.get()[key] ?? "";
  // An old address may name a value that no effect has; it stays visible as an option.
  const choices = current && !options.includes(current) ? [...options, current] : options;
  const number = (value) => values.filter((other) => other === value).length;
  const element = el(
    "select",
    { onchange: () => (address.set({ [key]: element.value }, { replace: true }), update()) },
    el("option", { value: "" }, "all"),
    ...choices.map((value) => el("option", { value, selected: value === current }, `${value} (${number(value)})`)),
  );
  return { element, label: el("label", null, el("span", null, title), element) };
}

/** What is shown of the effects in `kept`. */
function found(ladder, kept) {
  const machines = new Set(ladder.machines.filter((_, entry) => kept.has(entry)));
  const open = el("p", { class: "note" }, "A row opens the comparison of its two runs: click it, or press Enter.");
  return [
    el("p", { class: "tally" }, ...ladder.counts.map((counted) => tally(counted, kept))),
    panel(ladder.title, chart(only(ladder, kept)), el("p", { class: "note" }, [...machines].sort().join("; "))),
    panel(
      "Hypotheses",
      ladder.chart.opens.some((address, entry) => address && kept.has(entry)) && open,
      table({ ...ladder.table, kept: (row) => kept.has(row) }),
    ),
  ];
}

function tally({ entries, content: text, single, always }, kept) {
  const number = entries.filter((entry) => kept.has(entry)).length;
  const named = number === 1 && single ? single : content(text);
  return (number > 0 || always) && el("span", null, el("b", null, count(number)), " ", named);
}

/** The chart with the lines of the effects in `kept`: points, ticks and shapes move up to fill the gaps. */
function only({ chart: { data, layout, ...rest }, lines, axis }, kept) {
  const places = new Map();
  lines.forEach((entries, y) => entries.some((entry) => kept.has(entry)) && places.set(y, places.size));
  const points = (part, ys) => {
    const stay = (_, point) => places.has(ys[point]);
    const pick = (value) => {
      if (Array.isArray(value)) return value.filter(stay);
      return value && typeof value === "object" ? points(value, ys) : value;
    };
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, pick(value)]));
  };
  const traces = data.map((trace) => points(trace, trace.y));
  const shapes = layout.shapes
    .filter(({ name }) => !name || places.has(Number(name)))
    .map(({ name, y0, y1, yanchor, ...shape }) => {
      const move = name ? places.get(Number(name)) - Number(name) : 0;
      return { ...shape, ...(yanchor === undefined ? { y0: y0 + move, y1: y1 + move } : { yanchor: yanchor + move }) };
    });
  const { ticktext, range } = layout.yaxis;
  const removed = lines.length - places.size;
  return {
    ...rest,
    data: traces.map((trace) => ({ ...trace, y: trace.y.map((y) => places.get(y)) })),
    layout: {
      ...layout,
      height: layout.height - removed * ((layout.height - layout.margin.t - layout.margin.b) / lines.length),
      shapes,
      xaxis: { ...layout.xaxis, ...scale(axis, kept) },
      yaxis: {
        ...layout.yaxis,
        tickvals: [...places.values()],
        ticktext: ticktext.filter((_, y) => places.has(y)),
        range: [range[0] - removed, range[1]],
      },
    },
  };
}

/** The ends and ticks of an axis for the effects in `kept`, in decimal logarithms; ticks need a distance. */
function scale({ spans, ticks, distance }, kept) {
  const own = spans.filter((span, entry) => span && kept.has(entry));
  if (!own.length) return {};
  const [low, high] = [Math.min(...own.map(([start]) => start)), Math.max(...own.map(([, end]) => end))];
  const apart = distance * (high - low);
  const marks = [];
  for (const [at, text] of ticks) {
    if (at >= low && at <= high && marks.every(([other]) => Math.abs(other - at) >= apart)) marks.push([at, text]);
  }
  return { range: [low, high], tickvals: marks.map(([at]) => 10 ** at), ticktext: marks.map(([, text]) => text) };
}
