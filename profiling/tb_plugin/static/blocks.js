/** The parts of a view. Python says what they are (profiling/figures/blocks.py); here is a function for each kind. */

import * as address from "./address.js";
import { chart } from "./chart.js";
import { content, el, message, prose } from "./dom.js";
import { table } from "./table.js";
import { tree } from "./tree.js";

const KINDS = {
  chart,
  table,
  tree,
  message: ({ look, text, hint }) => message(look, text, hint),
  note: ({ look, text }) => el("p", { class: look }, ...prose(text)),
  panel: ({ title, blocks }) => panel(title, ...draw(blocks)),
  group: ({ look, blocks }) => el("div", { class: look }, ...draw(blocks)),
  list: ({ lines, blocks }) =>
    el("div", { class: "notes" }, ...draw(blocks), el("ul", null, ...lines.map((line) => el("li", null, line)))),
  card: ({ name, value, details }) =>
    el(
      "div",
      { class: "card" },
      el("div", { class: "name" }, name),
      el("div", { class: "value" }, value),
      ...details.map((detail) => el("div", { class: "detail" }, detail)),
    ),
  facts: ({ pairs }) =>
    el(
      "dl",
      { class: "figures" },
      ...pairs.map(([name, value, title]) =>
        el("div", { title }, el("dt", null, name), el("dd", null, content(value))),
      ),
    ),
  definitions,
  more: ({ text, blocks }) => {
    const show = (event) => event.target.replaceWith(...draw(blocks));
    return el("button", { type: "button", class: "more", onclick: show }, text);
  },
  choice,
  sides: ({ sides }) => el("p", { class: "sides" }, ...sides.flatMap((side) => [sideOf(side), " "])),
};

/** The elements of blocks. @param {{kind: string}[]} blocks */
export const draw = (blocks) => blocks.map((block) => KINDS[block.kind](block));

/** A part of a view with a title. */
export function panel(title, ...children) {
  return el("section", { class: "panel" }, el("h2", null, title), ...children);
}

function definitions({ title, pairs }) {
  const lines = pairs.flatMap(([name, text]) => [
    el("dt", null, name),
    el("dd", null, Array.isArray(text) ? text.map((line) => el("div", null, line)) : text),
  ]);
  return el("div", null, title && el("h3", null, title), el("dl", null, ...lines));
}

/** A select that writes into the address; a value there that is no option is shown as one. */
function choice({ name, key, options }) {
  const chosen = address.get()[key] ?? "";
  const all = options.some(([value]) => value === chosen) ? options : [...options, [chosen, `${chosen} (not found)`]];
  const select = el(
    "select",
    { onchange: () => address.set({ [key]: select.value }) },
    ...all.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
  );
  return el("div", { class: "filters" }, el("label", null, el("span", null, name), select));
}

/** The title of a side of a comparison, and a link to its run. */
function sideOf([title, look, run]) {
  const href = address.href({ view: "overview", run, against: "", window: "", q: "" });
  return el(
    "span",
    { class: `side ${look}` },
    el("span", { class: "swatch", "aria-hidden": "true" }),
    el("b", null, title),
    " ",
    el("a", { href, target: "_parent" }, run),
  );
}
