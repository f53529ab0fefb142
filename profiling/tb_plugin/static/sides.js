/** The two sides of a comparison of runs: their order, titles and styles. */

import vocabulary from "../vocabulary.js";
import * as address from "./address.js";
import { el, message } from "./dom.js";

const [BASELINE, VARIANT] = vocabulary.arms;
const OFFERED = 12; // runs that are suggested for a comparison

/**
 * Side A is the reference, side B the selected run. Arms of one comparison have the names of the arms as titles.
 * @typedef {{run: string, selected: string, title: string, look: "baseline" | "variant"}} Side
 * @returns {{a: Side, b: Side, comparison: string | null} | null} `comparison`: the folder of the comparison of both
 */
export function sides(state) {
  if (!state.against) return null;
  const [reference, current] = [state.against, state.run].map((name) => state.runs.find(({ run }) => run === name));
  const stage = current.windows.find(({ file }) => file === state.window)?.stage;
  const match = stage && reference.windows.find((window) => window.stage === stage); // a window of the same stage
  const arms = reference.comparison !== null && reference.comparison === current.comparison;
  const side = (info, selected, letter, look) => ({
    run: info.run,
    selected,
    title: arms ? info.arm : letter,
    look: arms ? info.arm : look,
  });
  return {
    a: side(reference, match ? `${reference.run}/${match.file}` : reference.run, "A", BASELINE),
    b: side(current, state.selected, "B", VARIANT),
    comparison: arms ? reference.comparison : null,
  };
}

/** The run of the baseline if `run` is the variant of a comparison; otherwise "". @returns {string} */
export function baseline(run, runs) {
  const variant = runs.find((info) => info.run === run);
  if (!variant?.comparison || variant.arm === BASELINE) return "";
  return runs.find(({ comparison, arm }) => comparison === variant.comparison && arm === BASELINE)?.run ?? "";
}

/** The legend: the title of each side and a link to its run. */
export function legend({ a, b }) {
  const item = ({ run, title, look }) =>
    el(
      "span",
      { class: `side ${look}` },
      el("span", { class: "swatch", "aria-hidden": "true" }),
      el("b", null, title),
      " ",
      el(
        "a",
        { href: address.href({ view: "overview", run, against: "", window: "", q: "" }), target: "_parent" },
        run,
      ),
    );
  return el("p", { class: "sides" }, item(a), " ", item(b));
}

/** Suggestions of runs to compare with, shown while none is chosen. */
export function choose({ run, runs }) {
  const { comparison } = runs.find((info) => info.run === run);
  const sameComparison = (info) => Number(comparison !== null && info.comparison === comparison);
  const candidates = runs.filter((info) => info.run !== run).sort((a, b) => sameComparison(b) - sameComparison(a));
  if (!candidates.length) {
    return message(
      "empty",
      "There is only one run in this logdir.",
      "Make another, for example `python -m train +experiment=nograd_off`.",
    );
  }
  const links = candidates
    .slice(0, OFFERED)
    .map((info) =>
      el("li", null, el("a", { href: address.href({ against: info.run }), target: "_parent" }, info.run)),
    );
  return el(
    "div",
    null,
    message("empty", `Choose what to compare ${run} with: “Compare with” above, or one of these.`),
    el("ul", { class: "choose" }, ...links),
  );
}
