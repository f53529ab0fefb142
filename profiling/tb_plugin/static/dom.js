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

/** A part of a view with a title. */
export function panel(title, ...children) {
  return el("section", { class: "panel" }, el("h2", null, title), ...children);
}

/** Download a file. @param {string} name @param {Blob | string} content a blob, or a URL of this origin */
export function download(name, content) {
  const url = typeof content === "string" ? content : URL.createObjectURL(content);
  el("a", { href: url, download: name }).click();
  if (url !== content) setTimeout(() => URL.revokeObjectURL(url), 1000);
}
