"""How often are verdicts wrong? 2,000 simulated comparisons: `python -m tests.bench.bench_validity_sim`.

The noise is that of real comparisons of the baseline with itself, 10 s each, as `tests.bench.bench_validity` recorded
them: every launch of three processes that run the same code, with all its rounds. A simulated comparison strings
together segments of SEGMENT neighboring launches, drawn with replacement, so that the alternating order, what processes
differ by for as long as they live, and bursts survive; then `profiling.compare` judges it, or one of the methods that
were not chosen. A slowdown is put in by scaling the variant's timings. Nothing is centered: what the order of the
blocks favors counts as a false positive.
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
from profiling.compare import PairedSamples, PhaseSamples, Verdict
from profiling.stats import Effect, Floats
from tests.bench.targets import Finding, report

NOISE = Path(__file__).parent / "noise.json"
COMPARISONS = 2000
LAUNCHES = 12
SEGMENT = 4
SHIFTS = {"3 %": math.log(1.03), "5 %": math.log(1.05)}
PHASES = ("train", "evaluate")


class Noise(msgspec.Struct, frozen=True):
    """One comparison of the baseline with itself: phase -> its timings."""

    phases: dict[str, PhaseSamples]


class Method(NamedTuple):
    """A way to turn log ratios [launches, pairs] into an effect."""

    name: str
    estimate: Callable[[Floats], Effect]


class Row(msgspec.Struct, frozen=True):
    """Rates over COMPARISONS simulated comparisons; power is the share in which a true slowdown is called slower."""

    phase: str
    method: str
    false_positive_rate: float  # of the raw 95 % interval; its coverage is one minus this, whatever the true shift
    half_width: float  # median, log ratio
    power: dict[str, float]


def hodges_lehmann_of_launches(ratios: Floats) -> Effect:
    return stats.hodges_lehmann(np.array([np.median(stats.walsh_averages(launch)) for launch in ratios]))


def hodges_lehmann_of_pairs(ratios: Floats) -> Effect:
    """As if the pairs of a launch were independent."""
    return stats.hodges_lehmann(ratios.ravel())


def t_of_launches(ratios: Floats) -> Effect:
    means = ratios.mean(axis=1)
    interval = scipy.stats.ttest_1samp(means, 0.0)
    low, high = interval.confidence_interval(stats.CONFIDENCE)
    return Effect(float(means.mean()), float(low), float(high), float(interval.pvalue))


def sign_test_of_launches(ratios: Floats) -> Effect:
    """Order statistics around the median: the interval that assumes least."""
    values = np.sort(np.median(ratios, axis=1))
    cut = int(scipy.stats.binom.ppf(0.025, len(values), 0.5))
    return Effect(float(np.median(values)), float(values[cut - 1]), float(values[-cut]), math.nan)


def bootstrap_bca_of_launches(ratios: Floats) -> Effect:
    """Not defined, and then never a false positive, where leaving any one value out leaves the median as it was."""
    values = np.median(ratios, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interval = scipy.stats.bootstrap((values,), np.median, n_resamples=999, rng=0).confidence_interval
    return Effect(float(np.median(values)), float(interval.low), float(interval.high), math.nan)


CHOSEN = Method("Hodges-Lehmann, launches", hodges_lehmann_of_launches)
REJECTED = (
    Method("Hodges-Lehmann, pairs", hodges_lehmann_of_pairs),
    Method("t, means of launches", t_of_launches),
    Method("sign test, launches", sign_test_of_launches),
    Method("BCa of the median, launches", bootstrap_bca_of_launches),
)


def launches_of(pairs: PairedSamples) -> Floats:
    """Timings [launches, 2, pairs] of both sides."""
    sides = np.array([pairs.first_s_per_sample, pairs.second_s_per_sample])
    return np.moveaxis(sides.reshape(2, -1, pairs.per_launch), 1, 0)


def drawn(rng: np.random.Generator, noise: list[Noise], phase: str) -> PhaseSamples:
    """One simulated comparison: effect and floor from the same launches."""
    effects, floors = [], []
    for _ in range(LAUNCHES // SEGMENT):
        timings = noise[rng.integers(len(noise))].phases[phase]
        effect, floor = launches_of(timings.effect), launches_of(timings.floor)
        start = 2 * rng.integers(0, (len(effect) - SEGMENT) // 2 + 1)
        effects.append(effect[start : start + SEGMENT])
        floors.append(floor[start : start + SEGMENT])
    rounds = min(part.shape[2] for part in effects)
    return PhaseSamples(*(together([part[..., :rounds] for part in parts], rounds) for parts in (effects, floors)))


def together(parts: list[Floats], rounds: int) -> PairedSamples:
    timings = np.concatenate(parts)
    return PairedSamples(timings[:, 0].ravel().tolist(), timings[:, 1].ravel().tolist(), rounds)


def ratios_of(pairs: PairedSamples) -> Floats:
    """Log ratios [launches, pairs]."""
    timings = launches_of(pairs)
    return np.asarray(np.log(timings[:, 1] / timings[:, 0]))


def simulate(noise: list[Noise], phase: str, method: Method) -> Row:
    """Run COMPARISONS comparisons, always the same ones for the same arguments but `method`."""
    rng = np.random.default_rng(0)
    wrong, found, half_widths = 0, dict.fromkeys(SHIFTS, 0), []
    for _ in range(COMPARISONS):
        effect = method.estimate(ratios_of(drawn(rng, noise, phase).effect))
        wrong += effect.low > 0 or effect.high < 0
        half_widths.append((effect.high - effect.low) / 2)
        for name, shift in SHIFTS.items():
            found[name] += effect.low + shift > 0
    power = {name: count / COMPARISONS for name, count in found.items()}
    return Row(phase, method.name, wrong / COMPARISONS, float(np.nanmedian(half_widths)), power)


def called(noise: list[Noise], phase: str, shift: float) -> float:
    """Share of comparisons that `profiling.compare` calls an effect: in the right direction, if there is one."""
    rng = np.random.default_rng(0)
    right = (Verdict.slower,) if shift else (Verdict.slower, Verdict.faster)
    count = 0
    for _ in range(COMPARISONS):
        samples = drawn(rng, noise, phase)
        variant = (np.array(samples.effect.second_s_per_sample) * math.exp(shift)).tolist()
        effect = msgspec.structs.replace(samples.effect, second_s_per_sample=variant)
        count += compare.phase_effect(phase, PhaseSamples(effect, samples.floor)).verdict in right
    return count / COMPARISONS


def main() -> None:
    """Simulate with the method that was chosen, with those that were not, and with the whole rule of a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--noise", type=Path, default=NOISE, help="default: %(default)s")
    args = parser.parse_args()
    noise = msgspec.json.decode(args.noise.read_bytes(), type=list[Noise])
    rows = [simulate(noise, phase, method) for phase in PHASES for method in (CHOSEN, *REJECTED)]
    findings = []
    for row in rows:
        target = {"at_least": 0.035, "at_most": 0.065} if row.method == CHOSEN.name else {}
        name = f"{row.phase}, {row.method}"
        findings.append(Finding(name=f"{name}: false positives", measured=row.false_positive_rate, **target))
        findings += [Finding(name=f"{name}: finds {shift}", measured=share) for shift, share in row.power.items()]
    for phase in PHASES:
        findings.append(Finding(name=f"{phase}: called with nothing there", measured=called(noise, phase, 0.0)))
        findings += [
            Finding(name=f"{phase}: {name} called slower", measured=called(noise, phase, shift))
            for name, shift in SHIFTS.items()
        ]
    title = f"Shares of {COMPARISONS:,} comparisons simulated from {len(noise)} real ones"
    report(title, findings, {"rows": msgspec.to_builtins(rows)}, args.out)


if __name__ == "__main__":
    main()
