/** A table whose rows open and close, with the keys of a WAI-ARIA treegrid: arrows, Enter, Home, End. */

import { save } from "./csv.js";
import { el } from "./dom.js";
import { count } from "./format.js";

const ALL_OPEN = 60; // all rows are open initially up to this number of rows
const INDENT = 16; // pixels per level
const DEEPEST_INDENT = 40; // levels

/**
 * @param {object} options
 * @param {string} options.label the content of the table, for screen readers
 * @param {string} options.name header of the first column
 * @param {import("./table.js").Column[]} options.columns columns of numbers
 * @param {{path: string, name: string, depth: number}[]} options.rows parents before children
 * @param {string} options.csvName file name without extension
 * @returns {HTMLElement}
 */
export function tree({ label, name, columns, rows, csvName }) {
  const valueOf = (column, row) => (column.value ? column.value(row) : row[column.key]);
  const nodes = rows.map((row, i) => ({
    row,
    parent: null,
    open: rows.length <= ALL_OPEN || row.depth < 2,
    leaf: !(rows[i + 1]?.depth > row.depth),
  }));
  const ancestors = []; // the latest node of each level
  for (const node of nodes) {
    node.parent = ancestors[node.row.depth - 1] ?? null;
    ancestors[node.row.depth] = node;
    node.element = tr(node);
  }
  nodes[0].element.tabIndex = 0;

  function tr(node) {
    const { row, leaf } = node;
    const mark = el("span", { class: "mark", "aria-hidden": "true", onclick: () => setOpen(node, !node.open) });
    const indent = 10 + INDENT * Math.min(row.depth, DEEPEST_INDENT);
    const cells = columns.map((column) => {
      const value = valueOf(column, row);
      return el("td", { class: "num", role: "gridcell" }, value === null ? "" : column.format(value));
    });
    return el(
      "tr",
      {
        role: "row",
        tabindex: -1,
        "aria-level": row.depth + 1,
        "aria-expanded": leaf ? null : String(node.open),
        onkeydown: (event) => key(node, event),
        onfocus: () => makeTabbable(node),
      },
      el(
        "td",
        { class: "text", role: "gridcell", title: row.path, style: `padding-left: ${indent}px` },
        mark,
        row.name,
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
  const head = columns.map((column) => el("th", { scope: "col", class: "num", title: column.title }, column.label));
  return el(
    "div",
    { class: "table tree" },
    el(
      "div",
      { class: "tools" },
      button("open all", () => setAllOpen(true)),
      button("close all", () => setAllOpen(false)),
      el("span", { class: "status" }, `${count(rows.length)} rows`),
      button("CSV", () => save(csvName, [{ key: "path" }, ...columns], rows, valueOf), {
        title: `Save all rows as ${csvName}.csv`,
      }),
    ),
    el(
      "table",
      { role: "treegrid", "aria-label": label },
      el("thead", null, el("tr", { role: "row" }, el("th", { scope: "col" }, name), ...head)),
      el("tbody", null, ...nodes.map(({ element }) => element)),
    ),
  );
}
