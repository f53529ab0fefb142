"""Effects with intervals and p-values, from pairs of timings."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from profiling.verdict import stats


def test_interval_agrees_with_scipys_signed_rank_test() -> None:
    values = np.random.default_rng(3).normal(0.3, 1, 14)
    effect = stats.hodges_lehmann(values)
    assert effect.p_value == pytest.approx(scipy.stats.wilcoxon(values, method="exact").pvalue)
    inside, outside = 1e-9, -1e-9
    for end, inward in ((effect.low, 1), (effect.high, -1)):
        assert scipy.stats.wilcoxon(values - end - inward * inside, method="exact").pvalue > 0.05
        assert scipy.stats.wilcoxon(values - end - inward * outside, method="exact").pvalue <= 0.05


def test_signed_rank_distribution_of_three() -> None:
    # Subsets of {1, 2, 3} by sum 0..6: 1 1 1 2 1 1 1, of eight.
    assert stats.signed_rank_cdf(3) * 8 == pytest.approx([1, 2, 3, 5, 6, 7, 8])


def test_intervals_cover_a_true_effect_nineteen_times_in_twenty() -> None:
    true = math.log(1.05)
    rng = np.random.default_rng(0)
    # Heavy tails, as block timings have; 1,000 intervals scatter by 0.7 % around their coverage.
    effects = [stats.hodges_lehmann(true + 0.02 * rng.standard_t(3, 24)) for _ in range(1000)]
    covered = np.mean([effect.low <= true <= effect.high for effect in effects])
    assert 0.93 <= covered <= 0.97


def test_linear_drift_cancels() -> None:
    # 40 blocks in the order A B B A, each 2 % slower than the one before: variants run later as often as earlier.
    blocks = 1e-4 * np.exp(0.02 * np.arange(40)).reshape(-1, 4)
    effect = stats.paired_effect(blocks[:, [0, 3]].ravel().tolist(), blocks[:, [1, 2]].ravel().tolist())
    assert effect.estimate == pytest.approx(0, abs=1e-12)
    assert effect.low < 0 < effect.high


def test_detectable_effect_is_called_four_times_in_five() -> None:
    # Known noise: the standard error of the pseudo-median of n normal values is sd * sqrt(pi / 3 / n).
    noise, quads = 0.02, 30
    half_width = 1.96 * noise * math.sqrt(math.pi / 3 / quads)
    true = stats.detectable(half_width, floor=0.0)
    rng = np.random.default_rng(0)
    found = np.mean([stats.hodges_lehmann(rng.normal(true, noise, quads)).low > 0 for _ in range(1000)])
    assert 0.75 <= found <= 0.85


def test_more_noise_or_a_higher_floor_raises_the_detectable_effect() -> None:
    assert stats.detectable(0.01, 0.0) < stats.detectable(0.02, 0.0) < stats.detectable(0.02, 0.05)


logs = st.floats(-2, 2).map(lambda value: round(value, 3))
log_pairs = st.integers(6, 12).flatmap(
    lambda half: st.lists(st.tuples(logs, logs), min_size=2 * half, max_size=2 * half).map(np.array)
)


def effect_of(log_pairs: stats.Floats, scale: float = 1.0) -> stats.Effect:
    return stats.paired_effect(*(scale * np.exp(log_pairs.T)))


@given(log_pairs)
def test_swapping_the_arms_inverts_the_ratio_and_its_interval(drawn: stats.Floats) -> None:
    there, back = effect_of(drawn), effect_of(drawn[:, ::-1])
    assert back[:3] == pytest.approx((-there.estimate, -there.high, -there.low), abs=1e-12)


@given(log_pairs, st.sampled_from([2.0**-20, 0.5, 1024.0]))
def test_scaling_both_arms_changes_nothing(drawn: stats.Floats, scale: float) -> None:
    assert effect_of(drawn, scale) == pytest.approx(effect_of(drawn), abs=1e-12)


@given(log_pairs)
def test_interval_and_p_value_never_disagree(drawn: stats.Floats) -> None:
    effect = effect_of(drawn)
    assert effect.low <= effect.estimate <= effect.high
    assert (effect.p_value <= 0.05) == (effect.low > 0 or effect.high < 0)


def test_holm_worked_example() -> None:
    # Sorted 0.005 0.01 0.03 0.04 times 4 3 2 1 is 0.02 0.03 0.06 0.04; the last may not fall below the one before it.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


@pytest.mark.parametrize(("values", "p_value"), [([0.0] * 6, 1.0), ([0.1] * 6, 0.0), ([1.0, 2.0, 3.0, 4.0], None)])
def test_student(values: list[float], p_value: float | None) -> None:
    expected = scipy.stats.ttest_1samp(values, 0).pvalue if p_value is None else p_value
    assert stats.student(np.array(values)) == pytest.approx(expected)
