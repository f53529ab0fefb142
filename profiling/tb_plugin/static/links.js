/** Runs that are missing because links to them lead out of the logdir. */

import { count, message } from "./dom.js";

const NAMED = 5; // links that the message names

/** A message about links that lead out of the logdir. @param {string[]} names at least one */
export function linksOut(names) {
  const more = names.length > NAMED ? ` and ${count(names.length - NAMED)} more` : "";
  const text =
    names.length === 1
      ? `A link leads out of the logdir, so what it leads to is not shown: ${names[0]}`
      : `${count(names.length)} links lead out of the logdir, so what they lead to is not shown: ${names.slice(0, NAMED).join(", ")}${more}`;
  const hint = "The tab reads nothing outside the logdir: copy the runs, or start TensorBoard on a folder that holds them.";
  return message("partial", text, hint);
}
