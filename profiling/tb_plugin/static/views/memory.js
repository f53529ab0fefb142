/** Memory over time: the curve of each device, its peak, and the memory alive at the peak. */

import { chart, escapeLabel, LEGEND, LINES, load } from "../chart.js";
import { el, message, panel } from "../dom.js";
import { count, duration, percent, size } from "../format.js";
import * as model from "../model.js";
import { legend, sides } from "../sides.js";
import { table } from "../table.js";
import { namer } from "../windows.js";

const LOOKS = { ...LINES, alone: { color: "#3f8fd2", width: 1.5, shape: "hv" } };
const FIRST = 6; // charts shown before a click on "Show the other"
const BEFORE = "(before the window)";

export async function show(root, state) {
  const both = state.against ? sides(state) : null;
  const shown = both ? [both.a, both.b] : [{ run: state.run, selected: state.selected, title: "", look: "alone" }];
  load().catch(() => {}); // each chart shows the error
  const summaries = await Promise.all(shown.map(({ selected }) => model.summary(selected)));
  const devices = summaries.flatMap((summary, i) => {
    const name = namer(summary, state, shown[i].run);
    return summary.memory.map((device) => ({ ...device, side: shown[i], name: name(device.window) }));
  });
  if (both) root.append(legend(both));
  for (const note of summaries.flatMap(({ trace }) => trace.notes)) root.append(message("partial", note));
  if (!devices.length) {
    root.append(
      message(
        "empty",
        "This trace has no memory events.",
        "Run with `profiler=light` or `profiler=full`; with torch.profiler itself, pass `profile_memory=True`.",
      ),
    );
    return;
  }
  const parts = pairUp(devices).map((group) => () => part(group, both));
  root.append(...parts.slice(0, FIRST).map((create) => create()));
  const rest = parts.slice(FIRST);
  const more = (event) => event.target.replaceWith(...rest.map((create) => create()));
  if (rest.length)
    root.append(el("button", { type: "button", class: "more", onclick: more }, `Show the other ${rest.length}`));
  root.append(traffic(devices, both));
}

/** Group the curves of both sides by stage and device; without stages, by the order of the windows. */
function pairUp(devices) {
  const groups = new Map();
  const counts = new Map();
  for (const device of devices) {
    const named = devices.some(({ side, name }) => side !== device.side && name === device.name);
    const counter = `${device.side.title} ${device.device}`;
    const position = counts.get(counter) ?? 0;
    counts.set(counter, position + 1);
    const key = JSON.stringify([named ? device.name : position, device.device]);
    groups.set(key, [...(groups.get(key) ?? []), device]);
  }
  return [...groups.values()];
}

function part(group, both) {
  const [{ name, device }] = group;
  const title = `${name}, ${device}`;
  return el(
    "div",
    { class: "columns wide-left" },
    panel(
      `Memory, ${title}`,
      chart({
        ...curves(group),
        label: `Allocated memory over time: ${group.map(peakText).join("; ")}`,
        pngName: `memory-${name}-${device}`,
      }),
    ),
    panel(`Alive at the peak, ${title}`, alive(group, both)),
  );
}

const peakText = ({ side, peak_bytes, peak_time_us }) =>
  `${side.title} peak ${size(peak_bytes)} at ${duration(peak_time_us)}`.trim();

