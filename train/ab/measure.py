"""The measurement: which processes run which blocks, in what order, for how long.

Three processes take turns: the baseline, the variant, and the baseline's twin, against which the noise floor is
measured. One works, the others wait. A launch runs rounds of three blocks, in an order that rotates from round to
round and is turned about from launch to launch, so that a steady drift adds as often as it subtracts, and every arm
comes first, in the middle and last equally often. Of each arm's rounds the fastest counts, and the variant's is
compared with the geometric mean of both baselines' (profiling.compare).

Processes start in that order, too. While the variant always was the one in the middle, it once was the fastest of
three that ran the same code in 12 launches of 12, by 1.3 %.

Processes that run the same code differ for as long as they live, by where their memory happens to lie, and no interval
from within one launch can know of it. In 21 launches of three baselines on a 2-core machine the middle one's effect,
median of 8 rounds, spread by 0.9 % where the rounds alone explain 0.56 %; one was off by 2 %, which a long launch with
a floor from inside one process would call an effect. So the time is split over LAUNCHES launches of fresh processes,
and a launch counts as one value (profiling.stats); the twin is a process of its own, so that the floor contains what
the effect contains. A launch of three costs 1 s with a fork server, its first steps included; that is start-up, and
outside the budget.

The number of rounds is fixed by a pilot, within the budget, before the first counted block. Many short rounds do more
than a few long ones: bursts of noise last longer than a block, and one round without any is enough. Simulated from 45
launches of three baselines in an hour in which neighboring blocks were 7 % apart, 10 s find a true 5 % this often:

    launches, rounds in each, steps in a block      fastest step
    14, 3, 3                                        96 %
    12, 3, 4                                        95 %
    10, 3, 4                                        89 %
    14, 2, 6                                        83 %
    12, 2, 6                                        70 %
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from profiling.compare import FAR, PhaseSamples
from profiling.record import Environment
from train.ab.process import Answer, ArmError, Block, Closing, Process
from train.cli import Terminated
from train.config import Config
from train.errors import NotApplicableError, UserError
from train.options import STAGES

BASELINE, VARIANT, TWIN = ARMS = ("baseline", "variant", "twin")
LAUNCHES = 12  # signed ranks of 12 can reach p = 0.0005, which is still significant in a ladder of 38
MIN_LAUNCHES = 6  # where one round of 12 launches exceeds the budget; profiling.stats refuses fewer
MAX_LAUNCHES = 18  # where the budget has room for more launches, but not for one more round in each
BLOCK_S = 0.05  # of timed work, whatever the arm
STAGE_SHARE, OTHER_SHARE = 0.8, 0.1  # of a block, for the stage that the hypothesis is about and for both others
MIN_STEPS = 2  # the first of a stage finds cold caches: alone, evaluation took 27 or 40 us an image, at random
SAME_SPEED = 1.5  # arms that differ by less do the same steps, so that they meet the same, shorter last batches
SETTLE_STEPS = {"train": 4, "evaluate": 1, "infer": 1}  # a process' first, which count for nothing
PILOT_STEPS = {"train": 6, "evaluate": 3, "infer": 3}

# In 768 launches that had settled for one turn, the first round was 1 % late, and its first block half a percent more.
SETTLE_TURNS = 2

# After the other process has worked, the first step took 22 ms, the second 15.3 and the third 14.8, as all later ones:
# its OpenMP threads spin on for a while, and caches are cold. Hence a pause, and the favored stage goes last.
PAUSE_S = 0.002

WAIT_S = 0.1
PATIENCE = 0.5  # of the budget, in addition to it; launches that ran out of it are left out by profiling.compare


@dataclass(frozen=True)
class Side:
    """What one arm runs, and what differs from the plain baseline in it."""

    config: Config
    changed: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Arm:
    """What one arm has shown."""

    warmup_s: float
    results: Mapping[str, float]
    closing: Closing | None  # None if the measurement was interrupted before


@dataclass(frozen=True)
class Measured:
    """A measurement that came to its end, or as far as it was let.

    Attributes:
        samples: phase -> timings; empty if it ended too early for an interval.
        difference: largest absolute difference and largest relative error of the answers; None if they were not given.
        end: what ended it before its time: VariantError, NotApplicableError, Ctrl-C, SIGTERM.
        startup_s: seconds spent on starting processes and on their first steps, outside the budget.
        waited_s: seconds spent on waiting until cores were near each other (train.ab.arm.Arm.reference).
    """

    samples: dict[str, PhaseSamples]
    arms: dict[str, Arm]
    environment: Environment
    difference: tuple[float, float] | None
    end: BaseException | None
    startup_s: float
    waited_s: float


class VariantError(Exception):
    """The variant stopped; the message is one line."""


@dataclass(frozen=True)
class Plan:
    """What is fixed before the first block that counts: each arm's steps in a block, rounds in a launch, launches."""

    steps: Mapping[str, Mapping[str, int]]
    rounds: int
    launches: int

    @property
    def blocks(self) -> int:
        """In all."""
        return len(ARMS) * self.rounds * self.launches


