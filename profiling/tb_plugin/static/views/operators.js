/** Operators: calls, times, input shapes, call stacks, device time and allocated memory. */

import * as address from "../address.js";
import { chart, escapeLabel, LEGEND, load, part, PARTS, rows as rowsAxis, shorten } from "../chart.js";
import { el, message, panel, prose } from "../dom.js";
import { axisUnit, count, duration, flops, percent, size } from "../format.js";
import * as model from "../model.js";
import { table } from "../table.js";

const GROUPS = { "": "operator", shape: "input shapes", stack: "call stack" };
const SHOWN = 20; // bars of the chart
const MAX_LABEL = 68; // characters of a label beside a bar

export async function show(root, { selected, by }) {
  load();
  const group = by in GROUPS ? by : "";
  const { operators, devices, memory } = await model.summary(selected, group);
  root.append(choice(group));
  if (!operators.length) {
    root.append(
      message("empty", "This trace has no operators.", "Record the CPU too: `activities=[ProfilerActivity.CPU, …]`."),
    );
    return;
  }
  const lacks = lacking(group, operators);
  if (lacks) root.append(lacks);
  const total = operators.reduce((sum, row) => sum + row.self_us, 0);
  const has = {
    shapes: group === "shape" && !lacks,
    stacks: group === "stack" && !lacks,
    device: devices.length > 0,
    memory: memory.length > 0,
    flops: operators.some((row) => row.flops),
  };
  root.append(top(operators, total), panel("Operators", missing(has), list(operators, total, has)));
}

function choice(group) {
  const options = Object.entries(GROUPS).map(([value, name]) =>
    el("option", { value, selected: value === group }, name),
  );
  const select = el("select", { onchange: () => address.set({ by: select.value }) }, ...options);
  return el("div", { class: "filters" }, el("label", null, el("span", null, "Group by"), select));
}

/** A message if the trace lacks the shapes or stacks to group by; otherwise null. */
function lacking(group, operators) {
  if (group === "shape" && !operators.some(({ shapes }) => shapes)) {
    return message(
      "empty",
      "This trace has no input shapes.",
      "Record them with `record_shapes=True`; `python -m train` does.",
    );
  }
  if (group === "stack" && !operators.some(({ stack }) => stack)) {
    return message(
      "empty",
      "This trace has no stacks.",
      "Record them with `python -m train profiler=full`, or with `with_stack=True`.",
    );
  }
  return null;
}

function top(operators, total) {
  const shown = operators.slice(0, SHOWN); // the server sorts them by self time, largest first
  const onlyDevice = ({ self_us, device_us }) => (self_us ? 0 : device_us); // work that no operator launched
  const most = Math.max(...shown.map((row) => row.self_us || row.device_us));
  const { unit, per } = axisUnit(most);
  const bars = [
    ["self time", ({ self_us }) => self_us, (us) => `${duration(us)}, ${percent(us / total)}`, PARTS[0]],
    ["on the device, not launched by an operator", onlyDevice, duration, PARTS[2]],
  ].filter(([, of]) => shown.some(of));
  const data = () =>
    bars.map(([name, of, text, marker]) =>
      part({
        name,
        x: shown.map((row) => of(row) / per),
        text: shown.map((row) => text(of(row))),
        textposition: "outside",
        cliponaxis: false,
        hovertext: shown.map((row) =>
          [row.name, row.shapes, row.stack]
            .filter(Boolean)
            .map((text) => escapeLabel(shorten(text, 120)))
            .join("<br>"),
        ),
        marker,
      }),
    );
  const layout = {
    height: 24 * shown.length + 80,
    bargap: 0.3,
    barmode: "overlay",
    legend: LEGEND,
    showlegend: shown.some(onlyDevice),
    xaxis: { title: { text: unit }, range: [0, (most / per) * 1.2 || 1] },
    yaxis: rowsAxis(shown.map(label), MAX_LABEL),
  };
  const title = operators.length > SHOWN ? `Self time: the first ${SHOWN} of ${count(operators.length)}` : "Self time";
  return panel(title, chart({ data, layout, label: "Operators by self time", pngName: "operators" }));
}

/** The name of an operator and its shapes or call site, each shortened so that both are readable. */
function label({ name, shapes, stack }) {
  const detail = shapes || stack?.split("\n")[0].split(/[/\\]/).at(-1);
  return detail ? `${shorten(name, 30)}, ${shorten(detail, 36)}` : name;
}

/** A note about values that the trace lacks, and how to record them; false if it lacks none. */
function missing({ memory, flops }) {
  const lines = [
    !memory && "Memory was not recorded: record it with `profile_memory=True`.",
    !flops && "FLOPs are not in this trace: torch 2.14 leaves them out of the file, also with `with_flops=True`.",
  ].filter(Boolean);
  return lines.length > 0 && el("p", { class: "note" }, ...prose(lines.join(" ")));
}

function list(operators, total, has) {
  const share = ({ self_us }) => (total ? self_us / total : 0);
  const columns = [
    { key: "name", label: "operator" },
    has.shapes && { key: "shapes", label: "input shapes" },
    has.stacks && { key: "stack", label: "called from", format: (stack) => stack.replaceAll("\n", " ← ") },
    { key: "calls", label: "calls", format: count },
    { key: "self_us", label: "self", title: "time outside the operators that it calls", format: duration },
    { key: "share", label: "share", title: "of the self time of all operators", value: share, format: percent },
    { key: "total_us", label: "total", title: "with the operators that it calls", format: duration },
    has.device && {
      key: "device_us",
      label: "device",
      title: "on the device, in work that it launched itself",
      format: duration,
    },
    has.memory && { key: "allocated_bytes", label: "allocated", title: "what it allocated itself", format: size },
    has.flops && {
      key: "flops",
      label: "FLOPs",
      title: "floating-point operations, where the profiler knows them",
      format: flops,
    },
  ].filter(Boolean);
  const texts = ["name", "shapes", "stack"];
  return table({
    columns: columns.map((column) => ({ ...column, numeric: !texts.includes(column.key) })),
    rows: operators,
    search: true,
    csvName: "operators",
    label: "Operators",
  });
}
