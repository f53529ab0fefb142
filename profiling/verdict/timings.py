"""The timings of one phase, and which launches count."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.verdict import stats


class PhaseTimings(Struct, frozen=True):
    """The timings of one phase in all arms, grouped by launch.

    Attributes:
        baseline_s_per_sample: [launches * rounds] seconds per sample.
        variant_s_per_sample: likewise.
        twin_s_per_sample: likewise; the twin runs the baseline's code.
        rounds: rounds in each launch.
        probe_s: [launches] seconds of the probe that tells whether the machine's cores share a cache: the median over a
            launch's rounds; empty where it was not measured.
        cores_apart: [launches] whether the cores shared no cache during a launch; empty where that is not known.
        means_s_per_sample: [baseline, variant, twin][launches] mean seconds per sample of all steps; empty if unknown.
    """

    baseline_s_per_sample: Sequence[float]
    variant_s_per_sample: Sequence[float]
    twin_s_per_sample: Sequence[float]
    rounds: int = 1
    probe_s: Sequence[float] = ()
    cores_apart: Sequence[bool] = ()
    means_s_per_sample: Sequence[Sequence[float]] = []

    @property
    def arms(self) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
        """Baseline, variant, twin."""
        return self.baseline_s_per_sample, self.variant_s_per_sample, self.twin_s_per_sample

    @property
    def apart_launches(self) -> NDArray[np.bool_]:
        """[launches] whether the machine's cores shared no cache."""
        if self.cores_apart:
            return np.asarray(self.cores_apart, dtype=bool)
        return np.zeros(len(self.baseline_s_per_sample) // self.rounds, dtype=bool)

    @property
    def counted_launches(self) -> NDArray[np.bool_]:
        """[launches] whether a launch counts: those whose cores shared a cache, or all if these are too few."""
        close = ~self.apart_launches
        return close if close.sum() >= stats.MIN_PAIRS else np.ones_like(close)