class Measurement:
    """One comparison while it is being measured: `run` it, then see how far it came.

    Args:
        sides: `baseline` and `variant`.
        phase: of the hypothesis.
        budget_s: seconds for the pilot and all blocks.
        folder: gets `baseline/` and `variant/`, with a traced window of each.
        started: when, for the records.
        progress: told how many blocks of how many are done.
        nearest_s: the least reference (train.ab.arm.Arm.reference) that is known of this machine; None: none is.
    """

    def __init__(
        self,
        sides: Mapping[str, Side],
        phase: str,
        budget_s: float,
        folder: Path,
        started: str,
        progress: Callable[[int, int], None],
        nearest_s: float | None = None,
    ) -> None:
        self._sides = {**sides, TWIN: sides[BASELINE]}
        self._stage = phase if phase in STAGES else "train"
        self._budget_s = budget_s
        self._folder = folder
        self._started = started
        self._progress = progress
        self._rounds = 0
        self._launches: list[list[dict[str, Block]]] = []
        self._warmup_s: dict[str, float] = {}
        self._answers: dict[str, Answer] = {}
        self._closings: dict[str, Closing] = {}
        self._environment: Environment | None = None
        self._startup_s = 0.0
        self._known_s = nearest_s
        self._nearest_s = nearest_s or math.inf
        self._references_s: list[float] = []
        self._waited_s = 0.0

    def run(self) -> Measured:
        """Measure, until done or stopped.

        Raises:
            UserError: the baseline cannot run here, so there is nothing to compare with.
        """
        end: BaseException | None = None
        try:
            with tempfile.TemporaryDirectory() as scratch:
                self._run(Path(scratch))
        except (VariantError, NotApplicableError, KeyboardInterrupt, Terminated) as reason:
            if self._environment is None:  # not even the baseline had started
                raise
            end = reason
        answers = list(self._answers.values())
        return Measured(
            samples=samples(self._launches, self._rounds, self._references_s, self._known_s),
            arms={
                name: Arm(warmup_s, self._answers[name].results, self._closings.get(name))
                for name, warmup_s in self._warmup_s.items()
                if name in self._answers
            },
            environment=cast(Environment, self._environment),
            difference=difference(*answers) if len(answers) == 2 else None,
            end=end,
            startup_s=self._startup_s,
            waited_s=self._waited_s,
        )

    def _run(self, scratch: Path) -> None:
        with self._launched((BASELINE, VARIANT), scratch) as processes:
            for name, process in processes.items():
                self._warmup_s[name] = process.ready.warmup_s
                self._answers[name] = ask(name, process, "answer")
            self._settle(processes)
            self._wait(processes[BASELINE])
            plan = pilot(processes, self._stage, self._budget_s)
        self._rounds = plan.rounds
        for number in range(plan.launches):
            with self._launched(order(number, 0), scratch) as processes:
                self._settle(processes)
                self._launch(processes, plan, number)
                if number == plan.launches - 1:
                    self._finish(processes)

    def _settle(self, processes: Mapping[str, Process]) -> None:
        start = time.perf_counter()
        for name, process in [*processes.items()] * SETTLE_TURNS:
            timed_block(name, process, SETTLE_STEPS)
        self._startup_s += time.perf_counter() - start

    def _launch(self, processes: Mapping[str, Process], plan: Plan, number: int) -> None:
        """Run and keep all rounds of one launch: arm -> block."""
        rounds: list[dict[str, Block]] = []
        references_s = []
        for i in range(plan.rounds):
            references_s.append(self._wait(processes[BASELINE]))
            blocks = {}
            for name in order(number, i):
                blocks[name] = timed_block(name, processes[name], plan.steps[name])
                self._progress(len(ARMS) * (plan.rounds * number + i) + len(blocks), plan.blocks)
            rounds.append(blocks)
        self._launches.append(rounds)
        self._references_s.append(float(np.median(references_s)))

    def _wait(self, process: Process) -> float:
        """Wait until the machine's cores are near each other, unless patience has run out; return the reference.

        The arms feel it unequally (Arm.reference), and it changes every few seconds, so that an effect would be a
        mixture of two. Only `process`, which runs the baseline's code, is asked; which arm is fast has no say.
        """
        start = time.perf_counter()
        while True:
            reference_s: float = ask(BASELINE, process, "reference")
            self._nearest_s = min(self._nearest_s, reference_s)
            waited_s = self._waited_s + time.perf_counter() - start
            if reference_s < FAR * self._nearest_s or waited_s > PATIENCE * self._budget_s:
                break
            time.sleep(WAIT_S)
        self._waited_s = waited_s
        return reference_s

    def _finish(self, processes: Mapping[str, Process]) -> None:
        """Trace a window of each arm, with cores that are near: else the faster arm's may well be the longer one."""
        for name in (BASELINE, VARIANT):
            self._wait(processes[BASELINE])
            results = self._answers[name].results
            here = (self._folder / name, self._started, self._sides[name].changed, results)
            self._closings[name] = ask(name, processes[name], "finish", *here)

    @contextmanager
    def _launched(self, names: Sequence[str], scratch: Path) -> Iterator[dict[str, Process]]:
        """Start the named arms, one after the other; end them.

        All at once, a launch of three takes 2 s instead of 0.6: their warm-ups spin on the same two cores.
        """
        start = time.perf_counter()
        with ExitStack() as stack:
            processes = {}
            for name in names:
                with blaming(name):
                    processes[name] = stack.enter_context(Process(self._sides[name].config, scratch))
                self._environment = self._environment or processes[name].ready.environment
            self._startup_s += time.perf_counter() - start
            yield processes


