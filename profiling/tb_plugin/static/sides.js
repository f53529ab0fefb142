/** The two sides of a comparison of runs. */

import * as address from "./address.js";
import { el, message } from "./dom.js";

const OFFERED = 12; // runs that are suggested for a comparison

const named = (name, runs) => runs.find(({ run }) => run === name);

/** The run, or its window of the same stage, with which the selected run or window is compared. @returns {string} */
export function reference({ run, window, against, runs }) {
  const stage = named(run, runs).windows.find(({ file }) => file === window)?.stage;
  const match = stage && named(against, runs).windows.find((other) => other.stage === stage);
  return match ? `${against}/${match.file}` : against;
}

/** The folder of the comparison of both runs; null if there is none. @returns {string | null} */
export function comparison({ run, against, runs }) {
  const folder = named(run, runs).comparison;
  return folder === named(against, runs).comparison ? folder : null;
}

/**
 * The run with which `run` is compared unless the user chooses: the baseline of its comparison, else the newest
 * baseline outside of comparisons; "" if there is none, or `run` is a baseline itself. @returns {string}
 */
export function baseline(run, runs) {
  const variant = named(run, runs);
  const isBaseline = ({ arm, name }) => (arm ?? name) === "baseline";
  if (!variant || isBaseline(variant)) return "";
  const candidates = runs.filter((other) => isBaseline(other) && other.comparison === variant.comparison);
  return candidates.sort((a, b) => (b.started ?? "").localeCompare(a.started ?? ""))[0]?.run ?? "";
}

/** Suggestions of runs to compare with, shown while none is chosen. */
export function choose({ run, runs }) {
  const { comparison } = named(run, runs);
  const sameComparison = (info) => Number(comparison !== null && info.comparison === comparison);
  const candidates = runs.filter((info) => info.run !== run).sort((a, b) => sameComparison(b) - sameComparison(a));
  if (!candidates.length) {
    const hint = "Make another, for example `python -m train +experiment=nograd_off`.";
    return message("empty", "There is only one run in this logdir.", hint);
  }
  const link = (name) => el("a", { href: address.href({ against: name }), target: "_parent" }, name);
  const links = candidates.slice(0, OFFERED).map((info) => el("li", null, link(info.run)));
  return el(
    "div",
    null,
    message("empty", `Choose what to compare ${run} with: “Compare with” above, or one of these.`),
    el("ul", { class: "choose" }, ...links),
  );
}
