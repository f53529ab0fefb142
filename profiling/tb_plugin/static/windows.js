/** The windows of a run by the numbers that an analysis gives them. */

/**
 * What each window is called: its stage or else its file, where there are several.
 * @param {{trace: {files: string[]}}} summary @returns {(window: number) => string}
 */
export function namer(summary, state, run) {
  const windows = state.runs.find((other) => other.run === run)?.windows ?? [];
  const names = summary.trace.files.map((path) => {
    const file = path.split(/[/\\]/).pop();
    return windows.find((window) => window.file === file)?.stage ?? file.replace(/(\.pt)?(\.trace)?\.json(\.gz)?$/, "");
  });
  return (window) => names[window];
}
