/** The charts of a comparison, as plotly figures. The look and the words are those of the HTML report. */

import { BARS, escapeLabel, LEGEND, rows } from "./chart.js";
import { change, duration, ratio } from "./format.js";
import { color } from "./theme.js";

const ROW = 34; // pixels: a row of bars
const FRAME = 74; // title, legend and axis around them
const CAUSES = 10; // bars of a waterfall; the rest is one bar
const FASTER = "#3f8fd2";
const SLOWER = "#d9772b";
const LEVEL = 22; // pixels: a level of the icicle

/** What the figures are divided by, in words. @param {string} unit `sample`, `step` or `trace` */
export const per = (unit) => (unit === "trace" ? "in the whole trace" : `per ${unit}`);

/** Time of each phase, both sides. @param {{phase: string, a_us: number, b_us: number, hover: string}[]} phases */
export function phaseBars(phases, { a, b }, unit) {
  const bars = [
    [a, "a_us", () => ""],
    [b, "b_us", ({ a_us, b_us }) => (a_us ? `  ${ratio(b_us / a_us)}` : "")],
  ].map(([side, key, beside]) => ({
    type: "bar",
    orientation: "h",
    name: escapeLabel(side.title),
    y: phases.map((_, row) => row),
    x: phases.map((row) => row[key]),
    text: phases.map((row) => duration(row[key]) + beside(row)),
    textposition: "outside",
    cliponaxis: false,
    hovertext: phases.map(({ hover }) => hover),
    hoverinfo: "text",
    marker: BARS[side.look],
  }));
  const longest = Math.max(0, ...phases.flatMap(({ a_us, b_us }) => [a_us, b_us]));
  return {
    data: bars,
    layout: {
      height: ROW * phases.length + FRAME,
      bargap: 0.25,
      xaxis: { title: { text: `µs ${per(unit)}` }, range: [0, longest * 1.6 || 1] },
      yaxis: rows(phases.map(({ phase }) => phase)),
      legend: LEGEND,
    },
  };
}

/** What the difference is made of: the largest causes, the rest, what is unattributed, and their sum. */
export function waterfall(diff, { a, b }) {
  const total = (causes) => causes.reduce((sum, cause) => sum + cause.difference_us, 0);
  const [top, rest] = [diff.causes.slice(0, CAUSES), diff.causes.slice(CAUSES)];
  const bars = top.map((cause) => [`${causeName(cause)}, ${cause.phase}`, cause.difference_us]);
  if (rest.length) bars.push([`${rest.length.toLocaleString("en-US")} smaller causes`, total(rest)]);
  bars.push(["unattributed", diff.difference_us - total(diff.causes)], ["difference", diff.difference_us]);
  const values = bars.map(([, value]) => value);
  const texts = values.map(change);
  return {
    data: [
      {
        type: "waterfall",
        orientation: "h",
        y: bars.map((_, row) => row),
        x: values,
        measure: bars.map((_, row) => (row < bars.length - 1 ? "relative" : "total")),
        text: texts,
        textposition: "outside",
        cliponaxis: false,
        hovertext: bars.map(([name], row) => `${escapeLabel(name)}<br>${texts[row]}`),
        hoverinfo: "text",
        increasing: { marker: { color: SLOWER } },
        decreasing: { marker: { color: FASTER } },
        totals: { marker: { color: "#7a8a9e" } },
        connector: { line: { color: "#7a8a9e", width: 0.5 } },
      },
    ],
    layout: {
      height: ROW * bars.length + FRAME,
      bargap: 0.35,
      xaxis: { title: { text: escapeLabel(`µs ${per(diff.unit)}, ${b.title} - ${a.title}`) }, range: room(values) },
      yaxis: rows(bars.map(([name]) => name)),
    },
  };
}

export const causeName = ({ kind, name }) => (kind === "operator" ? name : `${kind} ${name}`);

/** Leave room for texts beside the bars of a waterfall, whose last value is the sum of the others. */
function room(values) {
  let level = 0;
  const levels = [0, ...values.slice(0, -1).map((value) => (level += value))];
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const margin = 0.4 * (high - low) || 1;
  return [low - (low < 0 ? margin : 0), high + margin];
}

/**
 * The call trees of both sides as one: as wide as both together, colored by how much longer or shorter B is.
 * @param {{parent: number, name: string, a_us: number, b_us: number, difference_us: number}[]} tree
 */
export function icicle(tree, { a, b }, unit) {
  const own = tree.map(({ a_us, b_us }) => a_us + b_us);
  const depths = tree.map(() => 0);
  tree.forEach(({ parent, a_us, b_us }, node) => {
    if (parent < 0) return;
    own[parent] -= a_us + b_us;
    depths[node] = depths[parent] + 1;
  });
  const labels = tree.map((node) => `${escapeLabel(node.name)}  ${times(node, a, b)}`);
  const logs = tree.map(({ a_us, b_us }) => Math.max(-1, Math.min(1, Math.log2(b_us / a_us) || 0)));
  return {
    data: [
      {
        type: "icicle",
        ids: tree.map((_, node) => `n${node}`),
        parents: tree.map(({ parent }) => (parent < 0 ? "" : `n${parent}`)),
        labels,
        values: own.map((us) => Math.max(us, 0)), // rounding may leave a little less than nothing
        branchvalues: "remainder",
        sort: false,
        tiling: { orientation: "v", pad: 1 },
        pathbar: { thickness: LEVEL },
        textposition: "middle left",
        hovertext: tree.map(
          (node, i) =>
            `${labels[i]}<br>${escapeLabel(a.title)} ${duration(node.a_us)}, ${escapeLabel(b.title)} ` +
            `${duration(node.b_us)} ${per(unit)}<br>${change(node.difference_us)}`,
        ),
        hoverinfo: "text",
        marker: {
          colors: logs,
          colorscale: [
            [0, "#2f7fc1"],
            [0.5, color("level-fill")],
            [1, "#d9772b"],
          ],
          cmin: -1,
          cmax: 1,
          line: { width: 0 },
          showscale: true,
          colorbar: {
            tickvals: [-1, -0.5, 0, 0.5, 1],
            ticktext: ["×0.5 or less", "×0.71", "×1", "×1.41", "×2 or more"],
            thickness: 10,
            outlinewidth: 0,
          },
        },
      },
    ],
    layout: {
      height: LEVEL * Math.min(Math.max(...depths, 1) + 2, 30) + 60,
      margin: { l: 0, r: 0, t: 4, b: 4 },
      uniformtext: { minsize: 11, mode: "hide" },
    },
  };
}

function times({ a_us, b_us }, a, b) {
  if (a_us && b_us) return ratio(b_us / a_us);
  return a_us || b_us ? `only ${escapeLabel(a_us ? a.title : b.title)}` : "";
}
