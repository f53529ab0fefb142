"""What is fixed before the first block that counts: steps in a block, rounds in a launch, launches, and their order.

docs/measurement.md tells why there are launches, and how their number and the length of a block were chosen.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from profiling.ab.messages import BlockTimings
from profiling.vocabulary import ARMS, BASELINE, COMPARED_ARMS, TWIN, VARIANT

LAUNCHES = 12
MIN_LAUNCHES = 6  # `stats.MIN_PAIRS`: with fewer there is no interval
MAX_LAUNCHES = 18
ORDERS = 6  # of three arms, see `turn_order`
BLOCK_S = 0.05  # of timed work, whatever the arm
OTHER_SHARE = 0.1  # of a block: for each stage but that of the hypothesis, which gets the rest
MIN_STEPS = 2  # the first step of a stage finds cold caches
SAME_SPEED_RATIO = (
    1.5  # arms whose step times differ by less run equally many steps: both meet the smaller last batches
)
SLOW_START_RATIO = 2.0  # fewer launches if starting the usual number takes this many times the budget
SETTLE_TURNS = 2
PILOT_STEPS = {"train": 6, "evaluate": 3, "infer": 3}


@dataclass(frozen=True)
class Plan:
    """The size of a measurement.

    Attributes:
        steps: arm -> stage -> steps in a block.
        rounds: turns of every arm within a launch.
        launches: starts of all arms' processes.
        expected_s: seconds that all launches will take, but for the start of the first.
    """

    steps: Mapping[str, Mapping[str, int]]
    rounds: int
    launches: int
    expected_s: float

    @property
    def blocks(self) -> int:
        """The number of blocks in all."""
        return len(ARMS) * self.rounds * self.launches


TimedBlock = Callable[[str, Mapping[str, int]], BlockTimings]
"""Runs a block in the process of an arm: the given number of steps of each stage."""


def plan_measurement(
    timed_block: TimedBlock,
    stages: Sequence[str],
    stage: str,
    budget_s: float,
    start_s: float,
    left_s: float = math.inf,
) -> Plan:
    """Choose the steps of a block, the rounds of a launch and the launches.

    A pilot times a few steps of each arm, which gives the steps of a block. One round of such blocks is timed; the
    number of rounds and launches then follows from the rest of the budget. All arms take part, as their processes go on
    with the first launch. Launches are a multiple of ORDERS, because the order of the arms repeats. Arms that start
    slowly get MIN_LAUNCHES, and so do those whose usual number does not fit into `left_s`.

    Args:
        timed_block: runs a block; the processes of all arms are alive.
        stages: those that the arms have.
        stage: the stage of the hypothesis.
        budget_s: seconds for this pilot and all blocks.
        start_s: seconds that it takes to start a launch; the first has started.
        left_s: seconds from now on for all launches; the plan may need more if even one round of each is too long.
    """
    start = time.perf_counter()
    pilot_steps = {name: PILOT_STEPS[name] for name in stages}
    step_s = {arm: timed_block(arm, pilot_steps).step_s for arm in ARMS}
    steps = {arm: steps_per_block(step_s[arm], stage) for arm in COMPARED_ARMS}
    for other in stages:
        if 1 / SAME_SPEED_RATIO < step_s[VARIANT][other] / step_s[BASELINE][other] < SAME_SPEED_RATIO:
            steps[VARIANT][other] = steps[BASELINE][other]
    steps[TWIN] = steps[BASELINE]
    round_start = time.perf_counter()
    for arm in ARMS:
        timed_block(arm, steps[arm])
    now = time.perf_counter()
    round_s, left_s = now - round_start, left_s + start_s - (now - start)
    slow = LAUNCHES * start_s > SLOW_START_RATIO * budget_s or LAUNCHES * (start_s + round_s) > left_s
    usual, most = (MIN_LAUNCHES, MIN_LAUNCHES) if slow else (LAUNCHES, MAX_LAUNCHES)
    timed_s = min(budget_s - (now - start), left_s - usual * start_s)
    rounds_in_all = max(0, int(timed_s / round_s))
    rounds = max(1, rounds_in_all // usual)
    fitting = min(rounds_in_all / rounds, left_s / (start_s + rounds * round_s))
    launches = int(min(most, max(MIN_LAUNCHES, fitting // ORDERS * ORDERS)))
    return Plan(steps, rounds, launches, launches * (start_s + rounds * round_s) - start_s)


def steps_per_block(step_s: Mapping[str, float], favored: str) -> dict[str, int]:
    """Return the steps of each stage in a block of about BLOCK_S; the favored stage is last.

    Args:
        step_s: stage -> seconds of a step.
        favored: the stage that gets most of the block, that of the hypothesis.
    """
    shares = {stage: OTHER_SHARE for stage in step_s if stage != favored}
    shares[favored] = 1 - sum(shares.values())
    return {stage: max(MIN_STEPS, round(share * BLOCK_S / step_s[stage])) for stage, share in shares.items()}


def turn_order(launch: int, round_number: int) -> list[str]:
    """Return the arms in the order in which a round of a launch runs them.

    In three rounds of a launch each arm has each place once. With one round per launch, six launches have all orders.
    """
    first = (launch + round_number) % len(ARMS)
    rotated = [*ARMS[first:], *ARMS[:first]]
    return rotated[::-1] if launch % 2 else rotated
