/** Building the page: elements whose content is text, never HTML, whatever it is called. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element. Attributes that are functions become listeners (`onclick`), null and false are left out.
 * @param {string} tag
 * @param {Record<string, unknown>?} attributes
 * @param {...(Node | string | number | null | undefined | false)} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element, in the same way. */
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
 * Say what is happening, or what is missing, and what to do about it.
 * @param {"loading" | "empty" | "error" | "partial"} kind
 * @param {string} text one sentence
 * @param {string} [hint] what to do; parts in backticks are shown as commands
 */
export function message(kind, text, hint = "") {
  return el(
    "div",
    { class: `message ${kind}`, role: kind === "error" ? "alert" : "status" },
    el("span", { class: "mark", "aria-hidden": "true" }, MARKS[kind]),
    el("div", null, el("p", null, text), hint && el("p", { class: "hint" }, ...prose(hint))),
  );
}

/** Text whose parts in backticks are shown as commands. */
export function prose(text) {
  return text.split("`").map((part, number) => (number % 2 ? el("code", null, part) : part));
}

/** A titled part of a view. */
export function panel(title, ...children) {
  return el("section", { class: "panel" }, el("h2", null, title), ...children);
}

/** Hand the user a file. @param {string} name @param {Blob | string} content a blob, or a URL of this origin */
export function download(name, content) {
  const url = typeof content === "string" ? content : URL.createObjectURL(content);
  el("a", { href: url, download: name }).click();
  if (url !== content) setTimeout(() => URL.revokeObjectURL(url), 1000);
}
