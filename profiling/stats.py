"""Paired block timings -> an effect with an interval: the arithmetic under `profiling.compare`.

All functions are pure and work on natural logarithms of ratios, in which a slowdown and the speed-up that undoes it
are equal and opposite.

Pairs of one launch of the worker processes are not independent: processes that run the same code differ lastingly, by
where their memory lies. `train.ab` therefore launches its workers many times, and a launch counts as one value: that of
each arm's fastest round, since what else a machine does only ever adds time.

The interval over launches is Hodges-Lehmann's, chosen by `tests/bench/bench_validity_sim.py`: 2,000 comparisons of 12
launches of 2 to 4 rounds, drawn from 40 real ones of the baseline with itself, 10 s each, on a noisy 2-core machine.
`train`, with the variant slower by a known share:

    a launch is worth           interval            false positives     finds 3 %     finds 5 %
    its fastest rounds          Hodges-Lehmann      4.6 %               98 %         100 %
    its fastest rounds          t                   5.0 %               98 %         100 %
    its fastest rounds          sign test           4.2 %               95 %         100 %
    its fastest rounds          BCa of the median   7.9 %               98 %         100 %
    its median round            Hodges-Lehmann      2.5 %               95 %         100 %
    fastest, without the twin   Hodges-Lehmann      4.4 %               93 %         100 %

Coverage is one minus the false positives. For 12 launches the sign test has only one level near 95 %; t lets one launch
that met a burst in every round take its interval anywhere.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtr

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.8  # of the smallest effect that is promised to be found
MIN_PAIRS = 6  # with five, even unanimous ones are significant only at 2 / 2**5 > 5 %


class Effect(NamedTuple):
    """A typical log ratio, its 95 % interval, and the two-sided p-value of "there is no effect"."""

    estimate: float
    low: float
    high: float
    p_value: float
    p_family: float  # what to correct where this is one test of many


def fastest(s_per_sample: Sequence[float] | Floats, rounds: int) -> Floats:
    """Return the fastest of each launch's `rounds`, from [launches * rounds] seconds per sample.

    Raises:
        ValueError: the last launch is incomplete, or a timing is not a positive finite number.
    """
    timings = np.asarray(s_per_sample, dtype=np.float64)
    if len(timings) % rounds:
        raise ValueError(f"{len(timings)} timings are no whole launches of {rounds}")
    if not (np.isfinite(timings).all() and (timings > 0).all()):
        raise ValueError("timings must be positive, finite seconds per sample")
    return np.asarray(timings.reshape(-1, rounds).min(axis=1))


def median_effect(first_s: Sequence[float] | Floats, second_s: Sequence[float] | Floats) -> Effect:
    """Estimate the log ratio second / first.

    Args:
        first_s: [pairs] seconds per sample, in the order they were measured: as many pairs first-second as
            second-first, so that steady drift adds as often as it subtracts, and leaves their median.
        second_s: [pairs], likewise.

    Raises:
        ValueError: lengths differ, pairs are too few, or a timing is not a positive finite number.
    """
    if len(first_s) != len(second_s):
        raise ValueError(f"paired timings differ in number: {len(first_s)} and {len(second_s)}")
    if len(first_s) < MIN_PAIRS:
        raise ValueError(f"{len(first_s)} pairs of timings: at least {MIN_PAIRS} are needed")
    return hodges_lehmann(np.log(fastest(second_s, 1) / fastest(first_s, 1)))


def walsh_averages(values: Floats) -> Floats:
    """Return the means of all pairs of `values`, each value with itself included, sorted."""
    rows, columns = np.triu_indices(len(values))
    return np.sort((values[rows] + values[columns]) / 2)


def hodges_lehmann(values: Floats) -> Effect:
    """Return the pseudo-median of `values` with the interval and p-value of the exact signed-rank test.

    Both are read off the sorted Walsh averages: the signed-rank statistic is the number of averages above zero, so that
    interval and p-value never disagree. Ties make the interval a little wide. Source: Hollander, Wolfe & Chicken,
    Nonparametric Statistical Methods, 3rd ed., sections 3.1 to 3.3; for the p-value, scipy.stats.wilcoxon.
    """
    walsh = walsh_averages(values)
    cumulative = signed_rank_cdf(len(values))
    # The interval keeps every shift that the test does not reject: drop `cut` averages at either end.
    cut = int(np.searchsorted(cumulative, (1 - CONFIDENCE) / 2, side="right")) - 1
    # Averages of exactly zero count against the effect, on either side.
    extreme = min(int((walsh <= 0).sum()), int((walsh >= 0).sum()))
    p_value = min(1.0, 2 * float(cumulative[extreme]))
    return Effect(
        estimate=float(np.median(walsh)),
        low=float(walsh[cut]),
        high=float(walsh[-1 - cut]),
        p_value=p_value,
        p_family=min(1.0, 2 * min(p_value, student(values))),
    )


def student(values: Floats) -> float:
    """Return the two-sided p-value of Student's one-sample test: is the mean of `values` zero?

    The exact test of n launches cannot go below 2 / 2**n, which is 0.03 for six: no family of two survives that,
    however large the effect. Hence both tests for a family, and twice the smaller p-value, as there are two
    (Bonferroni). In 2,000 families of 28 simulated comparisons of the baseline with itself, one or more were called in
    3.0 % (`train`) and 1.2 % (`evaluate`); 5 % are allowed.
    """
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if error == 0:
        return float(mean == 0)
    return 2 * float(stdtr(len(values) - 1, -abs(mean / error)))


@cache
def signed_rank_cdf(n: int) -> Floats:
    """Return P(W <= w) for w = 0 ... n(n+1)/2, where W sums those of the ranks 1 ... n that a fair coin picks."""
    density = np.ones(1)
    for rank in range(1, n + 1):
        density = (np.pad(density, (0, rank)) + np.pad(density, (rank, 0))) / 2
    return np.cumsum(density)


def detectable(half_width: float, floor: float) -> float:
    """Return the true log ratio that would be called with probability POWER, given the noise that was measured.

    It must lie beyond both thresholds by the quantile of its own, roughly normal, scatter.
    """
    standard_error = half_width / ndtri((1 + CONFIDENCE) / 2)
    return float(max(half_width, floor) + ndtri(POWER) * standard_error)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for a family of tests, in the given order.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
