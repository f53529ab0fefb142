/** Work on devices: kernels and the operators that launched them, busy and idle time, copies. */

import { chart, escapeLabel, LEGEND, load, part, PARTS, rows, shorten } from "../chart.js";
import { el, message, panel } from "../dom.js";
import { axisUnit, count, duration, percent, size } from "../format.js";
import * as model from "../model.js";
import { color } from "../theme.js";
import { table } from "../table.js";
import { namer } from "../windows.js";

const LARGEST = 15; // kernels in the chart
const SHORT = 0.15; // share of a bar that is too short for its label
const LABEL_WIDTH = 130; // pixels right of the bars, for the label of a short idle time

export async function show(root, state) {
  const summary = await model.summary(state.selected);
  const { kernels, devices, copies, trace } = summary;
  root.append(...trace.notes.map((note) => message("partial", note)));
  if (!devices.length) {
    const hint = "Kernels, gaps and copies appear where the trace is of a GPU or another accelerator.";
    root.append(message("empty", "Nothing ran on a device: this trace is of the CPU.", hint));
    return;
  }
  load().catch(() => {}); // each chart shows the error
  const name = namer(summary, state, state.run);
  const used = devices.map((device) => ({ ...device, window: trace.files.length > 1 ? name(device.window) : "" }));
  const tables = [used.some(({ gaps: number }) => number) && gaps(used), copies.length > 0 && copied(copies)];
  root.append(busy(used, trace), el("div", { class: tables.every(Boolean) ? "columns" : "" }, ...tables));
  root.append(...(kernels.length ? [largest(kernels), all(kernels)] : []));
}

const title = ({ device, window }) => (window ? `${device}, ${window}` : device);

function busy(devices, trace) {
  const { unit, per: scale } = axisUnit(Math.max(...devices.map(({ span_us }) => span_us)));
  const labels = devices.map(({ busy_us, idle_us, span_us }) => {
    const label = (name, time_us) => `${name} ${duration(time_us)}, ${percent(time_us / span_us || 0)}`;
    const [busy, idle] = [label("busy", busy_us), label("idle", idle_us)];
    return busy_us < span_us * SHORT ? ["", `${busy}; ${idle}`] : [busy, idle];
  });
  const parts = () =>
    [
      ["busy", "busy_us", PARTS[0], "#ffffff"],
      ["idle", "idle_us", { color: color("level-fill") }, color("ink")],
    ].map(([name, key, marker, ink], i) =>
      part({
        name,
        x: devices.map((device) => device[key] / scale),
        text: labels.map((label) => label[i]),
        cliponaxis: false,
        marker,
        ink,
      }),
    );
  return panel(
    `Devices: ${trace.device_names.join(", ") || trace.device}`,
    el(
      "p",
      { class: "note" },
      "From the start of the first step to the end of the last one; work on several streams at once counts once as busy.",
    ),
    chart({
      data: parts,
      layout: {
        barmode: "stack",
        height: 40 * devices.length + 80,
        margin: { r: LABEL_WIDTH },
        xaxis: { title: { text: unit } },
        yaxis: rows(devices.map(title)),
        legend: LEGEND,
      },
      label: devices
        .map((device) => `${title(device)}: busy ${percent(device.busy_us / device.span_us || 0)}`)
        .join("; "),
      pngName: "devices",
    }),
    table({
      label: "devices",
      columns: [
        { key: "device", label: "device", brief: true, value: title },
        { key: "busy_us", label: "busy", numeric: true, format: duration },
        { key: "idle_us", label: "idle", numeric: true, format: duration },
        { key: "span_us", label: "steps", numeric: true, format: duration },
        { key: "work_us", label: "work", title: "the sum over all streams", numeric: true, format: duration },
        { key: "streams", label: "streams", numeric: true, format: count },
        { key: "gaps", label: "gaps", title: "stretches in which nothing ran", numeric: true, format: count },
      ],
      rows: devices,
      csvName: "devices",
    }),
  );
}

