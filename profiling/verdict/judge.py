"""The rule that turns timings into a verdict.

For one phase, with all figures as logarithms of the ratio variant / baseline:

- The *effect* has an estimate and a 95 % interval (`profiling.verdict.stats`).
- The *noise floor* is what identical code shows: the baseline is compared with its twin, which runs the same code. The
  floor is the larger of that effect and half the width of its interval, times FLOOR_SCALE, and at least MIN_FLOOR.
- An effect is *called* slower or faster when its interval excludes zero and its estimate exceeds the floor.
- If no effect is called, the bound is the largest of the floor and the ends of the interval: a true effect is probably
  smaller. If the bound is at most NEGLIGIBLE the verdict is `no detectable effect`, otherwise `inconclusive`.
- With many tests, some call an effect by chance. The phases that the hypothesis does not name are therefore corrected
  as one family (Holm), and so are the hypotheses of a ladder. A called effect that does not survive the correction
  becomes inconclusive.

docs/measurement.md tells how each part was chosen and how often the rule is wrong.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct, structs

from profiling.verdict import stats
from profiling.verdict.hypothesis import Hypothesis, PeakMemory, outcome_of
from profiling.verdict.numerics import NumericsCheck
from profiling.verdict.timings import PhaseTimings
from profiling.vocabulary import STEP_PHASES, Estimator, ExpectedTime, Outcome, Verdict

SIGNIFICANCE = 1 - stats.CONFIDENCE

NEGLIGIBLE = 0.05
"""A switch that is worth less than this share of the time may be said to have no detectable effect."""

FLOOR_SCALE = math.sqrt(3 / 4)
"""The twin is compared with one baseline process, but the variant with the geometric mean of two. If a process has the
variance s², the first comparison has 2 s² and the second 1.5 s²: this is the ratio of their standard deviations."""

MIN_FLOOR = math.log(1.01)
"""Effects below 1 % are never called: a difference between processes that persists through a whole comparison cannot be
averaged out by more launches (docs/measurement.md)."""


EARLY_P = 0.0005
"""A comparison may end early with a `p_family` of at most this. One look at it adds no more to the error rate, and the
effect survives the correction of a ladder of 100 comparisons."""

EARLY_FLOORS = 3.0
"""And with an effect of at least so many noise floors, as logarithms: far beyond what would be called at all."""


class RatioInterval(Struct, frozen=True):
    """A ratio variant / baseline with its 95 % interval."""

    ratio: float
    low: float
    high: float


class PhaseEffect(Struct, frozen=True):
    """The effect in one phase. Ratios are variant / baseline: 1.05 is 5 % slower.

    Attributes:
        baseline_s_per_sample, variant_s_per_sample: their quotient is `ratio`, their geometric mean the median over
            launches of that of both arms. Each arm has its fastest round, or its mean; the baseline's is the geometric
            mean of baseline and twin. Medians of each arm alone would come from different launches, and contradict the
            ratio.
        share_of_step: the phase's share of the baseline's step of training; None for phases outside the step.
        p_value: the p-value of "there is no effect", for this phase alone.
        p_family: the p-value to correct where this is one test of many (`stats.family_p_value`).
        p_holm: `p_family`, corrected over the phases that the hypothesis does not name, or over a ladder; else None.
        floor_ratio: the noise floor as a ratio, at least 1: identical code may seem slower by this, or faster by its
            inverse.
        detectable_ratio: at least 1; a true effect of this size would be called four times out of five.
        estimator: what the times are: those of the fastest steps, unless the hypothesis is about the mean.
        beside: the ratio by the other estimator; None where it was not measured.
    """

    phase: str
    baseline_s_per_sample: float
    variant_s_per_sample: float
    share_of_step: float | None
    launches: int
    ratio: float
    ratio_low: float
    ratio_high: float
    p_value: float
    p_family: float
    p_holm: float | None
    floor_ratio: float
    detectable_ratio: float
    verdict: Verdict
    estimator: Estimator = Estimator.fastest
    beside: RatioInterval | None = None

    @property
    def estimators_differ(self) -> bool:
        """Whether the intervals by the fastest steps and by the mean of all exclude each other."""
        return self.beside is not None and (self.beside.low > self.ratio_high or self.beside.high < self.ratio_low)

    @property
    def difference_us(self) -> float:
        """How much longer the variant takes: microseconds per sample."""
        return (self.variant_s_per_sample - self.baseline_s_per_sample) * 1e6


class Comparison(Struct, frozen=True):
    """One experiment against the baseline, judged.

    Attributes:
        verdict: the verdict of the hypothesis' phase.
        reason: the error of an experiment that failed, or why it does not apply.
        phases: empty where nothing was measured.
    """

    experiment: str
    hypothesis: Hypothesis
    verdict: Verdict
    outcome: Outcome
    reason: str | None
    phases: tuple[PhaseEffect, ...]
    memory: PeakMemory | None
    numerics: NumericsCheck | None

    @property
    def declared_effect(self) -> PhaseEffect | None:
        """The effect in the hypothesis' phase; None where it was not measured."""
        return next((effect for effect in self.phases if effect.phase == self.hypothesis.phase), None)

    @property
    def called_elsewhere(self) -> list[str]:
        """The phases that the hypothesis does not name, and that are slower or faster."""
        called = [effect.phase for effect in self.phases if effect.verdict in (Verdict.slower, Verdict.faster)]
        return [phase for phase in called if phase != self.hypothesis.phase]


