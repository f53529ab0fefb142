"""How often are verdicts wrong? Simulated comparisons: `python -m tests.bench.bench_validity_sim`.

The noise comes from real comparisons of the baseline with itself, recorded by `tests.bench.bench_validity`: all
launches of three processes that run the same code, with all rounds. A simulated comparison concatenates segments of
SEGMENT consecutive launches, drawn with replacement. This preserves the order of the arms, which repeats after SEGMENT
launches, the differences between processes, and bursts of noise. The three processes are equal and take turns in every
order, so any of them can be the variant; this triples the number of distinct comparisons. `profiling.verdict.judge`
then judges the comparison, or one of the rejected methods does. Scaling the variant's timings simulates a slowdown. The
timings are not centered: an effect of the position in the order counts as a false positive.

A family is a comparison with all its phases, drawn from the same launches, of which the hypothesis names any one.
"""

import argparse
import gzip
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import scipy.stats

from profiling.ab.plan import MIN_LAUNCHES
from profiling.verdict import stats
from profiling.verdict.hypothesis import Expectation, Hypothesis
from profiling.verdict.judge import judge_comparison, phase_effect, settled
from profiling.verdict.stats import Effect, Floats
from profiling.verdict.timings import PhaseTimings
from profiling.vocabulary import Verdict
from tests.bench.targets import Finding, report

NOISE = Path(__file__).parent / "noise.json.gz"
COMPARISONS = 2000
FAMILIES = 10_000
LAUNCHES = 12
SEGMENT = 6
SHIFTS = {"3 %": math.log(1.03), "5 %": math.log(1.05)}
LARGE_SHIFTS = {"20 %": math.log(1.2), "twice": math.log(2.0)}
PHASES = ("train", "evaluate")


class Noise(msgspec.Struct, frozen=True):
    """One comparison of the baseline with itself: phase -> its timings."""

    phases: dict[str, PhaseTimings]


class Method(NamedTuple):
    """A way to turn timings [baseline variant twin, launches, rounds] into an effect."""

    name: str
    launches: Callable[[Floats], Floats]
    estimate: Callable[[Floats], Effect]


class Row(msgspec.Struct, frozen=True):
    """Rates over COMPARISONS simulated comparisons; power: share in which the interval finds a true slowdown."""

    phase: str
    method: str
    false_positive_rate: float  # of the raw 95 % interval; its coverage is 1 minus this rate, for every true shift
    half_width: float  # median, log ratio
    power: dict[str, float]


def fastest(timings: Floats) -> Floats:
    """The log ratio of each launch, from the fastest round of each arm."""
    baseline, variant, twin = np.log(timings.min(axis=2))
    return np.asarray(variant - (baseline + twin) / 2)


def typical(timings: Floats) -> Floats:
    """The log ratio of each launch: the median over its rounds."""
    baseline, variant, twin = np.log(timings)
    return np.asarray(np.median(variant - (baseline + twin) / 2, axis=1))


def without_twin(timings: Floats) -> Floats:
    baseline, variant, _ = np.log(timings.min(axis=2))
    return np.asarray(variant - baseline)


def t_test(values: Floats) -> Effect:
    interval = scipy.stats.ttest_1samp(values, 0.0)
    low, high = interval.confidence_interval(stats.CONFIDENCE)
    return Effect(float(values.mean()), float(low), float(high), float(interval.pvalue), math.nan)


def sign_test(values: Floats) -> Effect:
    """The median with its interval from order statistics, which makes the fewest assumptions."""
    ordered = np.sort(values)
    cut = int(scipy.stats.binom.ppf(0.025, len(ordered), 0.5))
    return Effect(float(np.median(ordered)), float(ordered[cut - 1]), float(ordered[-cut]), math.nan, math.nan)


