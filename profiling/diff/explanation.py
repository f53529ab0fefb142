"""Where the difference in one phase, or in a whole stage, comes from."""

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from profiling.diff.diff import diff
from profiling.diff.differences import Cause, Diff, OperatorDifference, PhaseDifference
from profiling.diff.totals import StageWindow
from profiling.format import duration_change
from profiling.vocabulary import BASELINE, COMPARED_ARMS, VARIANT

_ROUGH = 2.0
"""A traced difference that is so many times the measured one, or its inverse, is not much of an explanation."""


class Explanation(Struct, frozen=True):
    """Causes of the difference between the traces, in microseconds per `unit`, largest first.

    The causes and `unattributed_us` add up to `difference_us`. Of the phases in `uncertain`, single steps of both arms
    take equally long; `is_certain`: without these, the difference would have the same sign.
    """

    unit: str
    difference_us: float
    unattributed_us: float
    causes: Sequence[Cause]
    uncertain: frozenset[str] = frozenset()
    is_certain: bool = True

    def mark(self, cause: Cause) -> str:
        """Write `~ ` before what these windows cannot tell, as `profiling diff` does."""
        return "~ " if cause.phase in self.uncertain else ""

    def share(self, time_us: float) -> str:
        """Write a part as a share of the traced difference: `52 %`; empty where the traces differ by nothing.

        The profiler slows what it records, so that parts in microseconds may exceed the effect that was measured.
        """
        if duration_change(self.difference_us) == "+0 µs":
            return ""
        return f"{round(100 * time_us / self.difference_us)} %"

    def against(self, measured_us: float) -> str:
        """Write the traced difference beside the measured one, whose causes it stands for, and whether they differ."""
        times = self.difference_us / measured_us if measured_us else math.inf
        rough = "" if 1 / _ROUGH < times < _ROUGH else " (another size: the causes are a hint)"
        return (
            f"measured {duration_change(measured_us)} per {self.unit}; under the profiler "
            f"{duration_change(self.difference_us)}{rough}, of which"
        )


def explain(windows: Mapping[str, Mapping[str, Sequence[StageWindow]]], phase: str) -> Explanation | None:
    """Compare the arms in a whole stage, or in one phase of training.

    Args:
        windows: stage -> arm -> its traced windows.
        phase: a stage, or a phase of training.

    Returns:
        None if an arm has no trace of the stage, or the traces do not mark the phase.
    """
    arms = windows.get(phase, windows.get("train", {}))
    if not all(arm in arms for arm in COMPARED_ARMS):
        return None
    difference = diff(arms[BASELINE], arms[VARIANT])
    rows = [row for row in difference.phases if phase in windows or row.phase == phase]
    if not rows:
        return None
    phases = {row.phase for row in rows}
    return explanation(difference.unit, rows, [cause for cause in difference.causes if cause.phase in phases])


def explanation(unit: str, rows: Sequence[PhaseDifference], causes: Sequence[Cause]) -> Explanation:
    """Sum the differences of some phases, which these causes explain."""
    difference_us = sum(row.difference_us for row in rows)
    return Explanation(
        unit=unit,
        difference_us=difference_us,
        unattributed_us=difference_us - sum(cause.difference_us for cause in causes),
        causes=causes,
        uncertain=frozenset(row.phase for row in rows if row.uncertain),
        is_certain=difference_us * sum(row.difference_us for row in rows if not row.uncertain) > 0,
    )


def same_operators(windows: Mapping[str, Mapping[str, Sequence[StageWindow]]], phases: Iterable[str]) -> list[str]:
    """Return those of some phases in which both arms call the same operators equally often, for as much memory.

    A difference there is none of what they compute: it comes from what surrounds each operator, from how tensors lie in
    memory, or from what other phases leave in caches. Where memory was not recorded, nothing is said: operators of the
    same name may work on other sizes.

    Args:
        windows: stage -> arm -> its traced windows.
        phases: stages, or phases of training.
    """
    differences: dict[str, Diff] = {}
    found = []
    for phase in phases:
        stage = phase if phase in windows else "train"
        arms = windows.get(stage, {})
        if not all(arm in arms for arm in COMPARED_ARMS):
            continue
        if stage not in differences:
            differences[stage] = diff(arms[BASELINE], arms[VARIANT])
        difference = differences[stage]
        every = (*difference.added, *difference.removed, *difference.changed)
        rows = [row for row in every if stage == phase or row.phase == phase]
        if any(row.a_allocated_bytes for row in rows) and all(map(_is_same_work, rows)):
            found.append(phase)
    return found


def _is_same_work(row: OperatorDifference) -> bool:
    return math.isclose(row.a_calls, row.b_calls) and math.isclose(row.a_allocated_bytes, row.b_allocated_bytes)


def shared_code_note(phases: Sequence[str]) -> str:
    """Say what effects mean that were called in phases with the same operators in both arms."""
    return (
        f"{', '.join(phases)}: both arms run the same operators there, for as much memory; what differs is around "
        "them: how many threads run them, what is done for each, what runs beside them, how tensors lie in memory, or "
        "what other phases leave in caches."
    )