def judge_comparison(
    experiment: str,
    hypothesis: Hypothesis,
    timings: Mapping[str, PhaseTimings],
    memory: PeakMemory | None = None,
    numerics: NumericsCheck | None = None,
) -> Comparison:
    """Judge an experiment whose arms both ran; `timings` maps each phase to its timings, and its order is kept.

    Raises:
        ValueError: the hypothesis' phase was not measured, or timings of a phase cannot be compared.
    """
    if hypothesis.phase not in timings:
        raise ValueError(f"{experiment}: phase {hypothesis.phase!r} was not measured, only {', '.join(timings)}")
    effects = tuple(
        phase_effect(phase, of_phase, hypothesis.estimator if phase == hypothesis.phase else Estimator.fastest)
        for phase, of_phase in timings.items()
    )
    phases = _with_shares(_correct_undeclared(effects, hypothesis.phase), timings)
    declared = next(effect for effect in phases if effect.phase == hypothesis.phase)
    return Comparison(
        experiment=experiment,
        hypothesis=hypothesis,
        verdict=declared.verdict,
        outcome=_outcome(hypothesis, declared, memory),
        reason=None,
        phases=phases,
        memory=memory,
        numerics=numerics,
    )


def settled(hypothesis: Hypothesis, timings: PhaseTimings, *, is_one_of_many: bool = False) -> str | None:
    """Return why further launches would not change what the timings of the hypothesis' phase say, None if they might.

    A large and sure effect is settled, see EARLY_P and EARLY_FLOORS; a claim with a size must be decided, too. Of one
    of many comparisons it is enough to know that the effect is at most NEGLIGIBLE.

    Raises:
        ValueError: as `phase_effect`.
    """
    effect = phase_effect(hypothesis.phase, timings, hypothesis.estimator)
    if is_one_of_many and effect.verdict is Verdict.no_effect:
        return f"the effect is less than {100 * NEGLIGIBLE:.0f} %, which is what a ladder asks"
    size = hypothesis.expect.at_least
    undecided = size is not None and any(effect.ratio_low < claimed < effect.ratio_high for claimed in (size, 1 / size))
    is_large = abs(math.log(effect.ratio)) >= EARLY_FLOORS * math.log(effect.floor_ratio)
    if effect.p_family <= EARLY_P and is_large and not undecided:
        return "the effect is so large and so sure that more would not change it"
    return None


