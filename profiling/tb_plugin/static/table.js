/** Tables that sort, search and export what they show. */

import * as address from "./address.js";
import { save } from "./csv.js";
import { el } from "./dom.js";
import { count } from "./format.js";

const FIRST = 200; // rows drawn at once; more on request
const collator = new Intl.Collator("en", { numeric: true });

/**
 * @typedef {object} Column
 * @property {string} key what `sort.key` and the CSV's header name
 * @property {string} label
 * @property {string} [title] what the column means, shown on hover
 * @property {(value: any, row: any) => string | Node | (string | Node | false)[]} [format] what the cell shows
 * @property {boolean} [numeric] right-aligned, the largest first
 * @property {boolean} [wraps] text of several lines instead of one that is cut
 * @property {boolean} [brief] text that is short, and never cut
 * @property {boolean} [hidden] not shown, only searched and exported
 * @property {(row: any) => any} [value] what sorts, is searched and goes to the CSV; `row[key]` by default
 */

/**
 * @param {object} options
 * @param {Column[]} options.columns
 * @param {object[]} options.rows
 * @param {{key: string, descending?: boolean}} [options.sort] as the rows come, by default
 * @param {boolean | string} [options.search] a search box over the columns of text; what it holds is kept in the
 *   address, as `q` or under the name that is given
 * @param {string} options.csvName file name without its ending
 * @param {(row: any) => void} [options.onOpen] a click on a row, or Enter
 * @param {(row: any) => boolean} [options.opens] whether a row can be opened; all can, by default
 * @param {string} [options.label] what the table lists, for screen readers
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
    const button = el("button", { type: "button", title: column.title, onclick: () => turn(column) }, column.label);
    return el("th", { scope: "col", class: column.numeric && "num" }, button);
  });
  const body = el("tbody");
  const status = el("span", { class: "status", role: "status" });
  const more = el("button", { type: "button", class: "more", onclick: () => draw((all = true)) });
  const box = el("input", {
    type: "search",
    placeholder: "Search",
    "aria-label": `Search ${label ?? "this table"}`,
    oninput: find,
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

  function turn(column) {
    const again = order?.key === column.key;
    order = { key: column.key, descending: again ? !order.descending : Boolean(column.numeric) };
    arrange();
  }

  function find() {
    query = box.value;
    address.set({ [searchKey]: query }, { replace: true });
    arrange();
  }

  function arrange() {
    const wanted = query.trim().toLowerCase();
    const texts = columns.filter((column) => !column.numeric);
    const matches = (row) =>
      texts.some((column) =>
        String(valueOf(column, row) ?? "")
          .toLowerCase()
          .includes(wanted),
      );
    shown = wanted ? rows.filter(matches) : [...rows];
    const column = order && columns.find(({ key }) => key === order.key);
    if (column) {
      const sign = order.descending ? -1 : 1;
      shown = shown
        .map((row) => [valueOf(column, row), row])
        .sort(([one], [other]) => compare(one, other, sign))
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
    const some =
      shown.length < rows.length
        ? `${count(shown.length)} of ${count(rows.length)} rows`
        : `${count(rows.length)} rows`;
    status.textContent = rows.length === 1 ? "1 row" : some;
    more.textContent = `Show all ${count(shown.length)} rows`;
    more.hidden = drawn.length === shown.length;
  }

  function line(row) {
    const cells = visible.map((column) => {
      const value = valueOf(column, row);
      const content = value === null || value === undefined ? "" : (column.format?.(value, row) ?? String(value));
      if (column.numeric) return el("td", { class: value === 0 ? "num zero" : "num" }, content);
      const kind = column.brief ? "brief" : column.wraps ? "text wraps" : "text";
      return el("td", { class: kind }, el("span", { title: typeof content === "string" ? content : null }, content));
    });
    if (!onOpen || !opens(row)) return el("tr", null, ...cells);
    const open = (event) => {
      if (event.type === "keydown" && event.key !== "Enter") return;
      if (event.target.closest("a, button")) return; // has its own meaning
      if (event.type === "click" && getSelection().toString()) return; // copying text is not opening
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

/** Order two values; what is missing comes last either way. */
function compare(one, other, sign) {
  const missing = [one, other].map((value) => value === null || value === undefined);
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  return sign * (typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other));
}
