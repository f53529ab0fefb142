/**
 * Runs in the page of the Perfetto UI, before it, and keeps it to what a tab may do. The UI asks a host of Google's who
 * its user is and looks for a trace processor on a port of this machine: the server's policy forbids both, but only
 * requests that are not made leave the console clean. It adds a policy of its own, wider and with a directive that
 * browsers complain of; keeps copies of traces in the browser; and makes a step of history for each trace.
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
    queueMicrotask(() => node.onerror?.()); // the UI waits for its script
    return node;
  };
}

const ask = fetch;
window.fetch = (resource, options) =>
  foreign(resource.url ?? resource) ? Promise.reject(new TypeError("no other host is asked")) : ask(resource, options);

const nothing = {
  put: async () => {},
  match: async () => new Response(),
  keys: async () => [],
  delete: async () => true,
};
Object.defineProperty(window, "caches", { value: { open: async () => nothing } });

window.navigation?.addEventListener("navigate", (event) => {
  if (!(event.hashChange && event.navigationType === "push" && event.cancelable)) return;
  event.preventDefault();
  location.replace(event.destination.url); // so that "back" leaves the timeline
});
