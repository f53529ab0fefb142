import math
import sys

import msgspec
import numpy as np
import pytest

from profiling.verdict import stats
from profiling.verdict.hypothesis import Expectation, Hypothesis, PeakMemory
from profiling.verdict.judge import (
    Comparison,
    correct_ladder,
    failed,
    judge_comparison,
    not_applicable,
    phase_effect,
    settled,
)
from profiling.verdict.numerics import check_numerics
from profiling.verdict.timings import PhaseTimings
from profiling.verdict.wording import describe_effect, describe_estimators
from profiling.vocabulary import Agreement, Estimator, ExpectedMemory, ExpectedTime, Outcome, Verdict

SLOWER = Expectation(time=ExpectedTime.slower)


def phase(
    shift: float = 0.0, noise: float = 0.01, apart: float = 0.0, apart_noise: float = 0.0, launches: int = 40
) -> PhaseTimings:
    """Timings of one phase, with log-normal noise.

    The variant is slower than the mean of both baselines by `shift` (a plain ratio minus one), and the twin than the
    baseline by `apart`, which `apart_noise` scatters, though they run the same code.
    """
    rng = np.random.default_rng(0)
    baseline, variant, twin = rng.normal(math.log(1e-4), noise, size=(3, launches))
    half = math.log1p(apart) / 2 + rng.normal(0, apart_noise, size=launches)
    series = (np.exp(log_s).tolist() for log_s in (baseline - half, variant + math.log1p(shift), twin + half))
    return PhaseTimings(*series)


def hypothesis_of(expect: Expectation = SLOWER, named: str = "train") -> Hypothesis:
    return Hypothesis(claim="it is slower", because="it does more", phase=named, expect=expect)


def compared(
    shift: float, expect: Expectation = SLOWER, memory: PeakMemory | None = None, noise: float = 0.01
) -> Comparison:
    return judge_comparison("x_off", hypothesis_of(expect), {"train": phase(shift, noise)}, memory)


# The interval


@pytest.mark.parametrize("shift", [-0.3, -0.05, 0.05, 0.5])
def test_known_shift_is_found(shift: float) -> None:
    effect = phase_effect("train", phase(shift))
    assert effect.verdict is (Verdict.slower if shift > 0 else Verdict.faster)
    assert effect.ratio_low < 1 + shift < effect.ratio_high
    assert effect.ratio == pytest.approx(1 + shift, rel=0.01)


