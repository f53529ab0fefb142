/** The tree of nn.Module calls; it needs a trace with stacks. */

import { chart, escapeLabel, load } from "../chart.js";
import { el, message, panel } from "../dom.js";
import { count, duration, percent, size } from "../format.js";
import * as model from "../model.js";
import { color } from "../theme.js";
import { tree } from "../tree.js";

const LEVEL = 24; // height of a level of the icicle in pixels
const DEEPEST = 40; // levels that the icicle shows at once

export async function show(root, state) {
  const { modules, trace, events } = await model.summary(state.selected);
  root.append(...trace.notes.map((note) => message("partial", note)));
  if (!modules.length) {
    const stacks = events.python_function > 0;
    const text = stacks
      ? "This trace has stacks, but no nn.Module was called."
      : "This trace has no stacks: run with profiler=full.";
    root.append(message("empty", text, stacks ? "" : "With torch.profiler itself, pass `with_stack=True`."));
    return;
  }
  load().catch(() => {}); // the chart shows the error
  root.append(flames(modules, trace), table(modules, trace));
}

function flames(rows, trace) {
  const windows = trace.files.length > 1 ? `, all ${trace.files.length} windows together` : "";
  const total = rows.filter(({ depth }) => !depth).reduce((sum, { total_us }) => sum + total_us, 0);
  const longest = rows.reduce((most, { self_us }) => Math.max(most, self_us), 1e-3); // too many for arguments
  const deepest = rows.reduce((most, { depth }) => Math.max(most, depth), 0);
  const figure = () => ({
    data: [
      {
        type: "icicle",
        ids: rows.map((_, i) => `${i}`), // two modules may have the same path
        parents: rows.map(({ parent }) => (parent < 0 ? "" : `${parent}`)),
        labels: rows.map(({ name, total_us }) => `${escapeLabel(name)}  ${duration(total_us)}`),
        values: rows.map(({ self_us }) => self_us),
        branchvalues: "remainder",
        sort: false,
        maxdepth: DEEPEST + 1, // a click shows what is deeper
        tiling: { orientation: "v", pad: 1 },
        pathbar: { thickness: LEVEL },
        textposition: "middle left",
        hovertext: rows.map(
          (row) =>
            `${escapeLabel(row.path)}<br>${duration(row.total_us)}, ${percent(row.total_us / total || 0)}; ` +
            `own ${duration(row.self_us)}; backward ${duration(row.backward_us)}; ${count(row.calls)} calls`,
        ),
        hoverinfo: "text",
        marker: {
          colors: rows.map(({ self_us }) => self_us),
          colorscale: [
            [0, color("level-fill")],
            [1, "#3f8fd2"],
          ],
          cmin: 0,
          cmax: longest,
          line: { width: 0 },
          showscale: false,
        },
      },
    ],
    layout: {
      height: LEVEL * (Math.min(deepest, DEEPEST) + 2) + 30,
      margin: { l: 0, r: 0, t: 4, b: 4 },
      uniformtext: { minsize: 11, mode: "hide" },
    },
  });
  return panel(
    `Forward time by module${windows}`,
    el(
      "p",
      { class: "note" },
      "As wide as the time in the module and what it calls, the bluer the more of it is the module's own. " +
        "A click opens a part, a click on its top leads back.",
    ),
    chart({
      data: () => figure().data,
      layout: () => figure().layout,
      label: "Icicle of modules by forward time; the table below has the same figures",
      pngName: "modules",
    }),
  );
}

function table(rows, trace) {
  const total = rows.filter(({ depth }) => !depth).reduce((sum, { total_us }) => sum + total_us, 0);
  const device = rows.some(({ device_us }) => device_us);
  const allocated = rows.some(({ allocated_bytes }) => allocated_bytes);
  return panel(
    `Modules${trace.files.length > 1 ? `, all ${trace.files.length} windows together` : ""}`,
    tree({
      label: "modules",
      name: "module",
      columns: [
        { key: "calls", label: "calls", format: count },
        { key: "total_us", label: "total", title: "forward time with the child modules", format: duration },
        {
          key: "share",
          label: "share",
          title: "of the time in all modules",
          value: ({ total_us }) => (total ? total_us / total : null),
          format: percent,
        },
        { key: "self_us", label: "own", title: "forward time outside the child modules", format: duration },
        {
          key: "backward_us",
          label: "backward",
          title: "backward operators of the module's own forward operators",
          format: duration,
        },
        ...(device
          ? [{ key: "device_us", label: "device", title: "launched by its own forward operators", format: duration }]
          : []),
        ...(allocated
          ? [{ key: "allocated_bytes", label: "allocated", title: "by its own forward operators", format: size }]
          : []),
      ],
      rows,
      csvName: "modules",
    }),
  );
}