def failed(experiment: str, hypothesis: Hypothesis, error: str) -> Comparison:
    """Judge an experiment whose variant stopped with `error`."""
    predicted = hypothesis.expect.time is ExpectedTime.fails
    verdict = Verdict.failed_as_predicted if predicted else Verdict.failed
    return _without_timings(experiment, hypothesis, verdict, error)


def not_applicable(experiment: str, hypothesis: Hypothesis, reason: str) -> Comparison:
    """Record that an experiment cannot act on this machine, instead of a number."""
    return _without_timings(experiment, hypothesis, Verdict.not_applicable, reason)


def inconclusive(experiment: str, hypothesis: Hypothesis, reason: str, numerics: NumericsCheck | None) -> Comparison:
    """Record that a measurement was stopped before there were enough timings."""
    return _without_timings(experiment, hypothesis, Verdict.inconclusive, reason, numerics, Outcome.undecided)


def _without_timings(
    experiment: str,
    hypothesis: Hypothesis,
    verdict: Verdict,
    reason: str,
    numerics: NumericsCheck | None = None,
    outcome: Outcome | None = None,
) -> Comparison:
    return Comparison(
        experiment=experiment,
        hypothesis=hypothesis,
        verdict=verdict,
        outcome=outcome or outcome_of(hypothesis.expect, verdict, None),
        reason=reason,
        phases=(),
        memory=None,
        numerics=numerics,
    )


def phase_effect(phase: str, timings: PhaseTimings, estimator: Estimator = Estimator.fastest) -> PhaseEffect:
    """Estimate and judge one phase by `estimator`, without its share of the step.

    Raises:
        ValueError: the arms differ in their number of launches, or as `stats.fastest` and `stats.paired_effect`; the
            message names the phase.
    """
    try:
        baseline_s, variant_s, twin_s = _counted(timings, estimator)
        noise = stats.paired_effect(baseline_s, twin_s)
        both_baselines_s = np.sqrt(baseline_s * twin_s)
        effect = stats.paired_effect(both_baselines_s, variant_s)
    except ValueError as error:
        raise ValueError(f"phase {phase!r}: {error}") from error
    ratio = math.exp(effect.estimate)
    typical_s = float(np.median(np.sqrt(both_baselines_s * variant_s)))
    floor = max(MIN_FLOOR, FLOOR_SCALE * max(abs(noise.estimate), (noise.high - noise.low) / 2))
    return PhaseEffect(
        phase=phase,
        baseline_s_per_sample=typical_s / math.sqrt(ratio),
        variant_s_per_sample=typical_s * math.sqrt(ratio),
        share_of_step=None,
        launches=len(variant_s),
        ratio=ratio,
        ratio_low=math.exp(effect.low),
        ratio_high=math.exp(effect.high),
        p_value=effect.p_value,
        p_family=effect.p_family,
        p_holm=None,
        floor_ratio=math.exp(floor),
        detectable_ratio=math.exp(stats.detectable((effect.high - effect.low) / 2, floor)),
        verdict=_verdict(effect, floor),
        estimator=estimator,
        beside=_beside(timings, estimator),
    )


def _beside(timings: PhaseTimings, estimator: Estimator) -> RatioInterval | None:
    """The effect by the other estimator."""
    if not timings.means_s_per_sample:
        return None
    other = Estimator.mean if estimator is Estimator.fastest else Estimator.fastest
    baseline_s, variant_s, twin_s = _counted(timings, other)
    effect = stats.paired_effect(np.sqrt(baseline_s * twin_s), variant_s)
    return RatioInterval(math.exp(effect.estimate), math.exp(effect.low), math.exp(effect.high))


def bound(ratio_low: float, ratio_high: float, floor_ratio: float) -> float:
    """Return the largest effect that is still possible, as a share: 0.021 is 2.1 %."""
    return math.expm1(max(abs(math.log(ratio_low)), abs(math.log(ratio_high)), math.log(floor_ratio)))


