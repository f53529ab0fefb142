"""What a measured comparison means: paired timings in, a verdict that may abstain out.

The rule, for one phase, in log ratios of variant to baseline:

- The *effect* e has a 95 % interval (`profiling.stats`, which says how it was chosen).
- The *noise floor* f comes from baseline against baseline (A/A): the larger of that effect and the half width of its
  interval, times FLOOR_SCALE. It is the least that identical code has shown here, or would have had to show to be
  noticed, if it had been compared with the mean of two baselines, as the variant is. It is never less than LEAST_FLOOR.
- An effect is **called** (`slower`, `faster`) when its interval excludes zero *and* |e| > f. The two ask different
  questions: could chance do this, and did identical code do this? By the simulation that profiling.stats cites, of 10 s
  each, false positives fall from 4.65 to 1.3 %, and a true 3 % is called in 96.1 % of comparisons, 97.7 % without the
  floor. The farther end of the A/A interval as the floor would count the same chance twice.
- What is not called is bounded by b, the farthest of f and the interval's ends: the effect, if any, is smaller.
  `no detectable effect (< b)` when b is at most NEGLIGIBLE, so that it is a finding; `inconclusive` otherwise.
- Many tests call something by chance. So the phases that the hypothesis does not name are corrected as one family
  (Holm), and the hypotheses of a ladder as another; `stats.student` says by which p-values. What does not survive is
  inconclusive.

Launches during which the machine's cores were far from each other, by a reference that runs no arm's code, are left
out where enough others remain: either state has effects of its own (train.ab.arm.Arm.reference), and a mixture is none.
Where too few remain, all count, and the record says so (profiling.comparison.ComparisonRecord.notes).

A hypothesis is confirmed when every expectation it states holds, refuted when one is contradicted, else undecided. "No
detectable effect" contradicts `slower` and `faster`, since a claim that no measurement can contradict is no hypothesis.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

from profiling import stats

SCHEMA_VERSION = 3
SIGNIFICANCE = 1 - stats.CONFIDENCE
NEGLIGIBLE = 0.05  # a switch worth less than this is not worth its line of YAML
FLOOR_SCALE = math.sqrt(3 / 4)  # noise of one process against the mean of two, over that of one against one
FAR = 1.4  # times the least reference there was; on a 2-core machine near ones were 72 to 100 us, far ones from 125
# In 3 of 6 comparisons of 45 s of the baseline with itself, intervals excluded 1 and floors did not help: at 1.3 %
# before the order of the arms rotated, at 0.7 and 1.7 % before their memory was laid out at random. What lasts as long
# as a comparison, no launches average away; these two causes are mended, and there may be others.
LEAST_FLOOR = math.log(1.01)
MEMORY_RESOLUTION = 0.0005  # of peak memory: the peak of live tensors was the same to the byte in 29 baseline arms
MEMORY_TOLERANCE = 0.02  # more than what can be told apart, and still the same for all that anybody plans by
STEP_PHASES = ("load", "transfer", "preprocess", "forward", "loss", "backward", "optimizer", "metrics")


class Verdict(StrEnum):
    """What the timings of a phase, or of a whole experiment, say."""

    slower = "slower"
    faster = "faster"
    no_effect = "no detectable effect"
    inconclusive = "inconclusive"
    failed_as_predicted = "failed as predicted"
    failed = "failed"
    not_applicable = "not applicable here"


class Outcome(StrEnum):
    """What became of the hypothesis on this machine."""

    confirmed = "confirmed"
    refuted = "refuted here"
    undecided = "undecided"


class Time(StrEnum):
    """What a hypothesis expects of the variant's time; `fails`: that it stops with an error."""

    slower = "slower"
    faster = "faster"
    same = "same"
    fails = "fails"


class Memory(StrEnum):
    """What a hypothesis expects of the variant's peak memory."""

    more = "more"
    less = "less"
    same = "same"


class Agreement(StrEnum):
    """How far two sets of results agree, best first."""

    identical = "identical"
    close = "close"
    different = "different"


class Expectation(msgspec.Struct, frozen=True):
    """The falsifiable part of a hypothesis; None claims nothing."""

    time: Time | None = None
    memory: Memory | None = None


class Hypothesis(msgspec.Struct, frozen=True):
    """What an experiment claims, why, and in which phase it should show."""

    claim: str
    because: str
    phase: str
    expect: Expectation


