"""Finds the steps and phases of a user's script through torch's hooks, and times them, without a change in it.

A script's arm loads this file in the user's process: standard library, and torch where it is used; Python 3.9 will do.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

WARMUP_STEPS = 8  # steps of any optimizer before the script is held for the first time; then the answers are compared


class ScriptStep(NamedTuple):
    """One step: how many samples, None if that is not known; seconds of all of it, and of each phase."""

    samples: int | None
    step_s: float
    phase_s: dict[str, float]


class Interval(NamedTuple):
    """A part of a step, in seconds since the turn began; how many samples a call of the module had."""

    start_s: float
    end_s: float
    name: str
    samples: int


class StepClock:
    """The host's clock; with an accelerator, events on its current stream, read when a turn has ended.

    Attributes:
        mark: returns a point in time.
    """

    def __init__(self) -> None:
        self.device: Any = None
        self.mark: Callable[[], Any] = time.perf_counter_ns

    def use(self, device: Any) -> None:
        """Time an accelerator, where `device` is one."""
        if device.type in ("cuda", "xpu"):
            self.device = device
            self.mark = self._event

    def _event(self) -> Any:
        import torch

        event = torch.Event(self.device, enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two marks that `synchronize` has passed."""
        if self.device is None:
            return float(end - start) * 1e-9
        return float(start.elapsed_time(end)) * 1e-3

    def synchronize(self) -> None:
        """Wait for the accelerator."""
        if self.device is not None:
            import torch

            torch.accelerator.synchronize()


