/** Tables whose rows can be sorted, searched and exported. */

import * as address from "./address.js";
import { save } from "./csv.js";
import { content, count, el } from "./dom.js";

const FIRST = 200; // rows shown before a click on "Show all"
const CLASSES = { number: "num", text: "text", wraps: "text wraps", brief: "brief" };
const collator = new Intl.Collator("en", { numeric: true });

/**
 * @typedef {object} Column
 * @property {string} key identifies the column in `sort`, and in the CSV's header
 * @property {string} title without one, the column is searched and exported, but not shown
 * @property {string} help the meaning of the column, shown on hover
 * @property {"number" | "text" | "wraps" | "brief"} look numbers are right-aligned, and sorted descending at first
 * @property {any[]} values what is sorted, searched and exported
 * @property {any[]} [texts] the content of the cells, if it is not the values themselves
 */

/**
 * @param {object} options
 * @param {Column[]} options.columns
 * @param {number} options.rows their number
 * @param {string} options.sort the key of the column by which the rows are sorted, descending after `-`; may be empty
 * @param {string} options.search the key of the search text in the address; empty: there is no search box
 * @param {[string, string]?} options.only a key of the address, and that of the column whose value it chooses
 * @param {string} options.name file name without extension
 * @param {string} options.label the content of the table, for screen readers
 * @param {(object | null)[]} [options.opens] for each row the address that a click on it, or Enter, leads to
 * @param {(row: number) => boolean} [options.kept] whether a row is in the table; all are, by default
 * @returns {HTMLElement}
 */
export function table({ columns, rows, sort, search, only, name, label, opens, kept = () => true }) {
  const column = (key) => columns.find((each) => each.key === key);
  const wanted = only && address.get()[only[0]];
  const chosen = (row) => kept(row) && (!wanted || column(only[1]).values[row] === wanted);
  const members = Array.from({ length: rows }, (_, row) => row).filter(chosen);
  let [order, descending] = [column(sort.replace("-", "")), sort.startsWith("-")];
  let query = search ? (address.get()[search] ?? "") : "";
  let all = false;
  let shown = [];

  const visible = columns.filter(({ title }) => title);
  const headers = visible.map((each) => {
    const button = el("button", { type: "button", title: each.help, onclick: () => sortBy(each) }, each.title);
    return el("th", { scope: "col", class: each.look === "number" && "num" }, button);
  });
  const body = el("tbody");
  const status = el("span", { class: "status", role: "status" });
  const more = el("button", { type: "button", class: "more", onclick: () => draw((all = true)) });
  const box = el("input", { type: "search", placeholder: "Search", "aria-label": `Search ${label}`, oninput });
  box.value = query;
  const csv = el(
    "button",
    {
      type: "button",
      class: "export",
      title: `Save these rows as ${name}.csv`,
      onclick: () => save(name, columns, shown),
    },
    "CSV",
  );

  function sortBy(next) {
    descending = next === order ? !descending : next.look === "number";
    order = next;
    arrange();
  }

  function oninput() {
    query = box.value;
    address.set({ [search]: query }, { replace: true });
    arrange();
  }

  function arrange() {
    const needle = query.trim().toLowerCase();
    const texts = columns.filter(({ look }) => look !== "number");
    const has = ({ values }, row) => String(values[row] ?? "").toLowerCase().includes(needle);
    shown = members.filter((row) => !needle || texts.some((each) => has(each, row)));
    if (order) shown.sort((a, b) => compare(order.values[a], order.values[b], descending ? -1 : 1));
    headers.forEach((header, i) => {
      if (visible[i] === order) header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    });
    all = false;
    draw();
  }

  function draw() {
    const drawn = all ? shown : shown.slice(0, FIRST);
    body.replaceChildren(...drawn.map(line));
    if (!drawn.length) {
      const nothing = members.length ? `Nothing matches “${query}”.` : "Nothing here.";
      body.append(el("tr", null, el("td", { colspan: visible.length, class: "none" }, nothing)));
    }
    const part = shown.length < members.length ? `${count(shown.length)} of ` : "";
    status.textContent = members.length === 1 ? "1 row" : `${part}${count(members.length)} rows`;
    more.textContent = `Show all ${count(shown.length)} rows`;
    more.hidden = drawn.length === shown.length;
  }

  function line(row) {
    const cells = visible.map(({ look, values, texts }) => {
      // The lines of a call stack, innermost first, are shown in one line.
      const text = texts ? texts[row] : String(values[row] ?? "").replaceAll("\n", " ← ");
      if (look === "number") return el("td", { class: values[row] === 0 ? "num zero" : "num" }, text);
      const title = typeof text === "string" ? text : null;
      return el("td", { class: CLASSES[look] }, el("span", { title }, content(text)));
    });
    if (!opens?.[row]) return el("tr", null, ...cells);
    const open = (event) => {
      if (event.type === "keydown" && event.key !== "Enter") return;
      if (event.target.closest("a, button")) return; // links and buttons have their own actions
      if (event.type === "click" && getSelection().toString()) return; // the click ended a selection of text
      address.set(opens[row]);
    };
    return el("tr", { class: "opens", tabindex: 0, onclick: open, onkeydown: open }, ...cells);
  }

  arrange();
  return el(
    "div",
    { class: "table" },
    el("div", { class: "tools" }, search && box, status, csv),
    el("table", { "aria-label": label }, el("thead", null, el("tr", null, ...headers)), body),
    more,
  );
}

/** Compare two values for sorting; missing values come last in both orders. */
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
}