class PhaseSamples(msgspec.Struct, frozen=True):
    """One phase's timings, [launches * rounds] seconds per sample of each arm; the twin runs what the baseline runs.

    The order of the arms rotates from round to round; launches with an odd index have it reversed. `reference_s` is
    [launches] seconds of a reference that feels only how near the machine's cores are to each other: the median of
    those before each round. Empty: not known. `nearest_s` is the least that earlier comparisons of a ladder have seen.
    """

    baseline_s_per_sample: Sequence[float]
    variant_s_per_sample: Sequence[float]
    twin_s_per_sample: Sequence[float]
    rounds: int = 1
    reference_s: Sequence[float] = ()
    nearest_s: float | None = None

    @property
    def far(self) -> npt.NDArray[np.bool_]:
        """[launches] whether the machine's cores were far from each other."""
        if not self.reference_s:
            return np.zeros(len(self.baseline_s_per_sample) // self.rounds, bool)
        return np.asarray(self.reference_s) >= FAR * min(*self.reference_s, self.nearest_s or math.inf)

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """[launches] whether a launch counts: that cores were near, unless too few were for an interval."""
        near = ~self.far
        return near if near.sum() >= stats.MIN_PAIRS else np.ones_like(near)

    @property
    def arms(self) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
        """Baseline, variant, twin."""
        return self.baseline_s_per_sample, self.variant_s_per_sample, self.twin_s_per_sample


class PeakMemory(msgspec.Struct, frozen=True):
    """Peak memory of each arm, measured the same way."""

    baseline_bytes: int
    variant_bytes: int


class Numerics(msgspec.Struct, frozen=True):
    """Whether the answer stayed the same; `mismatch` when it agrees less than was declared.

    `max_rel_difference` is the largest over tensors of the norm of the difference over the norm.
    """

    declared: Agreement
    measured: Agreement
    max_abs_difference: float
    max_rel_difference: float
    mismatch: bool


class PhaseEffect(msgspec.Struct, frozen=True):
    """One phase of a comparison. Ratios are variant / baseline: 1.05 is 5 % slower."""

    phase: str
    baseline_s_per_sample: float  # median over launches, of which each has its fastest
    variant_s_per_sample: float
    share_of_step: float | None  # of the baseline's `train`; None outside the step
    launches: int
    ratio: float
    ratio_low: float
    ratio_high: float
    p_value: float
    p_family: float  # stats.student says why a family has one of its own
    p_holm: float | None  # corrected over the phases that the hypothesis does not name, or over a ladder; None: alone
    floor_ratio: float  # >= 1: identical code may seem this much slower, or its inverse faster
    detectable_ratio: float  # >= 1: a true effect of this size would be called four times in five
    verdict: Verdict


class Comparison(msgspec.Struct, frozen=True):
    """One experiment against the baseline: the content of comparison.json that is about meaning."""

    experiment: str
    hypothesis: Hypothesis
    verdict: Verdict  # of the hypothesis' phase
    outcome: Outcome
    reason: str | None  # the error of a failed experiment, or why it does not apply
    phases: tuple[PhaseEffect, ...]
    memory: PeakMemory | None
    numerics: Numerics | None
    schema_version: int = SCHEMA_VERSION


def compare(
    experiment: str,
    hypothesis: Hypothesis,
    samples: Mapping[str, PhaseSamples],
    memory: PeakMemory | None = None,
    numerics: Numerics | None = None,
) -> Comparison:
    """Judge an experiment whose two arms both ran; `samples` maps phase to timings, and its order is kept.

    Raises:
        ValueError: the hypothesis' phase was not measured, or samples of a phase cannot be compared.
    """
    if hypothesis.phase not in samples:
        raise ValueError(f"{experiment}: phase {hypothesis.phase!r} was not measured, only {', '.join(samples)}")
    effects = tuple(phase_effect(phase, timings) for phase, timings in samples.items())
    phases = _correct_others(effects, hypothesis.phase)
    step_s = next((effect.baseline_s_per_sample for effect in phases if effect.phase == "train"), None)
    if step_s is not None:
        phases = tuple(_with_share(effect, step_s) for effect in phases)
    verdict = next(effect.verdict for effect in phases if effect.phase == hypothesis.phase)
    return Comparison(
        experiment=experiment,
        hypothesis=hypothesis,
        verdict=verdict,
        outcome=judge(hypothesis.expect, verdict, memory),
        reason=None,
        phases=phases,
        memory=memory,
        numerics=numerics,
    )


def _correct_others(effects: Sequence[PhaseEffect], declared: str) -> tuple[PhaseEffect, ...]:
    """Hold the phases that the hypothesis does not name, ten or so, to one joint error rate (Holm)."""
    corrected = iter(stats.holm([effect.p_family for effect in effects if effect.phase != declared]))
    return tuple(effect if effect.phase == declared else _correct(effect, next(corrected)) for effect in effects)


def failed(experiment: str, hypothesis: Hypothesis, error: str) -> Comparison:
    """Judge an experiment whose variant stopped with `error`."""
    predicted = hypothesis.expect.time is Time.fails
    verdict = Verdict.failed_as_predicted if predicted else Verdict.failed
    return _unmeasured(experiment, hypothesis, verdict, error)


def not_applicable(experiment: str, hypothesis: Hypothesis, reason: str) -> Comparison:
    """Record that an experiment cannot act on this machine, instead of a number."""
    return _unmeasured(experiment, hypothesis, Verdict.not_applicable, reason)


def _unmeasured(experiment: str, hypothesis: Hypothesis, verdict: Verdict, reason: str) -> Comparison:
    return Comparison(
        experiment=experiment,
        hypothesis=hypothesis,
        verdict=verdict,
        outcome=judge(hypothesis.expect, verdict, None),
        reason=reason,
        phases=(),
        memory=None,
        numerics=None,
    )


def phase_effect(phase: str, samples: PhaseSamples) -> PhaseEffect:
    """Estimate and judge one phase, without its share of the step.

    Raises:
        ValueError: arms differ in their number of launches, or as `stats.fastest` and `stats.median_effect`; the
            message names the phase.
    """
    try:
        baseline_s, variant_s, twin_s = _fastest(samples)
        idle = stats.median_effect(baseline_s, twin_s)
        both_s = np.sqrt(baseline_s * twin_s)
        effect = stats.median_effect(both_s, variant_s)
    except ValueError as error:
        raise ValueError(f"phase {phase!r}: {error}") from error
    floor = max(LEAST_FLOOR, FLOOR_SCALE * max(abs(idle.estimate), (idle.high - idle.low) / 2))
    return PhaseEffect(
        phase=phase,
        baseline_s_per_sample=float(np.median(both_s)),
        variant_s_per_sample=float(np.median(variant_s)),
        share_of_step=None,
        launches=len(variant_s),
        ratio=math.exp(effect.estimate),
        ratio_low=math.exp(effect.low),
        ratio_high=math.exp(effect.high),
        p_value=effect.p_value,
        p_family=effect.p_family,
        p_holm=None,
        floor_ratio=math.exp(floor),
        detectable_ratio=math.exp(stats.detectable((effect.high - effect.low) / 2, floor)),
        verdict=_verdict(effect, floor),
    )


def _fastest(samples: PhaseSamples) -> list[stats.Floats]:
    """Each arm's seconds per sample in the launches that count."""
    counted = samples.counted
    arms = [stats.fastest(timings, samples.rounds) for timings in samples.arms]
    numbers = [len(launches) for launches in (*arms, counted)]
    if len(set(numbers)) > 1:
        raise ValueError("baseline, variant, twin and reference have {}, {}, {} and {} launches".format(*numbers))
    return [launches[counted] for launches in arms]


def _with_share(effect: PhaseEffect, step_s: float) -> PhaseEffect:
    share = effect.baseline_s_per_sample / step_s if effect.phase in STEP_PHASES else None
    return msgspec.structs.replace(effect, share_of_step=share)


def correct_ladder(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Hold a family of experiments to one joint error rate: Holm over the p-values of their hypotheses' phases.

    An effect that does not survive becomes inconclusive, not absent, and its hypothesis is judged again. Other phases
    are left as they are: they explain, they do not decide. Order is kept.
    """
    declared = [_declared_effect(comparison) for comparison in comparisons]
    corrected = iter(stats.holm([effect.p_family for effect in declared if effect is not None]))
    return tuple(
        comparison if effect is None else _with_declared_effect(comparison, _correct(effect, next(corrected)))
        for comparison, effect in zip(comparisons, declared, strict=True)
    )


def _declared_effect(comparison: Comparison) -> PhaseEffect | None:
    return next((effect for effect in comparison.phases if effect.phase == comparison.hypothesis.phase), None)


def _with_declared_effect(comparison: Comparison, effect: PhaseEffect) -> Comparison:
    return msgspec.structs.replace(
        comparison,
        phases=tuple(effect if other.phase == effect.phase else other for other in comparison.phases),
        verdict=effect.verdict,
        outcome=judge(comparison.hypothesis.expect, effect.verdict, comparison.memory),
    )


def _correct(effect: PhaseEffect, p_holm: float) -> PhaseEffect:
    survives = p_holm <= SIGNIFICANCE or effect.verdict not in (Verdict.slower, Verdict.faster)
    verdict = effect.verdict if survives else Verdict.inconclusive
    return msgspec.structs.replace(effect, p_holm=p_holm, verdict=verdict)


def _verdict(effect: stats.Effect, floor: float) -> Verdict:
    if effect.p_value <= SIGNIFICANCE and abs(effect.estimate) > floor:
        return Verdict.slower if effect.estimate > 0 else Verdict.faster
    return Verdict.no_effect if _bound(effect.low, effect.high, floor) <= NEGLIGIBLE else Verdict.inconclusive


def _bound(low: float, high: float, floor: float) -> float:
    """Return the largest effect that is still possible, as a plain ratio minus one."""
    return math.expm1(max(abs(low), abs(high), floor))


def judge(expect: Expectation, verdict: Verdict, memory: PeakMemory | None) -> Outcome:
    """Hold a hypothesis' expectations against what was measured."""
    findings = []
    if expect.time is not None:
        findings.append(_time_holds(expect.time, verdict))
    if expect.memory is not None:
        findings.append(_memory_holds(expect.memory, memory))
    if False in findings:
        return Outcome.refuted
    return Outcome.confirmed if findings and all(findings) else Outcome.undecided


def _time_holds(expected: Time, verdict: Verdict) -> bool | None:
    """Return whether the expectation holds; None leaves it open."""
    match verdict:
        case Verdict.failed | Verdict.not_applicable:
            return None
        case Verdict.inconclusive:
            return False if expected is Time.fails else None
        case Verdict.failed_as_predicted:
            return expected is Time.fails
        case Verdict.no_effect:
            return expected is Time.same
        case Verdict.slower | Verdict.faster:
            return expected.value == verdict.value


def _memory_holds(expected: Memory, memory: PeakMemory | None) -> bool | None:
    """Return whether the expectation holds; `more` and `less` stay open where nothing can be told apart."""
    if memory is None:
        return None
    added_bytes = memory.variant_bytes - memory.baseline_bytes
    if expected is Memory.same:
        return abs(added_bytes) <= MEMORY_TOLERANCE * memory.baseline_bytes
    if abs(added_bytes) <= MEMORY_RESOLUTION * memory.baseline_bytes:
        return None
    return expected is (Memory.more if added_bytes > 0 else Memory.less)


def agreement(
    declared: Agreement, max_abs_difference: float, max_rel_difference: float, rtol: float, atol: float
) -> Numerics:
    """Compare measured differences with declared numerics; within either tolerance is close, NaN is different."""
    if max_abs_difference == 0:
        measured = Agreement.identical
    elif max_abs_difference <= atol or max_rel_difference <= rtol:
        measured = Agreement.close
    else:
        measured = Agreement.different
    order = list(Agreement)
    return Numerics(
        declared=declared,
        measured=measured,
        max_abs_difference=max_abs_difference,
        max_rel_difference=max_rel_difference,
        mismatch=order.index(measured) > order.index(declared),
    )


def describe(effect: PhaseEffect) -> str:
    """Spell out a phase's verdict for a table: `slower`, `no detectable effect (< 2.1 %)`, ...

    An effect that would stand alone and not in its family is told from noise: more launches would settle it.
    """
    low, high, floor = math.log(effect.ratio_low), math.log(effect.ratio_high), math.log(effect.floor_ratio)
    is_sure, stands_out = effect.p_value <= SIGNIFICANCE, abs(math.log(effect.ratio)) > floor
    match effect.verdict:
        case Verdict.no_effect:
            return f"no detectable effect (< {100 * _bound(low, high, floor):.1f} %)"
        case Verdict.inconclusive if effect.p_holm is not None and is_sure and stands_out:
            return f"inconclusive (p = {effect.p_holm:.2g}, corrected)"
        case Verdict.inconclusive:
            return f"inconclusive (too noisy: ± {100 * math.expm1(max((high - low) / 2, floor)):.1f} %)"
        case _:
            return effect.verdict.value
