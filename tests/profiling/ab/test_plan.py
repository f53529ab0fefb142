"""The size and the order of a measurement."""

from itertools import permutations

from profiling.ab.plan import turn_order
from profiling.vocabulary import ARMS


def test_every_arm_is_first_in_the_middle_and_last_equally_often():
    assert {tuple(turn_order(launch, 0)) for launch in range(6)} == set(permutations(ARMS))
    for launch in range(2):
        places = zip(*(turn_order(launch, number) for number in range(3)), strict=True)
        assert [set(arms) for arms in places] == [set(ARMS)] * 3