def test_outliers_do_not_sway() -> None:
    clean = phase(0.05)
    variant = list(clean.variant_s_per_sample)
    variant[4], variant[17], variant[30] = 100 * variant[4], 50 * variant[17], 20 * variant[30]
    struck = phase_effect("train", msgspec.structs.replace(clean, variant_s_per_sample=variant))
    assert struck.verdict is Verdict.slower
    assert struck.ratio == pytest.approx(1.05, rel=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_the_times_of_both_arms_agree_with_the_ratio_beside_them(seed: int) -> None:
    arms = 1e-4 * np.exp(np.random.default_rng(seed).normal(0, 0.2, (3, 12)))
    effect = phase_effect("train", PhaseTimings(*arms.tolist()))
    assert effect.variant_s_per_sample / effect.baseline_s_per_sample == pytest.approx(effect.ratio)
    assert arms.min() < effect.baseline_s_per_sample < arms.max()


def test_identical_samples_abstain() -> None:
    effect = phase_effect("train", PhaseTimings(*[[1e-4] * 12] * 3))
    assert effect.verdict is Verdict.no_effect
    assert (effect.ratio, effect.ratio_low, effect.ratio_high, effect.p_value) == (1, 1, 1, 1)


# The floor, and what is not called


def test_effect_inside_the_floor_is_not_called() -> None:
    # The same code differs by about 4 % here, so a sure 2 % proves nothing.
    effect = phase_effect("train", phase(0.02, apart=0.04))
    assert effect.ratio_low > 1
    assert effect.p_value < 0.01
    assert effect.verdict is Verdict.no_effect
    assert effect.ratio_high < effect.floor_ratio
    assert describe_effect(effect) == f"no detectable effect (< {100 * (effect.floor_ratio - 1):.1f} %)"


def test_less_than_one_percent_is_not_called_however_sure() -> None:
    still = [1e-4] * 12
    below, above = (phase_effect("train", PhaseTimings(still, [r * 1e-4] * 12, still)) for r in (1.009, 1.011))
    assert below.p_value < 0.001
    assert (below.verdict, above.verdict) == (Verdict.no_effect, Verdict.slower)


def test_a_floor_that_could_not_be_measured_well_withholds_the_call() -> None:
    # The 3 % of the variant are sure, but would not have shown in A/A blocks as noisy as these.
    effect = phase_effect("train", phase(0.03, apart_noise=0.1))
    assert effect.p_value < 0.01
    assert effect.verdict is Verdict.inconclusive
    assert effect.floor_ratio > 1.03
    assert describe_effect(effect) == f"inconclusive (noise floor {100 * (effect.floor_ratio - 1):.1f} %)"


def test_wide_interval_is_inconclusive() -> None:
    effect = phase_effect("train", phase(noise=0.4))
    assert effect.verdict is Verdict.inconclusive
    farther_end = max(effect.ratio_high, 1 / effect.ratio_low) - 1
    stated = float(describe_effect(effect).removeprefix("inconclusive (up to ").removesuffix(" % is possible)"))
    assert stated == pytest.approx(100 * farther_end, abs=0.05)


def test_an_effect_between_the_ends_of_a_wide_interval_is_still_called() -> None:
    effect = phase_effect("train", phase(1.0, noise=0.2))
    assert effect.verdict is Verdict.slower
    assert describe_effect(effect) == "slower"


# Launches: rounds of the same processes are one value


def test_what_processes_differ_by_is_no_effect_however_many_rounds_they_ran() -> None:
    """Eight exact rounds of each of 12 launches, whose processes differ by 3 %: as if each launch had had one."""
    launches = np.random.default_rng(1).normal(0, 0.03, 12)
    variant, still = (1e-4 * np.exp(launches.repeat(8))).tolist(), [1e-4] * 96
    one_value = phase_effect("train", PhaseTimings(still, variant, still, rounds=8))
    assert one_value.verdict is Verdict.no_effect
    once = stats.hodges_lehmann(launches)
    assert (one_value.ratio_low, one_value.ratio_high) == pytest.approx((math.exp(once.low), math.exp(once.high)))
    alone = phase_effect("train", PhaseTimings(still, variant, still))
    assert alone.verdict is Verdict.slower, "96 values that are 12 would have called it"


def test_a_launch_is_judged_by_the_fastest_round_of_each_arm() -> None:
    late = np.ones((3, 6, 5))
    late[0, :, 1:], late[1, :, :3], late[2, :, [0, 4]] = 1.3, 2.0, 1.1  # each arm met bursts in other rounds
    baseline, variant, twin = (1e-4 * late).reshape(3, -1).tolist()
    effect = phase_effect("train", PhaseTimings(baseline, [1.05 * s for s in variant], twin, rounds=5))
    assert (effect.ratio, effect.floor_ratio) == pytest.approx((1.05, 1.01))
    assert (effect.baseline_s_per_sample, effect.variant_s_per_sample) == pytest.approx((1e-4, 1.05e-4))
    assert effect.launches == 6


def test_the_variant_is_compared_with_the_mean_of_both_baselines() -> None:
    effect = phase_effect("train", PhaseTimings([1e-4] * 6, [1.02e-4] * 6, [1.0404e-4] * 6))
    assert effect.ratio == pytest.approx(1.0)
    assert effect.floor_ratio == pytest.approx(1.0404 ** math.sqrt(3 / 4))


# Cores that share no cache


@pytest.mark.parametrize(
    ("apart", "launches", "verdict"), [(4, 8, Verdict.slower), (6, 6, Verdict.slower), (7, 12, Verdict.inconclusive)]
)
def test_launches_with_cores_apart_are_left_out_where_enough_remain(
    apart: int, launches: int, verdict: Verdict
) -> None:
    close = 12 - apart
    marks = [False] * (close - 1) + [True] * apart + [False]
    variant = [1.05e-4] * (close - 1) + [0.7e-4] * apart + [1.05e-4]
    effect = phase_effect("evaluate", PhaseTimings([1e-4] * 12, variant, [1e-4] * 12, cores_apart=marks))
    assert (effect.launches, effect.verdict) == (launches, verdict)


# Refusals


@pytest.mark.parametrize(
    ("baseline", "variant", "message"),
    [
        ([1.0] * 5, [1.0] * 5, "5 pairs of timings: at least 6 are needed"),
        ([1.0] * 12, [1.0] * 14, "baseline, variant, twin and probe have 12, 14, 12 and 12 launches"),
        ([1.0] * 11 + [math.nan], [1.0] * 12, "positive, finite"),
        ([1.0] * 12, [1.0] * 11 + [0.0], "positive, finite"),
        ([1.0] * 12, [1.0] * 11 + [-1.0], "positive, finite"),
        ([1.0] * 12, [1.0] * 11 + [math.inf], "positive, finite"),
    ],
)
def test_timings_that_cannot_be_compared_are_refused(baseline: list[float], variant: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=f"phase 'forward': .*{message}"):
        phase_effect("forward", PhaseTimings(baseline, variant, baseline))


def test_an_incomplete_launch_is_refused() -> None:
    with pytest.raises(ValueError, match="phase 'forward': 14 timings are not whole launches of 4"):
        phase_effect("forward", PhaseTimings([1.0] * 14, [1.0] * 14, [1.0] * 14, rounds=4))


def test_a_hypothesis_about_an_unmeasured_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="phase 'evaluate' was not measured, only train"):
        judge_comparison("x_off", hypothesis_of(named="evaluate"), {"train": phase()})


