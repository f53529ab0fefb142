/** Tables whose rows can be sorted, searched and exported. */

import * as address from "./address.js";
import { save } from "./csv.js";
import { el } from "./dom.js";
import { count } from "./format.js";

const FIRST = 200; // rows shown before a click on "Show all"
const collator = new Intl.Collator("en", { numeric: true });

/**
 * @typedef {object} Column
 * @property {string} key identifies the column in `sort.key`, in the CSV's header, and in the rows
 * @property {string} label
 * @property {string} [title] the meaning of the column, shown on hover
 * @property {(value: any, row: any) => string | Node | (string | Node | false)[]} [format] the content of the cell
 * @property {boolean} [numeric] right-aligned; the first click sorts descending
 * @property {boolean} [wraps] text wraps; by default it is cut after one line
 * @property {boolean} [brief] short text that is never cut
 * @property {boolean} [hidden] searched and exported, but not shown
 * @property {string} [missing] the content of the cell of a row without a value; empty by default
 * @property {(row: any) => any} [value] the value to sort, search and export; `row[key]` by default
 */

/**
 * @param {object} options
 * @param {Column[]} options.columns
 * @param {object[]} options.rows
 * @param {{key: string, descending?: boolean}} [options.sort] the initial order; by default that of `rows`
 * @param {boolean | string} [options.search] whether there is a search box, over the columns of text; a string is the
 *   key of the search text in the address, `q` by default
 * @param {string} options.csvName file name without extension
 * @param {(row: any) => void} [options.onOpen] called for a click on a row, or Enter
 * @param {(row: any) => boolean} [options.opens] whether a row can be opened; all can, by default
 * @param {string} [options.label] the content of the table, for screen readers
 * @returns {HTMLElement}
 */
export function table({ columns, rows, sort, search = false, csvName, onOpen, opens = () => true, label }) {
  const valueOf = (column, row) => (column.value ? column.value(row) : row[column.key]);
  const searchKey = search === true ? "q" : search;
  let order = sort ? { descending: false, ...sort } : null;
  let query = searchKey ? (address.get()[searchKey] ?? "") : "";
  let all = false;
  let shown = [];

  const visible = columns.filter(({ hidden }) => !hidden);
  const headers = visible.map((column) => {
    const button = el("button", { type: "button", title: column.title, onclick: () => sortBy(column) }, column.label);
    return el("th", { scope: "col", class: column.numeric && "num" }, button);
  });
  const body = el("tbody");
  const status = el("span", { class: "status", role: "status" });
  const more = el("button", { type: "button", class: "more", onclick: () => draw((all = true)) });
  const box = el("input", {
    type: "search",
    placeholder: "Search",
    "aria-label": `Search ${label ?? "this table"}`,
    oninput: updateQuery,
  });
  box.value = query;
  const csv = el(
    "button",
    {
      type: "button",
      class: "export",
      title: `Save these rows as ${csvName}.csv`,
      onclick: () => save(csvName, columns, shown, valueOf),
    },
    "CSV",
  );

  function sortBy(column) {
    const again = order?.key === column.key;
    order = { key: column.key, descending: again ? !order.descending : Boolean(column.numeric) };
    arrange();
  }

  function updateQuery() {
    query = box.value;
    address.set({ [searchKey]: query }, { replace: true });
    arrange();
  }

  function arrange() {
    const needle = query.trim().toLowerCase();
    const texts = columns.filter((column) => !column.numeric);
    const matches = (row) =>
      texts.some((column) =>
        String(valueOf(column, row) ?? "")
          .toLowerCase()
          .includes(needle),
      );
    shown = needle ? rows.filter(matches) : [...rows];
    const column = order && columns.find(({ key }) => key === order.key);
    if (column) {
      const sign = order.descending ? -1 : 1;
      shown = shown
        .map((row) => [valueOf(column, row), row])
        .sort(([a], [b]) => compare(a, b, sign))
        .map(([, row]) => row);
    }
    headers.forEach((header, i) => {
      const direction = order?.descending ? "descending" : "ascending";
      if (visible[i] === column) header.setAttribute("aria-sort", direction);
      else header.removeAttribute("aria-sort");
    });
    all = false;
    draw();
  }

  function draw() {
    const drawn = all ? shown : shown.slice(0, FIRST);
    body.replaceChildren(...drawn.map(line));
    if (!drawn.length) {
      const nothing = rows.length ? `Nothing matches “${query}”.` : "Nothing here.";
      body.append(el("tr", null, el("td", { colspan: visible.length, class: "none" }, nothing)));
    }
    const text =
      shown.length < rows.length
        ? `${count(shown.length)} of ${count(rows.length)} rows`
        : `${count(rows.length)} rows`;
    status.textContent = rows.length === 1 ? "1 row" : text;
    more.textContent = `Show all ${count(shown.length)} rows`;
    more.hidden = drawn.length === shown.length;
  }

  function line(row) {
    const cells = visible.map((column) => {
      const value = valueOf(column, row);
      const known = value !== null && value !== undefined;
      const content = known ? (column.format?.(value, row) ?? String(value)) : (column.missing ?? "");
      if (column.numeric) return el("td", { class: value === 0 ? "num zero" : "num" }, content);
      const kind = column.brief ? "brief" : column.wraps ? "text wraps" : "text";
      return el("td", { class: kind }, el("span", { title: typeof content === "string" ? content : null }, content));
    });
    if (!onOpen || !opens(row)) return el("tr", null, ...cells);
    const open = (event) => {
      if (event.type === "keydown" && event.key !== "Enter") return;
      if (event.target.closest("a, button")) return; // links and buttons have their own actions
      if (event.type === "click" && getSelection().toString()) return; // the click ended a selection of text
      onOpen(row);
    };
    return el("tr", { class: "opens", tabindex: 0, onclick: open, onkeydown: open }, ...cells);
  }

  arrange();
  return el(
    "div",
    { class: "table" },
    el("div", { class: "tools" }, searchKey && box, status, csv),
    el("table", { "aria-label": label }, el("thead", null, el("tr", null, ...headers)), body),
    more,
  );
}

/** Compare two values for sorting; missing values come last in both orders. */
function compare(a, b, sign) {
  const missing = [a, b].map((value) => value === null || value === undefined);
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
}
