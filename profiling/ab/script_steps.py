"""Finds the steps and phases of a user's script through torch's hooks, and times them, without a change in it.

A script's arm loads this file in the user's process: standard library, and torch where it is used; Python 3.9 will do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

WARMUP_STEPS = 8  # steps of any optimizer before the script is held for the first time; then the answers are compared

Interval = tuple[str, Any, Any]


class ScriptStep(NamedTuple):
    """One step: how many samples, None if that is not known; start and end; (phase, start, end) within it."""

    samples: int | None
    start: Any
    end: Any
    intervals: list[Interval]


class StepClock:
    """The host's clock; with an accelerator, events on its current stream, read when a block has ended.

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
        if isinstance(start, int):
            return (end - start) * 1e-9 if isinstance(end, int) else 0.0
        return float(start.elapsed_time(end)) * 1e-3

    def synchronize(self) -> None:
        """Wait for the accelerator."""
        if self.device is not None:
            import torch

            torch.accelerator.synchronize()


# --- steps and phases -------------------------------------------------------------------------------------------------


class Recorder:
    """Finds the steps and the phases of a script, without a change in it.

    With several optimizers, a step ends with the one that stepped least often in the warm-up (of those, the last). Once
    the script has called `profiling.step`, that alone ends steps.

    Attributes:
        optimizers: those that have stepped, in that order.
        marked: the script marks its steps itself.
        steps: those since `clear`.
        module: the outermost module that has parameters of the optimizers; None before it is known.
    """

    def __init__(self, samples: int | None) -> None:
        self.clock = StepClock()
        self.optimizers: list[Any] = []
        self.marked = False
        self.steps: list[ScriptStep] = []
        self.module: Any = None
        self.calls = 0
        self._counts: dict[int, int] = {}
        self._told_samples = samples
        self._samples: list[int] = []
        self._intervals: list[Interval] = []
        self._closing: Any = None
        self._is_grad_enabled: Callable[[], bool] = bool
        self._handle: Any = None
        self._forward_start: Any = None
        self._optimizer_start: Any = None
        self._start: Any = None

    def __deepcopy__(self, memo: Any) -> Recorder:
        """Be the same in a copy of the module that has its hooks, such as an average of the weights."""
        return self

    def __reduce__(self) -> Any:
        """Be another one in a module that is saved with its hooks."""
        return Recorder, (None,)

    def parameters(self) -> list[Any]:
        """Those of all optimizers."""
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    def clear(self) -> None:
        """Forget all steps; the next one starts now."""
        self.steps = []
        self.start_step()

    def start_step(self) -> None:
        """Begin a step."""
        self._intervals, self._samples, self._forward_start = [], [], None
        self._start = self.clock.mark()

    def end_step(self, samples: int | None) -> None:
        """Keep the step that ends now."""
        end = self.clock.mark()
        seen = self._samples[:1] if len(self.optimizers) > 1 else self._samples  # networks of a GAN share their batch
        known = samples or self._told_samples or sum(seen) or None
        self.steps.append(ScriptStep(known, self._start, end, self._intervals))
        self._start, self._intervals, self._samples, self._forward_start = end, [], [], None

    # --- hooks of torch

    def before_optimizer(self, optimizer: Any, *_: Any) -> None:
        """An optimizer begins to step."""
        self._optimizer_start = self.clock.mark()

    def after_optimizer(self, optimizer: Any) -> bool:
        """An optimizer has stepped; tell whether that ends a step."""
        self._intervals.append(("optimizer", self._optimizer_start, self.clock.mark()))
        if self.calls > WARMUP_STEPS:  # what follows has been found out
            self.calls += not self.marked
            return optimizer is self._closing and not self.marked
        if id(optimizer) not in self._counts:
            self.optimizers.append(optimizer)
            self._counts[id(optimizer)] = 0
            self.clock.use(optimizer.param_groups[0]["params"][0].device)
        self._counts[id(optimizer)] += 1
        if self.marked:
            return False
        self._count_call()
        rarest = min(self._counts.values())
        self._closing = [other for other in self.optimizers if self._counts[id(other)] == rarest][-1]
        return optimizer is self._closing

    def mark_step(self) -> None:
        """The script says that a step has ended."""
        if not self.marked:
            self.marked, self.calls = True, 0
        self._count_call()

    def _count_call(self) -> None:
        self.calls += 1
        if self.module is None:
            self._watch(self.calls < WARMUP_STEPS)

    def _watch(self, on: bool) -> None:
        """Look at the calls of all modules, only until the outermost is known: it would slow every module."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if on and "torch" in sys.modules:
            from torch.nn.modules.module import register_module_forward_pre_hook

            self._handle = register_module_forward_pre_hook(self._first_forward)

    def _first_forward(self, module: Any, inputs: Any) -> None:
        import torch

        trained = {id(parameter) for parameter in self.parameters()}
        if not any(id(parameter) in trained or not trained for parameter in module.parameters()):
            return
        self._is_grad_enabled = torch.is_grad_enabled
        if self._counts_forward():
            self._watch(False)
            self.module = module
            module.register_forward_pre_hook(self._before_forward, with_kwargs=True)
            module.register_forward_hook(self._after_forward)

    def _before_forward(self, module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self._counts_forward():
            self._samples.append(leading_dimension(inputs) or leading_dimension(list(named.values())))
            self._forward_start = self.clock.mark()

    def _counts_forward(self) -> bool:
        """Whether a call of a module belongs to a step, and not to a validation between two steps."""
        return not self.optimizers or self._is_grad_enabled()

    def _after_forward(self, module: Any, inputs: Any, output: Any) -> None:
        if self._forward_start is not None:
            self._intervals.append(("forward", self._forward_start, self.clock.mark()))
            self._forward_start = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase that the script marks; its name is kept apart from those that are found."""
        start = self.clock.mark()
        try:
            yield
        finally:
            self._intervals.append((f"={name}", start, self.clock.mark()))

    # --- figures

    def timings(self, workers: int) -> dict[str, Any]:
        """Seconds per sample of the fastest steps, as `profiling.ab.messages.BlockTimings` has them.

        A loader's workers deliver batches in turns: with them, that many consecutive steps are taken together.
        """
        known = [step for step in self.steps if step.samples] or self.steps
        count = max(1, min(workers, len(known)))
        totals = [self.clock.seconds(step.start, step.end) for step in known]
        samples = [step.samples or 1 for step in known]
        first = min(
            range(len(known) - count + 1),
            key=lambda i: sum(totals[i : i + count]) / sum(samples[i : i + count]),
        )
        fastest = [self.phases(step) for step in known[first : first + count]]
        everywhere = [name for name in fastest[0] if all(name in phases for phases in fastest)]
        divisor = sum(samples[first : first + count])
        per_sample = {name: sum(phases[name] for phases in fastest) / divisor for name in everywhere}
        per_sample[self.stage] = sum(totals[first : first + count]) / divisor
        every = [self.clock.seconds(step.start, step.end) for step in self.steps]
        return {"s_per_sample": per_sample, "step_s": {self.stage: sum(every) / len(every)}}

    @property
    def stage(self) -> str:
        """`train` where optimizers step, else `infer`."""
        return "train" if self.optimizers else "infer"

    def phases(self, step: ScriptStep) -> dict[str, float]:
        """Seconds of each phase: those that the script marks, else those that the order of the hooks shows.

        A step of several optimizers shows the optimizers' time alone, one whose forward runs inside the optimizer
        (a closure) nothing, and one of several micro-batches no time of loading and of backward.
        """
        found: dict[str, float] = {}
        for name, start, end in step.intervals:
            found[name] = found.get(name, 0.0) + self.clock.seconds(start, end)
        marked = {name[1:]: seconds for name, seconds in found.items() if name.startswith("=") and seconds > 0}
        if marked or self.marked:
            return marked
        forwards = [interval for interval in step.intervals if interval[0] == "forward"]
        optimizers = [interval for interval in step.intervals if interval[0] == "optimizer"]
        if not optimizers:
            return {}
        optimizer_s = {"optimizer": found["optimizer"]}
        if not forwards or len(self.optimizers) > 1:
            return {} if not forwards and self.module is not None else optimizer_s
        between_s = self.clock.seconds(forwards[-1][2], optimizers[0][1])
        if between_s <= 0:
            return {}
        if len(forwards) > 1:
            return {"forward": found["forward"], **optimizer_s}
        load_s = self.clock.seconds(step.start, forwards[0][1])
        return {"load": load_s, "forward": found["forward"], "backward": between_s, **optimizer_s}


def leading_dimension(values: Sequence[Any]) -> int:
    """The leading dimension of the first tensor among the arguments of a module; 0 if there is none."""
    for value in values:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and shape:  # also torch.Size
            return int(shape[0])
        if isinstance(value, (list, tuple)) and (nested := leading_dimension(value)):
            return nested
        if hasattr(value, "values") and callable(value.values) and (nested := leading_dimension(list(value.values()))):
            return nested
    return 0