# Hypotheses


MORE, LESS = PeakMemory(baseline_bytes=1000, variant_bytes=1500), PeakMemory(baseline_bytes=1000, variant_bytes=700)
ALIKE = PeakMemory(baseline_bytes=100_000, variant_bytes=101_000)
SAME = PeakMemory(baseline_bytes=100_000, variant_bytes=100_020)


@pytest.mark.parametrize(
    ("shift", "expect", "memory", "outcome"),
    [
        (0.1, SLOWER, None, Outcome.confirmed),
        (-0.1, SLOWER, None, Outcome.refuted),
        (0.0, SLOWER, None, Outcome.refuted),
        (0.005, SLOWER, None, Outcome.undecided),  # not called, but all of the interval is on the claimed side
        (0.005, Expectation(time=ExpectedTime.faster), None, Outcome.refuted),
        (-0.1, Expectation(time=ExpectedTime.faster), None, Outcome.confirmed),
        (0.0, Expectation(time=ExpectedTime.same), None, Outcome.confirmed),
        (0.1, Expectation(time=ExpectedTime.same), None, Outcome.refuted),
        (0.1, Expectation(time=ExpectedTime.fails), None, Outcome.refuted),
        (0.1, Expectation(), MORE, Outcome.undecided),
        (0.1, Expectation(ExpectedTime.slower, ExpectedMemory.more), MORE, Outcome.confirmed),
        (0.1, Expectation(ExpectedTime.slower, ExpectedMemory.more), LESS, Outcome.refuted),
        (0.1, Expectation(ExpectedTime.slower, ExpectedMemory.more), SAME, Outcome.undecided),
        (0.1, Expectation(ExpectedTime.slower, ExpectedMemory.more), ALIKE, Outcome.confirmed),
        (0.1, Expectation(ExpectedTime.slower, ExpectedMemory.less), ALIKE, Outcome.refuted),
        (0.1, Expectation(ExpectedTime.slower, ExpectedMemory.same), ALIKE, Outcome.confirmed),
        (0.1, Expectation(ExpectedTime.slower, ExpectedMemory.more), None, Outcome.undecided),
        (-0.1, Expectation(ExpectedTime.slower, ExpectedMemory.more), None, Outcome.refuted),
        (0.1, Expectation(memory=ExpectedMemory.same), SAME, Outcome.confirmed),
        (0.1, Expectation(memory=ExpectedMemory.same), MORE, Outcome.refuted),
        (0.1, Expectation(memory=ExpectedMemory.less), LESS, Outcome.confirmed),
    ],
)
def test_outcome(shift: float, expect: Expectation, memory: PeakMemory | None, outcome: Outcome) -> None:
    assert compared(shift, expect, memory).outcome is outcome


