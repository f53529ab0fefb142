/** The ladder: the effect of each optimization with its interval, its verdict and the outcome of its hypothesis. */

import * as address from "../address.js";
import { chart, load } from "../chart.js";
import { el, message, panel } from "../dom.js";
import { count, ratio, size } from "../format.js";
import { declared, ladder } from "../ladder.js";
import * as model from "../model.js";
import { table } from "../table.js";
import { NOT_APPLICABLE, outcomeMark, VERDICTS, verdictMark } from "../verdict.js";

/** The filters, by key in the address. */
const FILTERS = {
  topic: { label: "Topic", of: ({ topic }) => topic },
  phase: { label: "Phase", of: ({ hypothesis }) => hypothesis.phase },
  verdict: { label: "Verdict", of: ({ verdict }) => verdict, order: Object.keys(VERDICTS) },
};

export async function show(root) {
  load();
  const { effects, notes } = await model.effects();
  if (notes.length) {
    const lines = el("ul", null, ...notes.map((note) => el("li", null, note)));
    root.append(
      el("div", { class: "notes" }, message("partial", "Some comparisons could not be read and are left out."), lines),
    );
  }
  if (!effects.length) {
    const hint =
      "Measure one with `python -m train.ab +experiment=nograd_off`, all of them with `python -m train.ab -m '+experiment=glob(*)'`. Each appears here when it is done.";
    root.append(message("empty", "No comparison lies below this logdir: there are no effects to show.", hint));
    return;
  }
  const results = el("div", { class: "found" });
  const draw = () => {
    const rows = effects.filter(chosen());
    clear.hidden = rows.length === effects.length;
    results.replaceChildren(...content(rows));
  };
  const selects = Object.entries(FILTERS).map(([key, filter]) => select(key, filter, effects, draw));
  const clear = el("button", { type: "button", class: "more", onclick: clearAll }, "Clear filters");
  function clearAll() {
    for (const { element } of selects) element.value = "";
    address.set(Object.fromEntries(Object.keys(FILTERS).map((key) => [key, ""])), { replace: true });
    draw();
    selects[0].element.focus(); // the focused button is hidden
  }
  root.append(el("div", { class: "filters" }, ...selects.map(({ label }) => label), clear), results);
  draw();
}

/** A predicate: whether a row matches the filters. @returns {(row: object) => boolean} */
function chosen() {
  const query = address.get();
  return (row) => Object.entries(FILTERS).every(([key, { of }]) => !query[key] || of(row) === query[key]);
}

function select(key, { label, of, order }, effects, draw) {
  const values = [...new Set(effects.map(of))].sort((a, b) =>
    order ? order.indexOf(a) - order.indexOf(b) : a < b ? -1 : 1,
  );
  const current = address.get()[key] ?? "";
  // An old address may name a value that no effect has; it stays visible as an option.
  const choices = current && !values.includes(current) ? [...values, current] : values;
  const options = choices.map((value) => {
    const number = effects.filter((row) => of(row) === value).length;
    return el("option", { value, selected: value === current }, `${value} (${number})`);
  });
  const element = el("select", null, el("option", { value: "" }, "all"), ...options);
  element.addEventListener("change", () => {
    address.set({ [key]: element.value }, { replace: true });
    draw();
  });
  return { element, label: el("label", null, el("span", null, label), element) };
}

function content(effects) {
  if (!effects.length)
    return [message("empty", "No comparison matches these filters.", "Choose “Clear filters” above.")];
  const figure = ladder(effects);
  const open = ({ variant, baseline }) => address.set({ view: "compare", run: variant, against: baseline, window: "" });
  const drawn = chart({
    ...figure,
    label: "Effect of each experiment on time per sample",
    pngName: "effects",
    onOpen: ({ customdata }) => customdata && opens(customdata) && open(customdata),
  });
  return [
    totals(effects),
    panel("Effect of each experiment on time per sample", drawn, el("p", { class: "note" }, machines(effects))),
    panel(
      "Hypotheses",
      effects.some(opens) &&
        el("p", { class: "note" }, "A row opens the comparison of its two runs: click it, or press Enter."),
      hypotheses(effects, open),
    ),
  ];
}

const opens = ({ variant, baseline }) => Boolean(variant && baseline);

