"""The measurement: starts the arms' processes, gives them turns, and collects their timings.

Three processes take turns: the baseline, the variant, and the baseline's twin, which shows the noise floor. While one
works, the others wait. A launch starts all three and runs several rounds; in each round every arm runs one block. The
order rotates from round to round and is reversed from launch to launch, so that a steady drift affects all arms alike.
Within a launch the fastest round of each arm counts, and the variant is compared with the geometric mean of both
baselines (`profiling.verdict.judge`).

docs/measurement.md tells why it is done this way, with the figures.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from profiling.ab.machine_state import CoreWatch
from profiling.ab.messages import Answer, Arm, ArmError, ArmOutput, BlockTimings, Ready
from profiling.ab.plan import MIN_LAUNCHES, SETTLE_TURNS, Plan, plan_measurement, turn_order
from profiling.ab.results import difference, phase_timings
from profiling.ab.time_limit import TimeUpError, time_limit
from profiling.errors import NotApplicableError, Terminated, UserError
from profiling.format import duration
from profiling.machine_load import OthersMeter
from profiling.run_record import Environment
from profiling.verdict.timings import PhaseTimings
from profiling.vocabulary import ARMS, BASELINE, COMPARED_ARMS, TWIN, VARIANT

PAUSE_S = 0.002  # before a block: OpenMP threads of the previous arm keep spinning for some time
PATIENCE_SHARE = 0.5  # extra time to wait for cores that share a cache, as a share of the budget
LIMIT_RATIO = 2.0  # the time limit, where none is given, over the time that the plan expects
MIN_LIMIT_S = 60.0  # likewise: other processes delay short comparisons most
FINISH_RATIO = 2.0  # what the traced windows and the report take, at most, over the start of a launch

StartArm = Callable[[Path], AbstractContextManager[Arm]]
"""Starts an arm in a process of its own, given a folder for scratch files; leaving the context ends the process.

