/** The page: header, choice of run, and the view that the address names. */

import * as address from "./address.js";
import { el, message, size } from "./dom.js";
import { linksOut } from "./links.js";
import * as model from "./model.js";
import { baseline } from "./sides.js";
import * as theme from "./theme.js";

const VIEWS = {
  effects: { label: "Effects", chooses: [], module: "effects" },
  overview: { label: "Overview", chooses: ["run", "window"] },
  operators: { label: "Operators", chooses: ["run", "window"] },
  compare: { label: "Compare", chooses: ["run", "window", "against"] },
  memory: { label: "Memory", chooses: ["run", "window", "against"] },
  modules: { label: "Modules", chooses: ["run", "window"] },
  kernels: { label: "Kernels", chooses: ["run", "window"] },
  communication: { label: "Communication", chooses: ["run", "window"] },
  timeline: { label: "Timeline", chooses: ["run", "window"], module: "timeline" },
};
// Stricter than TensorBoard's policy. Plotly needs style attributes, and data: and blob: images to save charts.
const POLICY =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none'; form-action 'none'";
const POLL_MS = 30_000;
const LONGEST = 60; // characters of a run's name in a choice
const LOADING_DELAY_MS = 150; // delay of the loading message, so that fast answers do not flicker

let listing = null; // the answer of `runs`
let latest = 0; // number of the latest call of `show`; results of earlier calls are dropped
let shownFiles = "";

/** The entry point: TensorBoard calls it once, in the plugin's frame. */
export async function render() {
  document.head.append(el("meta", { "http-equiv": "Content-Security-Policy", content: POLICY }));
  document.documentElement.lang = "en";
  theme.follow();
  if (address.get().view in VIEWS) load(address.get().view).catch(() => {}); // early; `show` reports errors
  await style();
  document.body.append(header, notice, main);
  address.onChange(show);
  await refresh();
  setInterval(() => visible() && refresh(), POLL_MS);
  document.addEventListener("visibilitychange", () => visible() && refresh());
  let width = 0;
  new ResizeObserver(() => {
    if (!width && visible() && listing) refresh(); // TensorBoard shows this tab again
    width = document.documentElement.clientWidth;
  }).observe(document.documentElement);
  onReload(refresh);
}

/** Call `fn` when TensorBoard reloads its data; TensorBoard's plugin library receives the message in the same way. */
function onReload(fn) {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data }) => {
    const request = JSON.parse(data);
    if (request.isReply) return;
    port1.postMessage(JSON.stringify({ ...request, payload: null, error: null, isReply: true }));
    if (request.type === "experimental.DataReloaded") fn();
  };
  window.parent.postMessage("experimental.bootstrap", location.origin, [port2]);
}

const tabs = Object.entries(VIEWS).map(([name, { label }]) => el("a", { target: "_parent", "data-view": name }, label));
const choices = {
  run: choice("Run", (run) => address.set({ run, window: "" })),
  window: choice("Window", (window) => address.set({ window })),
  against: choice("Compare with", (against) => address.set({ against })),
};
const header = el(
  "header",
  null,
  el("nav", { "aria-label": "Views of A/B Trace" }, ...tabs),
  el("div", { class: "choices" }, ...Object.values(choices).map(({ label }) => label)),
);
const notice = el("div", { class: "notice" });
const main = el("main");

function choice(name, onChoose) {
  const select = el("select", { onchange: () => onChoose(select.value) });
  return { select, label: el("label", null, el("span", null, name), select) };
}

function style() {
  return new Promise((resolve) => {
    const href = new URL("style.css", import.meta.url);
    document.head.append(el("link", { rel: "stylesheet", href, onload: resolve, onerror: resolve }));
  });
}

const visible = () => !document.hidden && document.documentElement.clientWidth > 0;

/** Request the runs again; update the choices, and the view if the files behind it changed. */
async function refresh() {
  const before = JSON.stringify(listing);
  try {
    listing = await model.runs();
  } catch (error) {
    notice.replaceChildren(message("error", error.message, "The tab asks again every 30 seconds."));
    return;
  }
  notice.replaceChildren();
  const state = wanted();
  if (state.files !== shownFiles || !main.firstChild) show();
  else if (JSON.stringify(listing) !== before) describe(state);
}

/** The state that the address asks for, with defaults from the listing. */
function wanted() {
  const { runs, comparisons, links_out } = listing;
  const query = address.get();
  const view = query.view in VIEWS ? query.view : comparisons ? "effects" : "overview";
  const run = listed(query.run, runs) || newest(runs);
  const selected = query.window ? `${run}/${query.window}` : run;
  const against = listed(query.against, runs) || (view === "compare" ? baseline(run, runs) : "");
  const files =
    view === "effects"
      ? JSON.stringify(listing)
      : JSON.stringify([links_out, ...[run, against].map((name) => name && model.stamp(name))]);
  return { ...query, view, run, against, selected, runs, links_out, files };
}