function curves(group) {
  const highest = Math.max(...group.map(({ peak_bytes }) => peak_bytes), 1);
  const lowest = Math.min(0, ...group.flatMap(({ curve }) => curve.bytes)); // may be negative: relative to the start
  const power = Math.min(3, Math.floor(Math.log2(highest) / 10));
  const [unit, scale] = [["B", "KiB", "MiB", "GiB"][power], 1024 ** power];
  const lines = group.map(({ side, curve, device, peak_bytes }) => ({
    type: "scatter",
    mode: "lines",
    name: escapeLabel(`${side.title || device}, peak ${size(peak_bytes)}`),
    x: curve.time_us.map((us) => us / 1e3),
    y: curve.bytes.map((bytes) => bytes / scale),
    text: curve.bytes.map(
      (bytes, i) => `${escapeLabel(side.title || device)}: ${size(bytes)} at ${duration(curve.time_us[i])}`,
    ),
    hoverinfo: "text",
    line: LOOKS[side.look],
    fill: group.length === 1 ? "tozeroy" : "none",
    fillcolor: "rgb(63 143 210 / .2)",
  }));
  const peaks = group.map(({ side, peak_bytes, peak_time_us }) => ({
    type: "scatter",
    mode: group.length > 1 ? "markers" : "markers+text",
    x: [peak_time_us / 1e3],
    y: [peak_bytes / scale],
    text: [`peak ${size(peak_bytes)}`],
    textposition: "top center",
    cliponaxis: false,
    hoverinfo: "skip",
    showlegend: false,
    marker: { symbol: "diamond", size: 9, color: LOOKS[side.look].color },
  }));
  return {
    data: [...lines, ...peaks],
    layout: {
      height: 300,
      showlegend: group.length > 1,
      legend: LEGEND,
      xaxis: { title: { text: "ms since the window began" }, rangemode: "tozero" },
      yaxis: { title: { text: unit }, rangemode: "tozero", range: [lowest / scale, (highest / scale) * 1.15] },
    },
  };
}

/** The table of memory alive at the peak, by operator and phase, with a column for each side. */
function alive(group, both) {
  const rows = new Map();
  for (const { side, alive_at_peak, before_bytes } of group) {
    const entries = before_bytes
      ? [...alive_at_peak, { operator: BEFORE, phase: "", bytes: before_bytes, allocations: null }]
      : alive_at_peak;
    for (const { operator, phase, bytes, allocations } of entries) {
      const key = JSON.stringify([operator, phase]);
      const row = rows.get(key) ?? { operator, phase };
      rows.set(key, { ...row, [`${side.look}_bytes`]: bytes, [`${side.look}_count`]: allocations });
    }
  }
  const [{ peak_bytes, side: first }] = group;
  const single = [
    {
      key: "share",
      label: "of the peak",
      numeric: true,
      value: (row) => row[`${first.look}_bytes`] / peak_bytes,
      format: percent,
    },
    { key: `${first.look}_count`, label: "count", title: "allocations", numeric: true, format: count },
  ];
  const columns = [
    ...group.map(({ side }) => ({
      key: `${side.look}_bytes`,
      label: side.title || "bytes",
      numeric: true,
      format: size,
    })),
    ...(both ? [] : single),
  ];
  return table({
    label: "memory alive at the peak",
    columns: [{ key: "operator", label: "operator" }, { key: "phase", label: "phase", brief: true }, ...columns],
    rows: [...rows.values()],
    sort: { key: `${group.at(-1).side.look}_bytes`, descending: true },
    csvName: `alive-at-peak-${group[0].name}-${group[0].device}`,
  });
}

/** The table of allocations and frees of each device. */
function traffic(devices, both) {
  return panel(
    "Traffic",
    table({
      label: "what each device's allocator did",
      columns: [
        ...(both ? [{ key: "side", label: "run", brief: true, value: ({ side }) => side.title }] : []),
        { key: "name", label: "window" },
        { key: "device", label: "device", brief: true },
        { key: "peak_bytes", label: "peak", numeric: true, format: size },
        { key: "peak_time_us", label: "at", title: "since the window began", numeric: true, format: duration },
        {
          key: "reserved_peak_bytes",
          label: "reserved",
          title: "the most that the allocator held from the device",
          numeric: true,
          value: ({ reserved_peak_bytes }) => reserved_peak_bytes || null,
          format: size,
        },
        { key: "start_bytes", label: "at the start", numeric: true, format: size },
        { key: "allocated_bytes", label: "allocated", title: "in all", numeric: true, format: size },
        { key: "allocations", label: "allocations", numeric: true, format: count },
        { key: "freed_bytes", label: "freed", numeric: true, format: size },
        { key: "frees", label: "frees", numeric: true, format: count },
      ],
      rows: devices,
      csvName: "memory-traffic",
    }),
  );
}
