/** The result of `python -m train.ab` for two arms: effect, interval, verdict, and whether the results agree. */

import vocabulary from "../vocabulary.js";
import { chart, escapeLabel } from "./chart.js";
import { phaseBars } from "./compare_charts.js";
import { el, message, panel } from "./dom.js";
import { duration, interval, moment, percent, ratio, size } from "./format.js";
import * as model from "./model.js";
import { outcomeMark, verdictMark } from "./verdict.js";

const [A, B] = vocabulary.arms;
const ARMS = { a: { title: A, look: A }, b: { title: B, look: B } };

/**
 * The measured effect of a comparison, corrected over the whole ladder as in the Effects view.
 * @param {string} folder of the comparison @returns {Promise<HTMLElement>}
 */
export async function measured(folder) {
  const { effects, notes } = await model.effects();
  const entry = effects.find((effect) => effect.folder === folder);
  if (!entry) {
    const reason = notes.find((note) => note.startsWith(`${folder}/`)) ?? `${folder}: no comparison was found`;
    return message("partial", `The measured effect is not known: ${reason}`);
  }
  const { hypothesis, phases, partial, reason, title } = entry;
  return panel(
    `Measured, interleaved: ${title}`,
    partial && message("partial", "The comparison was interrupted before its planned number of blocks."),
    reason && message("empty", reason),
    el(
      "div",
      { class: "columns narrow-left" },
      el(
        "div",
        null,
        el("p", null, hypothesis.claim),
        el("p", { class: "note" }, hypothesis.because),
        figures(entry),
        el("p", { class: "note" }, circumstances(entry)),
      ),
      phases.length > 0 &&
        chart({
          ...phaseBars(phases.map(bar), ARMS, "sample"),
          label: "Bars: measured time per sample of each phase, baseline and variant",
          pngName: `measured-${entry.experiment}`,
        }),
    ),
  );
}

function figures({ hypothesis, phases, verdict, verdict_text, outcome, memory, numerics, numerics_text }) {
  const declared = phases.find(({ phase }) => phase === hypothesis.phase);
  const floor = "What identical code showed here, baseline against baseline";
  return el(
    "dl",
    { class: "figures" },
    declared && fact(`${declared.phase}, variant ÷ baseline`, ratio(declared.ratio)),
    declared && fact("95 % interval", interval(declared)),
    declared && fact("noise floor", `± ${percent(declared.floor_ratio - 1)}`, floor),
    fact("verdict", verdictMark(verdict, verdict_text)),
    fact("hypothesis", outcomeMark(outcome, verdict)),
    fact("same answer", numerics ? badge(numerics, numerics_text) : "not compared"),
    memory && fact("peak memory", `${size(memory.baseline_bytes)} → ${size(memory.variant_bytes)}`),
  );
}

const fact = (name, value, title) => el("div", { title }, el("dt", null, name), el("dd", null, value));
const badge = ({ mismatch }, text) => el("span", { class: `answer ${mismatch ? "bad" : "good"}` }, text);

function circumstances({ started, phases, environment: at }) {
  const launches = phases.length ? `${Math.max(...phases.map((phase) => phase.launches))} launches, ` : "";
  return `${launches}${moment(started)}, ${at.device_name}, ${at.cores} cores, ${at.precision}`;
}

function bar(effect) {
  const [a_us, b_us] = [effect.baseline_s_per_sample * 1e6, effect.variant_s_per_sample * 1e6];
  const hover = [
    escapeLabel(effect.phase),
    `${duration(a_us)} → ${duration(b_us)} per sample`,
    `${ratio(effect.ratio)} (${interval(effect)}), ${effect.verdict}`,
  ];
  return { phase: effect.phase, a_us, b_us, ratio: effect.ratio, hover: hover.join("<br>") };
}
