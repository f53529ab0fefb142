"""The size and the order of a measurement."""

from itertools import permutations

import pytest

from profiling.ab.messages import BlockTimings
from profiling.ab.plan import LAUNCHES, MIN_LAUNCHES, plan_measurement, turn_order
from profiling.vocabulary import ARMS, BASELINE, VARIANT


@pytest.fixture
def timed_block(monkeypatch):
    """A block whose steps take 10 ms each of a clock that only it moves."""
    now_s = [0.0]

    def timed_block(arm, steps):
        now_s[0] += 0.01 * steps["train"]
        return BlockTimings({}, {"train": 0.01})

    monkeypatch.setattr("profiling.ab.plan.time.perf_counter", lambda: now_s[0])
    return timed_block


def test_every_arm_is_first_in_the_middle_and_last_equally_often():
    assert {tuple(turn_order(launch, 0)) for launch in range(6)} == set(permutations(ARMS))
    for launch in range(2):
        places = zip(*(turn_order(launch, number) for number in range(3)), strict=True)
        assert [set(arms) for arms in places] == [set(ARMS)] * 3


@pytest.mark.parametrize(("start_s", "launches"), [(0.1, LAUNCHES), (10.0, MIN_LAUNCHES)])
def test_what_starts_slowly_gets_fewer_launches_with_more_rounds(timed_block, start_s, launches):
    plan = plan_measurement(timed_block, ["train"], "train", 10.0, start_s)
    assert plan.steps[VARIANT] == plan.steps[BASELINE] == {"train": 5}, "50 ms of one stage"
    assert plan.launches == launches
    assert plan.rounds * plan.launches * 0.15 == pytest.approx(10.0, rel=0.15)
    assert plan.expected_s == pytest.approx((launches - 1) * start_s + 10.0, rel=0.15), "the first has started"


@pytest.mark.parametrize(("left_s", "launches"), [(100.0, LAUNCHES), (20.0, LAUNCHES), (9.0, MIN_LAUNCHES)])
def test_a_plan_fits_into_the_time_that_is_left(timed_block, left_s, launches):
    plan = plan_measurement(timed_block, ["train"], "train", 10.0, 1.0, left_s)
    assert plan.launches == launches
    assert plan.expected_s <= left_s
