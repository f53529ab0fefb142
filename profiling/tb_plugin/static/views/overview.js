/** One run: step time, accuracy, memory, its steps and what they wait for, environment and configuration. */

import { chart, escapeLabel, LEGEND, load, rows as rowsAxis } from "../chart.js";
import { el, message, panel } from "../dom.js";
import { axisUnit, count, duration, moment, percent, phaseName, size } from "../format.js";
import { linksOut } from "../links.js";
import * as model from "../model.js";
import { look, timedSteps, tracedSteps } from "../step_charts.js";
import { table } from "../table.js";
import { namer } from "../windows.js";

const PARTS_OF_PHASE = [
  ["operator_us", "operators", look(0)],
  ["python_us", "python", look(1)],
  ["wait_us", "waiting", look(2)],
];
const WAITS = {
  data: "steps wait for the data loader",
  device: "calls that block the host until device work has ended",
  driver: "calls that allocate memory, load code or start up, while the device idles",
  python: "time between operators: Python and dispatch",
  nothing: "nearly all time goes into operators",
};
export async function show(root, state) {
  load();
  const { run, window, selected, runs } = state;
  const info = runs.find((each) => each.run === run);
  const [summary, record] = await Promise.all([model.summary(selected), info.record ? model.record(run) : null]);
  const stage = info.windows.find(({ file }) => file === window)?.stage ?? null;
  const nameOf = namer(summary, state, run);
  root.append(
    ...notes(info, summary, record, state.links_out),
    cards(summary, record, stage, nameOf),
    ...timedSteps(record, stage),
    tracedSteps(summary, nameOf),
    ...(summary.waited_for.length ? waited(summary) : []),
    phases(summary),
    el("div", { class: "columns" }, environment(summary, record), trace(summary)),
    ...(record ? [config(record)] : []),
  );
}

/** Messages about what is partial or missing, with the reason. */
function notes(info, summary, record, links_out) {
  const messages = links_out.length ? [linksOut(links_out)] : [];
  if (record && record.status !== "complete") {
    messages.push(
      message(
        "partial",
        `This run is ${record.status}: ${record.error ?? "no reason was recorded"}`,
        "Shown are the stages that ended.",
      ),
    );
  }
  if (!summary.trace.whole) {
    const text = "A trace is not whole: what could be analyzed is shown.";
    messages.push(el("div", { class: "notes" }, message("partial", text), list(summary.trace.notes)));
  } else if (summary.trace.notes.length) {
    messages.push(el("div", { class: "notes" }, list(summary.trace.notes)));
  }
  if (info.record_error) messages.push(message("partial", `The run's record cannot be used: ${info.record_error}`));
  return messages;
}

const list = (lines) => el("ul", null, ...lines.map((line) => el("li", null, line)));

/** Cards with the main results. Step times are unprofiled if the run recorded them: the profiler slows traced steps. */
function cards(summary, record, stage, nameOf) {
  const timings = summary.timings.filter((timing) => !stage || timing.stage === stage);
  const { marked, median_us, waits_for } = summary.step_time;
  return el(
    "div",
    { class: "cards" },
    ...timings.map((timing) => stageCard(timing)),
    timings.length
      ? null
      : card(
          "Step time",
          duration(median_us),
          marked ? `traced; the median of ${steps(summary)}` : "no steps are marked: the whole trace",
        ),
    record &&
      "accuracy" in record.results &&
      card(
        "Accuracy",
        percent(record.results.accuracy),
        `loss ${record.results.loss?.toFixed(4) ?? "–"}, on held-out images`,
      ),
    ...memoryCards(summary, nameOf),
    ...deviceCards(summary),
    card("Waits most for", waits_for, ...waits(summary, nameOf)),
  );
}

/** An explanation of what the steps wait for; if windows differ, a line for each kind of waiting. */
function waits({ step_time, step_times }, nameOf) {
  const kinds = new Set(step_times.map(({ waits_for }) => waits_for));
  if (kinds.size < 2) return [WAITS[step_time.waits_for]];
  return [...kinds].map((kind) => {
    const windows = step_times.map(({ waits_for }, i) => waits_for === kind && nameOf(i)).filter(Boolean);
    return `${kind}: ${windows.join(", ")}`;
  });
}

