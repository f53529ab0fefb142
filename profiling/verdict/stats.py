"""Effects with intervals, estimated from paired timings. All functions are pure.

Effects are natural logarithms of ratios: a slowdown and the speed-up that cancels it differ only in their sign.

Timings within one process are correlated: its memory layout is fixed at start-up. All processes are therefore restarted
for each launch, and a launch is one independent observation: the time of each arm's fastest round, because interference
by other work on the machine only adds time.

The interval over launches is that of Hodges and Lehmann. docs/measurement.md compares it with the alternatives.
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
POWER = 0.8  # probability of detecting a true effect of the size that `detectable` returns
MIN_PAIRS = 6  # the smallest p-value of n pairs is 2 / 2**n: above 5 % for five pairs


class Effect(NamedTuple):
    """An estimated log ratio, its 95 % interval, and two-sided p-values of "there is no effect".

    Attributes:
        p_value: for a single test.
        p_family: to be corrected where the test is one of many, see `family_p_value`.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    p_family: float


def fastest(s_per_sample: Sequence[float] | Floats, rounds: int) -> Floats:
    """Return [launches] the fastest of each launch's `rounds`, from [launches * rounds] seconds per sample.

    Raises:
        ValueError: the last launch is incomplete, or a timing is not a positive finite number.
    """
    timings = np.asarray(s_per_sample, dtype=np.float64)
    if len(timings) % rounds:
        raise ValueError(f"{len(timings)} timings are not whole launches of {rounds}")
    if not (np.isfinite(timings).all() and (timings > 0).all()):
        raise ValueError("timings must be positive, finite seconds per sample")
    return np.asarray(timings.reshape(-1, rounds).min(axis=1))


def median_effect(first_s: Sequence[float] | Floats, second_s: Sequence[float] | Floats) -> Effect:
    """Return the effect on log(second / first).

    Args:
        first_s: [pairs] seconds per sample, in the order in which they were measured.
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
    """Return the sorted means of all n(n+1)/2 pairs of `values`, including each value paired with itself."""
    rows, columns = np.triu_indices(len(values))
    return np.sort((values[rows] + values[columns]) / 2)


def hodges_lehmann(values: Floats) -> Effect:
    """Return the pseudo-median of `values` with the interval and p-value of the exact signed-rank test.

    Both are read from the sorted Walsh averages: the signed-rank statistic is the number of averages above zero, so the
    interval and the p-value always agree. Ties make the interval slightly wider. Source: Hollander, Wolfe & Chicken,
    Nonparametric Statistical Methods, 3rd ed., sections 3.1 to 3.3; for the p-value, scipy.stats.wilcoxon.
    """
    walsh = walsh_averages(values)
    cumulative = signed_rank_cdf(len(values))
    # The interval contains every shift that the test does not reject: `cut` averages at either end lie outside.
    cut = int(np.searchsorted(cumulative, (1 - CONFIDENCE) / 2, side="right")) - 1
    # Averages of exactly zero count for both signs, which makes the p-value larger.
    extreme = min(int((walsh <= 0).sum()), int((walsh >= 0).sum()))
    p_value = min(1.0, 2 * float(cumulative[extreme]))
    return Effect(
        estimate=float(np.median(walsh)),
        low=float(walsh[cut]),
        high=float(walsh[-1 - cut]),
        p_value=p_value,
        p_family=family_p_value(p_value, values),
    )


def family_p_value(exact_p_value: float, values: Floats) -> float:
    """Return the p-value to correct where the test of `values` is one of a family.

    The exact test of n launches cannot give less than 2 / 2**n. If n is small, a corrected p-value would exceed 5 %
    however large the effect. Student's test is therefore used too; the smaller of the two p-values is doubled because
    there are two tests (Bonferroni).
    """
    return min(1.0, 2 * min(exact_p_value, student(values)))


def student(values: Floats) -> float:
    """Return the two-sided p-value of Student's one-sample t-test of "the mean of `values` is zero"."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if error == 0:
        return float(mean == 0)
    return 2 * float(stdtr(len(values) - 1, -abs(mean / error)))


@cache
def signed_rank_cdf(n: int) -> Floats:
    """Return P(W <= w) for w = 0 ... n(n+1)/2; W sums the ranks 1 ... n, each included with probability 1/2."""
    density = np.ones(1)
    for rank in range(1, n + 1):
        density = (np.pad(density, (0, rank)) + np.pad(density, (rank, 0))) / 2
    return np.cumsum(density)


def detectable(half_width: float, floor: float) -> float:
    """Return the true log ratio that would be detected with probability POWER, given the measured noise.

    The estimate must exceed two thresholds: the half width of the interval, and the noise floor. It is assumed to be
    normally distributed around the true value.
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
