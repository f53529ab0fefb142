/** Verdicts as shape, color and words: the ladder reads without color. Shapes and colors are those of the HTML report. */

import { el, svg } from "./dom.js";

/** By verdict: the class that colors it (`--tone`), the shape around (0, 0), and plotly's name of nearly that shape. */
export const VERDICTS = {
  slower: { name: "slower", path: "M-4,-5L6,0L-4,5Z", symbol: "triangle-right" },
  faster: { name: "faster", path: "M4,-5L-6,0L4,5Z", symbol: "triangle-left" },
  "no detectable effect": {
    name: "no_effect",
    path: "M4.5,0A4.5,4.5 0 1 1 -4.5,0A4.5,4.5 0 1 1 4.5,0Z",
    symbol: "circle-open",
    open: true,
  },
  inconclusive: { name: "inconclusive", path: "M0,-5.5L5.5,0L0,5.5L-5.5,0Z", symbol: "diamond-open", open: true },
  "failed as predicted": { name: "failed", path: "M-4,-4L4,4M-4,4L4,-4", symbol: "x-thin-open" },
  failed: { name: "failed", path: "M-5.5,-5.5H5.5V5.5H-5.5ZM-3,-3L3,3M-3,3L3,-3", symbol: "square-x-open", open: true },
  "not applicable here": { name: "level", path: "M-5,0H5", symbol: "line-ew-open" },
};

const OUTCOMES = { confirmed: "✓", "refuted here": "✗", undecided: "?" };

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
  if (verdict === "not applicable here") return "";
  return el("span", { class: `outcome ${outcome.split(" ")[0]}` }, `${OUTCOMES[outcome]} ${outcome}`);
}
