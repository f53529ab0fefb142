/** A table whose rows open and close, with the keys of a WAI-ARIA treegrid: arrows, Enter, Home, End. */

import { save } from "./csv.js";
import { count, el } from "./dom.js";

const ALL_OPEN = 60; // all rows are open initially up to this number of rows
const INDENT = 16; // pixels per level
const DEEPEST_INDENT = 40; // levels

/**
 * @param {object} options
 * @param {string} options.label the content of the table, for screen readers
 * @param {string} options.title of the column of names
 * @param {import("./table.js").Column[]} options.columns at first the path of each row, then numbers
 * @param {string[]} options.names
 * @param {number[]} options.depths parents before children
 * @param {string} options.name file name without extension
 * @returns {HTMLElement}
 */
export function tree({ label, title, columns, names, depths, name }) {
  const [paths, ...numbers] = columns;
  const nodes = depths.map((depth, row) => ({
    row,
    depth,
    parent: null,
    open: depths.length <= ALL_OPEN || depth < 2,
    leaf: !(depths[row + 1] > depth),
  }));
  const ancestors = []; // the latest node of each level
  for (const node of nodes) {
    node.parent = ancestors[node.depth - 1] ?? null;
    ancestors[node.depth] = node;
    node.element = tr(node);
  }
  nodes[0].element.tabIndex = 0;

  function tr(node) {
    const { row, depth, leaf } = node;
    const mark = el("span", { class: "mark", "aria-hidden": "true", onclick: () => setOpen(node, !node.open) });
    const indent = 10 + INDENT * Math.min(depth, DEEPEST_INDENT);
    const cells = numbers.map(({ texts }) => el("td", { class: "num", role: "gridcell" }, texts[row]));
    return el(
      "tr",
      {
        role: "row",
        tabindex: -1,
        "aria-level": depth + 1,
        "aria-expanded": leaf ? null : String(node.open),
        onkeydown: (event) => key(node, event),
        onfocus: () => makeTabbable(node),
      },
      el(
        "td",
        { class: "text", role: "gridcell", title: paths.values[row], style: `padding-left: ${indent}px` },
        mark,
        names[row],
      ),
      ...cells,
    );
  }

  function setOpen(node, open) {
    if (node.leaf || node.open === open) return;
    node.open = open;
    node.element.setAttribute("aria-expanded", String(open));
    update();
  }

  /** Hide rows with a closed ancestor. */
  function update() {
    for (const { parent, element } of nodes)
      element.hidden = parent !== null && (parent.element.hidden || !parent.open);
  }

  /** Make one row the only tab stop of the table. */
  function makeTabbable(node) {
    for (const { element } of nodes) element.tabIndex = -1;
    node.element.tabIndex = 0;
  }

  function key(node, event) {
    const visible = nodes.filter(({ element }) => !element.hidden);
    const at = visible.indexOf(node);
    const collapsed = node.leaf || !node.open;
    const moves = {
      ArrowDown: () => visible[at + 1],
      ArrowUp: () => visible[at - 1],
      ArrowRight: () => (collapsed ? setOpen(node, true) : visible[at + 1]),
      ArrowLeft: () => (collapsed ? node.parent : setOpen(node, false)),
      Enter: () => setOpen(node, !node.open),
      Home: () => visible[0],
      End: () => visible.at(-1),
    };
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return; // Alt + Left is "back"
    event.preventDefault();
    moves[event.key]()?.element.focus();
  }

  function setAllOpen(open) {
    for (const node of nodes) {
      if (node.leaf) continue;
      node.open = open;
      node.element.setAttribute("aria-expanded", String(open));
    }
    update();
  }

  update();
  const button = (text, fn, attributes) =>
    el("button", { type: "button", class: "export", onclick: fn, ...attributes }, text);
  const head = numbers.map((column) => el("th", { scope: "col", class: "num", title: column.help }, column.title));
  return el(
    "div",
    { class: "table tree" },
    el(
      "div",
      { class: "tools" },
      button("open all", () => setAllOpen(true)),
      button("close all", () => setAllOpen(false)),
      el("span", { class: "status" }, `${count(nodes.length)} rows`),
      button("CSV", () => save(name, columns, [...nodes.keys()]), { title: `Save all rows as ${name}.csv` }),
    ),
    el(
      "table",
      { role: "treegrid", "aria-label": label },
      el("thead", null, el("tr", { role: "row" }, el("th", { scope: "col" }, title), ...head)),
      el("tbody", null, ...nodes.map(({ element }) => element)),
    ),
  );
}
