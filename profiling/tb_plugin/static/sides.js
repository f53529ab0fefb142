/** The two runs of a comparison: which is which, and what they are called. */

import vocabulary from "../vocabulary.js";
import * as address from "./address.js";
import { el, message } from "./dom.js";

const [BASELINE, VARIANT] = vocabulary.arms;
const OFFERED = 12; // runs that are named as something to compare with

/**
 * A is the reference, B the run that is looked at. Arms of one comparison are called by their names instead.
 * @typedef {{run: string, selected: string, title: string, look: "baseline" | "variant"}} Side
 * @returns {{a: Side, b: Side, comparison: string | null} | null} `comparison`: the folder of the A/B of both
 */
export function sides(state) {
  if (!state.against) return null;
  const [one, other] = [state.against, state.run].map((name) => state.runs.find(({ run }) => run === name));
  const stage = other.windows.find(({ file }) => file === state.window)?.stage;
  const alike = stage && one.windows.find((window) => window.stage === stage); // a window is compared with its like
  const arms = one.comparison !== null && one.comparison === other.comparison;
  const side = (found, selected, letter, look) => ({
    run: found.run,
    selected,
    title: arms ? found.arm : letter,
    look: arms ? found.arm : look,
  });
  return {
    a: side(one, alike ? `${one.run}/${alike.file}` : one.run, "A", BASELINE),
    b: side(other, state.selected, "B", VARIANT),
    comparison: arms ? one.comparison : null,
  };
}

/** The baseline of the comparison that a run is the variant of, "" if it is of none. @returns {string} */
export function baseline(run, runs) {
  const found = runs.find((other) => other.run === run);
  if (!found?.comparison || found.arm === BASELINE) return "";
  return runs.find(({ comparison, arm }) => comparison === found.comparison && arm === BASELINE)?.run ?? "";
}

/** Which run is which, with a link to each. */
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

/** What to choose where there is nothing to compare with. */
export function choose({ run, runs }) {
  const { comparison } = runs.find((other) => other.run === run);
  const near = (other) => Number(comparison !== null && other.comparison === comparison);
  const others = runs.filter((other) => other.run !== run).sort((one, other) => near(other) - near(one));
  if (!others.length) {
    return message(
      "empty",
      "There is only one run in this logdir.",
      "Make another, for example `python -m train +experiment=nograd_off`.",
    );
  }
  const links = others
    .slice(0, OFFERED)
    .map((other) =>
      el("li", null, el("a", { href: address.href({ against: other.run }), target: "_parent" }, other.run)),
    );
  return el(
    "div",
    null,
    message("empty", `Choose what to compare ${run} with: “Compare with” above, or one of these.`),
    el("ul", { class: "choose" }, ...links),
  );
}
