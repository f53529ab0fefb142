/** The difference between two runs and its causes. */

import { chart, escapeLabel, load } from "../chart.js";
import { causeName, delta, icicle, per, phaseBars, waterfall } from "../compare_charts.js";
import { el, message, panel, prose } from "../dom.js";
import { count, duration, percent, phaseName, ratio, size } from "../format.js";
import { measured } from "../measured.js";
import * as model from "../model.js";
import { choose, legend, sides } from "../sides.js";
import { table } from "../table.js";

const SMALL = 0.005; // phases below this share of the total time form one bar

export async function show(root, state) {
  const both = sides(state);
  if (!both) {
    root.append(choose(state));
    return;
  }
  load().catch(() => {}); // each chart shows the error
  const { a, b, comparison } = both;
  const [diff, effect, ...records] = await Promise.all([
    model.diff(b.selected, a.selected),
    comparison ? measured(comparison).catch((error) => message("error", error.message)) : null,
    ...[a, b].map(({ run }) => (state.runs.find((info) => info.run === run).record ? model.record(run) : null)),
  ]);
  root.append(
    legend(both),
    ...diff.notes.map((note) => message("partial", note)),
    ...(effect ? [effect] : []),
    summary(diff, both, effect),
    el("div", { class: "columns" }, phases(diff, both), causes(diff, both)),
    flames(diff, both),
    parts(diff, both),
    operators(diff, both),
    ...(diff.kernels.length ? [kernels(diff, both)] : []),
    ...(diff.replaced.length ? [replaced(diff, both)] : []),
    ...(diff.modules.length ? [modules(diff, both)] : []),
    configs(records, both),
  );
}

/** The traced difference, with a warning that traced times are not measurements. */
function summary(diff, { a, b }, effect) {
  const units = diff.unit === "trace" ? [] : [`${count(diff.a_units)} against ${count(diff.b_units)} ${diff.unit}s`];
  const how = {
    sample: "Everything is per sample",
    step: "Everything is per step: without a record of both runs nobody knows how many samples a step had",
    trace: "Nothing is normalized: no steps are marked, so whole traces are compared",
  }[diff.unit];
  const warning = effect
    ? "The profiler slows what it records: the traces say where a difference comes from, " +
      "the measured effect above says how large it is."
    : "A difference of two traces is not a timing: one window each, under the profiler. " +
      "Measure it with `python -m train.ab`.";
  const peaks = diff.memory.map((device) =>
    fact(`peak, ${device.device}`, `${size(device.a_peak_bytes)} → ${size(device.b_peak_bytes)}`),
  );
  return panel(
    "In the traces",
    el(
      "dl",
      { class: "figures" },
      fact(`traced time ${per(diff.unit)}`, `${duration(diff.a_us)} → ${duration(diff.b_us)}`),
      fact("difference", `${delta(diff.difference_us)}${diff.a_us ? ` (${ratio(diff.b_us / diff.a_us)})` : ""}`),
      fact(
        "attributed",
        percent(diff.attributed_share),
        "The part of the phases' differences that named causes explain",
      ),
      ...peaks,
    ),
    el("p", { class: "note" }, `${[how, ...units].join(", ")}. ${b.title} minus ${a.title}. `, ...prose(warning)),
  );
}

const fact = (name, value, title) => el("div", { title }, el("dt", null, name), el("dd", null, value));

function phases(diff, both) {
  return panel(
    `Traced time by phase, ${per(diff.unit)}`,
    chart({
      ...phaseBars(visible(diff), both, diff.unit),
      label: "Bars: traced time of each phase on both sides; the table of phases below has the same figures",
      pngName: "compare-phases",
    }),
  );
}

/** The phases with a visible bar, and the sum of the others. */
function visible({ phases: all, a_us, b_us }) {
  const isSmall = (row) => Math.max(row.a_us, row.b_us) < SMALL * Math.max(a_us, b_us);
  const hidden = all.filter(isSmall);
  const small = hidden.length > 1 ? hidden : []; // a single small phase has a bar of its own
  const large = all.filter((row) => !small.includes(row));
  const sum = (key) => small.reduce((total, row) => total + row[key], 0);
  const rest = { phase: `${count(small.length)} smaller phases`, a_us: sum("a_us"), b_us: sum("b_us") };
  return [...large, ...(small.length ? [rest] : [])].map((row) => {
    const phase = phaseName(row.phase, row.derived);
    return {
      ...row,
      phase,
      ratio: row.a_us ? row.b_us / row.a_us : null,
      hover: `${escapeLabel(phase)}<br>${duration(row.a_us)} → ${duration(row.b_us)}`,
    };
  });
}

