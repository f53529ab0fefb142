/** Building the page: text content is never parsed as HTML. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an element. Attributes that are functions become listeners (`onclick`); null and false are left out.
 * @param {string} tag
 * @param {Record<string, unknown>?} attributes
 * @param {...(Node | string | number | null | undefined | false)} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Create an SVG element; arguments as for `el`. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.replace(/^on/, ""), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const MARKS = { loading: "◌", empty: "○", error: "✕", partial: "!" };

/**
 * A message: what is happening or missing, and what to do.
 * @param {"loading" | "empty" | "error" | "partial"} kind
 * @param {string} text one sentence
 * @param {string} [hint] what to do; text in backticks is shown as code
 */
export function message(kind, text, hint = "") {
  return el(
    "div",
    { class: `message ${kind}`, role: kind === "error" ? "alert" : "status" },
    el("span", { class: "mark", "aria-hidden": "true" }, MARKS[kind]),
    el("div", null, el("p", null, text), hint && el("p", { class: "hint" }, ...prose(hint))),
  );
}

/** Nodes of a text; text in backticks is shown as code. */
export function prose(text) {
  return text.split("`").map((part, number) => (number % 2 ? el("code", null, part) : part));
}

/**
 * The content of a cell: text, a piece of text with a style, or a list of them. A piece may have a shape, an SVG path
 * around (0, 0), beside its text.
 */
export function content(value) {
  if (Array.isArray(value)) return value.map(content);
  if (typeof value === "string") return value;
  const { tag, look, text, shape, open } = value;
  const path = shape && svg("path", { d: shape, class: open ? "open" : null });
  const picture = path && svg("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, path);
  return el(tag, { class: look || null }, picture, text);
}

/** A number of things with grouped thousands. */
export const count = (number) => number.toLocaleString("en-US");

const KIB = 1024;
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** The size of a file: `19.2 MiB`. */
export function size(bytes) {
  const power = Math.min(Math.floor(Math.log(Math.max(bytes, 1)) / Math.log(KIB)), UNITS.length - 1);
  return `${Number((bytes / KIB ** power).toPrecision(3))} ${UNITS[power]}`;
}

/** Download a file. @param {string} name @param {Blob | string} content a blob, or a URL of this origin */
export function download(name, content) {
  const url = typeof content === "string" ? content : URL.createObjectURL(content);
  el("a", { href: url, download: name }).click();
  if (url !== content) setTimeout(() => URL.revokeObjectURL(url), 1000);
}
