/** Light and dark as TensorBoard has them: a class of the parent document's body, followed live. */

const body = window.parent.document.body;

/** Follow the theme; every chart gets a `themechange` event when it turns. */
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

/** The value of a color of style.css, such as `ink` or `slower`. */
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
