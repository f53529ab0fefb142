/** One run: how fast, how good, how much memory, what its steps do and wait for, where and with what it ran. */

import { chart, escapeLabel, LEGEND, load, panels, PARTS, rows as rowsAxis, shorten } from "../chart.js";
import { el, message, panel } from "../dom.js";
import { count, duration, moment, percent, size } from "../format.js";
import * as model from "../model.js";
import { table } from "../table.js";

const PHASES = ["load", "transfer", "preprocess", "forward", "loss", "backward", "optimizer", "metrics"];
const PARTS_OF_STEP = [
  ["operator_us", "operators"],
  ["python_us", "python"],
  ["device_wait_us", "waiting for the device"],
  ["load_us", "loading data"],
];
const PARTS_OF_PHASE = [
  ["operator_us", "operators"],
  ["python_us", "python"],
  ["wait_us", "waiting for the device"],
];
const WAITS = {
  data: "steps wait for the data loader",
  device: "steps wait for the device to finish",
  python: "time between operators: Python and dispatch",
  nothing: "nearly all time goes into operators",
};
const MOST_NAMES = 8; // windows whose names have room below the steps
const BARS = 300; // steps of a stage that are drawn as bars; more make an area

export async function show(root, { run, window, selected, runs }) {
  load();
  const about = runs.find((other) => other.run === run);
  const [summary, record] = await Promise.all([model.summary(selected), about.record ? model.record(run) : null]);
  const stage = about.windows.find(({ file }) => file === window)?.stage ?? null;
  root.append(
    ...notes(about, summary, record),
    cards(summary, record, stage),
    ...timedSteps(record, stage),
    tracedSteps(summary, about),
    phases(summary),
    el("div", { class: "columns" }, environment(summary, record), trace(summary)),
    ...(record ? [config(record)] : []),
  );
}

/** What is partial or missing, with the reason. */
function notes(about, summary, record) {
  const found = [];
  if (record && record.status !== "complete") {
    found.push(message("partial", `This run is ${record.status}: ${record.error ?? "no reason was recorded"}`, "Shown are the stages that ended."));
  }
  if (!summary.trace.whole) {
    const text = "A trace is not whole: what precedes the damage is shown.";
    found.push(el("div", { class: "notes" }, message("partial", text), list(summary.trace.notes)));
  } else if (summary.trace.notes.length) {
    found.push(el("div", { class: "notes" }, list(summary.trace.notes)));
  }
  if (about.record_error) found.push(message("partial", `The run's record cannot be used: ${about.record_error}`));
  return found;
}

const list = (lines) => el("ul", null, ...lines.map((line) => el("li", null, line)));

/** The figures to look at first. Unprofiled timings where the run recorded them: a traced step is no timing. */
function cards(summary, record, stage) {
  const timings = summary.timings.filter((timing) => !stage || timing.stage === stage);
  const { marked, median_us, waits_for } = summary.step_time;
  return el(
    "div",
    { class: "cards" },
    ...timings.map((timing) => stageCard(timing)),
    timings.length ? null : card("Step time", duration(median_us), marked ? `traced; the median of ${steps(summary)}` : "no steps are marked: the whole trace"),
    record && "accuracy" in record.results && card("Accuracy", percent(record.results.accuracy), `loss ${record.results.loss?.toFixed(4) ?? "–"}, on held-out images`),
    ...memoryCards(summary),
    ...deviceCards(summary),
    card("Waits most for", waits_for, WAITS[waits_for] ?? ""),
  );
}

const steps = ({ steps: { length } }) => (length === 1 ? "1 step" : `${count(length)} steps`);

function stageCard({ stage, steps, median_us, samples_per_s, profiler_overhead }) {
  const rate = `${count(Math.round(samples_per_s))} samples/s`;
  const overhead = profiler_overhead === null ? null : `the profiler adds ${percent(profiler_overhead)}`;
  return card(`Step time, ${stage}`, duration(median_us), rate, [`median of ${count(steps)}`, overhead].filter(Boolean).join("; "));
}