It returns when the arm has warmed up, or lets `Arm.ready` wait for that: then all arms start at the same time.
"""


@dataclass(frozen=True)
class ArmResult:
    """What one arm has shown; `output` is None if the measurement ended before."""

    ready: Ready
    results: Mapping[str, float]
    output: ArmOutput | None


@dataclass(frozen=True)
class Measured:
    """A measurement that is complete, or that was stopped.

    Attributes:
        timings: phase -> timings; empty if it was stopped before there were enough for an interval.
        difference: largest absolute difference and largest relative error of the answers; None if they were not given.
        twin_difference: likewise, of the baseline and its twin: not zero if the baseline's code is not reproducible.
        stop: what stopped it before its time: VariantError, NotApplicableError, TimeUpError, Ctrl-C or SIGTERM.
        startup_s: seconds spent on starting processes and on their first steps, outside the budget.
        waited_s: seconds spent on waiting for cores that share a cache.
        limit_s: the time limit that was given, or followed from the plan; infinite before there was one.
        launches: so many were measured.
        plan: None if it was stopped before there was one.
        others_cores: [launches] cores that other processes used meanwhile; empty where the system does not tell.
        settled: why it ended after MIN_LAUNCHES; None if it did not.
        lost: what stopped the baseline when there was enough for an interval; None if nothing did.
    """

    timings: dict[str, PhaseTimings]
    arms: dict[str, ArmResult]
    environment: Environment
    difference: tuple[float, float] | None
    twin_difference: tuple[float, float] | None
    stop: BaseException | None
    startup_s: float
    waited_s: float
    limit_s: float = math.inf
    launches: int = 0
    plan: Plan | None = None
    others_cores: Sequence[float] = ()
    settled: str | None = None
    lost: str | None = None

    @property
    def end_note(self) -> str | None:
        """Why there are fewer launches than planned, as a sentence; None if there are not."""
        is_over, limit = isinstance(self.stop, TimeUpError), duration(self.limit_s * 1e6)
        if self.plan is None:
            return f"The time limit of {limit} was over before the first launch." if is_over else None
        if is_over and not self.launches:
            return (
                f"The time limit of {limit} is too short: {self.plan.launches} launches take "
                f"{duration(self.plan.expected_s * 1e6)}."
            )
        launches = f"{self.launches} of {self.plan.launches} launches"
        if self.lost is not None:
            return f"The baseline stopped after {launches}, which count: {self.lost}."
        if self.settled is not None:
            return f"It ended after {launches}: {self.settled}."
        if is_over or (self.stop is None and self.launches < self.plan.launches):
            return f"The time limit of {limit} ended it after {launches}."
        return None


class VariantError(Exception):
    """The variant stopped; the message is one line."""


class BaselineError(UserError):
    """The baseline stopped, so there is nothing to compare with; its cause is what the arm said."""


class Measurement:
    """One comparison while it is being measured; `run` may be called once.

    Args:
        arms: how to start the baseline and the variant.
        phase: the phase of the hypothesis.
        budget_s: seconds for the pilot and all blocks.
        folder: gets `baseline/` and `variant/`, with a traced window of each.
        started: when, ISO 8601, for the records.
        progress: told how many blocks of how many are done.
        warmed_up: told what the arms say of themselves, before the first block; it may refuse them.
        settled: told the timings of the phase after MIN_LAUNCHES; it may end the measurement with a reason.
        planned: told the plan and the seconds that are left for it, before the launches.
        best_probe_s: the shortest probe (`profiling.ab.machine_state`) that is known of this machine; None if none is.
        max_s: seconds for everything, starting processes and traced windows included; None is LIMIT_RATIO times what
            the plan expects, from its making, and at least MIN_LIMIT_S.
        began_s: when `max_s` began, by `time.perf_counter`; None is now.
    """

    def __init__(
        self,
        arms: Mapping[str, StartArm],
        phase: str,
        budget_s: float,
        folder: Path,
        started: str,
        progress: Callable[[int, int], None],
        warmed_up: Callable[[Mapping[str, Ready]], None] = lambda arms: None,
        settled: Callable[[PhaseTimings], str | None] = lambda timings: None,
        planned: Callable[[Plan, float], None] = lambda plan, limit_s: None,
        best_probe_s: float | None = None,
        max_s: float | None = None,
        began_s: float | None = None,
    ) -> None:
        self._start = {TWIN: arms[BASELINE], **arms}
        self._phase = phase
        self._warmed_up = warmed_up
        self._settled = settled
        self._planned = planned
        self._budget_s = budget_s
        self._folder = folder
        self._started = started
        self._progress = progress
        self._cores = CoreWatch(PATIENCE_SHARE * budget_s, best_probe_s)
        self._best_probe_s = best_probe_s
        self._max_s = max_s
        self._began_s = time.perf_counter() if began_s is None else began_s
        self._limit_s = max_s or math.inf
        self._plan: Plan | None = None
        self._others = OthersMeter()
        self._others_cores: list[float | None] = []
        self._end_reason: str | None = None
        self._launches: list[list[dict[str, BlockTimings]]] = []
        self._probes_s: list[float] = []
        self._ready: dict[str, Ready] = {}
        self._answers: dict[str, Answer] = {}
        self._outputs: dict[str, ArmOutput] = {}
        self._environment: Environment | None = None
        self._startup_s = 0.0
        self._finish_s = 0.0  # to keep for the traced windows
        self._longest_s = 0.0  # of any launch
        self._arm_start_s: dict[str, float] = {}  # in the last launch, one after the other
        self._common_start_s = 0.0  # what is left of it for arms that start at the same time

    def run(self) -> Measured:
        """Measure until done or stopped.

        Raises:
            UserError: the baseline stopped before there was enough to compare with.
        """
        stop: BaseException | None = None
        lost: str | None = None
        try:
            with tempfile.TemporaryDirectory() as scratch, time_limit() as end_after:
                self._run(Path(scratch), end_after)
        except (VariantError, NotApplicableError, KeyboardInterrupt, Terminated, TimeUpError) as reason:
            if self._environment is None:  # not even the baseline had started
                if isinstance(reason, TimeUpError):
                    raise UserError(
                        f"{duration(self._limit_s * 1e6)} were over before the baseline had started"
                    ) from None
                raise
            stop = reason
        except BaselineError as error:
            if len(self._launches) < MIN_LAUNCHES:
                raise
            lost = str(error.__cause__)
        others_cores = [cores for cores in self._others_cores if cores is not None]
        return Measured(
            timings=self._timings(),
            arms={
                arm: ArmResult(ready, self._answers[arm].results, self._outputs.get(arm))
                for arm, ready in self._ready.items()
                if arm in self._answers and arm in COMPARED_ARMS
            },
            environment=cast(Environment, self._environment),
            difference=self._difference(VARIANT),
            twin_difference=self._difference(TWIN),
            stop=stop,
            startup_s=self._startup_s,
            waited_s=self._cores.waited_s,
            limit_s=self._limit_s,
            launches=len(self._launches),
            plan=self._plan,
            others_cores=others_cores if len(others_cores) == len(self._launches) else [],
            settled=self._end_reason,
            lost=lost,
        )

    def _timings(self) -> dict[str, PhaseTimings]:
        rounds = self._plan.rounds if self._plan else 0
        return phase_timings(self._launches, rounds, self._probes_s, self._best_probe_s)

    def _difference(self, arm: str) -> tuple[float, float] | None:
        """How far the answer of an arm is from the baseline's; None without both."""
        if not {BASELINE, arm} <= self._answers.keys():
            return None
        return difference(self._answers[BASELINE], self._answers[arm])

    def _left_s(self) -> float:
        """Seconds until the time limit."""
        return self._limit_s - (time.perf_counter() - self._began_s)

    def _run(self, scratch: Path, end_after: Callable[[float], object]) -> None:
        if self._max_s is not None:
            end_after(self._left_s())
        with self._launched(turn_order(0, 0), scratch) as processes:
            plan, start_s = self._prepare(processes, end_after)
            is_last = self._launch(processes, plan, time.perf_counter() - start_s)  # as if there had been no pilot
        while not is_last:
            start = time.perf_counter()
            with self._launched(turn_order(len(self._launches), 0), scratch) as processes:
                self._settle(processes)
                is_last = self._launch(processes, plan, start)

    def _prepare(self, processes: Mapping[str, Arm], end_after: Callable[[float], object]) -> tuple[Plan, float]:
        """Ask for the answers, and plan, in the first launch; return the plan, and the seconds of a launch's start.

        Raises:
            TimeUpError: the plan does not fit into the time limit.
        """
        self._ready = {arm: process.ready for arm, process in processes.items()}
        self._warmed_up(self._ready)
        for arm, process in processes.items():
            with attribute_failure(arm):
                self._answers[arm] = process.answer()
        # The baseline was first: it also started a fork server, and imported. Its twin is what it is.
        start_s = 2 * self._arm_start_s[TWIN] + self._arm_start_s[VARIANT] + self._common_start_s
        start_s += self._settle(processes)
        self._wait_for_cores(processes[BASELINE])
        stages = list(processes[BASELINE].ready.settle_steps)
        self._finish_s = FINISH_RATIO * start_s
        left_s = self._left_s() - self._finish_s
        block = partial(timed_block, processes)
        plan = self._plan = plan_measurement(block, stages, self._stage(processes), self._budget_s, start_s, left_s)
        if self._max_s is None:
            after_s = max(MIN_LIMIT_S, LIMIT_RATIO * plan.expected_s + self._finish_s)
            self._limit_s = time.perf_counter() - self._began_s + after_s
            end_after(after_s)
        self._planned(plan, self._left_s())
        if plan.expected_s > self._left_s():
            raise TimeUpError
        self._others.cores()  # from here on, launch by launch
        return plan, start_s

    def _stage(self, processes: Mapping[str, Arm]) -> str:
        """The stage of the hypothesis: its phase, or the first of the arms' stages if that is a part of one."""
        stages = list(processes[BASELINE].ready.settle_steps)
        return self._phase if self._phase in stages else stages[0]

    @contextmanager
    def _launched(self, arms: Sequence[str], scratch: Path) -> Iterator[dict[str, Arm]]:
        """Start the processes of the arms, and end them."""
        with ExitStack() as stack:
            processes: dict[str, Arm] = {}
            try:
                for arm in arms:
                    start = time.perf_counter()
                    with attribute_failure(arm):
                        processes[arm] = stack.enter_context(self._start[arm](scratch))
                    self._arm_start_s[arm] = time.perf_counter() - start
            except BaseException:  # a result, or part of one, if the baseline has started
                self._wait_until_ready(processes)
                raise
            start = time.perf_counter()
            self._wait_until_ready(processes)
            self._common_start_s = time.perf_counter() - start
            self._startup_s += sum(self._arm_start_s.values()) + self._common_start_s
            yield processes

    def _wait_until_ready(self, processes: Mapping[str, Arm]) -> None:
        for arm, process in processes.items():
            with attribute_failure(arm):
                environment = process.ready.environment
            self._environment = self._environment or environment

    def _settle(self, processes: Mapping[str, Arm]) -> float:
        """Run the first steps of each process, which do not count; return the seconds that takes."""
        start = time.perf_counter()
        for arm in [*processes] * SETTLE_TURNS:
            timed_block(processes, arm, processes[arm].ready.settle_steps)
        seconds = time.perf_counter() - start
        self._startup_s += seconds
        return seconds

    def _launch(self, processes: Mapping[str, Arm], plan: Plan, start: float) -> bool:
        """Run and keep all rounds of a launch that began at `start`; trace a window of each arm if it is the last."""
        number = len(self._launches)
        rounds: list[dict[str, BlockTimings]] = []
        probes_s = []
        for round_number in range(plan.rounds):
            probes_s.append(self._wait_for_cores(processes[BASELINE]))
            blocks: dict[str, BlockTimings] = {}
            for arm in turn_order(number, round_number):
                blocks[arm] = timed_block(processes, arm, plan.steps[arm])
                self._progress(len(ARMS) * (plan.rounds * number + round_number) + len(blocks), plan.blocks)
            rounds.append(blocks)
        self._launches.append(rounds)
        self._others_cores.append(self._others.cores())
        self._probes_s.append(float(np.median(probes_s)))
        self._longest_s = max(self._longest_s, time.perf_counter() - start)
        if number + 1 == MIN_LAUNCHES < plan.launches:
            timings = self._timings()
            self._end_reason = self._settled(timings.get(self._phase) or timings[self._stage(processes)])
        is_over = self._longest_s + self._finish_s > self._left_s()
        is_last = number + 1 == plan.launches or is_over or self._end_reason is not None
        if is_last:
            self._finish(processes)
        return is_last

    def _wait_for_cores(self, baseline: Arm) -> float:
        """Wait for cores that share a cache. Only the baseline's probe decides, so the variant cannot influence it."""
        with attribute_failure(BASELINE):
            return self._cores.wait(baseline.probe)

    def _finish(self, processes: Mapping[str, Arm]) -> None:
        """Trace a window of each arm."""
        for arm in (BASELINE, VARIANT):
            self._wait_for_cores(processes[BASELINE])
            with attribute_failure(arm):
                results = self._answers[arm].results
                self._outputs[arm] = processes[arm].finish(self._folder / arm, self._started, results)


@contextmanager
def attribute_failure(arm: str) -> Iterator[None]:
    """Tell a variant that stopped, which is a result, from a baseline that did.

    Raises:
        VariantError: the variant stopped.
        BaselineError: the baseline stopped.
    """
    try:
        yield
    except (ArmError, UserError) as error:
        if arm == VARIANT:
            raise VariantError(str(error)) from error
        raise BaselineError(f"the baseline stopped, so there is nothing to compare with: {error}") from error


def timed_block(processes: Mapping[str, Arm], arm: str, steps: Mapping[str, int]) -> BlockTimings:
    """Run a block in one arm, after a pause in which the threads of the other arms come to rest."""
    time.sleep(PAUSE_S)
    with attribute_failure(arm):
        return processes[arm].block(steps)
