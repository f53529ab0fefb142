"""Unprofiled timing and torch.profiler windows. The only module of profiling/ that imports torch.

A capture accompanies a pass of one stage (training, evaluation or inference): `phase(name)` around each phase,
`step(samples)` after each step. A pass is timed or traced, never both: the profiler slows down the steps it records.
"""

import errno
import glob
import gzip
import os
import shutil
import socket
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import psutil
import torch
from torch.profiler import ProfilerAction, ProfilerActivity, profile, record_function

from profiling.analysis.memory import window_memory
from profiling.run_record import StageRecord, StepTimings, TraceFile
from profiling.step_sample import MAX_STEPS, StepSample
from profiling.storage import atomic_write
from profiling.trace.parse import TraceError
from profiling.trace.trace import Trace, read_trace


class Clock(Protocol):
    """Marks points in time without waiting for the device; `seconds` computes a difference later."""

    def mark(self) -> Any: ...  # noqa: D102
    def has_passed(self, mark: Any) -> bool: ...  # noqa: D102
    def wait(self, mark: Any) -> None: ...  # noqa: D102
    def seconds(self, start: Any, end: Any) -> float: ...  # noqa: D102


class HostClock:
    """The host's clock, for devices on which an operator has finished when its call returns."""

    def mark(self) -> int:
        """Nanoseconds since an arbitrary start."""
        return time.perf_counter_ns()

    def has_passed(self, mark: int) -> bool:
        """Whether `seconds` up to `mark` is known."""
        return True

    def wait(self, mark: int) -> None:
        """Return at once."""

    def seconds(self, start: int, end: int) -> float:
        """Seconds between two marks."""
        return (end - start) * 1e-9


class DeviceClock:
    """Events on the accelerator's current stream: device time, without a synchronization inside the step.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Event.html
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> torch.Event:
        """Record an event after the work issued so far."""
        event = torch.Event(self.device, enable_timing=True)
        event.record()
        return event

    def has_passed(self, mark: torch.Event) -> bool:
        """Whether `seconds` up to `mark` need not wait."""
        return bool(mark.query())

    def wait(self, mark: torch.Event) -> None:
        """Wait until the work issued before `mark` is done."""
        mark.synchronize()

    def seconds(self, start: torch.Event, end: torch.Event) -> float:
        """Seconds between two events; waits until the second has happened."""
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3


def clock_for(device: torch.device) -> Clock:
    """Return the host's clock for a CPU, else the device's."""
    return HostClock() if device.type == "cpu" else DeviceClock(device)


class Capture(Protocol):
    """What a loop calls while it runs; a context manager around one pass."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Surround one phase of a step."""

    def step(self, samples: int) -> None:
        """End a step that handled `samples` images."""


class NullCapture:
    """Records nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def step(self, samples: int) -> None:
        """Do nothing."""


class TimedCapture:
    """Times phases and steps, and reads peak memory.

    It may be entered again: the steps of all passes are collected, and peaks are the highest of all passes. It waits
    for an accelerator only when it is left, so that steps are queued as they are without it; unless `is_queued` is
    False: a step then ends when the device has finished it, which is the latency of a request.

    Attributes:
        sample: the timings of all steps, or of a sample of more than `max_steps`.
    """

    def __init__(self, device: torch.device, max_steps: int = MAX_STEPS, *, is_queued: bool = True) -> None:
        self._is_queued = is_queued
        self.memory = MemoryPeaks(device)
        self.sample = StepSample(max_steps)
        self._clock = clock_for(device)
        self._timers: dict[str, _Timer] = {}
        self._marks: list[tuple[str, Any, Any]] = []
        self._unread: deque[_MarkedStep] = deque()

    def __enter__(self) -> Self:
        self.memory.reset()
        self._step_start = self._clock.mark()
        return self

    def __exit__(self, *_: object) -> None:
        self._marks.clear()  # drop the phases of an unfinished step
        while self._unread:
            self._read(self._unread.popleft())
        self.memory.read()

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Time `name`; several intervals of one name in a step are summed."""
        timer = self._timers.get(name)
        if timer is None:
            timer = self._timers[name] = _Timer(name, self._clock.mark, self._marks)
        return timer

    def step(self, samples: int) -> None:
        """End a step that handled `samples` images."""
        end = self._clock.mark()
        self._unread.append(_MarkedStep(samples, self._step_start, end, tuple(self._marks)))
        self._marks.clear()
        if not self._is_queued:
            self._clock.wait(end)
        while self._unread and self._clock.has_passed(self._unread[0].end):
            self._read(self._unread.popleft())
        self._step_start = self._clock.mark()

    def _read(self, step: "_MarkedStep") -> None:
        seconds: dict[str, float] = defaultdict(float)
        for name, start, end in step.phases:
            seconds[name] += self._clock.seconds(start, end)
        self.sample.add(step.samples, self._clock.seconds(step.start, step.end), seconds)

    def timings(self) -> StepTimings:
        """The timings of the steps so far, see `sample`."""
        return self.sample.timings()