function memoryCards({ memory, trace }) {
  const peak = memory.reduce((most, device) => (most && most.peak_bytes >= device.peak_bytes ? most : device), null);
  if (!peak) return [card("Memory peak", "–", "not recorded; use profile_memory=True")];
  const where = trace.files.length > 1 ? `${peak.device}, in window ${peak.window + 1} of ${trace.files.length}` : peak.device;
  return [card("Memory peak", size(peak.peak_bytes), where)];
}

function deviceCards({ devices }) {
  const used = devices.filter(({ span_us }) => span_us > 0).map((device) => ({ ...device, share: device.busy_us / device.span_us }));
  if (!used.length) return [];
  const shares = used.map(({ share }) => share);
  const [low, high] = [Math.min(...shares), Math.max(...shares)].map(percent);
  const names = [...new Set(used.map(({ device }) => device))].join(", ");
  return [card("Device utilization", low === high ? low : `${low} to ${high}`, names, "busy between its first and last work")];
}

function card(title, value, ...details) {
  return el(
    "div",
    { class: "card" },
    el("div", { class: "name" }, title),
    el("div", { class: "value" }, value),
    ...details.filter(Boolean).map((detail) => el("div", { class: "detail" }, detail)),
  );
}

/** Every unprofiled step of each stage, by phase. */
function timedSteps(record, only) {
  const stages = Object.entries(record?.stages ?? {}).filter(([name]) => !only || name === only);
  if (!stages.length) return [];
  const inside = (name, { timed }) => Object.entries(timed.phase_s).filter(([phase]) => phase !== name); // not the whole itself
  const found = new Set(stages.flatMap(([name, stage]) => inside(name, stage).map(([phase]) => phase)));
  const phases = [...PHASES.filter((name) => found.has(name)), ...[...found].filter((name) => !PHASES.includes(name))];
  const data = stages.flatMap(([name, stage], i) => {
    const { step_s } = stage.timed;
    const times = phases.map((phase) => [phase, stage.timed.phase_s[phase]]).filter(([phase, values]) => values && phase !== name);
    const parts = times.map(([phase, values]) => ({
      ...stacked(step_s.length),
      name: escapeLabel(phase),
      x: values.map((_, step) => step),
      y: values.map((s) => s * 1e3),
      hovertext: values.map((s, step) => `${escapeLabel(`${name}, step ${step}, ${phase}`)}<br>${duration(s * 1e6)} of ${duration(step_s[step] * 1e6)}`),
      marker: look(phases.indexOf(phase)),
      line: { color: look(phases.indexOf(phase)).color, width: 0.5 },
    }));
    const whole = {
      type: "scatter",
      mode: "lines",
      name: "whole step",
      x: step_s.map((_, step) => step),
      y: step_s.map((s) => s * 1e3),
      hovertext: step_s.map((s, step) => `${escapeLabel(`${name}, step ${step}`)}<br>${duration(s * 1e6)}`),
      line: { color: "#7a8a9e", width: 1, shape: "hvh" },
    };
    return [...parts, whole].map((trace) => ({ ...trace, hoverinfo: "text", xaxis: `x${i + 1}`, yaxis: `y${i + 1}` }));
  });
  const layout = {
    height: 270,
    barmode: "stack",
    bargap: 0.12,
    legend: LEGEND,
    ...panels(stages.length, (i) => stepAxis(...stages[i]), (i) => ({ title: { text: i ? "" : "ms" }, rangemode: "tozero" })),
  };
  const label = "Time of each step by phase, not profiled";
  return [panel(label, chart({ data: once(data), layout, label, pngName: "steps" }))];
}

function stepAxis(name, { timed: { step_s } }) {
  const look = step_s.length < 10 ? { dtick: 1 } : {};
  return { ...look, title: { text: `step, <b>${escapeLabel(name)}</b>` }, range: [-0.6, step_s.length - 0.4] };
}