/** The number of hypotheses with each outcome. */
function totals(effects) {
  const judged = effects.filter(({ verdict }) => verdict !== NOT_APPLICABLE);
  const outcomes = ["confirmed", "refuted here", "undecided"].map((outcome) => [
    outcome,
    judged.filter((row) => row.outcome === outcome).length,
  ]);
  const idle = effects.length - judged.length;
  const mismatches = effects.filter(({ numerics }) => numerics?.mismatch).length;
  const counts = [
    el("span", null, el("b", null, count(effects.length)), effects.length === 1 ? " experiment" : " experiments"),
    ...outcomes.map(([outcome, number]) => el("span", null, el("b", null, count(number)), " ", outcomeMark(outcome))),
    idle > 0 && el("span", null, el("b", null, count(idle)), ` ${NOT_APPLICABLE}`),
    mismatches > 0 &&
      el(
        "span",
        null,
        el("b", null, count(mismatches)),
        " ",
        el("span", { class: "answer bad" }, "✗ not the same answer"),
      ),
  ];
  return el("p", { class: "tally" }, ...counts);
}

/** The machines on which the effects were measured. */
function machines(effects) {
  const lines = effects.map(
    ({ environment: at }) => `${at.device_name}, ${at.cores} cores, ${at.precision}, torch ${at.versions.torch ?? "?"}`,
  );
  return [...new Set(lines)].sort().join("; ");
}

function hypotheses(effects, onOpen) {
  const ofEffect = (key) => (row) => declared(row)?.[key] ?? null;
  const columns = [
    { key: "title", label: "experiment", format: experiment, wraps: true },
    { key: "claim", hidden: true, value: ({ hypothesis }) => hypothesis.claim },
    { key: "topic", label: "topic", brief: true },
    { key: "phase", label: "phase", value: ({ hypothesis }) => hypothesis.phase, brief: true },
    {
      key: "ratio",
      label: "effect",
      title: "time per sample, variant ÷ baseline",
      numeric: true,
      value: ofEffect("ratio"),
      format: ratio,
    },
    {
      key: "ratio_low",
      label: "from",
      title: "lower end of the 95 % interval",
      numeric: true,
      value: ofEffect("ratio_low"),
      format: ratio,
    },
    {
      key: "ratio_high",
      label: "to",
      title: "upper end of the 95 % interval",
      numeric: true,
      value: ofEffect("ratio_high"),
      format: ratio,
    },
    {
      key: "verdict",
      label: "verdict",
      value: ({ verdict_text }) => verdict_text,
      format: verdictOf,
      brief: true,
    },
    { key: "outcome", label: "hypothesis", format: (outcome, row) => outcomeMark(outcome, row.verdict), brief: true },
    {
      key: "memory_ratio",
      label: "memory",
      title: "peak, baseline → variant",
      numeric: true,
      value: ({ memory }) => (memory?.baseline_bytes ? memory.variant_bytes / memory.baseline_bytes : null),
      format: (_, { memory }) => peaks(memory),
    },
    ...["baseline_bytes", "variant_bytes"].map((key) => ({ key, hidden: true, value: ({ memory }) => memory?.[key] })),
    {
      key: "same_answer",
      label: "same answer",
      title: "whether the results stayed the same",
      value: ({ numerics_text }) => numerics_text,
      format: sameAnswer,
      brief: true,
    },
  ];
  return table({
    columns,
    rows: effects,
    search: true,
    sort: { key: "topic" },
    csvName: "effects",
    label: "Hypotheses and verdicts",
    onOpen,
    opens,
  });
}

/** The verdict; the line below has the rest of its text, or the reason why there is none. */
function verdictOf(text, { verdict, reason, experiment: name }) {
  // The row already shows the verdict and the experiment's name.
  const detail = text.slice(verdict.length).trim() || reason?.replace(`${verdict}: ${name} `, "");
  return [verdictMark(verdict), detail && el("small", null, detail)];
}

function peaks({ baseline_bytes, variant_bytes }) {
  const [before, after] = [size(baseline_bytes), size(variant_bytes)].map((text) => text.split(" "));
  return before[1] === after[1] ? `${before[0]} → ${after.join(" ")}` : `${before.join(" ")} → ${after.join(" ")}`;
}

function sameAnswer(text, { numerics }) {
  const [agreement, ...details] = text.split(", ");
  return [
    el("span", { class: numerics.mismatch ? "answer bad" : "answer" }, agreement),
    el("small", null, details.join(", ")),
  ];
}

function experiment(title, { hypothesis, partial }) {
  return [
    el("b", null, title),
    partial && el("span", { class: "note" }, " interrupted"),
    el("small", null, hypothesis.claim),
  ];
}