@dataclass(frozen=True)
class ProfilerWindow:
    """When and what to trace.

    Attributes:
        folder: where the trace goes.
        wait: steps before the profiler starts.
        warmup: steps under the profiler whose events are discarded.
        active: steps in the trace.
        options: keyword arguments of torch.profiler.profile, such as `record_shapes`.
    """

    folder: Path
    wait: int
    warmup: int
    active: int
    options: dict[str, Any]

    @property
    def steps(self) -> int:
        """Length of a traced pass."""
        return self.wait + self.warmup + self.active

    def action(self, step: int) -> ProfilerAction:
        """The profiler's schedule; `torch.profiler.schedule` warns of a window without warm-up, allowed here."""
        if step < self.wait or step >= self.steps:
            return ProfilerAction.NONE
        if step < self.wait + self.warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if step < self.steps - 1 else ProfilerAction.RECORD_AND_SAVE


class TracedCapture:
    """Exports a torch.profiler trace of `window.active` steps, in which every phase is a `record_function`.

    The file is `<worker>.<time_ns>.pt.trace.json.gz`, as `torch.profiler.tensorboard_trace_handler` names it. The
    worker is torch's default, `<host>_<pid>`, followed by the stage, since a run has one window per stage.
    """

    def __init__(self, stage: str, device: torch.device, window: ProfilerWindow) -> None:
        self._window = window
        self._device = device
        self._worker = f"{socket.gethostname()}_{os.getpid()}_{stage}"
        self._clock = clock_for(device)
        self._steps = 0
        self._samples: list[int] = []
        self._marks: list[tuple[Any, Any]] = []  # start and end of each step of the window
        self._trace: TraceFile | None = None
        activities = [ProfilerActivity.CPU]
        if device.type in ("cuda", "xpu"):
            activities.append(getattr(ProfilerActivity, device.type.upper()))
        self._profiler = profile(
            activities=activities,
            schedule=window.action,
            on_trace_ready=self._export,
            acc_events=True,  # of one window there is nothing to clear; torch 2.11 warns of it otherwise
            **window.options,
        )

    def __enter__(self) -> Self:
        self._clock.wait(self._clock.mark())
        self._profiler.start()
        self._step_start = self._clock.mark()
        return self

    def __exit__(self, *_: object) -> None:
        self._profiler.stop()

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Mark `name` in the trace."""
        return record_function(name)

    def step(self, samples: int) -> None:
        """End a step that handled `samples` images; the last one of the window writes the trace."""
        end = self._clock.mark()
        self._steps += 1
        if self._window.wait + self._window.warmup < self._steps <= self._window.steps:
            self._samples.append(samples)
            self._marks.append((self._step_start, end))
        if self._steps == self._window.wait + self._window.warmup:
            self._clock.wait(end)  # the window opens on an idle device, so it has the work of its own steps alone
        self._profiler.step()
        self._step_start = self._clock.mark()

    def _export(self, profiler: profile) -> None:
        # Not tensorboard_trace_handler: it writes under the final name, so a killed process can leave a partial file.
        path = self._window.folder / f"{self._worker}.{time.time_ns()}.pt.trace.json.gz"
        with exported(profiler, path) as trace:
            peak_bytes, traffic_bytes = window_memory(trace, self._device.type)
            with atomic_write(path) as packed, trace.path.open("rb") as text, gzip.open(packed, "wb") as file:
                shutil.copyfileobj(text, file)
        self._trace = TraceFile(
            path=path.name,
            samples=self._samples,
            step_s=[self._clock.seconds(start, end) for start, end in self._marks],
            peak_allocated_bytes=peak_bytes,
            allocated_bytes=traffic_bytes,
        )

    def trace(self) -> TraceFile:
        """The trace, once `window.steps` steps have ended.

        Raises:
            RuntimeError: the pass was shorter than the window.
        """
        if self._trace is None or self._steps < self._window.steps:
            raise RuntimeError(f"the pass ended after {self._steps} of the window's {self._window.steps} steps")
        return self._trace


@contextmanager
def exported(profiler: profile, path: Path) -> Iterator[Trace]:
    """Export to a temporary file beside `path`, which is removed at the end; yield what was read from it.

    Torch can export packed, too: but through a file in TMPDIR, and it ignores errors of writing.

    Raises:
        OSError: the file is not complete, with the cause and `path` as its `filename`.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name.removesuffix('.gz')}")
    try:
        temporary.touch()
        profiler.export_chrome_trace(str(temporary))
        try:
            trace = read_trace(temporary)
            fault = trace.cut or (trace.damage and trace.damage.reason)
        except TraceError as error:
            fault = str(error)
        if fault:
            _provoke_write_error(max(_parts(temporary), key=lambda file: file.stat().st_size))
            raise OSError(errno.EIO, f"the profiler's export is incomplete: {fault}")
        yield trace
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        for file in _parts(temporary):
            os.truncate(file, 0)  # frees the space also where the profiler has not closed the file
            file.unlink()