/** What each traced step does; windows stand side by side, with their names below. */
function tracedSteps(summary, { windows }) {
  const files = summary.trace.files.map((path) => path.split("/").at(-1));
  const shown = summary.steps.map((step, row) => ({ ...step, x: row + step.window })); // a gap between windows
  const data = PARTS_OF_STEP.filter(([key]) => shown.some((step) => step[key])).map(([key, name]) => ({
    ...stacked(shown.length),
    name,
    x: shown.map(({ x }) => x),
    y: shown.map((step) => step[key] / 1e3),
    hovertext: shown.map((step) => `step ${step.number}, ${name}<br>${duration(step[key])} of ${duration(step.total_us)}`),
    hoverinfo: "text",
    marker: look(PARTS_OF_STEP.findIndex(([other]) => other === key)),
    line: { color: look(PARTS_OF_STEP.findIndex(([other]) => other === key)).color, width: 0.5 },
  }));
  const ticks = shown.filter((_, row) => row % Math.ceil(shown.length / 40) === 0);
  const middles = files.map((_, i) => shown.filter(({ window }) => window === i)).map((own) => own[own.length >> 1]?.x);
  const tick = ({ x, number, window }) =>
    named && x === middles[window] ? `${number}<br><b>${escapeLabel(shorten(title(files[window], windows), 24))}</b>` : String(number);
  const named = files.length > 1 && files.length <= MOST_NAMES;
  const layout = {
    height: 270,
    barmode: "stack",
    bargap: 0.2,
    legend: LEGEND,
    xaxis: { title: { text: "step" }, tickvals: ticks.map(({ x }) => x), ticktext: ticks.map(tick), range: [-0.6, shown.at(-1).x + 0.6] },
    yaxis: { title: { text: "ms" }, rangemode: "tozero" },
  };
  const label = summary.step_time.marked ? "What each traced step does" : "What the trace does: it marks no steps";
  return panel(label, chart({ data, layout, label, pngName: "traced-steps" }));
}

const title = (file, windows) => windows.find((window) => window.file === file)?.stage ?? file;

/** Time by phase, what it is made of, and the figures behind it. */
function phases(summary) {
  const { phases: found, devices, memory } = summary;
  const data = PARTS_OF_PHASE.filter(([key]) => found.some((phase) => phase[key])).map(([key, name], i) => ({
    type: "bar",
    orientation: "h",
    name,
    y: found.map((_, row) => row),
    x: found.map((phase) => phase[key] / 1e3),
    hovertext: found.map((phase) => `${escapeLabel(phase.name)}, ${name}<br>${duration(phase[key])} of ${duration(phase.self_us)}`),
    hoverinfo: "text",
    marker: look(i),
  }));
  const layout = {
    height: 26 * found.length + 80,
    barmode: "stack",
    bargap: 0.25,
    legend: LEGEND,
    xaxis: { title: { text: "ms in the traced steps" } },
    yaxis: rowsAxis(found.map(({ name }) => name)),
  };
  const times = [
    ["total_us", "total", "from its start to its end"],
    ["self_us", "own", "without the phases inside it"],
    ["operator_us", "operators", "running operators"],
    ["python_us", "python", "between operators: Python, dispatch, waiting for other threads"],
    ...(devices.length ? [["wait_us", "waiting", "in calls that wait for the device"], ["device_us", "device", "on the device, by operators of this phase"]] : []),
  ];
  const columns = [
    { key: "name", label: "phase" },
    { key: "calls", label: "calls", numeric: true, format: count },
    ...times.map(([key, label, title]) => ({ key, label, title, numeric: true, format: duration })),
    ...(memory.length ? [{ key: "allocated_bytes", label: "allocated", numeric: true, format: size }] : []),
  ];
  const label = "Traced time by phase";
  return panel(
    label,
    el("div", { class: "beside" }, chart({ data, layout, label, pngName: "phases" }), table({ columns, rows: found, csvName: "phases", label: "Phases" })),
  );
}