def test_a_claim_about_the_mean_is_judged_by_it_and_the_other_estimator_stands_beside() -> None:
    fastest = phase(0.0)
    means = [[2 * s for s in fastest.baseline_s_per_sample], [6 * s for s in fastest.variant_s_per_sample]]
    both = msgspec.structs.replace(fastest, means_s_per_sample=[*means, [2 * s for s in fastest.twin_s_per_sample]])
    by_fastest = hypothesis_of()
    by_mean = msgspec.structs.replace(by_fastest, estimator=Estimator.mean)
    outcomes = []
    for hypothesis in (by_fastest, by_mean):
        judged = judge_comparison("x_off", hypothesis, {"train": both})
        effect = judged.declared_effect
        assert effect is not None and effect.beside is not None and effect.estimators_differ
        outcomes.append((judged.outcome, round(effect.ratio, 1), round(effect.beside.ratio, 1)))
    assert outcomes == [(Outcome.refuted, 1.0, 3.0), (Outcome.confirmed, 3.0, 1.0)]
    said = describe_estimators(effect)
    assert "by the mean of all steps, but" in said and said.endswith("by the fastest steps.")


@pytest.mark.parametrize(
    ("shift", "expect", "is_large"),
    [
        (0.7, SLOWER, True),
        (-0.5, SLOWER, True),
        (0.0, SLOWER, False),
        (0.02, SLOWER, False),  # near the floor
        (2.0, Expectation(time=ExpectedTime.slower, at_least=3.0), False),
        (2.0, Expectation(time=ExpectedTime.slower, at_least=2.0), True),
        (-2 / 3, Expectation(time=ExpectedTime.faster, at_least=3.0), False),
    ],
)
def test_what_more_launches_could_change_is_not_settled(shift: float, expect: Expectation, is_large: bool) -> None:
    hypothesis = msgspec.structs.replace(hypothesis_of(), expect=expect)
    assert (settled(hypothesis, phase(shift, launches=6)) is not None) == is_large


@pytest.mark.parametrize(("shift", "reason"), [(0.0, "less than 5 %"), (0.025, None), (0.7, "so large and so sure")])
def test_in_a_ladder_it_is_enough_to_know_that_an_effect_is_small(shift: float, reason: str | None) -> None:
    said = settled(hypothesis_of(), phase(shift, launches=6), is_one_of_many=True)
    assert said is None if reason is None else said is not None and reason in said


def test_estimators_that_agree_are_not_mentioned() -> None:
    one = phase(0.1)
    assert not phase_effect("train", msgspec.structs.replace(one, means_s_per_sample=one.arms)).estimators_differ
    with pytest.raises(ValueError, match="phase 'train': the mean of all steps was not measured"):
        phase_effect("train", one, Estimator.mean)


@pytest.mark.parametrize(
    ("shift", "time", "at_least", "outcome"),
    [
        (3.36, ExpectedTime.slower, 10.0, Outcome.refuted),
        (3.36, ExpectedTime.slower, 3.0, Outcome.confirmed),
        (3.36, ExpectedTime.slower, 4.36, Outcome.undecided),
        (-0.75, ExpectedTime.faster, 3.0, Outcome.confirmed),
        (-0.75, ExpectedTime.faster, 5.0, Outcome.refuted),
        (0.0, ExpectedTime.slower, 2.0, Outcome.refuted),
        (-0.75, ExpectedTime.slower, 2.0, Outcome.refuted),
    ],
)
def test_a_claim_with_a_size_is_held_against_the_interval(shift, time, at_least, outcome) -> None:
    expect = Expectation(time, at_least=at_least)
    assert compared(shift, expect).outcome is outcome
    assert correct_ladder([compared(shift, expect)])[0].outcome is outcome