def _parts(temporary: Path) -> list[Path]:
    """An export and the file `NAME.tmp` that the profiler writes first and leaves behind when writing fails."""
    return list(temporary.parent.glob(f"{glob.escape(temporary.name)}*"))


def _provoke_write_error(partial: Path) -> None:
    """Raise the error, such as that of a full disk, with which the file cannot grow; return if it can."""
    with partial.open("ab") as file:
        file.write(bytes(1 << 20))


class _MarkedStep(NamedTuple):
    """A step of `samples` images whose seconds are not yet read from the clock; `phases` has (name, start, end)."""

    samples: int
    start: Any
    end: Any
    phases: tuple[tuple[str, Any, Any], ...]


class _Timer:
    """Appends (name, start, end) to `marks`; created once per phase and reused at every step."""

    __slots__ = ("_mark", "_marks", "_name", "_start")

    def __init__(self, name: str, mark: Callable[[], Any], marks: list[tuple[str, Any, Any]]) -> None:
        self._name = name
        self._mark = mark
        self._marks = marks

    def __enter__(self) -> None:
        self._start = self._mark()

    def __exit__(self, *_: object) -> None:
        self._marks.append((self._name, self._start, self._mark()))


class MemoryPeaks:
    """Peak memory between `reset` and `read`: resident memory of the process, and the accelerator's allocator.

    On Linux, writing 5 to /proc/self/clear_refs resets the resident peak (man 5 proc). On other platforms the peak is
    that since the start of the process, and `per_stage` is False.
    """

    def __init__(self, device: torch.device) -> None:
        self.per_stage = False
        self.resident_bytes = 0
        self.accelerator_bytes: int | None = None
        self._accelerated = device.type in ("cuda", "xpu")

    def reset(self) -> None:
        """Start a measurement."""
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.per_stage = True
        except OSError:
            self.per_stage = False
        if self._accelerated:
            torch.accelerator.reset_peak_memory_stats()

    def read(self) -> None:
        """End the measurement; the attributes then have the highest peaks of all measurements."""
        self.resident_bytes = max(self.resident_bytes, _resident_peak_bytes())
        if self._accelerated:
            self.accelerator_bytes = max(self.accelerator_bytes or 0, torch.accelerator.max_memory_allocated())


def _resident_peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def stage_records(timed: Mapping[str, TimedCapture], traces: Mapping[str, TraceFile]) -> dict[str, StageRecord]:
    """The measurements of all stages that have at least one timed step."""
    stages = {}
    for name, capture in timed.items():
        steps = capture.timings()
        if steps.samples:
            stages[name] = StageRecord(
                timed=steps,
                trace=traces.get(name),
                peak_resident_bytes=capture.memory.resident_bytes,
                resident_is_per_stage=capture.memory.per_stage,
                peak_accelerator_bytes=capture.memory.accelerator_bytes,
            )
    return stages
