/** Rows as a CSV file: raw values, under the columns' keys. */

import { download } from "./dom.js";

/** Hand the user a file. @param {string} name without its ending @param {(column, row) => any} valueOf */
export function save(name, columns, rows, valueOf) {
  const lines = [columns.map(({ key }) => key), ...rows.map((row) => columns.map((column) => valueOf(column, row)))];
  const text = lines.map((values) => `${values.map(cell).join(",")}\r\n`).join("");
  download(`${name}.csv`, new Blob([text], { type: "text/csv" }));
}

/** A value as CSV. A text that a spreadsheet would run as a formula gets an apostrophe in front. */
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = String(value).replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
