"""What is fixed before the first block that counts: steps in a block, rounds in a launch, launches, and their order.

docs/measurement.md tells why there are launches, and how their number and the length of a block were chosen.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from profiling.ab.messages import BlockTimings
from profiling.vocabulary import ARMS, BASELINE, STAGES, TWIN, VARIANT

LAUNCHES = 12
MIN_LAUNCHES = 6  # `stats.MIN_PAIRS`: with fewer there is no interval
MAX_LAUNCHES = 18
ORDERS = 6  # of three arms, see `turn_order`
BLOCK_S = 0.05  # of timed work, whatever the arm
HYPOTHESIS_SHARE, OTHER_SHARE = 0.8, 0.1  # of a block: for the stage of the hypothesis, and for each of the other two
MIN_STEPS = 2  # the first step of a stage finds cold caches
SAME_SPEED_RATIO = (
    1.5  # arms whose step times differ by less run equally many steps: both meet the smaller last batches
)
SETTLE_STEPS = {"train": 4, "evaluate": 1, "infer": 1}  # the first steps of a process, which do not count
SETTLE_TURNS = 2
PILOT_STEPS = {"train": 6, "evaluate": 3, "infer": 3}


@dataclass(frozen=True)
class Plan:
    """The size of a measurement.

    Attributes:
        steps: arm -> stage -> steps in a block.
        rounds: turns of every arm within a launch.
        launches: starts of all arms' processes.
    """

    steps: Mapping[str, Mapping[str, int]]
    rounds: int
    launches: int

    @property
    def blocks(self) -> int:
        """The number of blocks in all."""
        return len(ARMS) * self.rounds * self.launches


TimedBlock = Callable[[str, Mapping[str, int]], BlockTimings]
"""Runs a block in the process of an arm: the given number of steps of each stage."""


def plan_measurement(timed_block: TimedBlock, stage: str, budget_s: float) -> Plan:
    """Choose the steps of a block, the rounds of a launch and the launches.

    A pilot times a few steps of each arm, which gives the steps of a block. One round of such blocks is timed; the
    number of rounds and launches then follows from the rest of the budget. Launches are a multiple of ORDERS, because
    the order of the arms repeats.

    Args:
        timed_block: runs a block; the processes of the baseline and of the variant are alive.
        stage: the stage of the hypothesis.
        budget_s: seconds for this pilot and all blocks.
    """
    start = time.perf_counter()
    step_s = {arm: timed_block(arm, PILOT_STEPS).step_s for arm in (BASELINE, VARIANT)}
    steps = {arm: steps_per_block(seconds, stage) for arm, seconds in step_s.items()}
    for other in STAGES:
        if 1 / SAME_SPEED_RATIO < step_s[VARIANT][other] / step_s[BASELINE][other] < SAME_SPEED_RATIO:
            steps[VARIANT][other] = steps[BASELINE][other]
    round_start = time.perf_counter()
    for arm in (BASELINE, VARIANT, BASELINE):
        timed_block(arm, steps[arm])
    now = time.perf_counter()
    rounds_in_all = int((budget_s - (now - start)) / (now - round_start))
    rounds = max(1, rounds_in_all // LAUNCHES)
    launches = min(MAX_LAUNCHES, max(MIN_LAUNCHES, rounds_in_all // rounds // ORDERS * ORDERS))
    return Plan({**steps, TWIN: steps[BASELINE]}, rounds, launches)


def steps_per_block(step_s: Mapping[str, float], favored: str) -> dict[str, int]:
    """Return the steps of each stage in a block of about BLOCK_S; the favored stage is last.

    Args:
        step_s: stage -> seconds of a step.
        favored: the stage that gets most of the block, that of the hypothesis.
    """
    shares = {stage: OTHER_SHARE for stage in STAGES if stage != favored} | {favored: HYPOTHESIS_SHARE}
    return {stage: max(MIN_STEPS, round(share * BLOCK_S / step_s[stage])) for stage, share in shares.items()}


def turn_order(launch: int, round_number: int) -> list[str]:
    """Return the arms in the order in which a round of a launch runs them.

    In three rounds of a launch each arm has each place once. With one round per launch, six launches have all orders.
    """
    first = (launch + round_number) % len(ARMS)
    rotated = [*ARMS[first:], *ARMS[:first]]
    return rotated[::-1] if launch % 2 else rotated
