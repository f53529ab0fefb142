/** Requests to the server. Answers are cached until the files behind them change. */

/**
 * @typedef {{file: string, stage: string | null, bytes: number, mtime_s: number}} Window
 * @typedef {{run: string, name: string, status: string, started: string, windows: Window[], record: boolean,
 *   comparison: string | null, arm: "baseline" | "variant" | null, links: string[]}} Run
 */

const cache = new Map(); // url -> {state, answer}
let listing = { runs: [], comparisons: 0, links_out: [] };

/**
 * The runs, the number of comparisons, and the links that lead out of the logdir; never cached.
 * @returns {Promise<{runs: Run[], comparisons: number, links_out: string[]}>}
 */
export async function runs() {
  listing = await ask("runs");
  return listing;
}

/** The views of a run, or of run/window. @param {string} by "shape", "stack" or "": what sets operators apart */
export const figures = (run, by) => cached(url("figures", { run, by }), stamp(run));
/** The views of a comparison: of a run or window with another. */
export const compared = (run, against) => cached(url("figures", { run, against }), stamp(run) + stamp(against));
/** The ladder. */
export const effects = () => cached("effects", JSON.stringify(listing));
/** The URL of a window's file. @param {string} run run/window */
export const traceUrl = (run) => url("trace", { run });

/** A string that identifies the state of a run's files: cached answers are valid until it changes. */
export function stamp(run) {
  const info = owner(run);
  return info ? JSON.stringify([info.run, info.status, info.record, info.windows]) : run;
}

/** The run that a name stands for; the name is that of a run or of a window. */
function owner(name) {
  return listing.runs.find(({ run, windows }) => run === name || windows.some(({ file }) => `${run}/${file}` === name));
}

function cached(address, state) {
  const entry = cache.get(address);
  if (entry?.state === state) return entry.answer;
  const answer = ask(address);
  cache.set(address, { state, answer });
  answer.catch(() => cache.delete(address)); // the next request tries again
  return answer;
}

/** @throws {Error} with one line: the server's error message if it sent one. */
async function ask(address) {
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error("The TensorBoard server does not answer. Is it still running?");
  }
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`The server's answer to ${address} cannot be read (status ${response.status}).`);
  }
  if (!response.ok) throw new Error(answer.error ?? `The server answered ${response.status} to ${address}.`);
  return answer;
}

function url(route, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  return `${route}?${new URLSearchParams(given)}`;
}
