/**
 * The tab's address: plugin data in the hash of TensorBoard's window, which is the parent of the tab's window,
 * `#abtrace&p.abtrace.view=operators&p.abtrace.run=…`. Keys of other plugins do not change.
 */

const TAB = "abtrace";
const PREFIX = `p.${TAB}.`;
const host = window.parent; // TensorBoard's own document; same origin

/** @typedef {{view: string, run: string, against: string, window: string, by: string, q: string}} Address */

/** The values in the address; missing keys are "". @returns {Address & Record<string, string>} */
export function get() {
  const values = { view: "", run: "", against: "", window: "", by: "", q: "" };
  for (const [key, value] of pairs()) {
    if (key.startsWith(PREFIX)) values[key.slice(PREFIX.length)] = value;
  }
  return values;
}

/**
 * Change some keys; "" removes a key. By default this adds an entry to the browser's history and `onChange` reports it.
 * `replace` changes the current entry, and `onChange` does not report it: for changes that the view already shows.
 */
export function set(changes, { replace = false } = {}) {
  const hash = serialize(changes);
  if (replace) host.history.replaceState(host.history.state, "", hash);
  else host.location.hash = hash;
}

/** Call `fn` whenever the hash changes: by a link, by `set`, by the back and forward buttons. */
export function onChange(fn) {
  host.addEventListener("hashchange", fn);
}

/** The URL of this address with some keys changed; links to it need the target `_parent`. */
export function href(changes) {
  return host.location.pathname + host.location.search + serialize(changes);
}

/** Whether TensorBoard currently shows this tab. */
export function isCurrent() {
  const tab = pairs().find(([, value]) => value === null);
  return tab === undefined || tab[0] === TAB;
}

/** Keys that survive a change of view; the others, such as a search, belong to a single view. */
const SHARED = ["run", "against", "window"];

function serialize(changes) {
  const survives = (key) => !(key in changes) && (!("view" in changes) || SHARED.includes(key));
  const remaining = pairs().filter(
    ([key, value]) => value !== null && (!key.startsWith(PREFIX) || survives(key.slice(PREFIX.length))),
  );
  const added = Object.entries(changes)
    .filter(([, value]) => value)
    .map(([key, value]) => [PREFIX + key, value]);
  return `#${[TAB, ...[...remaining, ...added].map((pair) => pair.map(encodeURIComponent).join("="))].join("&")}`;
}

/** The parts of the hash, decoded; the value of a part without `=` is null. @returns {[string, string | null][]} */
function pairs() {
  const parts = host.location.hash.slice(1).split("&").filter(Boolean);
  return parts.map((part) => {
    const [key, ...value] = part.split("=");
    return [decode(key), value.length ? decode(value.join("=")) : null];
  });
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a typed address may contain an invalid % escape
  }
}