const steps = ({ steps: { length } }) => (length === 1 ? "1 step" : `${count(length)} steps`);

function stageCard({ stage, steps, median_us, samples_per_s, profiler_overhead }) {
  const rate = `${count(Math.round(samples_per_s))} samples/s`;
  const overhead = profiler_overhead === null ? null : `the profiler adds ${percent(profiler_overhead)}`;
  return card(
    `Step time, ${stage}`,
    duration(median_us),
    rate,
    [`median of ${count(steps)}`, overhead].filter(Boolean).join("; "),
  );
}

function memoryCards({ memory, trace }, nameOf) {
  const peak = memory.reduce((max, device) => (max && max.peak_bytes >= device.peak_bytes ? max : device), null);
  if (!peak) return [card("Memory peak", "–", "not recorded; use profile_memory=True")];
  const where = trace.files.length > 1 ? `${peak.device}, in ${nameOf(peak.window)}` : peak.device;
  return [card("Memory peak", size(peak.peak_bytes), where)];
}

function deviceCards({ devices }) {
  const used = devices
    .filter(({ span_us }) => span_us > 0)
    .map((device) => ({ ...device, share: device.busy_us / device.span_us }));
  if (!used.length) return [];
  const shares = used.map(({ share }) => share);
  const [low, high] = [Math.min(...shares), Math.max(...shares)].map(percent);
  const names = [...new Set(used.map(({ device }) => device))].join(", ");
  return [
    card("Device utilization", low === high ? low : `${low} to ${high}`, names, "busy in the steps"),
  ];
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

/** Panels: what the steps wait for, and the calls that block them. */
function waited({ waited_for, blocked_by, steps: all }) {
  const bound = all.filter(({ bound: by }) => by === "device").length;
  return [
    panel(
      "What the host waits for",
      el(
        "p",
        { class: "note" },
        `The device bounds ${count(bound)} of ${steps({ steps: all })}, the host the others. ` +
          "Each wait is divided by what the device did meanwhile, on the streams that were waited for.",
      ),
      table({
        label: "what the host waits for",
        columns: [
          { key: "kind", label: "kind", brief: true },
          { key: "name", label: "kernel, copy or call" },
          { key: "operator", label: "operator", title: "launched the kernel or copy", brief: true },
          { key: "launched_in", label: "launched in", brief: true },
          { key: "waited_in", label: "waits in", title: "the phase in which the host waits", brief: true },
          { key: "waits", label: "waits", numeric: true, format: count },
          { key: "wait_us", label: "time", numeric: true, format: duration },
        ],
        rows: waited_for,
        sort: { key: "wait_us", descending: true },
        csvName: "waited-for",
      }),
    ),
    panel(
      "Calls that block the host",
      table({
        label: "calls that block the host",
        columns: [
          { key: "name", label: "call" },
          { key: "kind", label: "kind", brief: true },
          { key: "calls", label: "calls", numeric: true, format: count },
          { key: "wait_us", label: "blocks for", numeric: true, format: duration },
        ],
        rows: blocked_by,
        sort: { key: "wait_us", descending: true },
        csvName: "blocked-by",
      }),
    ),
  ];
}

/** The chart and the table of time by phase and kind. */
function phases(summary) {
  const { phases: rows, devices, memory } = summary;
  const { unit, per } = axisUnit(Math.max(...rows.map(({ self_us }) => self_us)));
  const names = rows.map(({ name, derived }) => phaseName(name, derived));
  const data = PARTS_OF_PHASE.filter(([key]) => rows.some((phase) => phase[key])).map(([key, name, marker]) => ({
    type: "bar",
    orientation: "h",
    name,
    y: rows.map((_, row) => row),
    x: rows.map((phase) => phase[key] / per),
    hovertext: rows.map(
      (phase, row) => `${escapeLabel(names[row])}, ${name}<br>${duration(phase[key])} of ${duration(phase.self_us)}`,
    ),
    hoverinfo: "text",
    marker,
  }));
  const layout = {
    height: 26 * rows.length + 80,
    barmode: "stack",
    bargap: 0.25,
    legend: LEGEND,
    xaxis: { title: { text: `${unit} in the traced steps` } },
    yaxis: rowsAxis(names),
  };
  const times = [
    ["total_us", "total", "from its start to its end"],
    ["self_us", "own", "without the phases inside it"],
    ["operator_us", "operators", "running operators"],
    ["python_us", "python", "between operators: Python, dispatch, waiting for other threads"],
    ...(devices.length
      ? [
          ["wait_us", "waiting", "in calls that block the host"],
          ["device_us", "device", "on the device, by operators of this phase"],
        ]
      : []),
  ];
  const columns = [
    {
      key: "name",
      label: "phase",
      title: "derived: not marked in the trace",
      format: (name, { derived }) => phaseName(name, derived),
    },
    { key: "derived", hidden: true },
    { key: "calls", label: "calls", numeric: true, format: count },
    ...times.map(([key, label, title]) => ({ key, label, title, numeric: true, format: duration })),
    ...(memory.length ? [{ key: "allocated_bytes", label: "allocated", numeric: true, format: size }] : []),
  ];
  const label = "Traced time by phase";
  return panel(
    label,
    el(
      "div",
      { class: "beside" },
      chart({ data, layout, label, pngName: "phases" }),
      table({ columns, rows, csvName: "phases", label: "Phases" }),
    ),
  );
}

function environment(summary, record) {
  if (!record) {
    const text = "No record.json lies beside the traces: configuration, accuracy and unprofiled timings are not known.";
    return panel("Run", message("empty", text, "`python -m train` writes one."));
  }
  const { environment: at, results } = record;
  const figures = Object.entries(results).map(([name, value]) => [
    name.replace(/(_per)?_s$/, "").replaceAll("_", " "),
    figure(name, value),
  ]);
  return panel(
    "Run",
    definitions([
      ["started", moment(record.started)],
      ["status", record.status],
      [
        "machine",
        `${at.device_name} (${at.device}), ${at.cores} cores, ${at.threads} threads, ${size(at.memory_bytes)}, ${at.precision}`,
      ],
      ["host", `${at.host}, ${at.processor}, ${at.platform}`],
      [
        "versions",
        Object.entries(at.versions)
          .map((pair) => pair.join(" "))
          .join(", "),
      ],
    ]),
    el("h3", null, "Results"),
    definitions(figures),
  );
}

/** A result as text; the end of its name gives the unit. */
function figure(name, value) {
  if (name === "accuracy") return percent(value);
  if (name.endsWith("_per_s")) return `${count(Math.round(value))} /s`;
  if (name.endsWith("_s")) return duration(value * 1e6);
  return value.toLocaleString("en-US", { maximumSignificantDigits: 5 });
}

function trace({ trace: info, events }) {
  return panel(
    "Trace",
    definitions([
      ["files", el("div", null, ...info.files.map((path) => el("div", null, path.split("/").at(-1))))],
      ["device", [info.device, ...info.device_names].join(", ")],
      [info.ranks.length === 1 ? "rank" : "ranks", info.ranks.join(", ")],
      ["threads", count(info.threads)],
      ["extent", duration(info.extent_us)],
      [
        "events",
        Object.entries(events)
          .map(([kind, number]) => `${count(number)} ${kind}`)
          .join(", "),
      ],
      ["whole", info.whole ? "yes" : "no"],
    ]),
  );
}

function definitions(pairs) {
  return el("dl", null, ...pairs.flatMap(([name, value]) => [el("dt", null, name), el("dd", null, value)]));
}

/** The resolved configuration; lines that differ from the baseline come first. */
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
  return panel(
    `Configuration: ${differs} from the baseline`,
    table({ columns, rows, search: "config", csvName: "config", label: "Configuration" }),
  );
}

/** Pairs of dotted key and value of nested objects. */
function flat(value, prefix = "") {
  return Object.entries(value).flatMap(([key, inner]) =>
    inner !== null && typeof inner === "object" && !Array.isArray(inner)
      ? flat(inner, `${prefix}${key}.`)
      : [[prefix + key, inner]],
  );
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
