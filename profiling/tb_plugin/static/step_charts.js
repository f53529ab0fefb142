/** Stacked charts of a run's steps: unprofiled steps by phase, traced steps by kind of time. */

import { chart, escapeLabel, LEGEND, panels, PARTS, shorten, WAITING } from "./chart.js";
import { panel } from "./dom.js";
import { axisUnit, duration } from "./format.js";

/** Phases in the order of a step; the number is an index into PARTS: the longest phases have the plainest styles. */
const PHASES = { load: 7, transfer: 3, preprocess: 2, forward: 0, loss: 4, backward: 1, optimizer: 6, metrics: 5 };
const PARTS_OF_STEP = [
  ["operators", ({ operator_us }) => operator_us],
  ["python", ({ python_us }) => python_us],
  ["loading data", ({ load_us }) => load_us],
  ...Object.keys(WAITING).map((kind) => [`waiting: ${kind}`, ({ waiting_us }) => waiting_us[kind] ?? 0]),
];
const STYLES_OF_STEP = [PARTS[0], PARTS[1], PARTS[7], ...Object.values(WAITING)];
const MAX_NAMES = 8; // names of windows are shown below the steps up to this number of windows
const MAX_NAME_LETTERS = 150; // letters of all names of windows together that fit below the steps
const MAX_TICK_DIGITS = 120; // digits of all step numbers together that fit below the steps
const MAX_BARS = 300; // steps are drawn as bars up to this number, as an area above it

/** A panel with the time of each unprofiled step by phase; `only`: a stage, or null for all. */
export function timedSteps(record, only) {
  const stages = Object.entries(record?.stages ?? {}).filter(([name]) => !only || name === only);
  if (!stages.length) return [];
  // A phase with the stage's name is the whole step.
  const inside = (name, { timed }) => Object.keys(timed.phase_s).filter((phase) => phase !== name);
  const recorded = new Set(stages.flatMap(([name, stage]) => inside(name, stage)));
  const known = Object.keys(PHASES);
  const phases = [
    ...known.filter((name) => recorded.has(name)),
    ...[...recorded].filter((name) => !known.includes(name)),
  ];
  const { unit, per } = axisUnit(longest(stages.map(([, { timed }]) => longest(timed.step_s))) * 1e6);
  const data = stages.flatMap(([name, stage], i) => {
    const { step_s } = stage.timed;
    const numbers = stepNumbers(stage.timed);
    const times = phases
      .map((phase) => [phase, stage.timed.phase_s[phase]])
      .filter(([phase, values]) => values && phase !== name);
    const parts = times.map(([phase, values]) => ({
      ...stacked(step_s.length),
      name: escapeLabel(phase),
      x: numbers,
      y: values.map((s) => (s * 1e6) / per),
      hovertext: values.map(
        (s, row) =>
          `${escapeLabel(`${name}, step ${numbers[row]}, ${phase}`)}<br>${duration(s * 1e6)} of ${duration(step_s[row] * 1e6)}`,
      ),
      marker: look(PHASES[phase] ?? phases.indexOf(phase)),
      line: { color: look(PHASES[phase] ?? phases.indexOf(phase)).color, width: 0.5 },
    }));
    const whole = {
      type: "scatter",
      mode: "lines",
      name: "whole step",
      x: numbers,
      y: step_s.map((s) => (s * 1e6) / per),
      hovertext: step_s.map((s, row) => `${escapeLabel(`${name}, step ${numbers[row]}`)}<br>${duration(s * 1e6)}`),
      line: { color: "#7a8a9e", width: 1, shape: "hvh" },
    };
    return [...parts, whole].map((trace) => ({ ...trace, hoverinfo: "text", xaxis: `x${i + 1}`, yaxis: `y${i + 1}` }));
  });
  const layout = {
    height: 270,
    barmode: "stack",
    bargap: 0.12,
    legend: { ...LEGEND, y: 1.05 }, // above the label of the highest tick
    ...panels(
      stages.length,
      (i) => stepAxis(...stages[i]),
      (i) => ({ title: { text: i ? "" : unit }, rangemode: "tozero" }),
    ),
  };
  const label = "Time of each step by phase, not profiled";
  return [panel(label, chart({ data: once(data), layout, label, pngName: "steps" }))];
}

