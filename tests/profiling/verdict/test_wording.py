"""Verdicts and outcomes in words."""

import pytest

from profiling.verdict.hypothesis import Expectation, PeakMemory
from profiling.verdict.judge import phase_effect
from profiling.verdict.timings import PhaseTimings
from profiling.verdict.wording import describe_effect, describe_memory, describe_outcome
from profiling.vocabulary import ExpectedMemory, ExpectedTime, Outcome, Verdict


def test_an_outcome_of_a_claim_about_memory_alone_is_told_as_such() -> None:
    about_memory = Expectation(memory=ExpectedMemory.more)
    assert describe_outcome(Outcome.confirmed, about_memory) == "confirmed (memory)"
    both = Expectation(ExpectedTime.slower, ExpectedMemory.more)
    assert describe_outcome(Outcome.confirmed, both) == "confirmed"


@pytest.mark.parametrize(
    ("variant_bytes", "said"),
    [
        (217_055_232, "memory 18.5 MiB -> 207 MiB"),
        (19_383_456, "memory 18.5 MiB -> 18.5 MiB (+17 KiB)"),
        (19_366_024, "memory 18.5 MiB -> 18.5 MiB (-24 B)"),
        (19_366_048, "memory 18.5 MiB -> 18.5 MiB"),
    ],
)
def test_peaks_that_look_alike_have_their_difference_beside_them(variant_bytes: int, said: str) -> None:
    assert describe_memory(PeakMemory(19_366_048, variant_bytes)) == said


def test_where_identical_code_differs_by_more_than_the_interval_the_noise_floor_is_what_is_told() -> None:
    still = [1e-4] * 12
    as_fast_as_their_mean, twin = [1.1e-4] * 12, [1.21e-4] * 12
    effect = phase_effect("train", PhaseTimings(still, as_fast_as_their_mean, twin))
    assert effect.verdict is Verdict.inconclusive
    assert (effect.ratio_low, effect.ratio_high) == pytest.approx((1, 1))
    assert describe_effect(effect) == "inconclusive (noise floor 17.9 %)"