class OpenPhase:
    """A context manager around a phase that a script marks; its name is kept apart from those that are found."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, f"={name}"

    def __enter__(self) -> None:
        self._start = self._recorder.clock.mark()

    def __exit__(self, *_: object) -> None:
        self._recorder.phase_marks.append((self._name, self._start, self._recorder.clock.mark()))


# --- steps and phases -------------------------------------------------------------------------------------------------


class Recorder:
    """Finds the steps and the phases of a script, without a change in it.

    With several optimizers, a step ends with the one that stepped least often in the warm-up (of those, the last). Once
    the script has called `profiling.step`, that alone ends steps.

    Within a turn the hooks only append marks to lists (tests/bench/bench_hooks.py measures them): between a step's
    operators their code is not in the processor's caches, and each further line costs many times what it costs in a
    loop of its own.

    Args:
        samples: in a step; None finds that out.
        end_turn: called at the end of the step that ends a turn, and at the end of the warm-up; calls `start`.

    Attributes:
        optimizers: those that have stepped, in that order.
        marked: the script marks its steps itself.
        module: the outermost module that has parameters of the optimizers; None before it is known.
        phase_marks: (name, start, end) of each phase that the script marked in this turn.
    """

    def __init__(self, samples: int | None, end_turn: Callable[[], None]) -> None:
        self.clock = StepClock()
        self.optimizers: list[Any] = []
        self.marked = False
        self.module: Any = None
        self._told_samples = samples
        self._end_turn = end_turn
        self._closing: Any = None  # the optimizer that ends steps, once it is known
        self._is_warming_up = True
        self._calls = 0  # of optimizers, or of `profiling.step`, in the warm-up
        self._counts: dict[int, int] = {}
        self._steps_before = 0  # this turn
        self._unwatch: Callable[[], None] | None = None
        self._give_back_regions: Callable[[], None] | None = None
        self._mark = self.clock.mark
        self._ends: list[Any] = []
        self._step_samples: list[int | None] = []  # as the script says it
        self._optimizer_marks: list[Any] = []  # start, end, start, end, …
        self._calls_of_module: list[tuple[Any, Any, int]] = []  # start, end, samples
        self.phase_marks: list[tuple[str, Any, Any]] = []
        self.start(0)

    def start(self, steps: int) -> None:
        """Begin a turn of so many steps; forget those before. 0 steps is a turn without an end."""
        self._steps_before += len(self._ends)
        self._left = steps
        for marks in (self._ends, self._step_samples, self._optimizer_marks, self._calls_of_module, self.phase_marks):
            marks.clear()
        self._start = self._mark()

    def stop(self) -> None:
        """End no step any more, in a process that the script has forked."""
        self._closing, self._is_warming_up, self._left = None, False, 0

    @property
    def steps_so_far(self) -> int:
        """Steps of all turns and of the warm-up; where no step has ended, calls of optimizers."""
        return self._steps_before + len(self._ends)

    @property
    def steps_of_turn(self) -> int:
        """Steps of this turn."""
        return len(self._ends)

    @property
    def samples(self) -> int | None:
        """In the last step that tells it."""
        known = [step.samples for step in self.steps() if step.samples]
        return known[-1] if known else None

    @property
    def stage(self) -> str:
        """`train` where optimizers step, else `infer`."""
        return "train" if self.optimizers else "infer"

    def parameters(self) -> list[Any]:
        """Those of all optimizers."""
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    # --- what the script calls: hooks, and marks by name

    def before_optimizer(self, optimizer: Any, inputs: Any, named: Any) -> None:
        """An optimizer begins to step."""
        self._optimizer_marks.append(self._mark())

    def after_optimizer(self, optimizer: Any, inputs: Any, named: Any) -> None:
        """An optimizer has stepped."""
        end = self._mark()
        self._optimizer_marks.append(end)
        if optimizer is self._closing:
            self._ends.append(end)
            self._left -= 1
            if not self._left:
                self._end_turn()
        elif self._is_warming_up:
            self._find_optimizer(optimizer)

    def step(self, samples: int | None = None) -> None:
        """The script says that a step of `samples` samples has ended."""
        if not self.marked:
            self.marked, self._closing, self._calls = True, None, 0
            self._ends.clear()
        self._ends.append(self._mark())
        self._step_samples.append(samples)
        self._left -= 1
        if self._is_warming_up:
            self._count_call()
            if self._calls == WARMUP_STEPS:
                self._end_warmup()
        elif not self._left:
            self._end_turn()

    def phase(self, name: str) -> OpenPhase:
        """Time a phase that the script marks."""
        return OpenPhase(self, name)

    # --- the warm-up: what is found out

    def _find_optimizer(self, optimizer: Any) -> None:
        if id(optimizer) not in self._counts:
            self.optimizers.append(optimizer)
            self._counts[id(optimizer)] = 0
            self._use(optimizer.param_groups[0]["params"][0].device)
        self._counts[id(optimizer)] += 1
        if self.marked:
            return
        self._count_call()
        rarest = min(self._counts.values())
        closing = [other for other in self.optimizers if self._counts[id(other)] == rarest][-1]
        if optimizer is closing:
            self._ends.append(self._mark())
            if self._calls >= WARMUP_STEPS:
                self._closing = closing
                self._end_warmup()

    def _use(self, device: Any) -> None:
        """Time the device of the script; marks of another clock are of no use."""
        before = self.clock.device
        self.clock.use(device)
        if self.clock.device is not before:
            self._mark = self.clock.mark
            self.start(self._left)

    def _count_call(self) -> None:
        self._calls += 1
        if self.module is None:
            self._watch(self._calls < WARMUP_STEPS)

    def _end_warmup(self) -> None:
        self._is_warming_up = False
        if self._give_back_regions is not None and not self.phase_marks:
            self._give_back_regions()
        self._end_turn()

    def _watch(self, on: bool) -> None:
        """Look at the calls of all modules, only until the outermost is known: it would slow every module.

        Not by a hook of torch: `Module.compile` would compile it, and again after each change of hooks.
        """
        if not on and self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if on and self._unwatch is None and "torch" in sys.modules:
            from torch.nn import Module

            every: Any = Module
            call = every.__call__

            @wraps(call)
            def watched_call(module: Any, *inputs: Any, **named: Any) -> Any:
                self._look_at(module)
                return call(module, *inputs, **named)

            def unwatch() -> None:
                every.__call__ = call

            every.__call__, self._unwatch = watched_call, unwatch

    def _look_at(self, module: Any) -> None:
        """A module is called: is it the outermost that has parameters of the optimizers?"""
        import torch

        if torch.compiler.is_compiling() or (self.optimizers and not torch.is_grad_enabled()):
            return
        parameters = list(module.parameters())
        trained = {id(parameter) for parameter in self.parameters()}
        if not any(id(parameter) in trained or not trained for parameter in parameters):
            return
        self._watch(False)
        self.module = module
        self._use(parameters[0].device)
        self._time_calls(module)

    def _time_calls(self, module: Any) -> None:
        """Time the calls of a module, in its class: its copies, and what is saved of it, stay as they were.

        A hook would make torch take the slow path of every call, and be compiled by `Module.compile`.
        """
        import torch

        kind, is_grad_enabled = type(module), torch.is_grad_enabled
        is_compiling = torch.compiler.is_dynamo_compiling  # the shortest: it returns False, and Dynamo knows better
        call, mark, optimizers, keep = kind.__call__, self._mark, self.optimizers, self._calls_of_module.append

        @wraps(call)
        def timed_call(called: Any, *inputs: Any, **named: Any) -> Any:
            # A call without gradients is a validation between two steps.
            if called is not module or (optimizers and not is_grad_enabled()) or is_compiling():
                return call(called, *inputs, **named)
            try:
                samples = inputs[0].shape[0]
            except (AttributeError, IndexError, TypeError):
                samples = leading_dimension([*inputs, *named.values()])
            start = mark()
            output = call(called, *inputs, **named)
            keep((start, mark(), samples))
            return output

        kind.__call__ = timed_call

    def time_regions(self, record_function: Any) -> None:
        """Take what the script marks by `torch.profiler.record_function` as phases; what torch marks by it is none.

        If there is no such region in the warm-up, the class is given back as it was.
        """
        enter, leave = record_function.__enter__, record_function.__exit__
        open_phases: dict[int, OpenPhase] = {}

        @wraps(enter)
        def timed_enter(region: Any) -> Any:
            if not sys._getframe(1).f_globals.get("__name__", "").startswith("torch."):
                phase = open_phases[id(region)] = self.phase(region.name)
                phase.__enter__()
            return enter(region)

        @wraps(leave)
        def timed_leave(region: Any, *error: Any) -> Any:
            result = leave(region, *error)
            if (phase := open_phases.pop(id(region), None)) is not None:
                phase.__exit__()
            return result

        def give_back() -> None:
            record_function.__enter__, record_function.__exit__ = enter, leave

        record_function.__enter__, record_function.__exit__ = timed_enter, timed_leave
        self._give_back_regions = give_back

    # --- figures

    def steps(self) -> list[ScriptStep]:
        """The steps of this turn."""
        self.clock.synchronize()
        at_s = [self.clock.seconds(self._start, mark) for mark in self._ends]
        intervals = sorted(self._intervals())
        starts_s = [interval.start_s for interval in intervals]
        found = []
        for number, (start_s, end_s) in enumerate(zip([0.0, *at_s], at_s)):  # noqa: B905 - Python 3.9
            within = intervals[bisect_left(starts_s, start_s) : bisect_left(starts_s, end_s)]
            parts = [part for part in within if part.end_s <= end_s]  # what goes on after the step belongs to none
            found.append(ScriptStep(self._samples_of(number, parts), end_s - start_s, self._phases(start_s, parts)))
        return found

    def _intervals(self) -> list[Interval]:
        def at_s(mark: Any) -> float:
            return self.clock.seconds(self._start, mark)

        steps = zip(self._optimizer_marks[::2], self._optimizer_marks[1::2])  # noqa: B905
        return [
            *(Interval(at_s(start), at_s(end), "forward", samples) for start, end, samples in self._calls_of_module),
            *(Interval(at_s(start), at_s(end), "optimizer", 0) for start, end in steps),
            *(Interval(at_s(start), at_s(end), name, 0) for name, start, end in self.phase_marks),
        ]

    def _samples_of(self, number: int, parts: Sequence[Interval]) -> int | None:
        seen = [part.samples for part in parts if part.name == "forward"]
        if len(self.optimizers) > 1:  # networks of a GAN share their batch
            seen = seen[:1]
        told = self._step_samples[number] if self.marked else None
        return told or self._told_samples or sum(seen) or None

    def _phases(self, start_s: float, parts: Sequence[Interval]) -> dict[str, float]:
        """Seconds of each phase: those that the script marks, else those that the order of the hooks shows.

        A step of several optimizers shows the optimizers' time alone, one whose forward runs inside the optimizer
        (a closure) nothing, and one of several micro-batches no time of loading and of backward.
        """
        found: dict[str, float] = {}
        for part in parts:
            found[part.name] = found.get(part.name, 0.0) + part.end_s - part.start_s
        marked = {name[1:]: seconds for name, seconds in found.items() if name.startswith("=") and seconds > 0}
        if marked or self.marked:
            return marked
        forwards = [part for part in parts if part.name == "forward"]
        optimizers = [part for part in parts if part.name == "optimizer"]
        if not optimizers:
            return {}
        optimizer_s = {"optimizer": found["optimizer"]}
        if not forwards or len(self.optimizers) > 1:
            return {} if not forwards and self.module is not None else optimizer_s
        between_s = optimizers[0].start_s - forwards[-1].end_s
        if between_s <= 0:
            return {}
        if len(forwards) > 1:
            return {"forward": found["forward"], **optimizer_s}
        load_s = forwards[0].start_s - start_s
        return {"load": load_s, "forward": found["forward"], "backward": between_s, **optimizer_s}

    def timings(self, steps: Sequence[ScriptStep], workers: int) -> dict[str, Any]:
        """Seconds per sample of the fastest steps, as `profiling.ab.messages.BlockTimings` has them.

        A loader's workers deliver batches in turns: with them, that many consecutive steps are taken together.
        """
        known = [step for step in steps if step.samples] or steps
        count = max(1, min(workers, len(known)))
        totals = [step.step_s for step in known]
        samples = [step.samples or 1 for step in known]
        first = min(
            range(len(known) - count + 1),
            key=lambda i: sum(totals[i : i + count]) / sum(samples[i : i + count]),
        )
        fastest = [step.phase_s for step in known[first : first + count]]
        everywhere = [name for name in fastest[0] if all(name in phases for phases in fastest)]
        divisor = sum(samples[first : first + count])
        per_sample = {name: sum(phases[name] for phases in fastest) / divisor for name in everywhere}
        per_sample[self.stage] = sum(totals[first : first + count]) / divisor
        return {"s_per_sample": per_sample, "step_s": {self.stage: sum(step.step_s for step in steps) / len(steps)}}


def leading_dimension(values: Sequence[Any]) -> int:
    """The leading dimension of the first tensor among the arguments of a module; 0 if there is none."""
    for value in values:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and shape:  # also torch.Size
            return int(shape[0])
        if isinstance(value, (list, tuple)) and (nested := leading_dimension(value)):
            return nested
        if isinstance(value, Mapping) and (nested := leading_dimension(list(value.values()))):
            return nested
    return 0
