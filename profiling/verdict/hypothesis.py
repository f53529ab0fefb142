"""What an experiment claims, and whether a measurement confirms it.

A hypothesis is confirmed when every expectation that it states holds, refuted when one is contradicted, and undecided
otherwise. "No detectable effect" contradicts `slower` and `faster`, unless its whole interval lies on the claimed side:
a claim that no measurement can contradict is not a hypothesis.
"""

from msgspec import Struct

from profiling.vocabulary import Estimator, ExpectedMemory, ExpectedTime, Outcome, Verdict

MEMORY_RESOLUTION = 0.0005
"""Share of the peak: a smaller difference is neither `more` nor `less`."""

MEMORY_TOLERANCE = 0.02
"""Share of the peak: a smaller difference still counts as `same`."""


class Expectation(Struct, frozen=True):
    """The part of a hypothesis that a measurement can refute; None claims nothing.

    Attributes:
        at_least: the size of a claim of `slower` or `faster`: 3 is at least three times as slow, or as fast.
    """

    time: ExpectedTime | None = None
    memory: ExpectedMemory | None = None
    at_least: float | None = None


class Hypothesis(Struct, frozen=True):
    """What an experiment claims, why, in which phase the effect should show, and by which estimator."""

    claim: str
    because: str
    phase: str
    expect: Expectation
    estimator: Estimator = Estimator.fastest

    @property
    def claims_something(self) -> bool:
        """Whether a measurement can confirm or refute it."""
        return self.expect != Expectation()


class PeakMemory(Struct, frozen=True):
    """Peak memory of each arm, measured the same way."""

    baseline_bytes: int
    variant_bytes: int


def outcome_of(
    expect: Expectation, verdict: Verdict, memory: PeakMemory | None, interval: tuple[float, float] | None = None
) -> Outcome:
    """Compare what was expected with what was measured.

    Args:
        expect: what was expected.
        verdict: that of the declared phase.
        memory: None if it was not measured.
        interval: of the ratio variant / baseline in the declared phase; None if it was not measured. A claim with a
            size holds if all of it is at least as large, and is refuted if all of it is smaller. A claim without one is
            not refuted by an interval that lies on its side of 1, however near.
    """
    holds = []
    if expect.time is not None:
        holds.append(_time_holds(expect.time, verdict, interval))
    if expect.at_least is not None and interval is not None:
        low, high = interval if expect.time is ExpectedTime.slower else (1 / interval[1], 1 / interval[0])
        holds.append(True if low >= expect.at_least else False if high < expect.at_least else None)
    if expect.memory is not None:
        holds.append(_memory_holds(expect.memory, memory))
    if False in holds:
        return Outcome.refuted
    return Outcome.confirmed if holds and all(holds) else Outcome.undecided


def _time_holds(expected: ExpectedTime, verdict: Verdict, interval: tuple[float, float] | None) -> bool | None:
    """Return whether the expectation holds; None leaves it open."""
    match verdict:
        case Verdict.failed | Verdict.not_applicable:
            return None
        case Verdict.inconclusive:
            return False if expected is ExpectedTime.fails else None
        case Verdict.failed_as_predicted:
            return expected is ExpectedTime.fails
        case Verdict.no_effect:
            low, high = interval or (1.0, 1.0)
            leans = (expected is ExpectedTime.slower and low > 1) or (expected is ExpectedTime.faster and high < 1)
            return None if leans else expected is ExpectedTime.same
        case Verdict.slower | Verdict.faster:
            return expected.value == verdict.value


def _memory_holds(expected: ExpectedMemory, memory: PeakMemory | None) -> bool | None:
    """Return whether the expectation holds; None leaves it open: not measured, or a difference that is too small."""
    if memory is None:
        return None
    added_bytes = memory.variant_bytes - memory.baseline_bytes
    if expected is ExpectedMemory.same:
        return abs(added_bytes) <= MEMORY_TOLERANCE * memory.baseline_bytes
    if abs(added_bytes) <= MEMORY_RESOLUTION * memory.baseline_bytes:
        return None
    return expected is (ExpectedMemory.more if added_bytes > 0 else ExpectedMemory.less)
