/** Numbers as text: three digits and a unit, as in profiling/format.py. */

const SHORTEST_US = 1e-6; // less is what rounding leaves of a sum

/** A time in microseconds: `812 ns`, `14.4 µs`, `2.05 ms`, `1,204 s`. */
export function duration(us) {
  if (Math.abs(us) < SHORTEST_US) return "0 µs";
  if (us > 0 && us < 1) return `${digits(us * 1000)} ns`;
  if (us >= 1e6) return `${digits(us / 1e6)} s`;
  if (us >= 1e3) return `${digits(us / 1e3)} ms`;
  return `${digits(us)} µs`;
}

/** The unit of an axis whose longest time is `us` microseconds, and its length in microseconds. */
export function axisUnit(us) {
  if (us >= 1e6) return { unit: "s", per: 1e6 };
  return us >= 1e3 ? { unit: "ms", per: 1e3 } : { unit: "µs", per: 1 };
}

/** A difference of times in microseconds, with its sign. */
export function change(us) {
  return `${us <= -SHORTEST_US ? "-" : "+"}${duration(Math.abs(us))}`;
}

/** A number of bytes: `19.2 MiB`. */
export function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(value) < 1024) return `${digits(value)} ${unit}`;
    value /= 1024;
  }
  return `${digits(value)} TiB`;
}

/** A difference of bytes, with its sign. */
export function sizeChange(bytes) {
  return `${bytes < 0 ? "-" : "+"}${size(Math.abs(bytes))}`;
}

/** A count with grouped thousands; a count per sample may be a fraction. */
export function count(n) {
  return Number.isInteger(n) ? grouped(String(n)) : digits(n);
}

/** Floating-point operations: `1.84 GFLOP`. */
export function flops(n) {
  let value = n;
  for (const unit of ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"]) {
    if (value < 1000) return `${digits(value)} ${unit}`;
    value /= 1000;
  }
  return `${digits(value)} PFLOP`;
}

/** A ratio of variant to baseline: `×1.052`, `×21.3`, `×1,204`. */
export function ratio(x) {
  const places = x < 10 ? 3 : x < 100 ? 1 : 0;
  return `×${grouped(fixed(x, places))}`;
}

/** The 95 % interval of a ratio: `1.043 – 1.061`. */
export function interval({ ratio_low, ratio_high }) {
  return `${ratio(ratio_low).slice(1)} – ${ratio(ratio_high).slice(1)}`;
}

/** A fraction of 1 as a percentage: `12.3 %`. */
export function percent(x) {
  return `${fixed(100 * x, 1)} %`;
}

/** The name of a phase; `isDerived`: the trace does not mark it. */
export function phaseName(name, isDerived) {
  return isDerived ? `${name} (derived)` : name;
}

/** An ISO 8601 time, shortened to the minute. */
export function moment(iso) {
  return iso.slice(0, 16).replace("T", " ");
}

/** Three significant digits without trailing zeros; from 1,000 an integer with grouped thousands. */
function digits(value) {
  const exponent = Number(value.toExponential(EXACT).split("e")[1]);
  if (exponent > 2) return grouped(fixed(value, 0));
  return grouped(String(Number(fixed(value, Math.min(2 - exponent, EXACT)))));
}

const EXACT = 30; // enough digits to detect a tie in rounding
const HALF = new RegExp(`^50{${EXACT - 1}}$`);

/** Round ties to the even digit, as Python does: the tab and the command line then show the same numbers. */
function fixed(value, places) {
  const exact = value.toFixed(places + EXACT);
  const cut = exact.slice(0, -EXACT).replace(/\.$/, "");
  return HALF.test(exact.slice(-EXACT)) && /[02468]$/.test(cut) ? cut : value.toFixed(places);
}

/** Insert commas between the thousands of a number in decimal notation. */
function grouped(text) {
  const [whole, ...fraction] = text.split(".");
  return [whole.replace(/\B(?=(\d{3})+$)/g, ","), ...fraction].join(".");
}
