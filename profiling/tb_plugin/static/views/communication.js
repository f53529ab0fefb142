/** Collectives: the time of each rank in them, the part that overlaps with computing, and stragglers. */

import { chart, LEGEND, load, part, PARTS, rows } from "../chart.js";
import { el, message, panel } from "../dom.js";
import { axisUnit, count, duration, percent, size } from "../format.js";
import * as model from "../model.js";
import { table } from "../table.js";

export async function show(root, state) {
  const { communication, trace } = await model.summary(state.selected);
  const { ranks, stragglers } = communication;
  root.append(...trace.notes.map((note) => message("partial", note)));
  if (!ranks.length) {
    const hint =
      "A job of several processes (torch.distributed) has them. " +
      "Put the traces of its ranks into one folder to see who waits for whom.";
    root.append(message("empty", "This trace has no collectives.", hint));
    return;
  }
  load().catch(() => {}); // the chart shows the error
  root.append(overlap(ranks), waiting(stragglers, trace), collectives(ranks));
}

function overlap(ranks) {
  const { unit, per: scale } = axisUnit(Math.max(...ranks.map(({ busy_us }) => busy_us)));
  const parts = () =>
    [
      ["hidden by computing", "overlapped_us", PARTS[0], "#ffffff"],
      ["exposed", "exposed_us", PARTS[1], "#1f2328"],
    ].map(([name, key, marker, ink]) =>
      part({
        name,
        x: ranks.map((rank) => rank[key] / scale),
        text: ranks.map((rank) => `${duration(rank[key])}, ${percent(rank[key] / rank.busy_us || 0)}`),
        hovertext: ranks.map((rank) => `rank ${rank.rank}: ${name} ${duration(rank[key])} of ${duration(rank.busy_us)}`),
        marker,
        ink,
      }),
    );
  return panel(
    "Collectives by rank",
    el(
      "p",
      { class: "note" },
      "Exposed is the time in which the device does nothing but communicate: what overlapping could still save.",
    ),
    chart({
      data: parts,
      layout: {
        barmode: "stack",
        height: 40 * ranks.length + 80,
        xaxis: { title: { text: unit } },
        yaxis: rows(ranks.map(({ rank }) => `rank ${rank}`)),
        legend: LEGEND,
      },
      label: ranks
        .map(
          (rank) => `rank ${rank.rank}: ${duration(rank.busy_us)} in collectives, ${duration(rank.exposed_us)} exposed`,
        )
        .join("; "),
      pngName: "communication",
    }),
  );
}

function waiting(stragglers, trace) {
  if (!stragglers.length) {
    const alone =
      "Only one rank is here, so nobody can be seen waiting: " +
      "put the traces of all ranks into one folder and choose all its windows.";
    const uneven = "The ranks ran no collective equally often, so their calls cannot be paired.";
    return panel("Who waits for whom", el("p", { class: "note" }, trace.ranks.length < 2 ? alone : uneven));
  }
  return panel(
    "Who waits for whom",
    el(
      "p",
      { class: "note" },
      "A collective ends everywhere at once: the rank that spends least time in it came last, " +
        "and the others waited for it.",
    ),
    table({
      label: "stragglers",
      columns: [
        { key: "collective", label: "collective" },
        { key: "calls", label: "calls", numeric: true, format: count },
        {
          key: "last_rank",
          label: "last",
          title: "the rank that came last most often",
          numeric: true,
          format: (rank) => `rank ${rank}`,
        },
        { key: "last_share", label: "how often", title: "share of the calls", numeric: true, format: percent },
        { key: "waited_us", label: "waited", title: "by all the others together", numeric: true, format: duration },
      ],
      rows: stragglers,
      csvName: "stragglers",
    }),
  );
}

function collectives(ranks) {
  return panel(
    "Collectives",
    table({
      label: "collectives of each rank",
      columns: [
        { key: "name", label: "collective" },
        { key: "rank", label: "rank", numeric: true },
        { key: "calls", label: "calls", numeric: true, format: count },
        { key: "total_us", label: "total", numeric: true, format: duration },
        {
          key: "bytes",
          label: "bytes",
          title: "empty where the trace does not say",
          numeric: true,
          value: ({ bytes }) => bytes || null,
          format: size,
        },
      ],
      rows: ranks.flatMap(({ rank, collectives: calls }) => calls.map((row) => ({ ...row, rank }))),
      search: true,
      csvName: "collectives",
    }),
  );
}
