/** The charts of a comparison as plotly figures, with the colors and texts of the HTML report. */

import { BARS, escapeLabel, LEGEND, rows } from "./chart.js";
import { axisUnit, change, duration, ratio } from "./format.js";
import { color } from "./theme.js";

const ROW = 34; // height of a row of bars in pixels
const FRAME = 74; // height of title, legend and axis together, in pixels
const CAUSES = 10; // largest causes with a bar each; one more bar sums the others
const FASTER = "#3f8fd2";
const SLOWER = "#d9772b";
const LEVEL = 34; // height of a level of the icicle in pixels: two lines of text

/** The normalization of the times, in words. @param {string} unit `sample`, `step` or `trace` */
export const per = (unit) => (unit === "trace" ? "in the whole trace" : `per ${unit}`);

/**
 * Bars: the time of each phase on both sides.
 * @param {{phase: string, a_us: number, b_us: number, ratio: number | null, hover: string}[]} phases
 */
export function phaseBars(phases, { a, b }, unit) {
  const longest = Math.max(0, ...phases.flatMap(({ a_us, b_us }) => [a_us, b_us]));
  const { unit: name, per: scale } = axisUnit(longest);
  const bars = [
    [a, "a_us", () => ""],
    [b, "b_us", (row) => (row.ratio === null ? "" : `  ${ratio(row.ratio)}`)],
  ].map(([side, key, suffix]) => ({
    type: "bar",
    orientation: "h",
    name: escapeLabel(side.title),
    y: phases.map((_, row) => row),
    x: phases.map((row) => row[key] / scale),
    text: phases.map((row) => duration(row[key]) + suffix(row)),
    textposition: "outside",
    cliponaxis: false,
    hovertext: phases.map(({ hover }) => hover),
    hoverinfo: "text",
    marker: BARS[side.look],
  }));
  return {
    data: bars,
    layout: {
      height: ROW * phases.length + FRAME,
      bargap: 0.25,
      xaxis: { title: { text: `${name} ${per(unit)}` }, range: [0, (longest / scale) * 1.6 || 1] },
      yaxis: rows(phases.map(({ phase }) => phase)),
      legend: LEGEND,
    },
  };
}

/** A waterfall: the largest causes, the sum of the others, the unattributed time, and the whole difference. */
export function waterfall(diff, { a, b }) {
  const total = (causes) => causes.reduce((sum, cause) => sum + cause.difference_us, 0);
  const [top, rest] = [diff.causes.slice(0, CAUSES), diff.causes.slice(CAUSES)];
  const place = ({ kind, phase }) => (kind === "operator" ? phase : `${phase}: ${kind}`);
  const bars = top.map((cause) => [cause.name, cause.difference_us, place(cause)]);
  if (rest.length) bars.push([`${rest.length.toLocaleString("en-US")} smaller causes`, total(rest)]);
  bars.push(["unattributed", diff.difference_us - total(diff.causes)], ["difference", diff.difference_us]);
  const { unit, per: scale } = axisUnit(Math.max(...bars.map(([, us]) => Math.abs(us))));
  const values = bars.map(([, us]) => us / scale);
  const texts = bars.map(([, us]) => delta(us));
  const names = rows(bars.map(([name]) => name));
  const above = (place) => (place ? `<i>${escapeLabel(place)}</i><br>` : "");
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
        hovertext: bars.map(([name, , place], row) => `${above(place)}${escapeLabel(name)}<br>${texts[row]}`),
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
      xaxis: {
        title: { text: escapeLabel(`${unit} ${per(diff.unit)}, ${b.title} - ${a.title}`) },
        range: room(values),
      },
      yaxis: { ...names, ticktext: names.ticktext.map((name, row) => above(bars[row][2]) + name) },
    },
  };
}

/** A difference in microseconds as text; rounding errors are shown as zero. */
export const delta = (us) => (Math.abs(us) < 1e-6 ? "0 µs" : change(us));

export const causeName = ({ kind, name }) => (kind === "operator" ? name : `${kind} ${name}`);

/** An axis range with space for texts beside the bars; the last of `values` is the sum of the others. */
function room(values) {
  let level = 0;
  const levels = [0, ...values.slice(0, -1).map((value) => (level += value))];
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const margin = 0.4 * (high - low) || 1;
  return [low - (values.some((value) => value < 0) ? margin : 0), high + margin];
}

/** The merged call tree of both sides: width is the time of both sides together, color the ratio of B to A. */
export function icicle({ tree, unit, a_us, b_us, difference_us }, { a, b }) {
  // Plotly needs a single root. Its time differs from the sum of the phases where several threads run at once.
  const nodes = [
    { parent: null, name: "all phases", a_us, b_us, difference_us },
    ...tree.map((node) => ({ ...node, parent: node.parent + 1 })),
  ];
  const own = nodes.map((node) => node.a_us + node.b_us);
  own[0] = 0;
  const depths = nodes.map(() => 0);
  nodes.forEach((node, i) => {
    if (!i) return;
    if (node.parent) own[node.parent] -= node.a_us + node.b_us;
    depths[i] = depths[node.parent] + 1;
  });
  const ratios = nodes.map((node) => times(node, a, b));
  const [aTitle, bTitle] = [a, b].map(({ title }) => escapeLabel(title));
  return {
    data: [
      {
        type: "icicle",
        ids: nodes.map((_, i) => `n${i}`),
        parents: nodes.map(({ parent }) => (parent === null ? "" : `n${parent}`)),
        labels: nodes.map(({ name }) => escapeLabel(name.split(/::|: /).pop())),
        text: ratios,
        textinfo: "label+text",
        values: own.map((us) => Math.max(us, 0)), // rounding errors may be negative
        branchvalues: "remainder",
        sort: false,
        tiling: { orientation: "v", pad: 1 },
        pathbar: { visible: false },
        textposition: "middle left",
        textfont: { size: 11 },
        hovertext: nodes.map((node, i) =>
          [
            escapeLabel(node.name),
            ratios[i],
            `${aTitle} ${duration(node.a_us)}, ${bTitle} ${duration(node.b_us)} ${per(unit)}`,
            delta(node.difference_us),
          ].join("<br>"),
        ),
        hoverinfo: "text",
        marker: {
          colors: nodes.map((node) => Math.max(-1, Math.min(1, Math.log2(node.b_us / node.a_us) || 0))),
          colorscale: [
            [0, "#2f7fc1"],
            [0.5, color("level-fill")],
            [1, SLOWER],
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
      height: LEVEL * Math.min(Math.max(...depths) + 1, 30) + 10,
      margin: { l: 0, r: 0, t: 4, b: 4 },
      uniformtext: { minsize: 10, mode: "hide" },
    },
  };
}

function times({ a_us, b_us }, a, b) {
  if (a_us && b_us) return ratio(b_us / a_us);
  return a_us || b_us ? `only ${escapeLabel(a_us ? a.title : b.title)}` : "";
}
