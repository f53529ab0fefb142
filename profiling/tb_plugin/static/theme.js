/** The light or dark theme of TensorBoard, which sets a class of its body. */

const body = window.parent.document.body;

/** Apply the theme and its later changes; each chart receives a `themechange` event. */
export function follow() {
  const page = document.documentElement.classList;
  const apply = () => {
    if (page.contains("dark") === body.classList.contains("dark-mode")) return;
    page.toggle("dark");
    for (const chart of document.querySelectorAll(".chart")) chart.dispatchEvent(new Event("themechange"));
  };
  apply();
  new MutationObserver(apply).observe(body, { attributes: true, attributeFilter: ["class"] });
}

/** The value of a color variable of style.css, such as `ink` or `slower`. */
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