@contextmanager
def blaming(arm: str) -> Iterator[None]:
    """Tell a variant that stopped, which is a result, from a baseline that did, with which nothing can be compared."""
    try:
        yield
    except (ArmError, UserError) as error:
        if arm == VARIANT:
            raise VariantError(str(error)) from error
        raise UserError(f"the baseline stopped, so there is nothing to compare with: {error}") from error


def ask(name: str, process: Process, request: str, *arguments: object) -> Any:
    """Ask one arm; its failure carries its name."""
    with blaming(name):
        return process.ask(request, *arguments)


def timed_block(name: str, process: Process, steps: Mapping[str, int]) -> Block:
    """Have one arm work, once the other's threads have come to rest."""
    time.sleep(PAUSE_S)
    block: Block = ask(name, process, "block", steps)
    return block


def order(launch: int, number: int) -> list[str]:
    """The arms in the order in which a launch's round runs them.

    Three rounds of a launch have every arm in every place; six launches of one round have all six orders.
    """
    first = (launch + number) % len(ARMS)
    rotated = [*ARMS[first:], *ARMS[:first]]
    return rotated[::-1] if launch % 2 else rotated


def pilot(processes: Mapping[str, Process], stage: str, budget_s: float) -> Plan:
    """Size the blocks, then time one round of them, so that all rounds take what is left of `budget_s`.

    Launches come in sixes, since the order of the arms repeats after six.
    """
    start = time.perf_counter()
    step_s = {name: timed_block(name, process, PILOT_STEPS).step_s for name, process in processes.items()}
    own = {name: sized(seconds, stage) for name, seconds in step_s.items()}
    same = {s for s in STAGES if 1 / SAME_SPEED < step_s[VARIANT][s] / step_s[BASELINE][s] < SAME_SPEED}
    variant = {s: own[BASELINE if s in same else VARIANT][s] for s in own[BASELINE]}
    steps = {BASELINE: own[BASELINE], VARIANT: variant, TWIN: own[BASELINE]}
    round_start = time.perf_counter()
    for name in (BASELINE, VARIANT, BASELINE):
        timed_block(name, processes[name], steps[name])
    now = time.perf_counter()
    total = int((budget_s - (now - start)) / (now - round_start))
    rounds = max(1, total // LAUNCHES)
    launches = min(MAX_LAUNCHES, max(MIN_LAUNCHES, total // rounds // 6 * 6))
    return Plan(steps, rounds, launches)


def sized(step_s: Mapping[str, float], favored: str) -> dict[str, int]:
    """Steps of each stage in a block of about BLOCK_S, from seconds per step; the favored stage is last."""
    shares = {stage: OTHER_SHARE for stage in STAGES if stage != favored} | {favored: STAGE_SHARE}
    return {stage: max(MIN_STEPS, round(share * BLOCK_S / step_s[stage])) for stage, share in shares.items()}


def samples(
    launches: Sequence[Sequence[Mapping[str, Block]]],
    rounds: int,
    references_s: Sequence[float],
    nearest_s: float | None,
) -> dict[str, PhaseSamples]:
    """Phase -> timings of all launches, if they are enough for an interval."""
    if len(launches) < MIN_LAUNCHES:
        return {}
    blocks = [block for launch in launches for block in launch]
    phases = [phase for phase in blocks[0][BASELINE].s_per_sample if phase in blocks[0][VARIANT].s_per_sample]

    def series(arm: str, phase: str) -> list[float]:
        return [block[arm].s_per_sample[phase] for block in blocks]

    return {
        phase: PhaseSamples(
            series(BASELINE, phase), series(VARIANT, phase), series(TWIN, phase), rounds, references_s, nearest_s
        )
        for phase in phases
    }


def difference(baseline: Answer, variant: Answer) -> tuple[float, float]:
    """Largest absolute difference of any number in both answers, and largest relative error of any tensor.

    The relative error of a tensor is the norm of the difference over the norm. The largest single number would be no
    measure: Adam's first steps are as long as the learning rate whatever the gradient, so where rounding turns the sign
    of one that is nearly zero, a bias that began at zero is off by its own size. After 8 bf16 steps threads_1 differs
    by 18 % in one number and 7 % in norm, a learning rate that is 20 % off by 81 and 78 %.

    Tensors that only one side has, such as the bias of a convolution, are judged by what they do to the others. NaN
    counts as the largest float, since JSON has neither it nor infinity.
    """
    pairs = [(value, variant.tensors[name]) for name, value in baseline.tensors.items() if name in variant.tensors]
    pairs += [(np.array(value), np.array(variant.results[name])) for name, value in baseline.results.items()]
    apart = np.array([np.abs(ours - theirs).max(initial=0.0) for ours, theirs in pairs])
    error = np.array([np.linalg.norm(ours - theirs) for ours, theirs in pairs])
    scale = np.array([np.linalg.norm(ours) for ours, _ in pairs])
    relative = np.divide(error, scale, out=(error > 0).astype(float), where=scale > 0)
    largest = np.finfo(float).max
    return tuple(float(np.nan_to_num(values, nan=largest, posinf=largest).max()) for values in (apart, relative))  # type: ignore[return-value]
