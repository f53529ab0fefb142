/** Collectives: the time of each rank in them, the part that overlaps with computing, and stragglers by group. */

import * as address from "../address.js";
import { chart, LEGEND, load, part, PARTS, rows } from "../chart.js";
import { el, message, panel } from "../dom.js";
import { axisUnit, count, duration, percent, size } from "../format.js";
import * as model from "../model.js";
import { table } from "../table.js";

const NO_GROUP = "not recorded";

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
  const groups = [...new Set(ranks.flatMap(({ collectives }) => collectives.map(groupOf)))];
  const chosen = groups.includes(state.group) ? state.group : "";
  const shown = (row) => !chosen || groupOf(row) === chosen;
  const late = stragglers.filter(shown);
  root.append(
    overlap(ranks),
    ...(groups.length > 1 ? [choice(groups, chosen)] : []),
    waiting(late, trace, stragglers.length > 0),
    collectives(ranks.map((rank) => ({ ...rank, collectives: rank.collectives.filter(shown) }))),
  );
}

/** The label of a process group: its name and ranks, as several groups may have one name. */
function groupOf({ group, group_ranks: ranks }) {
  return [group, ranks].filter(Boolean).join(" ") || NO_GROUP;
}

function choice(groups, chosen) {
  const options = [["", `all ${groups.length} groups`], ...groups.map((group) => [group, group])];
  const select = el(
    "select",
    { onchange: () => address.set({ group: select.value }) },
    ...options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );
  return el("div", { class: "filters" }, el("label", null, el("span", null, "Process group"), select));
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

function waiting(stragglers, trace, elsewhere) {
  if (!stragglers.length) {
    const alone =
      "Only one rank is here, so nobody can be seen waiting: " +
      "put the traces of all ranks into one folder and choose all its windows.";
    const none = elsewhere
      ? "No collective of this group could be compared between its ranks; a note above says why."
      : "No collective could be compared between ranks; a note above says why.";
    return panel("Who waits for whom", el("p", { class: "note" }, trace.ranks.length < 2 ? alone : none));
  }
  return panel(
    "Who waits for whom",
    el(
      "p",
      { class: "note" },
      "A collective ends on all ranks of its group at once: the rank that spends least time in it came last, " +
        "and the others of the group waited for it.",
    ),
    table({
      label: "stragglers",
      columns: [
        { key: "collective", label: "collective" },
        { key: "process_group", label: "group", title: "name and ranks of the process group", value: groupOf },
        { key: "compared", label: "compared", title: "the ranks that were compared", brief: true, value: compared },
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

function compared({ ranks, group_size: size }) {
  const missing = size > ranks.length ? ` of ${count(size)}` : "";
  return ranks.length > 8 || missing ? `${count(ranks.length)}${missing} ranks` : `ranks ${ranks.join(", ")}`;
}

function collectives(ranks) {
  return panel(
    "Collectives",
    table({
      label: "collectives of each rank",
      columns: [
        { key: "name", label: "collective" },
        { key: "process_group", label: "group", title: "name and ranks of the process group", value: groupOf },
        { key: "rank", label: "rank", numeric: true },
        { key: "calls", label: "calls", numeric: true, format: count },
        { key: "total_us", label: "total", numeric: true, format: duration },
        {
          key: "bytes",
          label: "bytes",
          title: "of the messages that the rank puts in",
          numeric: true,
          format: size,
          missing: "unknown",
        },
      ],
      rows: ranks.flatMap(({ rank, collectives: calls }) => calls.map((row) => ({ ...row, rank }))),
      search: true,
      csvName: "collectives",
    }),
  );
}
