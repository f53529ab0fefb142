/**
 * Runs in the page of the Perfetto UI, before the UI's own scripts, and prevents what a tab should not do:
 * - Requests to other hosts and ports. The server's policy blocks them too, but logs an error in the console for each.
 * - The UI's own content security policy, which is less strict and has a directive that browsers warn about.
 * - Copies of traces in the browser's cache.
 * - An entry in the browser's history for each trace.
 */
"use strict";

function foreign(address) {
  const { protocol, origin } = new URL(address, location.href);
  return protocol.startsWith("http") && origin !== location.origin;
}

const unwanted = (node) =>
  (node instanceof HTMLScriptElement && foreign(node.src)) ||
  (node instanceof HTMLMetaElement && node.httpEquiv === "Content-Security-Policy");

for (const method of ["append", "appendChild"]) {
  const add = document.head[method].bind(document.head);
  document.head[method] = (node) => {
    if (!unwanted(node)) return add(node);
    queueMicrotask(() => node.onerror?.()); // the UI waits until its script loads or fails
    return node;
  };
}

const send = fetch;
window.fetch = (resource, options) =>
  foreign(resource.url ?? resource) ? Promise.reject(new TypeError("no other host is asked")) : send(resource, options);

const stubCache = {
  put: async () => {},
  match: async () => new Response(),
  keys: async () => [],
  delete: async () => true,
};
Object.defineProperty(window, "caches", { value: { open: async () => stubCache } });

window.navigation?.addEventListener("navigate", (event) => {
  if (!(event.hashChange && event.navigationType === "push" && event.cancelable)) return;
  event.preventDefault();
  location.replace(event.destination.url); // the back button then leaves the timeline
});