function causes(diff, both) {
  return panel(
    "Where the traced difference comes from",
    chart({
      ...waterfall(diff, both),
      label: `Waterfall: ${diff.causes
        .slice(0, 3)
        .map((cause) => `${causeName(cause)} ${delta(cause.difference_us)}`)
        .join(", ")}`,
      pngName: "compare-causes",
    }),
  );
}

function flames(diff, both) {
  const draw = () => icicle(diff, both);
  return panel(
    "Difference flame graph",
    el(
      "p",
      { class: "note" },
      "Phases, and below each the operators it called; as wide as their time on both sides together, " +
        `orange where ${both.b.title} takes longer, blue where it takes less. ` +
        "A click opens a part, a click on its top leads back.",
    ),
    chart({
      data: () => draw().data,
      layout: () => draw().layout,
      label: "Icicle of phases and operators, colored by change; the table of operators below has the same figures",
      pngName: "compare-icicle",
    }),
  );
}

/** The table of phases with the parts of their differences. */
function parts(diff, { a, b }) {
  const waits = diff.phases.some(({ waiting_us }) => waiting_us);
  const time = (key, label, format, title) => ({ key, label, title, numeric: true, format });
  return panel(
    `Phases, ${per(diff.unit)}`,
    table({
      label: "phases",
      columns: [
        {
          key: "phase",
          label: "phase",
          title: "derived: at least one side does not mark it",
          format: (name, { derived }) => phaseName(name, derived),
        },
        { key: "derived", hidden: true },
        time("a_us", a.title, duration),
        time("b_us", b.title, duration),
        time("difference_us", "difference", delta, `${b.title} minus ${a.title}: the sum of what follows`),
        time("operators_us", "operators", delta, "what operators take themselves"),
        time("python_us", "python", delta, "between operators: Python, dispatch, loading"),
        ...(waits ? [time("waiting_us", "waiting", delta, "in calls that block the host")] : []),
        time("unattributed_us", "unattributed", delta, "operators on several threads at once, or across a phase's end"),
      ],
      rows: diff.phases,
      csvName: "compare-phases",
    }),
  );
}

function operators(diff, { a, b }) {
  const rows = [
    ...diff.changed.map((row) => ({ ...row, what: "changed" })),
    ...diff.added.map((row) => ({ ...row, what: "added" })),
    ...diff.removed.map((row) => ({ ...row, what: "removed" })),
  ].sort((left, right) => Math.abs(right.difference_us) - Math.abs(left.difference_us));
  const differs = (key) => rows.some((row) => row[`a_${key}`] !== row[`b_${key}`]);
  const pair = (key, label, format, title) =>
    [a, b].map((side, i) => ({
      key: `${"ab"[i]}_${key}`,
      label: `${label} ${side.title}`,
      title,
      numeric: true,
      format,
    }));
  const only = [diff.added, diff.removed].map((list, i) => `${count(list.length)} only ${[b, a][i].title}`);
  return panel(
    `Operators: ${[`${count(diff.changed.length)} on both sides`, ...only].join(", ")}`,
    table({
      label: "operators that changed",
      columns: [
        { key: "name", label: "operator" },
        { key: "phase", label: "phase", brief: true },
        { key: "what", label: "change", brief: true, title: `added: only in ${b.title}; removed: only in ${a.title}` },
        ...pair("calls", "calls", count, per(diff.unit)),
        ...pair("self_us", "self", duration),
        {
          key: "difference_us",
          label: "difference",
          title: `self time, ${b.title} minus ${a.title}`,
          numeric: true,
          format: delta,
        },
        {
          key: "ratio",
          label: "ratio",
          title: `${b.title} ÷ ${a.title}`,
          numeric: true,
          value: ({ a_self_us, b_self_us }) => (a_self_us && b_self_us ? b_self_us / a_self_us : null),
          format: ratio,
        },
        ...(differs("device_us") ? pair("device_us", "device", duration) : []),
        ...(differs("allocated_bytes") ? pair("allocated_bytes", "allocated", size) : []),
      ],
      rows,
      search: true,
      csvName: "compare-operators",
    }),
  );
}