def test_noise_leaves_a_hypothesis_undecided() -> None:
    comparison = compared(0.0, noise=0.4)
    assert (comparison.verdict, comparison.outcome) == (Verdict.inconclusive, Outcome.undecided)


def test_a_variant_that_ran_to_its_end_did_not_fail_however_noisy() -> None:
    assert compared(0.0, Expectation(time=ExpectedTime.fails), noise=0.4).outcome is Outcome.refuted


def test_an_error_confirms_only_the_hypothesis_that_predicted_it() -> None:
    predicted = failed("x_off", hypothesis_of(Expectation(time=ExpectedTime.fails)), "CUDA out of memory")
    assert (predicted.verdict, predicted.outcome) == (Verdict.failed_as_predicted, Outcome.confirmed)
    assert predicted.reason == "CUDA out of memory"
    surprising = failed("x_off", hypothesis_of(), "worker was killed")
    assert (surprising.verdict, surprising.outcome) == (Verdict.failed, Outcome.undecided)


def test_what_cannot_act_here_has_no_numbers() -> None:
    comparison = not_applicable("tf32_off", hypothesis_of(), "needs cuda")
    assert (comparison.verdict, comparison.outcome) == (Verdict.not_applicable, Outcome.undecided)
    assert comparison.phases == ()


# The ladder


def test_a_ladder_keeps_strong_effects_and_drops_the_one_that_chance_explains() -> None:
    # One of twenty A/A comparisons is expected to reach p < 0.05; this one did, by construction.
    log_ratios = [0.030, 0.010, 0.020, -0.012, 0.015, 0.004, 0.025, 0.018]
    lucky = PhaseTimings([1.0] * 8, [math.exp(value) for value in log_ratios], [1.0] * 8)
    doubtful = judge_comparison("doubtful", hypothesis_of(), {"train": lucky})
    assert doubtful.outcome is Outcome.confirmed
    strong = compared(0.1)
    absent = not_applicable("tf32_off", hypothesis_of(), "needs cuda")
    ladder = correct_ladder([doubtful, absent, strong, *[compared(0.0)] * 5])
    assert [comparison.experiment for comparison in ladder[:3]] == ["doubtful", "tf32_off", "x_off"]
    assert (ladder[0].verdict, ladder[0].outcome) == (Verdict.inconclusive, Outcome.undecided)
    assert describe_effect(ladder[0].phases[0]) == "inconclusive (p = 0.26, corrected)"
    # Second of seven p-values.
    assert ladder[0].phases[0].p_holm == pytest.approx(6 * doubtful.phases[0].p_family)
    assert ladder[1] == absent
    assert (ladder[2].verdict, ladder[2].outcome) == (Verdict.slower, Outcome.confirmed)


def test_few_launches_do_not_hide_a_large_effect_in_a_ladder() -> None:
    """The exact test of six launches cannot go below 0.03."""
    slow = PhaseTimings([1.0] * 6, [4.0, 4.1, 4.2, 4.3, 4.2, 4.1], [1.0] * 6)
    found = judge_comparison("few", hypothesis_of(), {"train": slow})
    assert found.phases[0].p_value == 2 / 2**6
    ladder = correct_ladder([found, *[compared(0.0)] * 30])
    assert (ladder[0].verdict, ladder[0].outcome) == (Verdict.slower, Outcome.confirmed)


def test_a_ladder_corrects_only_the_phase_that_a_hypothesis_names() -> None:
    comparison = judge_comparison("x_off", hypothesis_of(), {"forward": phase(0.1), "train": phase(0.1)})
    (corrected,) = correct_ladder([comparison])
    assert corrected.phases[0] == comparison.phases[0]
    assert corrected.phases[1].p_holm == comparison.phases[1].p_family