function environment(summary, record) {
  if (!record) {
    const text = "No record.json lies beside the traces: configuration, accuracy and unprofiled timings are not known.";
    return panel("Run", message("empty", text, "`python -m train` writes one."));
  }
  const { environment: at, results } = record;
  const figures = Object.entries(results).map(([name, value]) => [name.replace(/_s$/, "").replaceAll("_", " "), figure(name, value)]);
  return panel(
    "Run",
    definitions([
      ["started", moment(record.started)],
      ["status", record.status],
      ["machine", `${at.device_name} (${at.device}), ${at.cores} cores, ${at.threads} threads, ${size(at.memory_bytes)}, ${at.precision}`],
      ["host", `${at.host}, ${at.processor}, ${at.platform}`],
      ["versions", Object.entries(at.versions).map((pair) => pair.join(" ")).join(", ")],
    ]),
    el("h3", null, "Results"),
    definitions(figures),
  );
}

/** A result in the unit that its name ends in. */
function figure(name, value) {
  if (name === "accuracy") return percent(value);
  if (name.endsWith("_per_s")) return `${count(Math.round(value))} /s`;
  if (name.endsWith("_s")) return duration(value * 1e6);
  return value.toLocaleString("en-US", { maximumSignificantDigits: 5 });
}

function trace({ trace: about, events }) {
  return panel(
    "Trace",
    definitions([
      ["files", el("div", null, ...about.files.map((path) => el("div", null, path.split("/").at(-1))))],
      ["device", [about.device, ...about.device_names].join(", ")],
      [about.ranks.length === 1 ? "rank" : "ranks", about.ranks.join(", ")],
      ["threads", count(about.threads)],
      ["extent", duration(about.extent_us)],
      ["events", Object.entries(events).map(([kind, number]) => `${count(number)} ${kind}`).join(", ")],
      ["whole", about.whole ? "yes" : "no"],
    ]),
  );
}

function definitions(pairs) {
  return el("dl", null, ...pairs.flatMap(([name, value]) => [el("dt", null, name), el("dd", null, value)]));
}

/** The resolved configuration; what differs from the baseline comes first. */
function config(record) {
  const lines = new Map(flat(record.config));
  const changed = new Map(Object.entries(record.changed));
  const keys = [...changed.keys(), ...[...lines.keys()].filter((key) => !changed.has(key))];
  const rows = keys.map((key) => ({
    key,
    changed: changed.has(key),
    value: text(lines.has(key) ? lines.get(key) : changed.get(key)[1]),
    baseline: changed.has(key) ? text(changed.get(key)[0]) : null,
  }));
  const columns = [
    { key: "key", label: "key", format: (key, row) => (row.changed ? el("b", null, `● ${key}`) : key) },
    { key: "value", label: "value", format: (value, row) => (row.changed ? el("b", null, value) : value) },
    { key: "baseline", label: "baseline, where it differs" },
  ];
  const differs = changed.size === 1 ? "1 line differs" : `${count(changed.size)} lines differ`;
  return panel(`Configuration: ${differs} from the baseline`, table({ columns, rows, search: "config", csvName: "config", label: "Configuration" }));
}

/** Nested objects as dotted keys. */
function flat(value, prefix = "") {
  return Object.entries(value).flatMap(([key, inner]) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner) ? flat(inner, `${prefix}${key}.`) : [[prefix + key, inner]],
  );
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** A part of a stack: bars, or an area where bars would be too thin to see. */
function stacked(number) {
  return number <= BARS ? { type: "bar" } : { type: "scatter", mode: "lines", stackgroup: "parts" };
}

const look = (number) => PARTS[number % PARTS.length];

/** Leave each name in the legend once. */
function once(traces) {
  const seen = new Set();
  return traces.map((trace) => {
    const first = !seen.has(trace.name);
    seen.add(trace.name);
    return { ...trace, legendgroup: trace.name, showlegend: first };
  });
}
