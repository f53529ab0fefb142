// Draws a chart when its section opens: drawing all charts of a ladder at once would be slow.
"use strict";

const PAPER = { bars: 270, causes: 420, memory: 700 }; // widths in CSS pixels between the margins of an A4 page
const FIGURES = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

// A plotly template with the page's colors, which the style sheet sets for light, dark and print.
function template(fontSize) {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const axis = { gridcolor: color("line"), linecolor: color("line"), zerolinecolor: color("muted") };
  return {
    layout: {
      font: { family: getComputedStyle(document.body).fontFamily, size: fontSize, color: color("ink") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 60, r: 12, t: 46, b: 40 },
      xaxis: { ...axis, automargin: true, title: { font: { size: fontSize - 1 } } },
      yaxis: { ...axis, automargin: true, title: { font: { size: fontSize - 1 } } },
      hoverlabel: { bgcolor: color("panel"), bordercolor: color("line"), font: { color: color("ink") }, align: "left" },
    },
  };
}

function draw(chart, width) {
  const { data, layout } = FIGURES[chart.dataset.figure];
  const look = { ...layout, template: template(width ? 9 : 12), width, autosize: !width };
  Plotly.react(chart, structuredClone(data), structuredClone(look), { displayModeBar: false, responsive: true });
}

function drawn() {
  return document.querySelectorAll(".chart.js-plotly-plot");
}

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

function drawOpened(section) {
  if (!section.open || document.documentElement.classList.contains("printing")) return;
  for (const chart of section.querySelectorAll(".chart:not(.js-plotly-plot)")) draw(chart);
}

document.addEventListener("toggle", ({ target }) => drawOpened(target), true); // toggle does not bubble

dark.addEventListener("change", () => drawn().forEach((chart) => draw(chart)));

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  document.documentElement.classList.add("printing");
  for (const section of closed) section.open = true;
  for (const chart of document.querySelectorAll(".chart")) draw(chart, PAPER[chart.dataset.kind]);
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printing");
  for (const section of closed) section.open = false;
  drawn().forEach((chart) => draw(chart));
});

document.querySelectorAll("details").forEach(drawOpened);
addEventListener("hashchange", openTarget);
openTarget();