function gaps(devices) {
  return panel(
    "Longest gaps",
    table({
      label: "stretches in which a device ran nothing",
      columns: [
        { key: "device", label: "device", brief: true },
        { key: "start_us", label: "at", title: "since the window began", numeric: true, format: duration },
        { key: "idle_us", label: "idle", numeric: true, format: duration },
        { key: "before", label: "ended by", title: "the kernel that came next" },
      ],
      rows: devices.flatMap((device) => device.longest_gaps.map((gap) => ({ ...gap, device: title(device) }))),
      sort: { key: "idle_us", descending: true },
      csvName: "gaps",
    }),
  );
}

function copied(copies) {
  const names = {
    HtoD: "host to device",
    DtoH: "device to host",
    DtoD: "device to device",
    HtoH: "host to host",
    PtoP: "device to peer",
    set: "fill",
  };
  return panel(
    "Copies and fills",
    table({
      label: "copies by direction",
      columns: [
        { key: "direction", label: "direction", value: ({ direction }) => names[direction] ?? direction },
        { key: "calls", label: "calls", numeric: true, format: count },
        { key: "device_us", label: "time", numeric: true, format: duration },
        {
          key: "bytes",
          label: "bytes",
          title: "empty where the trace does not say",
          numeric: true,
          value: ({ bytes }) => bytes || null,
          format: size,
        },
      ],
      rows: copies,
      csvName: "copies",
    }),
  );
}

function largest(kernels) {
  const top = kernels.slice(0, LARGEST);
  const longest = Math.max(...top.map(({ device_us }) => device_us), 1e-3);
  const { unit, per: scale } = axisUnit(longest);
  return panel(
    top.length < kernels.length
      ? `The ${count(top.length)} longest of ${count(kernels.length)} kernels`
      : "Kernels by device time",
    chart({
      data: [
        {
          type: "bar",
          orientation: "h",
          y: top.map((_, row) => row),
          x: top.map(({ device_us }) => device_us / scale),
          text: top.map(({ device_us, operator }) => `${duration(device_us)}  ${escapeLabel(shorten(operator))}`),
          textposition: "outside",
          cliponaxis: false,
          hovertext: top.map(
            ({ name, operator, calls, device_us }) =>
              `${escapeLabel(shorten(name, 160))}<br>${duration(device_us)} in ${count(calls)} calls, ` +
              `launched by ${escapeLabel(shorten(operator, 80))}`,
          ),
          hoverinfo: "text",
          marker: PARTS[0],
        },
      ],
      layout: {
        height: 26 * top.length + 70,
        bargap: 0.3,
        xaxis: { title: { text: `${unit} on the device` }, range: [0, (longest / scale) * 1.5] },
        yaxis: rows(top.map(({ name }) => name)),
      },
      label: `Bars: ${top
        .slice(0, 3)
        .map(({ name, device_us }) => `${shorten(name)} ${duration(device_us)}`)
        .join(", ")}`,
      pngName: "kernels",
    }),
  );
}

function all(kernels) {
  const total = kernels.reduce((sum, { device_us }) => sum + device_us, 0);
  const known = (key) => kernels.some((row) => row[key] !== null);
  const optional = [
    {
      key: "occupancy_percent",
      label: "occupancy",
      title: "estimated achieved occupancy, the mean weighted by time",
      numeric: true,
      format: (value) => `${value.toFixed(0)} %`,
    },
    {
      key: "blocks_per_sm",
      label: "blocks per SM",
      numeric: true,
      format: (value) => count(Number(value.toPrecision(3))),
    },
    { key: "registers", label: "registers", title: "per thread", numeric: true, format: (value) => value.toFixed(0) },
  ];
  return panel(
    "All kernels",
    table({
      label: "kernels",
      columns: [
        { key: "name", label: "kernel" },
        { key: "operator", label: "launched by" },
        { key: "calls", label: "calls", numeric: true, format: count },
        { key: "device_us", label: "device time", numeric: true, format: duration },
        {
          key: "share",
          label: "share",
          title: "of all kernels' time",
          numeric: true,
          value: ({ device_us }) => (total ? device_us / total : null),
          format: percent,
        },
        ...optional.filter(({ key }) => known(key)),
      ],
      rows: kernels,
      search: true,
      csvName: "kernels",
    }),
  );
}