function stepAxis(name, { timed }) {
  const { step_s, totals } = timed;
  const spacing = step_s.length < 10 ? { dtick: 1 } : {};
  const sample = totals
    ? `<br>${step_s.length} random steps of ${totals.step.steps}, the longest of which took ${duration(totals.step.max_s * 1e6)}`
    : "";
  return {
    ...spacing,
    title: { text: `step, <b>${escapeLabel(name)}</b>${sample}` },
    range: [-0.6, (stepNumbers(timed).at(-1) ?? -1) + 0.6],
  };
}

/** The number of each step of a stage; records without a list of them have every step. */
function stepNumbers({ step_s, numbers }) {
  return numbers?.length ? numbers : step_s.map((_, row) => row);
}

/** A panel with the time of each traced step by kind; windows side by side, with their names below. */
export function tracedSteps(summary, nameOf) {
  const shown = summary.steps.map((step, row) => ({ ...step, x: row + step.window })); // leaves a gap between windows
  const { unit, per } = axisUnit(longest(shown.map(({ total_us }) => total_us)));
  const hasDevice = summary.devices.length > 0;
  const parts = PARTS_OF_STEP.map(([name, of], i) => ({ name, of, style: STYLES_OF_STEP[i] }));
  const data = parts
    .filter(({ of }) => shown.some(of))
    .map(({ name, of, style }) => ({
      ...stacked(shown.length),
      name,
      x: shown.map(({ x }) => x),
      y: shown.map((step) => of(step) / per),
      hovertext: shown.map(
        (step) =>
          `step ${step.number}${hasDevice ? `, bound by the ${step.bound}` : ""}<br>` +
          `${name} ${duration(of(step))} of ${duration(step.total_us)}`,
      ),
      hoverinfo: "text",
      marker: style,
      line: { color: style.color, width: 0.5 },
      fillcolor: style.color,
      fillpattern: { ...style.pattern, bgcolor: style.color },
    }));
  const { files } = summary.trace;
  const middles = files.map((_, i) => shown.filter(({ window }) => window === i)).map((own) => own[own.length >> 1]?.x);
  const named = files.length > 1 && files.length <= MAX_NAMES;
  const digits = Math.max(2, String(longest(shown.map(({ number }) => number))).length);
  const every = Math.ceil((shown.length * digits) / MAX_TICK_DIGITS);
  const ticks = shown.filter(({ x, window }) => (x - (named ? middles[window] : 0)) % every === 0);
  const nameLetters = Math.floor(MAX_NAME_LETTERS / files.length);
  const tick = ({ x, number, window }) =>
    named && x === middles[window]
      ? `${number}<br><b>${escapeLabel(shorten(nameOf(window), nameLetters))}</b>`
      : String(number);
  const layout = {
    height: 270,
    barmode: "stack",
    bargap: 0.2,
    legend: LEGEND,
    xaxis: {
      title: { text: "step" },
      tickvals: ticks.map(({ x }) => x),
      ticktext: ticks.map(tick),
      tickangle: 0,
      range: [-0.6, (shown.at(-1)?.x ?? 0) + 0.6],
    },
    yaxis: { title: { text: unit }, rangemode: "tozero" },
  };
  const label = summary.step_time.marked ? "What each traced step does" : "What the trace does: it marks no steps";
  return panel(label, chart({ data, layout, label, pngName: "traced-steps" }));
}

// Not Math.max(...times): the number of arguments of a call is limited.
const longest = (times) => times.reduce((max, time) => Math.max(max, time), 0);

/** The trace type of a part of a stack: bars, or an area if bars would be too thin to see. */
function stacked(number) {
  return number <= MAX_BARS ? { type: "bar" } : { type: "scatter", mode: "lines", stackgroup: "parts" };
}

/** The style of part `number`. */
export const look = (number) => PARTS[number % PARTS.length];

/** Show each name only once in the legend. */
function once(traces) {
  const seen = new Set();
  return traces.map((trace) => {
    const first = !seen.has(trace.name);
    seen.add(trace.name);
    return { ...trace, legendgroup: trace.name, showlegend: first };
  });
}
