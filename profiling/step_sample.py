"""The timings of steps as a record keeps them: of every step, or of a random sample, with totals of all."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from random import Random

import msgspec

from profiling.run_record import StepTimings, StepTotals, TimeTotals

MAX_STEPS = 4096
"""Kept steps of one stage. In a sample of half as many, the 99th percentile is the 98.6th to 99.4th of all steps."""
_FOLD_STEPS = 256
"""Steps are added in groups: that is cheaper, and it happens between steps."""

Step = tuple[int, int, float, Mapping[str, float]]
"""Number in the stage, from 0; images; seconds; seconds of each phase."""


_State = tuple[
    tuple[int, tuple[int, ...], float | None],
    int,
    int,
    list[tuple[int, int, float, dict[str, float]]],
    int,
    int,
    TimeTotals | None,
    dict[str, TimeTotals],
]


class StepSample:
    """Keeps the timings of every step up to `max_steps`, of longer runs a random sample; its memory is bounded.

    Of each group of `every` consecutive steps, one at random is kept: every step has the same chance, the sample covers
    the run evenly, and a rhythm of the steps, such as the short last batch of an epoch, does not bias it. When a step
    no longer fits, one at random of each two neighbors is dropped, and `every` doubles. The draws have a fixed seed and
    a generator of their own.
    """

    def __init__(self, max_steps: int = MAX_STEPS) -> None:
        self._max_steps = max_steps + max_steps % 2
        self._random = Random(0)
        self._every = 1
        self._next = 0  # number of the next step to keep; of the first that no longer fits, if no step does
        self._kept: list[Step] = []
        self._recent: list[Step] = []  # not yet in what follows
        self._steps = 0
        self._samples = 0
        self._step_totals: TimeTotals | None = None
        self._phase_totals: dict[str, TimeTotals] = {}

    def add(self, samples: int, step_s: float, phase_s: Mapping[str, float]) -> None:
        """Add a step of `samples` images."""
        self._recent.append((self._steps + len(self._recent), samples, step_s, phase_s))
        if len(self._recent) == _FOLD_STEPS:
            self._fold()

    def timings(self, since: int = 0) -> StepTimings:
        """The kept steps from number `since` on, and the totals of all steps if not all are kept."""
        self._fold()
        kept = self._kept[bisect_left(self._kept, since, key=itemgetter(0)) :]
        totals = None
        if self._step_totals is not None and len(self._kept) < self._steps:
            totals = StepTotals(samples=self._samples, step=self._step_totals, phases=dict(self._phase_totals))
        return StepTimings(
            samples=[samples for _, samples, _, _ in kept],
            step_s=[step_s for _, _, step_s, _ in kept],
            phase_s={name: [phase_s.get(name, 0.0) for *_, phase_s in kept] for name in self._phase_totals},
            numbers=[] if len(kept) == self._steps else [number for number, *_ in kept],
            totals=totals,
        )

    def state(self) -> str:
        """All of it as JSON, from which `restore` makes the same sample in another process."""
        self._fold()
        kept = [self._random.getstate(), self._every, self._next, self._kept, self._steps, self._samples]
        return msgspec.json.encode([*kept, self._step_totals, self._phase_totals]).decode()

    def restore(self, state: str) -> None:
        """Go on with the sample whose `state` is given.

        Raises:
            msgspec.ValidationError: it is none.
        """
        saved = msgspec.json.decode(state, type=_State)
        random, self._every, self._next, self._kept, self._steps, self._samples, *totals = saved
        self._random.setstate(random)
        self._step_totals, self._phase_totals = totals
        self._recent = []

    def _fold(self) -> None:
        """Add the recent steps to the totals, and some of them to the sample."""
        recent, first = self._recent, self._steps
        self._recent = []
        self._steps += len(recent)
        while self._next < self._steps:
            if len(self._kept) == self._max_steps:
                pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
                self._kept = [pair[self._draw(2)] for pair in pairs]
                self._every *= 2
            else:
                self._kept.append(recent[self._next - first])
            is_full = len(self._kept) == self._max_steps
            self._next = len(self._kept) * self._every + (0 if is_full else self._draw(self._every))
        seconds = defaultdict(list)
        for _, samples, _, phase_s in recent:
            self._samples += samples
            for name, phase in phase_s.items():
                seconds[name].append(phase)
        if recent:
            self._step_totals = _add([step_s for _, _, step_s, _ in recent], self._step_totals)
        for name, values in seconds.items():
            self._phase_totals[name] = _add(values, self._phase_totals.get(name))

    def _draw(self, count: int) -> int:
        """A random number below `count`."""
        return int(self._random.random() * count)


def _add(seconds: Sequence[float], before: TimeTotals | None) -> TimeTotals:
    """Totals of `seconds`, at least one, and of what was timed before."""
    totals = TimeTotals(len(seconds), sum(seconds), min(seconds), max(seconds))
    if before is None:
        return totals
    return TimeTotals(
        before.steps + totals.steps,
        before.sum_s + totals.sum_s,
        min(before.min_s, totals.min_s),
        max(before.max_s, totals.max_s),
    )