def bootstrap_bca(values: Floats) -> Effect:
    """NaN, which is never a false positive, if the median stays the same without any single value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interval = scipy.stats.bootstrap((values,), np.median, n_resamples=999, rng=0).confidence_interval
    return Effect(float(np.median(values)), float(interval.low), float(interval.high), math.nan, math.nan)


CHOSEN = Method("Hodges-Lehmann of the fastest", fastest, stats.hodges_lehmann)
REJECTED = (
    Method("Hodges-Lehmann of the typical", typical, stats.hodges_lehmann),
    Method("Hodges-Lehmann without the twin", without_twin, stats.hodges_lehmann),
    Method("t of the fastest", fastest, t_test),
    Method("sign test of the fastest", fastest, sign_test),
    Method("BCa of the fastest's median", fastest, bootstrap_bca),
)


def timings_of(samples: PhaseTimings) -> Floats:
    """Timings [baseline variant twin, launches, rounds]."""
    return np.array(samples.arms).reshape(len(samples.arms), -1, samples.rounds)


class Segment(NamedTuple):
    """SEGMENT launches of a real comparison: from which on, and which of its processes is which arm."""

    comparison: Noise
    first_launch: int
    arms: npt.NDArray[np.intp]


def segments(rng: np.random.Generator, noise: list[Noise]) -> list[Segment]:
    """Draw the launches of one simulated comparison."""
    drawn = []
    for _ in range(LAUNCHES // SEGMENT):
        comparison = noise[rng.integers(len(noise))]
        launches = timings_of(next(iter(comparison.phases.values()))).shape[1]
        drawn.append(Segment(comparison, 2 * rng.integers(0, (launches - SEGMENT) // 2 + 1), rng.permutation(3)))
    return drawn


def timings_in(drawn: list[Segment], phase: str) -> Floats:
    """Timings [baseline variant twin, LAUNCHES, rounds] of one phase of a simulated comparison."""
    parts = [timings_of(comparison.phases[phase])[arms, first : first + SEGMENT] for comparison, first, arms in drawn]
    rounds = min(part.shape[2] for part in parts)
    return np.concatenate([part[..., :rounds] for part in parts], axis=1)


def simulate(noise: list[Noise], phase: str, method: Method) -> Row:
    """Simulate COMPARISONS comparisons, which are the same for every `method`."""
    rng = np.random.default_rng(0)
    wrong, found, half_widths = 0, dict.fromkeys(SHIFTS, 0), []
    for _ in range(COMPARISONS):
        effect = method.estimate(method.launches(timings_in(segments(rng, noise), phase)))
        wrong += effect.low > 0 or effect.high < 0
        half_widths.append((effect.high - effect.low) / 2)
        for name, shift in SHIFTS.items():
            found[name] += effect.low + shift > 0
    power = {name: count / COMPARISONS for name, count in found.items()}
    return Row(phase, method.name, wrong / COMPARISONS, float(np.nanmedian(half_widths)), power)


def called(noise: list[Noise], phase: str, shift: float) -> tuple[float, float]:
    """Shares of comparisons that are called slower or, without a `shift`, slower or faster; and that end early."""
    rng = np.random.default_rng(0)
    right = (Verdict.slower,) if shift else (Verdict.slower, Verdict.faster)
    hypothesis = Hypothesis("", "", phase, Expectation())
    count = early = 0
    for _ in range(COMPARISONS):
        timings = timings_in(segments(rng, noise), phase)
        timings[1] *= math.exp(shift)
        samples, first = of_launches(timings), of_launches(timings[:, :MIN_LAUNCHES])
        if settled(hypothesis, first):
            early += 1
            samples = first
        count += phase_effect(phase, samples).verdict in right
    return count / COMPARISONS, early / COMPARISONS


def families_with_a_call(noise: list[Noise]) -> tuple[float, dict[str, float]]:
    """Share of FAMILIES comparisons without any effect in which a phase is called, of any and of each phase."""
    rng = np.random.default_rng(0)
    phases = list(noise[0].phases)
    wrong, of_phase = 0, dict.fromkeys(phases, 0)
    for _ in range(FAMILIES):
        launches, named = segments(rng, noise), phases[rng.integers(len(phases))]
        timings = {phase: timings_in(launches, phase) for phase in phases}
        hypothesis = Hypothesis("", "", named, Expectation())
        if settled(hypothesis, of_launches(timings[named][:, :MIN_LAUNCHES])):
            timings = {phase: of_arms[:, :MIN_LAUNCHES] for phase, of_arms in timings.items()}
        judged = judge_comparison("", hypothesis, {phase: of_launches(of_arms) for phase, of_arms in timings.items()})
        called = [e.phase for e in judged.phases if e.verdict in (Verdict.slower, Verdict.faster)]
        wrong += bool(called)
        for phase in called:
            of_phase[phase] += 1
    return wrong / FAMILIES, {phase: count / FAMILIES for phase, count in of_phase.items()}


def of_launches(timings: Floats) -> PhaseTimings:
    """From timings [baseline variant twin, launches, rounds]."""
    return PhaseTimings(*timings.reshape(len(timings), -1).tolist(), rounds=timings.shape[2])


def launch_spread(noise: list[Noise], phase: str) -> tuple[float, float]:
    """How much launches of equal code differ, and how much their rounds alone would explain: standard deviations.

    Of each launch's mean log ratio of one arm to the other two. If the processes did not differ, the first figure would
    be about as small as the second, the standard error of that mean from within the launch.
    """
    means, errors = [], []
    for comparison in noise:
        baseline, variant, twin = np.log(timings_of(comparison.phases[phase]))
        ratios = variant - (baseline + twin) / 2  # [launches, rounds]
        if ratios.shape[1] > 1:
            means += ratios.mean(axis=1).tolist()
            errors += (ratios.var(axis=1, ddof=1) / ratios.shape[1]).tolist()
    return float(np.std(means, ddof=1)), math.sqrt(float(np.mean(errors)))


def main() -> None:
    """Simulate with the chosen method, with the rejected ones, and with the complete rule of a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--noise", type=Path, default=NOISE, help="default: %(default)s")
    args = parser.parse_args()
    noise = msgspec.json.decode(gzip.decompress(args.noise.read_bytes()), type=list[Noise])
    rows = [simulate(noise, phase, method) for phase in PHASES for method in (CHOSEN, *REJECTED)]
    findings = []
    for phase in PHASES:
        between, within = launch_spread(noise, phase)
        findings.append(Finding(name=f"{phase}: spread of launches of equal code", measured=between))
        findings.append(Finding(name=f"{phase}: of which their rounds explain", measured=within))
    for row in rows:
        target = {"at_least": 0.035, "at_most": 0.065} if row.method == CHOSEN.name else {}
        name = f"{row.phase}, {row.method}"
        findings.append(Finding(name=f"{name}: false positives", measured=row.false_positive_rate, **target))
        findings += [Finding(name=f"{name}: finds {shift}", measured=share) for shift, share in row.power.items()]
    for phase in PHASES:
        for what, shift in {"nothing there": 0.0, **SHIFTS, **LARGE_SHIFTS}.items():
            share, early = called(noise, phase, shift)
            findings.append(Finding(name=f"{phase}, {what}: called", measured=share))
            findings.append(Finding(name=f"{phase}, {what}: ended early", measured=early))
    any_phase, of_phase = families_with_a_call(noise)
    findings.append(Finding(name=f"{FAMILIES:,} families: any phase called", measured=any_phase, at_most=0.05))
    findings += [Finding(name=f"families: {phase} called", measured=share) for phase, share in of_phase.items()]
    title = f"Shares of {COMPARISONS:,} comparisons simulated from {len(noise)} real ones"
    report(title, findings, {"rows": msgspec.to_builtins(rows)}, args.out)


if __name__ == "__main__":
    main()
