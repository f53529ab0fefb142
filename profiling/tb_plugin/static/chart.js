/** Charts by the plotly.min.js of the Python package, in the colors of the theme. */

import { el, message } from "./dom.js";
import { color } from "./theme.js";

/** How bars and lines of the two arms look; told apart without color too: hatched bars, dashed lines. */
export const BARS = {
  baseline: { color: "#7a8a9e" },
  variant: {
    color: "#d9772b",
    pattern: { shape: "/", size: 6, solidity: 0.2, fillmode: "overlay", fgcolor: "#ffffff" },
  },
};
export const LINES = {
  baseline: { color: "#7a8a9e", width: 1.5, shape: "hv" },
  variant: { color: "#d9772b", width: 1.5, shape: "hv", dash: "4px,2px" },
};
/** Looks of the parts of a whole: hues that the color-blind tell apart and that no arm has, and a pattern beside each. */
export const PARTS = [
  ["#3f8fd2", ""],
  ["#c9a227", "/"],
  ["#2a9d8f", "."],
  ["#c77fb5", "\\"],
  ["#6b5fb5", "x"],
  ["#9a8f3c", "-"],
  ["#4fb3d9", "|"],
  ["#b5564e", "+"],
].map(([color, shape]) => ({
  color,
  pattern: { shape, size: 6, solidity: 0.2, fillmode: "overlay", fgcolor: "#ffffff", fgopacity: 0.45 },
}));
export const LEGEND = { orientation: "h", x: 1, xanchor: "right", y: 1, yanchor: "bottom", traceorder: "normal" };

const UNTITLED = 30; // pixels above a chart: on the page its title stands outside, in the file inside
const TITLED = 60;
const LONGEST = 44; // characters of a label beside an axis; the hover text has all

let loading = null;

/** Start loading plotly (4.8 MB), once; a view that will draw calls it before it waits for its data. */
export function load() {
  loading ??= new Promise((resolve, reject) => {
    const script = el("script", { src: "plotly.min.js", onload: () => resolve(window.Plotly) });
    script.addEventListener("error", () => {
      loading = null;
      reject(new Error("The charts cannot be drawn: plotly.min.js did not load."));
    });
    document.head.append(script);
  });
  loading.catch(() => {}); // each chart says so itself
  return loading;
}

/**
 * A chart that follows the width and the theme, with a button that saves it as PNG.
 * @param {object} figure
 * @param {object[] | (() => object[])} figure.data plotly traces; as a function, made anew for each theme
 * @param {object | (() => object)} figure.layout with `height` in pixels
 * @param {string} figure.label what the chart shows, for those who do not see it
 * @param {string} figure.pngName file name without its ending
 * @param {(point: object) => void} [figure.onOpen] a click on a point
 */
export function chart({ data, layout, label, pngName, onOpen }) {
  const plot = el("div", { class: onOpen ? "plot opens" : "plot", role: "img", "aria-label": label });
  const save = async () => {
    const plotly = await load();
    const { data: drawn, layout: look } = plot;
    const title = {
      text: escapeLabel(label),
      x: 0,
      xref: "paper",
      xanchor: "left",
      y: 1,
      yanchor: "top",
      pad: { t: 10 },
      font: { size: 13 },
    };
    const figure = { data: drawn, layout: { ...look, title, margin: { ...look.margin, t: TITLED } } };
    const [width, height] = [plot.clientWidth, plot.clientHeight + TITLED - UNTITLED];
    await plotly.downloadImage(figure, { format: "png", filename: pngName, width, height, scale: 2 });
  };
  const button = el(
    "button",
    { type: "button", class: "export", title: `Save as ${pngName}.png`, onclick: save },
    "PNG",
  );
  const node = el("figure", { class: "chart" }, button, plot);
  const made = (part) => (typeof part === "function" ? part() : structuredClone(part));
  let listening = false;
  const draw = async () => {
    try {
      const plotly = await load();
      if (!plot.clientWidth) return; // not on the page yet, or in a tab that TensorBoard hides
      const look = { ...made(layout), template: template(), width: plot.clientWidth };
      await plotly.react(plot, made(data), look, { displayModeBar: false });
      if (onOpen && !listening) plot.on("plotly_click", ({ points }) => onOpen(points[0]));
      listening = true;
    } catch (error) {
      plot.replaceChildren(message("error", error.message));
    }
  };
  plot.style.minHeight = `${made(layout).height ?? 300}px`; // nothing jumps when it is drawn
  node.addEventListener("themechange", draw);
  let width = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth !== width) draw((width = plot.clientWidth));
  }).observe(plot);
  return node;
}

/** Plotly reads some HTML in every label: names that come from files pass here. */
export function escapeLabel(text) {
  return String(text).replace(/\s+/g, " ").trim().replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** A y axis of one row per name, the first on top; by number, since names may repeat or look like numbers or dates. */
export function rows(names, longest = LONGEST) {
  return {
    tickvals: names.map((_, row) => row),
    ticktext: names.map((name) => escapeLabel(shorten(String(name), longest))),
    range: [names.length - 0.5, -0.5],
    showgrid: false,
    zeroline: false,
  };
}

/** One part of stacked, horizontal bars, a row each: no bar and no text where `x` is 0, and `ink` on the bar's color. */
export function part({ x, ink, ...others }) {
  return {
    type: "bar",
    orientation: "h",
    y: x.map((_, row) => row),
    x: x.map((length) => length || null),
    textposition: "auto",
    insidetextanchor: "start",
    textfont: { color: ink },
    outsidetextfont: { color: color("ink") },
    hoverinfo: "text",
    ...others,
  };
}

/** Axes of panels side by side, by name of the layout's key; the traces of panel `i` name `x${i + 1}` and `y${i + 1}`. */
export function panels(number, x, y) {
  const gap = 0.07;
  const width = (1 + gap) / Math.max(number, 1) - gap;
  const axes = Array.from({ length: number }, (_, i) => [
    [`xaxis${i + 1}`, { ...x(i), domain: [i * (width + gap), i * (width + gap) + width], anchor: `y${i + 1}` }],
    [`yaxis${i + 1}`, { ...y(i), anchor: `x${i + 1}` }],
  ]);
  return Object.fromEntries(axes.flat());
}

/** Shorten a name for a label: what lies in its middle matters least. */
export function shorten(name, longest = LONGEST) {
  const letters = [...name];
  const half = Math.floor((longest - 1) / 2);
  return letters.length <= longest ? name : `${letters.slice(0, half).join("")}…${letters.slice(-half).join("")}`;
}

function template() {
  const axis = { gridcolor: color("line"), linecolor: color("line"), zerolinecolor: color("muted"), automargin: true };
  const look = { ...axis, separatethousands: true, title: { font: { size: 11 }, standoff: 8 } };
  return {
    layout: {
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("ink") },
      paper_bgcolor: color("panel"),
      plot_bgcolor: color("panel"),
      margin: { l: 60, r: 16, t: UNTITLED, b: 40 },
      xaxis: look,
      yaxis: look,
      hoverlabel: { bgcolor: color("paper"), bordercolor: color("line"), font: { color: color("ink") }, align: "left" },
    },
  };
}