def test_phases_that_the_hypothesis_does_not_name_are_corrected_as_one_family() -> None:
    log_ratios = [0.030, 0.010, 0.020, -0.012, 0.015, 0.004, 0.025, 0.018]
    lucky = PhaseTimings([1.0] * 8, [math.exp(value) for value in log_ratios], [1.0] * 8)
    quiet = dict.fromkeys(("loss", "metrics", "optimizer"), phase())
    timings = {"train": lucky, "load": lucky, "forward": phase(0.1), **quiet}
    comparison = judge_comparison("x_off", hypothesis_of(), timings)
    effects = {effect.phase: effect for effect in comparison.phases}
    assert list(effects) == list(timings)
    assert (effects["train"].verdict, effects["train"].p_holm) == (Verdict.slower, None)
    assert effects["load"].p_holm == pytest.approx(4 * effects["load"].p_family)  # second of five
    assert describe_effect(effects["load"]) == "inconclusive (p = 0.17, corrected)"
    assert effects["forward"].verdict is Verdict.slower


# The same answer


@pytest.mark.parametrize(
    ("declared", "max_abs", "max_rel", "measured", "mismatch"),
    [
        (Agreement.identical, 0.0, 0.0, Agreement.identical, False),
        (Agreement.identical, 1e-9, 1e-9, Agreement.close, True),
        (Agreement.close, 0.0, 0.0, Agreement.identical, False),
        (Agreement.close, 1e-9, 0.5, Agreement.close, False),
        (Agreement.close, 10.0, 1e-7, Agreement.close, False),
        (Agreement.close, 0.1, 0.1, Agreement.different, True),
        (Agreement.close, math.nan, math.nan, Agreement.different, True),
        (Agreement.different, 5.0, 5.0, Agreement.different, False),
    ],
)
def test_agreement(declared: Agreement, max_abs: float, max_rel: float, measured: Agreement, mismatch: bool) -> None:
    numerics = check_numerics(declared, max_abs, max_rel, rtol=1e-5, atol=1e-8)
    assert (numerics.measured, numerics.mismatch) == (measured, mismatch)


# The file


def test_comparison_survives_json() -> None:
    numerics = check_numerics(Agreement.close, 1e-9, 1e-7, rtol=1e-5, atol=1e-8)
    timings = {"load": phase(), "train": phase(0.1), "evaluate": phase()}
    comparison = judge_comparison("x_off", hypothesis_of(), timings, MORE, numerics)
    encoded = msgspec.json.encode(comparison)
    assert msgspec.json.decode(encoded, type=Comparison) == comparison
    assert [effect.phase for effect in comparison.phases] == ["load", "train", "evaluate"]


def test_share_of_the_step_belongs_to_phases_of_the_step() -> None:
    whole = phase()
    quarter = PhaseTimings(*([value / 4 for value in arm] for arm in whole.arms))
    timings = {"forward": quarter, "train": whole, "evaluate": whole}
    shares = {effect.phase: effect.share_of_step for effect in judge_comparison("x", hypothesis_of(), timings).phases}
    assert shares == {"forward": pytest.approx(0.25), "train": None, "evaluate": None}


def test_shares_add_up_though_the_claim_is_about_the_mean() -> None:
    """The mean of a step is far above its fastest time; the phases' times are the fastest."""
    whole = phase()
    half = PhaseTimings(*([value / 2 for value in arm] for arm in whole.arms))
    with_means = msgspec.structs.replace(whole, means_s_per_sample=[[3 * value for value in arm] for arm in whole.arms])
    claim = msgspec.structs.replace(hypothesis_of(), estimator=Estimator.mean)
    judged = judge_comparison("x", claim, {"forward": half, "backward": half, "train": with_means})
    shares = [effect.share_of_step for effect in judged.phases if effect.share_of_step is not None]
    assert shares == [pytest.approx(0.5)] * 2


@pytest.mark.parametrize(
    ("largest", "relative", "words"),
    [
        (0.0, 0.0, "largest difference 0"),
        (0.0123, 0.00312, "largest difference 0.012; of a tensor's norm at most 0.0031"),
        (sys.float_info.max, sys.float_info.max, "tensors of other shapes, or a number that is not finite"),
    ],
)
def test_the_largest_difference_of_results_is_told_in_words(largest: float, relative: float, words: str) -> None:
    assert check_numerics(Agreement.close, largest, relative, 1e-1, 1e-3).largest == words