/** The name under which a run is listed; `name` may be that of a link to it. */
const listed = (name, runs) => runs.find(({ links }) => links.includes(name))?.run ?? name;

function newest(runs) {
  const mtime = ({ windows }) => Math.max(0, ...windows.map(({ mtime_s }) => mtime_s));
  return [...runs].sort((a, b) => mtime(b) - mtime(a))[0]?.run ?? "";
}

async function show() {
  if (!listing || !address.isCurrent()) return;
  const state = wanted();
  const number = ++latest;
  main.setAttribute("aria-busy", true);
  shownFiles = state.files;
  describe(state);
  const root = el("section", { class: `view ${state.view}`, "aria-label": VIEWS[state.view].label });
  const waiting = setTimeout(() => main.replaceChildren(loading(state), root), LOADING_DELAY_MS);
  try {
    const missing = lacking(state);
    if (missing) root.append(missing);
    else await (await load(state.view)).show(root, state);
  } catch (error) {
    const hint = state.view === "effects" ? "" : "Other runs are not affected: choose one above.";
    root.append(message("error", error.message, hint));
  }
  clearTimeout(waiting);
  if (number !== latest) return;
  main.replaceChildren(root);
  main.setAttribute("aria-busy", false);
}

async function load(view) {
  try {
    return await import(`./views/${VIEWS[view].module ?? "run"}.js`);
  } catch (error) {
    throw new Error(`The view “${VIEWS[view].label}” could not be loaded: ${error.message}`, { cause: error });
  }
}

/** A message if the view cannot be shown: no runs, or an unknown run or window; otherwise null. */
function lacking({ view, run, window, against, runs, links_out }) {
  if (view === "effects") return null;
  if (!runs.length) {
    const hint =
      "Record one with `python -m train`, or with torch.profiler and `tensorboard_trace_handler`. It appears here by itself.";
    const nothing = message("empty", "No traces of torch.profiler lie below this logdir.", hint);
    return links_out.length ? el("div", null, linksOut(links_out), nothing) : nothing;
  }
  for (const name of [run, against].filter(Boolean)) {
    if (!runs.some((info) => info.run === name))
      return message("empty", `There is no run “${name}” in this logdir.`, "Choose one above.");
  }
  if (window && !runs.find((info) => info.run === run).windows.some(({ file }) => file === window)) {
    return message("empty", `The run has no window “${window}”.`, "Choose one above.");
  }
  return null;
}

function loading({ view, run, window, runs }) {
  if (view === "effects") return message("loading", "Reading the comparisons …");
  const windows = runs.find((info) => info.run === run)?.windows ?? [];
  const selected = windows.filter(({ file }) => !window || file === window);
  const bytes = selected.reduce((sum, file) => sum + file.bytes, 0);
  const files = selected.length === 1 ? "1 file" : `${selected.length} files`;
  return message(
    "loading",
    `Analyzing ${files}, ${size(bytes)} …`,
    "The first look takes longest; the answer is kept in a cache.",
  );
}

/** Update tabs and choices. */
function describe({ view, run, window, against, runs }) {
  for (const tab of tabs) {
    const name = tab.dataset.view;
    tab.href = address.href({ view: name, run: name === "effects" ? address.get().run : run });
    if (name === view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  const names = runs.map((info) => [info.run, shortened([info.run, ...info.links].join(" = "))]);
  const windows = runs.find((info) => info.run === run)?.windows ?? [];
  const files = windows.map(({ file, stage }) => [file, stage ? `${stage}: ${file}` : file]);
  offer(choices.run.select, names, run);
  offer(
    choices.window.select,
    files.length === 1 ? [[window, files[0][1]]] : [["", `all ${files.length}`], ...files],
    window,
  );
  offer(choices.against.select, [["", "nothing"], ...names.filter(([name]) => name !== run)], against);
  for (const [name, { label }] of Object.entries(choices)) {
    label.hidden = !runs.length || !VIEWS[view].chooses.includes(name);
  }
}

/** A long name without its middle: runs differ in their beginning (what they are) and their end (when they were). */
const shortened = (name) => (name.length > LONGEST ? `${name.slice(0, LONGEST / 2)}…${name.slice(-LONGEST / 2)}` : name);

/** Fill a select; a chosen value that does not exist is added as an option. */
function offer(select, options, chosen) {
  const known = options.some(([value]) => value === chosen);
  const all = known ? options : [...options, [chosen, `${chosen} (not found)`]];
  select.title = chosen; // the full name, which the select may cut
  select.replaceChildren(...all.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}
