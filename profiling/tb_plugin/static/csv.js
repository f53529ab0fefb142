/** Saving rows as a CSV file: raw values; the header has the keys of the columns. */

import { download } from "./dom.js";

/** Download rows as a file. @param {string} name without extension @param {number[]} rows by number */
export function save(name, columns, rows) {
  const lines = [columns.map(({ key }) => key), ...rows.map((row) => columns.map(({ values }) => values[row]))];
  const text = lines.map((values) => `${values.map(cell).join(",")}\r\n`).join("");
  download(`${name}.csv`, new Blob([text], { type: "text/csv" }));
}

/** A value as CSV. An apostrophe precedes a text that a spreadsheet would evaluate as a formula. */
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = String(value).replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
