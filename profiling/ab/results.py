"""What the arms have returned, taken together: timings of all launches, and how far their answers differ."""

from collections.abc import Mapping, Sequence

import numpy as np

from profiling.ab.machine_state import cores_apart
from profiling.ab.messages import Answer, BlockTimings
from profiling.ab.plan import MIN_LAUNCHES
from profiling.verdict.timings import PhaseTimings
from profiling.vocabulary import ARMS, BASELINE, TWIN, VARIANT


def phase_timings(
    launches: Sequence[Sequence[Mapping[str, BlockTimings]]],
    rounds: int,
    probes_s: Sequence[float],
    best_probe_s: float | None,
) -> dict[str, PhaseTimings]:
    """Phase that every block has -> timings of all launches; empty if these are too few for an interval.

    Args:
        launches: launch -> round -> arm -> its block.
        rounds: in each launch.
        probes_s: [launches] the median probe of each.
        best_probe_s: as in `Measurement`.
    """
    if len(launches) < MIN_LAUNCHES:
        return {}
    blocks = [block for launch in launches for block in launch]
    timings = [of_arm.s_per_sample for block in blocks for of_arm in block.values()]
    phases = [phase for phase in timings[0] if all(phase in s_per_sample for s_per_sample in timings)]

    def of_arm(arm: str, phase: str) -> list[float]:
        return [block[arm].s_per_sample[phase] for block in blocks]

    def means(phase: str) -> list[list[float]]:
        if not all(phase in timings.mean_s_per_sample for block in blocks for timings in block.values()):
            return []
        return [
            [float(np.mean([block[arm].mean_s_per_sample[phase] for block in launch])) for launch in launches]
            for arm in ARMS
        ]

    apart = cores_apart(probes_s, best_probe_s)
    return {
        phase: PhaseTimings(
            of_arm(BASELINE, phase), of_arm(VARIANT, phase), of_arm(TWIN, phase), rounds, probes_s, apart, means(phase)
        )
        for phase in phases
    }


def difference(baseline: Answer, variant: Answer) -> tuple[float, float] | None:
    """Return the largest absolute difference of any number and the largest relative error of any tensor.

    The relative error of a tensor is the norm of the difference divided by the norm. A single number is not a good
    measure of relative error: the first steps of Adam are as long as the learning rate. Where rounding changes the sign
    of a gradient near zero, a bias that started at zero is off by its own size.

    Tensors that only one arm has, such as the bias of a convolution, are not compared; None if there is nothing to
    compare. NaN counts as the largest float, since JSON has neither NaN nor infinity, and so do tensors of two shapes.
    """
    largest = float(np.finfo(float).max)
    pairs = [(value, variant.tensors[name]) for name, value in baseline.tensors.items() if name in variant.tensors]
    pairs += [(np.array(value), np.array(variant.results[name])) for name, value in baseline.results.items()]
    if not pairs:
        return None
    if any(ours.shape != theirs.shape for ours, theirs in pairs):
        return largest, largest
    absolute = np.array([np.abs(ours - theirs).max(initial=0.0) for ours, theirs in pairs])
    error = np.array([np.linalg.norm(ours - theirs) for ours, theirs in pairs])
    scale = np.array([np.linalg.norm(ours) for ours, _ in pairs])
    relative = np.divide(error, scale, out=(error > 0).astype(float), where=scale > 0)
    largest_absolute, largest_relative = (
        float(np.nan_to_num(values, nan=largest, posinf=largest).max()) for values in (absolute, relative)
    )
    return largest_absolute, largest_relative
