/** What the server knows. Answers are kept for as long as the files behind them stay the same. */

/**
 * @typedef {{file: string, stage: string | null, bytes: number, mtime_s: number}} Window
 * @typedef {{run: string, name: string, status: string, started: string, windows: Window[], record: boolean,
 *   comparison: string | null, arm: "baseline" | "variant" | null}} Run
 */

const kept = new Map(); // url -> {stamp, answer}
let known = { runs: [], comparisons: 0 };

/** The runs and how many comparisons there are, asked for anew each time. @returns {Promise<{runs: Run[], comparisons: number}>} */
export async function runs() {
  known = await ask("runs");
  return known;
}

export const record = (run) => keep(url("record", { run: folder(run) }), stamp(run));
/** @param {string} run a run, or run/window @param {string} [by] "shape" or "stack" */
export const summary = (run, by = "") => keep(url("summary", { run, by }), stamp(run));
export const diff = (run, against) => keep(url("diff", { run, against }), stamp(run) + stamp(against));
export const effects = () => keep("effects", JSON.stringify(known));
/** Where the file of a window is. @param {string} run run/window */
export const traceUrl = (run) => url("trace", { run });

/** What identifies the state of a run's files: the answers about it are good for as long as it stays. */
export function stamp(run) {
  const found = owner(run);
  return found ? JSON.stringify([found.run, found.status, found.record, found.windows]) : run;
}

/** The run that a name means: a run, or one window of it. */
function owner(name) {
  return known.runs.find(({ run, windows }) => run === name || windows.some(({ file }) => `${run}/${file}` === name));
}

const folder = (name) => owner(name)?.run ?? name;

function keep(address, state) {
  const before = kept.get(address);
  if (before?.state === state) return before.answer;
  const answer = ask(address);
  kept.set(address, { state, answer });
  answer.catch(() => kept.delete(address)); // the next look tries again
  return answer;
}

/** @throws {Error} with one line: the server's own where it gave one. */
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