def correct_ladder(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Correct the p-values of the hypotheses' phases over all comparisons (Holm); the order is kept.

    An effect that does not survive becomes inconclusive, and its hypothesis is judged again. Other phases are left as
    they are: they explain a result and do not decide it.
    """
    declared = [comparison.declared_effect for comparison in comparisons]
    corrected = iter(stats.holm([effect.p_family for effect in declared if effect is not None]))
    return tuple(
        comparison if effect is None else _with_declared_effect(comparison, _correct(effect, next(corrected)))
        for comparison, effect in zip(comparisons, declared, strict=True)
    )


def _counted(timings: PhaseTimings, estimator: Estimator) -> list[stats.Floats]:
    """Each arm's seconds per sample in each launch that counts: of the fastest round, or the mean of all."""
    counted = timings.counted_launches
    if estimator is Estimator.fastest:
        arms = [stats.fastest(of_arm, timings.rounds) for of_arm in timings.arms]
    elif timings.means_s_per_sample:
        arms = [stats.fastest(of_arm, 1) for of_arm in timings.means_s_per_sample]
    else:
        raise ValueError("the mean of all steps was not measured")
    lengths = [len(launches) for launches in (*arms, counted)]
    if len(set(lengths)) > 1:
        raise ValueError("baseline, variant, twin and probe have {}, {}, {} and {} launches".format(*lengths))
    return [launches[counted] for launches in arms]


def _verdict(effect: stats.Effect, floor: float) -> Verdict:
    if effect.p_value <= SIGNIFICANCE and abs(effect.estimate) > floor:
        return Verdict.slower if effect.estimate > 0 else Verdict.faster
    possible = math.expm1(max(abs(effect.low), abs(effect.high), floor))
    return Verdict.no_effect if possible <= NEGLIGIBLE else Verdict.inconclusive


def _with_shares(effects: tuple[PhaseEffect, ...], timings: Mapping[str, PhaseTimings]) -> tuple[PhaseEffect, ...]:
    """Add the shares of the baseline's step, by the same estimator, where a step of training was measured."""
    if "train" not in timings:
        return effects
    of_phases = [effect for effect in effects if effect.phase in STEP_PHASES]
    step_s = {
        estimator: phase_effect("train", timings["train"], estimator).baseline_s_per_sample
        for estimator in {effect.estimator for effect in of_phases}
    }
    return tuple(
        structs.replace(effect, share_of_step=effect.baseline_s_per_sample / step_s[effect.estimator])
        if effect.phase in STEP_PHASES
        else effect
        for effect in effects
    )


def _correct_undeclared(effects: Sequence[PhaseEffect], declared: str) -> tuple[PhaseEffect, ...]:
    """Correct the phases that the hypothesis does not name as one family (Holm)."""
    corrected = iter(stats.holm([effect.p_family for effect in effects if effect.phase != declared]))
    return tuple(effect if effect.phase == declared else _correct(effect, next(corrected)) for effect in effects)


def _with_declared_effect(comparison: Comparison, effect: PhaseEffect) -> Comparison:
    return structs.replace(
        comparison,
        phases=tuple(effect if other.phase == effect.phase else other for other in comparison.phases),
        verdict=effect.verdict,
        outcome=_outcome(comparison.hypothesis, effect, comparison.memory),
    )


def _outcome(hypothesis: Hypothesis, effect: PhaseEffect, memory: PeakMemory | None) -> Outcome:
    """Return what became of a hypothesis whose phase shows this effect."""
    return outcome_of(hypothesis.expect, effect.verdict, memory, (effect.ratio_low, effect.ratio_high))


def _correct(effect: PhaseEffect, p_holm: float) -> PhaseEffect:
    survives = p_holm <= SIGNIFICANCE or effect.verdict not in (Verdict.slower, Verdict.faster)
    verdict = effect.verdict if survives else Verdict.inconclusive
    return structs.replace(effect, p_holm=p_holm, verdict=verdict)
