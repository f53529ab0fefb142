/** The windows of a run by the numbers that an analysis gives them. */

/**
 * What each window is called: its stage or else what its file is called apart from what all files begin with, so that
 * ranks differ in a narrow column, too.
 * @param {{trace: {files: string[]}}} summary @returns {(window: number) => string}
 */
export function namer(summary, state, run) {
  const windows = state.runs.find((other) => other.run === run)?.windows ?? [];
  const files = summary.trace.files.map((path) => path.split(/[/\\]/).pop());
  const shared = sharedWords(files);
  const names = files.map(
    (file) =>
      windows.find((window) => window.file === file)?.stage ??
      file.slice(shared).replace(/(\.pt)?(\.trace)?\.json(\.gz)?$/, ""),
  );
  return (window) => names[window];
}

/** How many characters all of several names begin with, in whole words: 9 of cuda_ddp_rank-0 and cuda_ddp_rank-1. */
function sharedWords([first, ...others]) {
  let alike = 0;
  while (others.length && alike < first.length && others.every((name) => name[alike] === first[alike])) alike++;
  return alike === first.length ? 0 : first.slice(0, alike).search(/[^_.]*$/);
}
