"""How often are verdicts wrong? 2,000 simulated comparisons per row: `python -m tests.bench.bench_validity_sim`.

The noise was recorded by `tests.bench.record_noise`, on a quiet and on a busy machine. A simulated comparison strings
together contiguous segments of SEGMENT_S, drawn with replacement from one launch, so that drift, bursts and
autocorrelation survive; an i.i.d. shuffle would be too kind. The two arms of a segment are swapped at random, so that
the null hypothesis holds exactly. Of the ABBA quadruples every second one goes to the noise floor, as in `train.ab`.

Quadruples are read from the second block of the recorded order 0 1 1 0 on, so that either arm holds one block of either
worker and nothing but the noise of time is left. What two workers that run the same code differ by, for as long as they
live, is shown apart, one line per launch: no interval can contain it, so it has to be small.
"""

import argparse
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import scipy.stats

from profiling import compare, stats
from profiling.stats import Effect, Floats
from tests.bench.record_noise import Launch, Recording

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


def twins(launch: Launch, phase: str) -> Floats:
    """Return the log ratios of worker 1 to worker 0."""
    return pairs_of(np.array(launch.s_per_sample[phase]), 0).ravel()


def draw(rng: np.random.Generator, quads: Floats, count: int, segment: int) -> tuple[Floats, Floats]:
    """String contiguous segments of log ratios [quadruples, 2] together, up to `count` quadruples.

    Returns effect and floor, [count / 2, 2] each.
    """
    effects, floors = [], []
    for _ in range(math.ceil(count / segment)):
        start = rng.integers(0, len(quads) - segment + 1)
        drawn = rng.choice((-1, 1)) * quads[start : start + segment]
        effects.append(drawn[0::2])
        floors.append(drawn[1::2])
    return np.concatenate(effects)[: count // 2], np.concatenate(floors)[: count // 2]


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
    values = np.sort(pairs.ravel())
    cut = int(scipy.stats.binom.ppf(0.025, len(values), 0.5))
    return Effect(float(np.median(values)), float(values[cut - 1]), float(values[-cut]), math.nan)


def bootstrap_bca(pairs: Floats) -> Effect:
    """Not defined, and then never a false positive, where leaving any one value out leaves the median as it was."""
    values = pairs.ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interval = scipy.stats.bootstrap((values,), np.median, n_resamples=999, rng=0).confidence_interval
    return Effect(float(np.median(values)), float(interval.low), float(interval.high), math.nan)


CHOSEN = Candidate("Hodges-Lehmann, pairs", hodges_lehmann_of_pairs)
REJECTED = (
    Candidate("Hodges-Lehmann, quadruples", hodges_lehmann_of_quads),
    Candidate("Hodges-Lehmann, octets", hodges_lehmann_of_octets),
    Candidate("sign test, pairs", sign_test),
    Candidate("BCa of the median, pairs", bootstrap_bca),
)


def is_called(effect: Floats, floor: Floats, shift: float) -> bool:
    def samples(pairs: Floats) -> compare.PairedSamples:
        return compare.PairedSamples([1.0] * pairs.size, np.exp(pairs.ravel()).tolist())

    judged = compare.phase_effect("train", compare.PhaseSamples(samples(effect + shift), samples(floor)))
    return judged.verdict is compare.Verdict.slower or (shift == 0 and judged.verdict is compare.Verdict.faster)


def simulate(recording: Recording, phase: str, budget_s: int, method: Candidate) -> Row:
    """Run COMPARISONS comparisons, always the same ones for the same arguments but `method`."""
    rng = np.random.default_rng(0)
    launches = [pairs_of(np.array(launch.s_per_sample[phase]), 1) for launch in recording.launches]
    block_s = float(np.median([launch.block_s for launch in recording.launches]))
    quads = int(budget_s / block_s / 8) * 2
    segment = int(SEGMENT_S / block_s / 8) * 2
    raw, called, half_widths = [], [], []
    for _ in range(COMPARISONS):
        effect, floor = draw(rng, launches[rng.integers(len(launches))], quads, segment)
        estimate = method.estimate(effect)
        raw.append([estimate.low > 0 or estimate.high < 0, *(estimate.low + shift > 0 for shift in SHIFTS.values())])
        half_widths.append((estimate.high - estimate.low) / 2)
        if method is CHOSEN:
            called.append([is_called(effect, floor, shift) for shift in (0.0, *SHIFTS.values())])
    false_positive_rate, *power_raw = np.mean(raw, axis=0).tolist()
    rates_called = np.mean(called, axis=0).tolist() if called else None
    return Row(
        noise="busy" if recording.busy else "quiet",
        phase=phase,
        budget_s=budget_s,
        pairs=quads,
        method=method.name,
        false_positive_rate=false_positive_rate,
        called_rate=rates_called[0] if rates_called else None,
        half_width=float(np.nanmedian(half_widths)),
        power_raw=dict(zip(SHIFTS, power_raw, strict=True)),
        power_called=dict(zip(SHIFTS, rates_called[1:], strict=True)) if rates_called else None,
    )


def table(rows: list[Row]) -> str:
    """Lay rows out for the terminal."""
    lines = [
        f"{'noise':6} {'phase':9} {'budget':>6} {'pairs':>5}  {'method':28} "
        f"{'false positives: raw':>20} {'called':>6} {'half width':>10}  power at 3 %, 5 %: raw, called"
    ]
    for row in rows:
        called = "" if row.called_rate is None else f"{row.called_rate:6.1%}"
        raw = " ".join(f"{power:4.0%}" for power in row.power_raw.values())
        power = " ".join(f"{power:4.0%}" for power in row.power_called.values()) if row.power_called else ""
        lines.append(
            f"{row.noise:6} {row.phase:9} {row.budget_s:4} s {row.pairs:5}  {row.method:28} "
            f"{row.false_positive_rate:20.1%} {called:>6} {row.half_width:10.1%}  {raw}  {power}"
        )
    return "\n".join(lines)


def main() -> None:
    """Simulate every setting with the method that was chosen and with those that were not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    parser.add_argument("--noise", type=Path, nargs="+", default=[HERE / "noise_quiet.json", HERE / "noise_busy.json"])
    args = parser.parse_args()
    recordings = [msgspec.json.decode(path.read_bytes(), type=Recording) for path in args.noise]
    rows = [
        simulate(recording, phase, budget_s, method)
        for method in (CHOSEN, *REJECTED)
        for recording in recordings
        for phase in PHASES
        for budget_s in BUDGETS_S
    ]
    print(table(rows))
    print("\nEffect of one worker against its twin, whole launches:")
    for recording in recordings:
        for launch in recording.launches:
            effects = [(phase, stats.hodges_lehmann(twins(launch, phase))) for phase in PHASES]
            print(
                "busy  " if recording.busy else "quiet ",
                *(f"{p} {e.estimate:+6.1%} [{e.low:+6.1%} {e.high:+6.1%}]  " for p, e in effects),
            )
    if args.out:
        args.out.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))


if __name__ == "__main__":
    main()
