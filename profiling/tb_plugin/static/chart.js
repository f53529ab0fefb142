/** Charts drawn by plotly, in the colors of the theme. The Python package plotly provides plotly.min.js. */

import * as address from "./address.js";
import { el, message } from "./dom.js";
import { color } from "./theme.js";

const TOP_MARGIN = 30; // pixels above a chart on the page, where the title is outside the chart
const TITLED_TOP_MARGIN = 60; // pixels above a chart in a PNG file, which contains the title

let plotlyPromise = null;

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
 * @param {object[]} figure.data plotly traces
 * @param {object} figure.layout with `height` in pixels
 * @param {string} figure.label what the chart shows, for screen readers
 * @param {string} figure.name file name without extension
 * @param {(object | null)[]} [figure.opens] by the `customdata` of a point: the address that a click on it leads to
 */
export function chart({ data, layout, label, name, opens }) {
  const plot = el("div", { class: opens ? "plot opens" : "plot", role: "img", "aria-label": label });
  const save = async () => {
    const plotly = await load();
    const { data: drawn, layout: look } = plot;
    const text = label.replace(/[&<>$]/g, (letter) => `&#${letter.charCodeAt(0)};`); // see figures/style.py
    const place = { x: 0, xref: "paper", xanchor: "left", y: 1, yanchor: "top", pad: { t: 10 } };
    const title = { text, ...place, font: { size: 13 } };
    const figure = { data: drawn, layout: { ...look, title, margin: { ...look.margin, t: TITLED_TOP_MARGIN } } };
    const [width, height] = [plot.clientWidth, plot.clientHeight + TITLED_TOP_MARGIN - TOP_MARGIN];
    await plotly.downloadImage(figure, { format: "png", filename: name, width, height, scale: 2 });
  };
  const button = el("button", { type: "button", class: "export", title: `Save as ${name}.png`, onclick: save }, "PNG");
  const node = el("figure", { class: "chart" }, button, plot);
  const open = ({ points: [point] }) => opens[point.customdata] && address.set(opens[point.customdata]);
  let listening = false;
  const draw = async () => {
    try {
      const plotly = await load();
      if (!plot.clientWidth) return; // not on the page yet, or TensorBoard hides the tab
      const look = { ...themed(layout), template: template(), width: plot.clientWidth };
      await plotly.react(plot, themed(data), look, { displayModeBar: false });
      if (opens && !listening) plot.on("plotly_click", open);
      listening = true;
    } catch (error) {
      plot.replaceChildren(message("error", error.message));
    }
  };
  plot.style.minHeight = `${layout.height}px`; // drawing does not move the content below
  node.addEventListener("themechange", draw);
  let width = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth !== width) draw((width = plot.clientWidth));
  }).observe(plot);
  return node;
}

/** A copy of a part of a figure, with the colors of the theme instead of their names, `var(--ink)`. */
function themed(part) {
  const of = (value) => (value.startsWith?.("var(--") ? color(value.slice("var(--".length, -1)) : value);
  return JSON.parse(JSON.stringify(part), (key, value) => {
    if (key === "colorscale") return value.map(([at, name]) => [at, of(name)]);
    return key === "color" || key === "fillcolor" ? of(value) : value;
  });
}

function template() {
  // ticklabeloverflow: labels have room by automargin, and a search for those that overflow takes half of the drawing.
  const axis = { gridcolor: color("line"), linecolor: color("line"), zerolinecolor: color("muted"), automargin: true, ticklabeloverflow: "allow" };
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
