/** The ladder as a forest plot: each effect with its interval, its noise floor and its verdict in words. */

import { escapeLabel, shorten } from "./chart.js";
import { interval, ratio } from "./format.js";
import { color } from "./theme.js";
import { VERDICTS } from "./verdict.js";

const FARTHEST = 3; // an arrow at the edge stands for ratios beyond this or its inverse: small effects stay visible
const TICKS = [1, 2, 0.5, 3, 1.5, 0.7, 1.2, 0.8, 1.1, 0.9, 1.05, 0.95]; // most important first
const MIN_TICK_DISTANCE = 0.055; // as a fraction of the axis
const ROW = 22; // height in pixels

/** The effect in the declared phase; undefined if it was not measured. */
export const declared = ({ phases, hypothesis }) => phases.find(({ phase }) => phase === hypothesis.phase);

/**
 * The figure for `chart`.
 * @param {object[]} effects rows of `effects --json`
 */
export function ladder(effects) {
  const lines = grouped(effects);
  const measured = lines.filter(({ effect }) => effect);
  const [low, high] = extent(measured.map(({ effect }) => effect));
  return {
    data: () => [
      ...Object.entries(VERDICTS).flatMap(([verdict, look]) => [
        ...intervals(
          measured.filter(({ row }) => row.verdict === verdict),
          look,
          low,
          high,
        ),
        ...words(
          lines.filter(({ row }) => row?.verdict === verdict),
          look,
        ),
      ]),
      ratios(measured),
    ],
    layout: () => ({
      height: ROW * lines.length + 74,
      showlegend: false,
      hovermode: "closest",
      hoverdistance: 30,
      margin: { t: 26, b: 48, l: 60, r: 10 },
      xaxis: {
        ...ticks(low, high),
        type: "log",
        domain: [0, 0.66],
        range: [Math.log10(low), Math.log10(high)],
        zeroline: false,
        fixedrange: true,
        title: {
          text: "time per sample in the declared phase, variant ÷ baseline; shaded: what identical code shows here",
        },
      },
      xaxis2: { domain: [0.67, 1], range: [0, 1], visible: false, fixedrange: true },
      yaxis: {
        tickvals: lines.map((_, y) => y),
        ticktext: lines.map(({ row, topic }) =>
          row ? escapeLabel(shorten(row.title)) : `<b>${escapeLabel(topic)}</b>`,
        ),
        range: [lines.length - 0.4, -0.6],
        showgrid: false,
        zeroline: false,
        fixedrange: true,
      },
      shapes: [
        {
          type: "line",
          x0: 1,
          x1: 1,
          yref: "paper",
          y0: 0,
          y1: 1,
          line: { color: color("muted"), width: 1 },
          layer: "below",
        },
        ...measured.map(({ y, effect }) => floor(y, effect, low, high)),
        ...measured.flatMap(({ y, effect }) => arrows(y, effect, low, high)),
      ],
      annotations: [
        { text: "← variant faster", x: 0, xanchor: "left" },
        { text: "variant slower →", x: 0.66, xanchor: "right" },
      ].map((note) => ({
        ...note,
        xref: "paper",
        y: 1,
        yref: "paper",
        yanchor: "bottom",
        showarrow: false,
        font: { size: 11, color: color("muted") },
      })),
    }),
  };
}

/** A line for each topic and for each of its effects, in the order of the report. */
function grouped(effects) {
  const topics = [...new Set(effects.map(({ topic }) => topic))].sort();
  const lines = topics.flatMap((topic) => [
    { topic },
    ...effects.filter((row) => row.topic === topic).map((row) => ({ row, effect: declared(row) })),
  ]);
  return lines.map((line, y) => ({ ...line, y }));
}

/** The range of an axis that covers all effects up to FARTHEST. */
function extent(effects) {
  const ends = effects.flatMap(({ ratio_low, ratio_high, floor_ratio }) => [
    ratio_low,
    ratio_high,
    floor_ratio,
    1 / floor_ratio,
  ]);
  return [
    Math.max(Math.min(0.9, ...ends.map((end) => end * 0.97)), 1 / FARTHEST),
    Math.min(Math.max(1.1, ...ends.map((end) => end * 1.03)), FARTHEST),
  ];
}

