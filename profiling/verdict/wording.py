"""Verdicts and numerics in words, the same in every table, chart and page."""

import math

from profiling.format import interval, ratio, size
from profiling.verdict.hypothesis import Expectation, PeakMemory
from profiling.verdict.judge import SIGNIFICANCE, Comparison, PhaseEffect, bound
from profiling.verdict.numerics import NumericsCheck
from profiling.vocabulary import Agreement, Estimator, Outcome, Verdict


def describe_effect(effect: PhaseEffect) -> str:
    """Spell out the verdict of a phase: `slower`, `no detectable effect (< 2.1 %)`, ...

    An inconclusive one says which of three it is: the interval contains 1, and its farther end; identical code differs
    as much; or it would be called by itself, but not after the correction over its family.
    """
    largest = bound(effect.ratio_low, effect.ratio_high, effect.floor_ratio)
    possible = f"{100 * largest:.1f} %"
    is_significant = effect.p_value <= SIGNIFICANCE
    is_floor = largest == bound(1, 1, effect.floor_ratio)
    exceeds_floor = abs(math.log(effect.ratio)) > math.log(effect.floor_ratio)
    match effect.verdict:
        case Verdict.no_effect:
            return f"no detectable effect (< {possible})"
        case Verdict.inconclusive if effect.p_holm is not None and is_significant and exceeds_floor:
            return f"inconclusive (p = {effect.p_holm:.2g}, corrected)"
        case Verdict.inconclusive if is_floor or (is_significant and not exceeds_floor):
            return f"inconclusive (noise floor {100 * (effect.floor_ratio - 1):.1f} %)"
        case Verdict.inconclusive:
            return f"inconclusive (up to {possible} is possible)"
        case _:
            return effect.verdict.value


def describe_estimators(effect: PhaseEffect) -> str:
    """Say what the fastest steps and the mean of all give: `load: ×4.300 (4.1 – 4.5) by the fastest steps, but …`."""
    beside = effect.beside
    assert beside is not None
    other = Estimator.mean if effect.estimator is Estimator.fastest else Estimator.fastest
    own = f"{ratio(effect.ratio)} ({effect_interval(effect)}) by {_ESTIMATORS[effect.estimator]}"
    others = f"{ratio(beside.ratio)} ({interval(beside.low, beside.high)}) by {_ESTIMATORS[other]}"
    return f"{effect.phase}: {own}, {'but' if effect.estimators_differ else 'and'} {others}."


_ESTIMATORS = {Estimator.fastest: "the fastest steps", Estimator.mean: "the mean of all steps"}


def effect_interval(effect: PhaseEffect) -> str:
    """Write the 95 % interval of an effect's ratio."""
    return interval(effect.ratio_low, effect.ratio_high)


def describe_verdict(comparison: Comparison) -> str:
    """Spell out the verdict of the hypothesis' phase."""
    effect = comparison.declared_effect
    return comparison.verdict.value if effect is None else describe_effect(effect)


def describe_outcome(outcome: Outcome, expect: Expectation) -> str:
    """The outcome in words; where a claim is about memory alone, it says so: the verdict beside it is about time."""
    return f"{outcome.value} (memory)" if expect.memory and not expect.time else outcome.value


def describe_memory(memory: PeakMemory) -> str:
    """Write the peak of each arm; where both are written alike, also their difference."""
    before, after = size(memory.baseline_bytes), size(memory.variant_bytes)
    added = memory.variant_bytes - memory.baseline_bytes
    change = f" ({'-' if added < 0 else '+'}{size(abs(added))})" if before == after and added else ""
    return f"memory {before} -> {after}{change}"


def describe_expectation(expect: Expectation) -> str:
    """Write what a hypothesis predicts: `time slower, at least ×3.000, memory more`, or `no claim`."""
    parts = [f"time {expect.time.value}"] if expect.time else []
    parts += [f"at least {ratio(expect.at_least)}"] if expect.at_least else []
    parts += [f"memory {expect.memory.value}"] if expect.memory else []
    return ", ".join(parts) or "no claim"


def describe_numerics(numerics: NumericsCheck) -> str:
    """Say whether the results stayed the same; the marks do not need color."""
    if numerics.mismatch:
        return f"✗ {numerics.measured.value}, declared {numerics.declared.value}"
    return numerics.measured.value if numerics.measured is Agreement.different else f"✓ {numerics.measured.value}"
