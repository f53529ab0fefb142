"""Totals of one side of a comparison by stage and phase, per sample, step or trace."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from profiling.analysis.account import TimeAccount
from profiling.analysis.index import Index
from profiling.analysis.kernels import device_work
from profiling.analysis.memory import memory
from profiling.analysis.modules import modules, path_notes
from profiling.analysis.nesting import call_chains
from profiling.analysis.notes import account_notes, reading_notes
from profiling.analysis.phases import phases
from profiling.analysis.waits import WaitedFor, waited_for
from profiling.trace.trace import Trace
from profiling.vocabulary import PHASE_LABELS

BESIDE = "beside"
"""The phase of operators that take no time of a step: on other threads (data loaders), or outside steps and phases."""


@dataclass(frozen=True, eq=False)
class StageWindow:
    """A trace, the stage of the run that it is from ("" if unknown), and the samples it processed, if known."""

    trace: Trace
    stage: str = ""
    samples: int | None = None


@dataclass
class PhaseTotals:
    """One phase without those inside it, see `profiling.analysis.phases.Phase`; `steps_us`: of each step on its own."""

    self_us: float = 0.0
    python_us: float = 0.0
    wait_us: float = 0.0
    derived: bool = False
    steps_us: list[float] = field(default_factory=list)


@dataclass
class OperatorTotals:
    """One operator in one phase; `step_us` is its self time in the steps, without waiting for the device."""

    calls: float = 0.0
    self_us: float = 0.0
    step_us: float = 0.0
    device_us: float = 0.0
    allocated_bytes: float = 0.0


@dataclass
class KernelTotals:
    """One kernel of one operator."""

    calls: float = 0.0
    device_us: float = 0.0
    wait_us: float = 0.0


@dataclass
class ModuleTotals:
    """One module, without its child modules."""

    self_us: float = 0.0
    backward_us: float = 0.0


@dataclass
class MemoryTotals:
    """One device: the highest peak of all windows, also without what was there before, and allocated bytes per unit."""

    peak_bytes: int = 0
    allocated_bytes: float = 0.0
    own_peak_bytes: int = 0


class CallChains:
    """Distinct call chains: the names from a root down to an operator, such as (`aten::linear`, `aten::t`).

    `links` has, for each chain, the number of the chain without its last name (-1 for a root), and that last name.
    Shorter chains come first.
    """

    def __init__(self) -> None:
        self.links: list[tuple[int, str]] = []
        self._numbers: dict[tuple[int, str], int] = {}

    def number(self, above: int, name: str) -> int:
        """Return the number of a chain; a new one is added."""
        number = self._numbers.setdefault((above, name), len(self.links))
        if number == len(self.links):
            self.links.append((above, name))
        return number


class TraceTotals:
    """Totals per unit (sample, step or trace); `units` is the number of units.

    Phases are named `stage/phase` if the windows are from several stages. `operators` has the key (phase, name),
    `kernels` (name, operator), `waiting` (phase that waits, what it waits for). `chains` numbers the call chains, see
    `CallChains`; `chain_us` maps (phase, number of a chain) to self time. `notes` are those of reading and analyzing
    the windows.
    """

    def __init__(self, windows: Sequence[StageWindow], unit: str) -> None:
        self.phases: defaultdict[str, PhaseTotals] = defaultdict(PhaseTotals)
        self.step_us: defaultdict[str, float] = defaultdict(float)
        self.operators: defaultdict[tuple[str, str], OperatorTotals] = defaultdict(OperatorTotals)
        self.chains = CallChains()
        self.chain_us: defaultdict[tuple[str, int], float] = defaultdict(float)
        self.kernels: defaultdict[tuple[str, str], KernelTotals] = defaultdict(KernelTotals)
        self.waiting: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.modules: defaultdict[str, ModuleTotals] = defaultdict(ModuleTotals)
        self.memory: defaultdict[str, MemoryTotals] = defaultdict(MemoryTotals)
        self.notes = reading_notes([window.trace for window in windows])
        self.units = 0
        stages = list(dict.fromkeys(window.stage for window in windows))
        for stage in stages:
            prefix = f"{stage}/" if len(stages) > 1 else ""
            indices = [(Index(window.trace), window.samples) for window in windows if window.stage == stage]
            units = sum(_units(index, samples, unit) for index, samples in indices)
            self.units += units
            for index, samples in indices:
                account = TimeAccount(index)
                self._add(account, prefix, max(units, 1))
                self._add_steps(account, prefix, max(_units(index, samples, unit), 1))

    def _add_steps(self, account: TimeAccount, prefix: str, units: int) -> None:
        """Add the time of each step of a window that has `units` of them."""
        segments, steps = account.segments, len(account.index.steps.numbers)
        inside = segments.step >= 0
        cell = segments.step[inside] * len(PHASE_LABELS) + segments.phase[inside]
        length_us = (segments.end_ns - segments.start_ns)[inside] / 1e3
        total_us = np.bincount(cell, weights=length_us, minlength=steps * len(PHASE_LABELS))
        per_unit = total_us.reshape(steps, len(PHASE_LABELS)) * steps / units
        for number, label in enumerate(PHASE_LABELS):
            if prefix + label in self.phases:
                self.phases[prefix + label].steps_us += per_unit[:, number].tolist()

    def _add(self, account: TimeAccount, prefix: str, units: int) -> None:
        index = account.index
        self.notes += account_notes(account)
        for row in phases(account):
            phase = self.phases[prefix + row.name]
            phase.self_us += row.self_us / units
            phase.python_us += row.python_us / units
            phase.wait_us += row.wait_us / units
            phase.derived |= row.derived
        self._add_operators(account, prefix, units)
        for kernel in device_work(index).kernels:
            kernel_totals = self.kernels[kernel.name, kernel.operator]
            kernel_totals.calls += kernel.calls / units
            kernel_totals.device_us += kernel.device_us / units
        for wait in waited_for(account):
            self.waiting[prefix + wait.waited_in, _describe(wait)] += wait.wait_us / units
            if (wait.name, wait.operator) in self.kernels:
                self.kernels[wait.name, wait.operator].wait_us += wait.wait_us / units
        module_rows = modules(index)
        self.notes += [f"{index.trace.path.name}: {note}" for note in path_notes(module_rows)]
        for module in module_rows:
            module_totals = self.modules[prefix + module.path]
            module_totals.self_us += module.self_us / units
            module_totals.backward_us += module.backward_us / units
        for device in memory(index):
            memory_totals = self.memory[device.device]
            memory_totals.peak_bytes = max(memory_totals.peak_bytes, device.peak_bytes)
            memory_totals.own_peak_bytes = max(memory_totals.own_peak_bytes, device.own_peak_bytes)
            memory_totals.allocated_bytes += device.allocated_bytes / units

    def _add_operators(self, account: TimeAccount, prefix: str, units: int) -> None:
        index = account.index
        operators, names = index.operators, index.trace.names
        phase = np.append(account.segments.phase, len(PHASE_LABELS))[account.operator_segments]
        # A call that only repeats its caller is no call of its own, unless it is the only one in its phase.
        is_call = ~index.repeats | (phase != phase[operators.parent])
        labels = [prefix + name for name in (*PHASE_LABELS, BESIDE)]
        chain, links = call_chains(operators, index.operator_names)
        groups, group = np.unique(chain * len(labels) + phase, return_inverse=True)
        self_ns = operators.self_ns()
        columns = [
            np.bincount(group, weights=values, minlength=groups.size).tolist()
            for values in (
                is_call,
                self_ns,
                account.operator_ns * (account.operator_segments >= 0),
                index.operator_device_ns,
                index.operator_allocated,
            )
        ]
        numbers: list[int] = []
        for above, name in links:
            numbers.append(self.chains.number(numbers[above] if above >= 0 else -1, names[name]))
        for key, calls, self_, path, device, allocated in zip(groups.tolist(), *columns, strict=True):
            label = labels[key % len(labels)]
            row = self.operators[label, names[links[key // len(labels)][1]]]
            row.calls += calls / units
            row.self_us += self_ / 1e3 / units
            row.step_us += path / 1e3 / units
            row.device_us += device / 1e3 / units
            row.allocated_bytes += allocated / units
            self.step_us[label] += path / 1e3 / units
            self.chain_us[label, numbers[key // len(labels)]] += self_ / 1e3 / units


def _describe(wait: WaitedFor) -> str:
    if not wait.operator:
        return f"in {wait.name}: {wait.kind}"
    elsewhere = f" in {wait.launched_in}" if wait.launched_in != wait.waited_in else ""
    return f"for {wait.kind} {wait.name} of {wait.operator}{elsewhere}"


def _units(index: Index, samples: int | None, unit: str) -> int:
    if unit == "sample":
        return samples or 0
    return len(index.steps.numbers) if unit == "step" else 1
