"""One side of a comparison: what its traces say by stage and phase, per sample, step or trace."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiling.analysis.index import Index
from profiling.analysis.memory import memory
from profiling.analysis.modules import modules
from profiling.analysis.nesting import paths
from profiling.analysis.phases import on_path, phases
from profiling.trace.trace import Trace
from profiling.vocabulary import OUTSIDE, TRACE_PHASES

BESIDE = "beside"
"""The phase of operators on threads that a step neither runs on nor waits for, such as those of loaders."""


@dataclass(frozen=True, eq=False)
class StageWindow:
    """A trace, the stage of the run that it is from ("" if unknown), and the samples it processed, if known."""

    trace: Trace
    stage: str = ""
    samples: int | None = None


@dataclass
class PhaseTotals:
    """One phase without those inside it, see `profiling.analysis.phases.Phase`."""

    self_us: float = 0.0
    python_us: float = 0.0
    wait_us: float = 0.0


@dataclass
class OperatorTotals:
    """One operator in one phase; `path_us` is the self time less the waiting for the device in it."""

    calls: float = 0.0
    self_us: float = 0.0
    path_us: float = 0.0
    device_us: float = 0.0
    allocated_bytes: float = 0.0


@dataclass
class ModuleTotals:
    """One module, without its child modules."""

    self_us: float = 0.0
    backward_us: float = 0.0


@dataclass
class MemoryTotals:
    """One device: the highest peak of the windows, and their traffic per unit."""

    peak_bytes: int = 0
    allocated_bytes: float = 0.0


class TraceTotals:
    """Figures per unit, by phase; phases are called `stage/phase` where the windows are from several stages."""

    def __init__(self, windows: Sequence[StageWindow], unit: str) -> None:
        self.phases: defaultdict[str, PhaseTotals] = defaultdict(PhaseTotals)
        self.path_us: defaultdict[str, float] = defaultdict(float)
        self.operators: defaultdict[tuple[str, str], OperatorTotals] = defaultdict(OperatorTotals)
        self.chains: defaultdict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
        self.modules: defaultdict[str, ModuleTotals] = defaultdict(ModuleTotals)
        self.memory: defaultdict[str, MemoryTotals] = defaultdict(MemoryTotals)
        self.units = 0
        stages = list(dict.fromkeys(window.stage for window in windows))
        for stage in stages:
            prefix = f"{stage}/" if len(stages) > 1 else ""
            indices = [(Index(window.trace), window.samples) for window in windows if window.stage == stage]
            units = sum(_units(index, samples, unit) for index, samples in indices)
            self.units += units
            for index, _ in indices:
                self._add(index, prefix, max(units, 1))

    def _add(self, index: Index, prefix: str, units: int) -> None:
        for row in phases(index):
            phase = self.phases[prefix + row.name]
            phase.self_us += row.self_us / units
            phase.python_us += row.python_us / units
            phase.wait_us += row.wait_us / units
        self._add_operators(index, prefix, units)
        for module in modules(index):
            own = self.modules[prefix + module.path]
            own.self_us += module.self_us / units
            own.backward_us += module.backward_us / units
        for device in memory(index):
            used = self.memory[device.device]
            used.peak_bytes = max(used.peak_bytes, device.peak_bytes)
            used.allocated_bytes += device.allocated_bytes / units

    def _add_operators(self, index: Index, prefix: str, units: int) -> None:
        operators, names = index.operators, index.trace.names
        on_the_path = on_path(index, operators.thread)
        phase = np.where(on_the_path, index.operator_phase, len(TRACE_PHASES) + 1)
        labels = [prefix + name for name in (*TRACE_PHASES, OUTSIDE, BESIDE)]
        chain, links = paths(operators, index.operator_names)
        groups, group = np.unique(chain * len(labels) + phase, return_inverse=True)
        self_ns = operators.self_ns()
        columns = [
            np.bincount(group, weights=values, minlength=groups.size).tolist()
            for values in (
                ~index.repeats,
                self_ns,
                (self_ns - index.operator_wait_ns) * on_the_path,
                index.operator_device_ns,
                index.operator_allocated,
            )
        ]
        spelled: list[tuple[str, ...]] = []
        for above, name in links:
            spelled.append((*(spelled[above] if above >= 0 else ()), names[name]))
        for key, calls, self_, path, device, allocated in zip(groups.tolist(), *columns, strict=True):
            where, label = spelled[key // len(labels)], labels[key % len(labels)]
            row = self.operators[label, where[-1]]
            row.calls += calls / units
            row.self_us += self_ / 1e3 / units
            row.path_us += path / 1e3 / units
            row.device_us += device / 1e3 / units
            row.allocated_bytes += allocated / units
            self.path_us[label] += path / 1e3 / units
            self.chains[label, where] += self_ / 1e3 / units


def _units(index: Index, samples: int | None, unit: str) -> int:
    if unit == "sample":
        return samples or 0
    return len(index.steps.numbers) if unit == "step" else 1
