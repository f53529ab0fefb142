/**
 * The tab's address: TensorBoard's plugin data in the hash of its window, the parent of the tab's,
 * `#abtrace&p.abtrace.view=operators&p.abtrace.run=…`. Keys of other plugins are left as they are.
 */

const TAB = "abtrace";
const PREFIX = `p.${TAB}.`;
const host = window.parent; // TensorBoard's own document; same origin

/** @typedef {{view: string, run: string, against: string, window: string, by: string, q: string}} Address */

/** What the address says; keys it does not name are "". @returns {Address & Record<string, string>} */
export function get() {
  const found = { view: "", run: "", against: "", window: "", by: "", q: "" };
  for (const [key, value] of pairs()) {
    if (key.startsWith(PREFIX)) found[key.slice(PREFIX.length)] = value;
  }
  return found;
}

/**
 * Change some keys; "" removes one. By default this is a step that the back button undoes and that `onChange` reports;
 * `replace` changes the address in place and in silence, for what the view already shows.
 */
export function set(changes, { replace = false } = {}) {
  const hash = serialize(changes);
  if (replace) host.history.replaceState(host.history.state, "", hash);
  else host.location.hash = hash;
}

/** Call `fn` whenever the hash changes: by a link, by `set`, by back and forward. */
export function onChange(fn) {
  host.addEventListener("hashchange", fn);
}

/** A link to this address with some keys changed; to be opened in `_parent`. */
export function href(changes) {
  return host.location.pathname + host.location.search + serialize(changes);
}

/** Whether TensorBoard shows this tab. */
export function isCurrent() {
  const tab = pairs().find(([key, value]) => value === null);
  return tab === undefined || tab[0] === TAB;
}

/** What choosing a view keeps of the address before; the rest, such as a search, belongs to the view that is left. */
const SHARED = ["run", "against", "window"];

function serialize(changes) {
  const stays = (key) => !(key in changes) && (!("view" in changes) || SHARED.includes(key));
  const kept = pairs().filter(
    ([key, value]) => value !== null && (!key.startsWith(PREFIX) || stays(key.slice(PREFIX.length))),
  );
  const added = Object.entries(changes)
    .filter(([, value]) => value)
    .map(([key, value]) => [PREFIX + key, value]);
  return `#${[TAB, ...[...kept, ...added].map((pair) => pair.map(encodeURIComponent).join("="))].join("&")}`;
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
    return text; // a stray % in an address typed by hand
  }
}