function kernels(diff, { a, b }) {
  const pair = (key, label) =>
    [a, b].map((side, i) => ({
      key: `${"ab"[i]}_${key}`,
      label: `${label} ${side.title}`,
      title: per(diff.unit),
      numeric: true,
      format: key === "calls" ? count : duration,
    }));
  return panel(
    "Kernels",
    table({
      label: "kernels that changed",
      columns: [
        { key: "name", label: "kernel" },
        { key: "operator", label: "operator", brief: true },
        { key: "change", label: "change", brief: true, title: `added: only in ${b.title}; removed: only in ${a.title}` },
        ...pair("calls", "calls"),
        ...pair("device_us", "device"),
        { key: "difference_us", label: "difference", title: "device time", numeric: true, format: delta },
        ...pair("wait_us", "waited for"),
      ],
      rows: diff.kernels,
      search: true,
      csvName: "compare-kernels",
    }),
  );
}

function replaced(diff, { a, b }) {
  return panel(
    "Replaced: operators that stand in for others under the same call",
    table({
      label: "operators that stand in for others",
      columns: [
        { key: "phase", label: "phase", brief: true },
        { key: "under", label: "under", title: "the nearest operator or phase that both sides have" },
        { key: "removed", label: a.title, value: (row) => row.removed.join(", ") },
        { key: "added", label: b.title, value: (row) => row.added.join(", ") },
        { key: "a_self_us", label: `self ${a.title}`, numeric: true, format: duration },
        { key: "b_self_us", label: `self ${b.title}`, numeric: true, format: duration },
        { key: "difference_us", label: "difference", numeric: true, format: delta },
      ],
      rows: diff.replaced,
      csvName: "compare-replaced",
    }),
  );
}

function modules(diff, { a, b }) {
  const times = [a, b].flatMap((side, i) => [
    { key: `${"ab"[i]}_self_us`, label: `own ${side.title}`, numeric: true, format: duration },
    { key: `${"ab"[i]}_backward_us`, label: `backward ${side.title}`, numeric: true, format: duration },
  ]);
  return panel(
    "Modules, without their child modules",
    table({
      label: "modules",
      columns: [
        { key: "path", label: "module" },
        ...times,
        { key: "difference_us", label: "difference", title: "own and backward time", numeric: true, format: delta },
      ],
      rows: diff.modules,
      csvName: "compare-modules",
    }),
  );
}

/** The lines of the configuration and environment that differ between the records. */
function configs(records, { a, b }) {
  const missing = [a, b].filter((_, i) => !records[i]);
  if (missing.length) {
    const names = missing.map(({ title }) => title).join(" and ");
    return panel(
      "Configuration",
      message("empty", `${names}: no record.json, so the configurations cannot be compared.`),
    );
  }
  const [aLines, bLines] = records.map((record) => flat({ ...record.config, environment: record.environment }));
  const keys = [...new Set([...aLines.keys(), ...bLines.keys()])].filter((key) => aLines.get(key) !== bLines.get(key));
  const rows = keys.map((key) => ({ key, a: aLines.get(key) ?? "–", b: bLines.get(key) ?? "–" }));
  return panel(
    `Configuration: ${rows.length ? `${count(rows.length)} lines differ` : "no line differs"}`,
    table({
      label: "lines of the configuration that differ",
      columns: [
        { key: "key", label: "line" },
        { key: "a", label: a.title },
        { key: "b", label: b.title },
      ],
      rows,
      csvName: "compare-configuration",
    }),
  );
}

/** A map from dotted keys such as `model.width` to values as JSON. */
function flat(value, path = "", lines = new Map()) {
  if (value && typeof value === "object" && !Array.isArray(value)) {
    for (const [key, inner] of Object.entries(value)) flat(inner, path ? `${path}.${key}` : key, lines);
  } else {
    lines.set(path, typeof value === "string" ? value : JSON.stringify(value));
  }
  return lines;
}