function ticks(low, high) {
  const at = (value) => Math.log(value / low) / Math.log(high / low);
  const shown = [];
  for (const tick of TICKS) {
    const fits = shown.every((drawn) => Math.abs(at(tick) - at(drawn)) >= MIN_TICK_DISTANCE);
    if (tick >= low && tick <= high && fits) shown.push(tick);
  }
  return { tickvals: shown, ticktext: shown.map((tick) => `×${tick}`) };
}

const within = (value, low, high) => Math.min(Math.max(value, low), high);

function intervals(lines, look, low, high) {
  if (!lines.length) return [];
  const tone = color(look.name);
  const x = lines.map(({ effect }) => within(effect.ratio, low, high));
  return [
    {
      type: "scatter",
      mode: "markers",
      x,
      y: lines.map(({ y }) => y),
      error_x: {
        type: "data",
        symmetric: false,
        array: lines.map(({ effect }, i) => within(effect.ratio_high, low, high) - x[i]),
        arrayminus: lines.map(({ effect }, i) => x[i] - within(effect.ratio_low, low, high)),
        color: tone,
        thickness: 1.75,
        width: 3,
      },
      marker: { symbol: look.symbol, size: 10, color: tone, line: { color: tone, width: 1.75 } },
      customdata: lines.map(({ row }) => row),
      hovertext: lines.map(hover),
      hoverinfo: "text",
      cliponaxis: false,
    },
  ];
}

/** The verdict beside each line: mark and text. */
function words(lines, look) {
  if (!lines.length) return [];
  const tone = color(look.name);
  return [
    {
      type: "scatter",
      mode: "markers+text",
      x: lines.map(() => 0.2),
      y: lines.map(({ y }) => y),
      xaxis: "x2",
      text: lines.map(({ row }) => `  ${escapeLabel(row.verdict_text)}`),
      textposition: "middle right",
      textfont: { color: tone },
      marker: { symbol: look.symbol, size: 9, color: tone, line: { color: tone, width: 1.75 } },
      customdata: lines.map(({ row }) => row),
      hovertext: lines.map(hover),
      hoverinfo: "text",
    },
  ];
}

function ratios(lines) {
  return {
    type: "scatter",
    mode: "text",
    x: lines.map(() => 0.17),
    y: lines.map(({ y }) => y),
    xaxis: "x2",
    text: lines.map(({ effect }) => ratio(effect.ratio)),
    textposition: "middle left",
    hoverinfo: "skip",
  };
}

function hover({ row, effect }) {
  const figures =
    effect && `${ratio(effect.ratio)}, 95 % interval ${interval(effect)}, noise floor ${ratio(effect.floor_ratio)}`;
  const { claim, phase } = row.hypothesis;
  return [
    `<b>${escapeLabel(row.title)}</b>`,
    escapeLabel(shorten(claim, 110)),
    `${escapeLabel(phase)}: ${escapeLabel(row.verdict_text)}`,
    figures,
  ]
    .filter(Boolean)
    .join("<br>");
}

function floor(y, { floor_ratio }, low, high) {
  return {
    type: "rect",
    x0: within(1 / floor_ratio, low, high),
    x1: within(floor_ratio, low, high),
    y0: y - 0.44,
    y1: y + 0.44,
    fillcolor: color("floor"),
    line: { width: 0 },
    layer: "below",
  };
}

/** Arrows where the interval extends beyond the axis. */
function arrows(y, { ratio_low, ratio_high }, low, high) {
  const arrow = (at, way) => ({
    type: "path",
    path: `M0,-4L${6 * way},0L0,4`,
    xsizemode: "pixel",
    ysizemode: "pixel",
    xanchor: at,
    yanchor: y,
    line: { color: color("ink"), width: 1.5 },
  });
  return [...(ratio_high > high ? [arrow(high, 1)] : []), ...(ratio_low < low ? [arrow(low, -1)] : [])];
}
