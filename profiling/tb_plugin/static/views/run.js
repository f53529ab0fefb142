/** The views of a run, and of two: the server says what is on them. */

import { draw } from "../blocks.js";
import { load } from "../chart.js";
import { linksOut } from "../links.js";
import * as model from "../model.js";
import { choose, comparison, reference } from "../sides.js";

const OF_TWO = ["compare", "memory"];

export async function show(root, state) {
  const { view, against, selected, by, links_out } = state;
  if (view === "compare" && !against) {
    root.append(choose(state));
    return;
  }
  load();
  const isOfTwo = OF_TWO.includes(view) && against;
  const folder = view === "compare" ? comparison(state) : null;
  const [views, effect] = await Promise.all([
    isOfTwo ? model.compared(selected, reference(state)) : model.figures(selected, view === "operators" ? by : ""),
    folder && measured(folder),
  ]);
  if (view === "overview" && links_out.length) root.append(linksOut(links_out));
  const blocks = views[view].flatMap((block) => (block.kind === "measured" ? (effect ?? []) : [block]));
  root.append(...draw(blocks));
}

/** The measured effect of a comparison, corrected over the whole ladder as in the Effects view. */
async function measured(folder) {
  const missing = (text) => [{ kind: "message", look: "partial", text: `The measured effect is not known: ${text}` }];
  try {
    const { measured: known, notes } = await model.effects();
    const reason = () => notes.find((note) => note.startsWith(`${folder}/`)) ?? `${folder}: no comparison was found`;
    return known[folder] ?? missing(reason());
  } catch (error) {
    return missing(error.message);
  }
}
