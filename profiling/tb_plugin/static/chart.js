/** Charts drawn by plotly, in the colors of the theme. The Python package plotly provides plotly.min.js. */

import { el, message } from "./dom.js";
import { color } from "./theme.js";

/** Styles of the bars and lines of both arms. Hatched bars and dashed lines distinguish the arms without color. */
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
/** Styles of stacked parts: color-blind readers can distinguish the colors, no arm has them, each has a pattern. */
export const PARTS = [
  ["#3f8fd2", ""],
  ["#c9a227", "/"],
  ["#2a9d8f", "."],
  ["#c77fb5", "\\"],
  ["#6b5fb5", "x"],
  ["#9a8f3c", "-"],
  ["#4fb3d9", "|"],
  ["#b5564e", "+"],
].map(([color, shape]) => style(color, shape));
/** Styles of what the host waits for, by kind, in the order of the analysis. */
export const WAITING = {
  kernel: style("#2a9d8f", "."),
  collective: style("#c77fb5", "\\"),
  copy: style("#4fb3d9", "|"),
  fill: style("#9a8f3c", "-"),
  "other streams": style("#6b5fb5", "x"),
  "device idle": style("#b8a7a0", ""),
  "device memory": style("#8f6bd6", "+"),
  "pinned memory": style("#5f9e4a", "/"),
  "module loading": style("#e08a8a", "x"),
  driver: style("#8a6248", "-"),
};
export const LEGEND = { orientation: "h", x: 1, xanchor: "right", y: 1, yanchor: "bottom", traceorder: "normal" };

const TOP_MARGIN = 30; // pixels above a chart on the page, where the title is outside the chart
const TITLED_TOP_MARGIN = 60; // pixels above a chart in a PNG file, which contains the title
const MAX_LABEL = 44; // characters of an axis label; the hover text is not shortened

let plotlyPromise = null;

function style(color, shape) {
  return {
    color,
    pattern: { shape, size: 6, solidity: 0.2, fillmode: "overlay", fgcolor: "#ffffff", fgopacity: 0.45 },
  };
}

/** Load plotly once. Views call this before they wait for data, because plotly.min.js is large. */
export function load() {
  plotlyPromise ??= new Promise((resolve, reject) => {
    const script = el("script", { src: "plotly.min.js", onload: () => resolve(window.Plotly) });
    script.addEventListener("error", () => {
      plotlyPromise = null;
      reject(new Error("The charts cannot be drawn: plotly.min.js did not load."));
    });
    document.head.append(script);
  });
  plotlyPromise.catch(() => {}); // each chart shows the error
  return plotlyPromise;
}

/**
 * A chart that is redrawn when its width or the theme changes, with a button that saves it as PNG.
 * @param {object} figure
 * @param {object[] | (() => object[])} figure.data plotly traces; a function is called again for each theme
 * @param {object | (() => object)} figure.layout with `height` in pixels
 * @param {string} figure.label what the chart shows, for screen readers
 * @param {string} figure.pngName file name without extension
 * @param {(point: object) => void} [figure.onOpen] called when a point is clicked
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
    const figure = { data: drawn, layout: { ...look, title, margin: { ...look.margin, t: TITLED_TOP_MARGIN } } };
    const [width, height] = [plot.clientWidth, plot.clientHeight + TITLED_TOP_MARGIN - TOP_MARGIN];
    await plotly.downloadImage(figure, { format: "png", filename: pngName, width, height, scale: 2 });
  };
  const button = el(
    "button",
    { type: "button", class: "export", title: `Save as ${pngName}.png`, onclick: save },
    "PNG",
  );
  const node = el("figure", { class: "chart" }, button, plot);
  const evaluate = (part) => (typeof part === "function" ? part() : structuredClone(part));
  let listening = false;
  const draw = async () => {
    try {
      const plotly = await load();
      if (!plot.clientWidth) return; // not on the page yet, or TensorBoard hides the tab
      const look = { ...evaluate(layout), template: template(), width: plot.clientWidth };
      await plotly.react(plot, evaluate(data), look, { displayModeBar: false });
      if (onOpen && !listening) plot.on("plotly_click", ({ points }) => onOpen(points[0]));
      listening = true;
    } catch (error) {
      plot.replaceChildren(message("error", error.message));
    }
  };
  plot.style.minHeight = `${evaluate(layout).height ?? 300}px`; // drawing does not move the content below
  node.addEventListener("themechange", draw);
  let width = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth !== width) draw((width = plot.clientWidth));
  }).observe(plot);
  return node;
}

/** Escape text from files: plotly interprets some HTML in labels. */
export function escapeLabel(text) {
  return String(text).replace(/\s+/g, " ").trim().replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** A y axis with one row per name, the first on top. Names may repeat or look like dates, so rows have numbers. */
export function rows(names, longest = MAX_LABEL) {
  return {
    tickvals: names.map((_, row) => row),
    ticktext: names.map((name) => escapeLabel(shorten(String(name), longest))),
    range: [names.length - 0.5, -0.5],
    showgrid: false,
    zeroline: false,
  };
}

/** One part of stacked horizontal bars, one per row; no bar and no text where `x` is 0. `ink` is the text's color. */
export function part({ x, ink, ...options }) {
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
    ...options,
  };
}

/** Layout keys for the axes of panels side by side; traces of panel `i` refer to `x${i + 1}` and `y${i + 1}`. */
export function panels(number, x, y) {
  const gap = 0.07;
  const width = (1 + gap) / Math.max(number, 1) - gap;
  const axes = Array.from({ length: number }, (_, i) => [
    [`xaxis${i + 1}`, { ...x(i), domain: [i * (width + gap), i * (width + gap) + width], anchor: `y${i + 1}` }],
    [`yaxis${i + 1}`, { ...y(i), anchor: `x${i + 1}` }],
  ]);
  return Object.fromEntries(axes.flat());
}

/** Shorten a name for a label; the middle is cut because the start and the end identify it. */
export function shorten(name, longest = MAX_LABEL) {
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
      margin: { l: 60, r: 16, t: TOP_MARGIN, b: 40 },
      xaxis: look,
      yaxis: look,
      hoverlabel: { bgcolor: color("paper"), bordercolor: color("line"), font: { color: color("ink") }, align: "left" },
    },
  };
}
