"""How often are verdicts wrong? 2,000 simulated comparisons per row: `python -m tests.bench.bench_validity_sim`.

The noise was recorded by `tests.bench.record_noise`, on a quiet and on a busy machine. A simulated comparison strings
together contiguous segments of SEGMENT_S, drawn with replacement from one launch, so that drift, bursts and
autocorrelation survive; an i.i.d. shuffle would be too kind. The two arms of a segment are swapped at random, so that
the null hypothesis holds exactly. Of the ABBA quadruples every second one goes to the noise floor, as in `train.ab`.

`same process`: quadruples start at the second block of the recorded order 0 1 1 0, so that each arm holds one block of
either worker and nothing but the noise of time is left. `two processes`: each arm is one worker, as in a real A/B, the
lasting difference of two identical processes included; segments are then not swapped one by one, but all together.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import scipy.stats

from profiling import compare, stats
from profiling.stats import Effect, Floats
from tests.bench.record_noise import Recording

HERE = Path(__file__).parent
COMPARISONS = 2000
BUDGETS_S = (10, 45)
SHIFTS = {"3 %": math.log(1.03), "5 %": math.log(1.05)}
SEGMENT_S = 5
PHASES = ("train", "evaluate")


class Candidate(NamedTuple):
    """A way to turn the ABBA log ratios into an effect."""

    name: str
    estimate: Callable[[Floats], Effect]


class Row(msgspec.Struct, frozen=True):
    """Rates over COMPARISONS simulated comparisons; power is the share in which a true slowdown is called slower."""

    noise: str
    arms: str
    phase: str
    budget_s: int
    pairs: int
    method: str
    false_positive_rate: float  # raw 95 % interval; its coverage is one minus this, whatever the true shift
    called_rate: float | None  # false positives after the floor rule
    half_width: float  # median, log ratio
    power_raw: dict[str, float]
    power_called: dict[str, float] | None


def pairs_of(series: Floats, offset: int) -> Floats:
    """Split block timings [blocks] into log ratios [quadruples, 2] of their two pairs, read as A B B A."""
    quads = np.log(series[offset : offset + (len(series) - offset) // 4 * 4]).reshape(-1, 4)
    return np.stack([quads[:, 1] - quads[:, 0], quads[:, 2] - quads[:, 3]], axis=1)


def draw(
    rng: np.random.Generator, effect: Floats, floor: Floats, quads: int, segment: int, two_processes: bool
) -> tuple[Floats, Floats]:
    """String together contiguous segments until `quads` quadruples are reached; returns [quads / 2, 2] each."""
    effects, floors = [], []
    sign = rng.choice((-1, 1))
    for _ in range(math.ceil(quads / segment)):
        start = rng.integers(0, len(floor) - segment + 1)
        sign = sign if two_processes else rng.choice((-1, 1))
        effects.append(sign * effect[start : start + segment : 2])
        floors.append(sign * floor[start + 1 : start + segment : 2])
    return np.concatenate(effects)[: quads // 2], np.concatenate(floors)[: quads // 2]


def hodges_lehmann_of_pairs(pairs: Floats) -> Effect:
    return stats.hodges_lehmann(pairs.ravel())


def hodges_lehmann_of_quads(pairs: Floats) -> Effect:
    return stats.hodges_lehmann(pairs.mean(axis=1))


def hodges_lehmann_of_octets(pairs: Floats) -> Effect:
    """Means of two neighboring quadruples: half as many units, less correlated."""
    quads = pairs.mean(axis=1)
    return stats.hodges_lehmann(quads[: len(quads) // 2 * 2].reshape(-1, 2).mean(axis=1))


def sign_test(pairs: Floats) -> Effect:
    """Order statistics around the median: the interval that assumes least."""
    values = np.sort(pairs.mean(axis=1))
    test = scipy.stats.binom(len(values), 0.5)
    cut = int(test.ppf(0.025))
    cut -= test.cdf(cut - 1) > 0.025
    return Effect(float(np.median(values)), float(values[cut - 1]), float(values[-cut]), math.nan)


def bootstrap_bca(pairs: Floats) -> Effect:
    values = pairs.mean(axis=1)
    interval = scipy.stats.bootstrap((values,), np.median, n_resamples=999, rng=0).confidence_interval
    return Effect(float(np.median(values)), float(interval.low), float(interval.high), math.nan)


CHOSEN = Candidate("Hodges-Lehmann, quadruples", hodges_lehmann_of_quads)
REJECTED = (
    Candidate("Hodges-Lehmann, pairs", hodges_lehmann_of_pairs),
    Candidate("Hodges-Lehmann, octets", hodges_lehmann_of_octets),
    Candidate("sign test, quadruples", sign_test),
    Candidate("BCa of the median, quadruples", bootstrap_bca),
)


def is_called(effect: Floats, floor: Floats, shift: float) -> bool:
    def samples(pairs: Floats) -> compare.PairedSamples:
        return compare.PairedSamples([1.0] * pairs.size, np.exp(pairs.ravel()).tolist())

    judged = compare.phase_effect("train", compare.PhaseSamples(samples(effect + shift), samples(floor)))
    return judged.verdict is compare.Verdict.slower or (shift == 0 and judged.verdict is compare.Verdict.faster)


def simulate(recording: Recording, two_processes: bool, phase: str, budget_s: int, method: Candidate) -> Row:
    """Run COMPARISONS comparisons, always the same ones for the same arguments but `method`."""
    rng = np.random.default_rng(0)
    launches = [np.array(launch.s_per_sample[phase]) for launch in recording.launches]
    sources = [(pairs_of(series, 0 if two_processes else 1), pairs_of(series, 1)) for series in launches]
    block_s = float(np.median(np.concatenate([launch.wall_s for launch in recording.launches])))
    quads = int(budget_s / block_s / 8) * 2
    segment = int(SEGMENT_S / block_s / 8) * 2
    raw, called, half_widths = [], [], []
    for _ in range(COMPARISONS):
        effect, floor = draw(rng, *sources[rng.integers(len(sources))], quads, segment, two_processes)
        estimate = method.estimate(effect)
        raw.append([estimate.low > 0 or estimate.high < 0, *(estimate.low + shift > 0 for shift in SHIFTS.values())])
        half_widths.append((estimate.high - estimate.low) / 2)
        if method is CHOSEN:
            called.append([is_called(effect, floor, shift) for shift in (0.0, *SHIFTS.values())])
    false_positive_rate, *power_raw = np.mean(raw, axis=0).tolist()
    rates_called = np.mean(called, axis=0).tolist() if called else None
    return Row(
        noise="busy" if recording.busy else "quiet",
        arms="two processes" if two_processes else "same process",
        phase=phase,
        budget_s=budget_s,
        pairs=quads,
        method=method.name,
        false_positive_rate=false_positive_rate,
        called_rate=rates_called[0] if rates_called else None,
        half_width=float(np.median(half_widths)),
        power_raw=dict(zip(SHIFTS, power_raw, strict=True)),
        power_called=dict(zip(SHIFTS, rates_called[1:], strict=True)) if rates_called else None,
    )


def table(rows: list[Row]) -> str:
    """Lay rows out for the terminal."""
    lines = [
        f"{'noise':6} {'arms':14} {'phase':9} {'budget':>6} {'pairs':>5}  {'method':28} "
        f"{'false positives: raw':>20} {'called':>6} {'half width':>10}  power at 3 %, 5 %: raw, called"
    ]
    for row in rows:
        called = "" if row.called_rate is None else f"{row.called_rate:6.1%}"
        raw = " ".join(f"{power:4.0%}" for power in row.power_raw.values())
        power = " ".join(f"{power:4.0%}" for power in row.power_called.values()) if row.power_called else ""
        lines.append(
            f"{row.noise:6} {row.arms:14} {row.phase:9} {row.budget_s:4} s {row.pairs:5}  {row.method:28} "
            f"{row.false_positive_rate:20.1%} {called:>6} {row.half_width:10.1%}  {raw}  {power}"
        )
    return "\n".join(lines)


def main() -> None:
    """Simulate every setting with the chosen method, and one with those that were rejected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--noise", type=Path, nargs="+", default=[HERE / "noise_quiet.json", HERE / "noise_busy.json"])
    args = parser.parse_args()
    recordings = [msgspec.json.decode(path.read_bytes(), type=Recording) for path in args.noise]
    rows = [
        simulate(recording, two_processes, phase, budget_s, CHOSEN)
        for recording in recordings
        for two_processes in (False, True)
        for phase in PHASES
        for budget_s in BUDGETS_S
    ]
    rows += [
        simulate(recording, False, phase, BUDGETS_S[0], method)
        for recording in recordings
        for phase in PHASES
        for method in REJECTED
    ]
    print(table(rows))
    if args.out:
        args.out.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))


if __name__ == "__main__":
    main()
