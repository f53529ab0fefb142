/** What `python -m train.ab` measured of two arms, interleaved: the effect, its interval, the verdict, the same answer. */

import { chart, escapeLabel } from "./chart.js";
import { phaseBars } from "./compare_charts.js";
import { el, message, panel } from "./dom.js";
import { duration, percent, ratio, size } from "./format.js";
import * as model from "./model.js";

/** @param {string} folder of the comparison @returns {Promise<HTMLElement>} */
export async function measured(folder) {
  const record = await model.comparison(folder);
  const { comparison, partial } = record;
  const { hypothesis, phases, reason } = comparison;
  const declared = phases.find(({ phase }) => phase === hypothesis.phase);
  return panel(
    `Measured, interleaved: ${comparison.experiment}`,
    el("p", null, hypothesis.claim, " ", el("span", { class: "note" }, `(${hypothesis.because})`)),
    partial && message("partial", "The comparison was interrupted before its planned number of blocks."),
    reason && message("empty", reason),
    el(
      "dl",
      { class: "facts" },
      declared && fact(`${declared.phase}, variant ÷ baseline`, ratio(declared.ratio)),
      declared && fact("95 % interval", `${ratio(declared.ratio_low).slice(1)} – ${ratio(declared.ratio_high).slice(1)}`),
      declared && fact("noise floor", `± ${percent(declared.floor_ratio - 1)}`, "What identical code showed here, baseline against baseline"),
      fact("verdict", el("span", { class: `verdict ${word(comparison.verdict)}` }, comparison.verdict)),
      fact("hypothesis", comparison.outcome),
      comparison.memory && fact("peak memory", `${size(comparison.memory.baseline_bytes)} → ${size(comparison.memory.variant_bytes)}`),
      fact("same answer", same(comparison.numerics)),
    ),
    phases.length &&
      chart({
        ...phaseBars(phases.map(bar), { a: { title: "baseline", look: "baseline" }, b: { title: "variant", look: "variant" } }, "sample"),
        label: "Bars: measured time per sample of each phase, baseline and variant",
        pngName: `measured-${comparison.experiment}`,
      }),
  );
}

const fact = (name, value, title) => el("div", { title }, el("dt", null, name), el("dd", null, value));
const word = (verdict) => verdict.replaceAll(" ", "-");

function bar({ phase, baseline_s_per_sample, variant_s_per_sample, ratio_low, ratio_high, ratio: times, verdict }) {
  const [a_us, b_us] = [baseline_s_per_sample * 1e6, variant_s_per_sample * 1e6];
  const interval = `${ratio(times)} (${ratio(ratio_low).slice(1)} – ${ratio(ratio_high).slice(1)}), ${verdict}`;
  return { phase, a_us, b_us, hover: `${escapeLabel(phase)}<br>${duration(a_us)} → ${duration(b_us)} per sample<br>${interval}` };
}

/** Whether the results stayed the same; a mismatch has a mark that does not need color. */
function same(numerics) {
  if (!numerics) return "not compared";
  const { declared, measured: found, mismatch } = numerics;
  const text = mismatch ? `✗ ${found}, declared ${declared}` : found === "different" ? found : `✓ ${found}`;
  return el("span", { class: `answer ${mismatch ? "bad" : "good"}` }, text);
}
