/** Names of the windows of a run. */

/**
 * A function from the number of a window in an analysis to its name: its stage, or its file name without the words that
 * all files begin with, so that ranks can be distinguished in a narrow column.
 * @param {{trace: {files: string[]}}} summary @returns {(window: number) => string}
 */
export function namer(summary, state, run) {
  const windows = state.runs.find((info) => info.run === run)?.windows ?? [];
  const files = summary.trace.files.map((path) => path.split(/[/\\]/).pop());
  const shared = sharedWords(files);
  const names = files.map(
    (file) =>
      windows.find((window) => window.file === file)?.stage ??
      file.slice(shared).replace(/(\.pt)?(\.trace)?\.json(\.gz|\.zst|\.zip)?$/, ""),
  );
  return (window) => names[window];
}

/** The length of the common prefix in whole words: 9 for cuda_ddp_rank-0 and cuda_ddp_rank-1. */
function sharedWords([first, ...rest]) {
  let length = 0;
  while (rest.length && length < first.length && rest.every((name) => name[length] === first[length])) length++;
  return length === first.length ? 0 : first.slice(0, length).search(/[^_.]*$/);
}
