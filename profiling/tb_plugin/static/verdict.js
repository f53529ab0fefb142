/** Verdicts as shape, color and words: the ladder reads without color. Shapes and colors are those of the HTML report. */

import vocabulary from "../vocabulary.js"; // made by the server from profiling/vocabulary.py
import { el, svg } from "./dom.js";

/** By the name of a verdict: the class that colors it (`--tone`), and plotly's name of nearly its shape. */
const LOOKS = {
  slower: { name: "slower", symbol: "triangle-right" },
  faster: { name: "faster", symbol: "triangle-left" },
  no_effect: { name: "no_effect", symbol: "circle-open", open: true },
  inconclusive: { name: "inconclusive", symbol: "diamond-open", open: true },
  failed_as_predicted: { name: "failed", symbol: "x-thin-open" },
  failed: { name: "failed", symbol: "square-x-open", open: true },
  not_applicable: { name: "level", symbol: "line-ew-open" },
};

/** By verdict: its shape, an SVG path around (0, 0), and its look. */
export const VERDICTS = Object.fromEntries(
  Object.entries(vocabulary.verdicts).map(([verdict, { name, path }]) => [verdict, { path, ...LOOKS[name] }]),
);

const named = (name) => Object.keys(vocabulary.verdicts).find((verdict) => vocabulary.verdicts[verdict].name === name);
export const NOT_APPLICABLE = named("not_applicable");

/** The shape and the words of a verdict. @param {string} verdict @param {string} [text] the verdict spelled out */
export function verdictMark(verdict, text = verdict) {
  const { name, path, open } = VERDICTS[verdict];
  const shape = svg("path", { d: path, class: open ? "open" : null });
  return el(
    "span",
    { class: `verdict ${name}` },
    svg("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, shape),
    text,
  );
}

/** What became of the hypothesis; empty where the experiment does not apply. */
export function outcomeMark(outcome, verdict) {
  if (verdict === NOT_APPLICABLE) return "";
  return el("span", { class: `outcome ${outcome.split(" ")[0]}` }, `${vocabulary.outcomes[outcome]} ${outcome}`);
}
