"""Comparison of two traces or runs: what changed, and which operators the difference comes from.

    difference = diff(load_windows("runs/baseline"), load_windows("runs/nograd_off"))

Figures are per sample if both sides know how many they processed, else per step, else per trace. The windows of a run
are compared stage by stage (training with training), because a phase does different work in each stage.

The time of a phase is the self time of its operators on the threads of the steps, plus waiting for the device, plus the
rest: Python and dispatch. The differences of these three add up to the difference of the phase. Waiting is divided by
the kernels and copies that the host waited for, so that steps which are bound by the device compare by their kernels.
Two parts can remain unattributed: operators that run at the same time on several threads, or across a phase's end.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from profiling import run_record
from profiling.analysis.index import Index
from profiling.diff.call_tree import call_tree
from profiling.diff.differences import (
    Cause,
    Diff,
    KernelDifference,
    MemoryDifference,
    ModuleDifference,
    OperatorDifference,
    PhaseDifference,
    Replacement,
    StageDifference,
)
from profiling.diff.totals import (
    KernelTotals,
    MemoryTotals,
    ModuleTotals,
    OperatorTotals,
    PhaseTotals,
    StageWindow,
    TraceTotals,
)
from profiling.trace.parse import TraceError
from profiling.trace.trace import read_traces
from profiling.vocabulary import STAGES

SCHEMA_VERSION = 1
_FEWEST_STEPS = 2
"""A single step has no spread with which a difference could be compared."""


def load_windows(path: str | Path, samples_per_step: int | None = None) -> list[StageWindow]:
    """Read the traces at a path, with their stage and samples from the run's `record.json`.

    `samples_per_step` is used instead of the record's samples, if it is given; it requires marked steps.

    Raises TraceError if there is no readable trace.
    """
    known = _recorded(Path(path))
    windows = []
    for trace in read_traces(path):
        stage, samples = known.get(trace.path.resolve(), ("", None))
        if samples_per_step is not None:
            steps = Index(trace).steps
            samples = samples_per_step * len(steps.numbers) if steps.marked else None
        windows.append(StageWindow(trace, stage, samples))
    return windows


def diff(a: Sequence[StageWindow], b: Sequence[StageWindow]) -> Diff:
    """Compare two runs, stage by stage. Beside windows whose stage is known, others are left out, with a note.

    Raises TraceError if they have no stage in common.
    """
    stages = [stage for stage in dict.fromkeys(w.stage for w in a) if stage in {w.stage for w in b}]
    stages = [stage for stage in stages if stage] or stages
    if not stages:
        raise TraceError(f"nothing to compare: {_list(a)}, but {_list(b)}")
    both = [window for window in (*a, *b) if window.stage in stages]
    unit = _unit(both)
    a_totals, b_totals = (TraceTotals([w for w in windows if w.stage in stages], unit) for windows in (a, b))
    operators = _operators(a_totals, b_totals)
    phases = _phases(a_totals, b_totals)
    total = sum(abs(row.difference_us) for row in phases)
    unattributed = sum(abs(row.unattributed_us) for row in phases)
    unpaired = [
        f"{w.trace.path.name}: left out, as the other side has no {w.stage} stage"
        if w.stage
        else f"{w.trace.path.name}: left out, as no record tells its stage"
        for w in (*a, *b)
        if w.stage not in stages
    ]
    return Diff(
        schema_version=SCHEMA_VERSION,
        a=[str(window.trace.path) for window in a],
        b=[str(window.trace.path) for window in b],
        unit=unit,
        a_units=a_totals.units,
        b_units=b_totals.units,
        notes=list(dict.fromkeys(unpaired + a_totals.notes + b_totals.notes + _derived_notes(a_totals, b_totals))),
        a_us=sum(row.a_us for row in phases),
        b_us=sum(row.b_us for row in phases),
        difference_us=sum(row.difference_us for row in phases),
        stages=_stages(stages, phases),
        attributed_share=max(0.0, 1 - unattributed / total) if total else float(not unattributed),
        unattributed_us=unattributed,
        causes=_causes(a_totals, b_totals, phases),
        phases=phases,
        added=[row for row in operators if (row.phase, row.name) not in a_totals.operators],
        removed=[row for row in operators if (row.phase, row.name) not in b_totals.operators],
        changed=[
            row
            for row in operators
            if (row.phase, row.name) in a_totals.operators and (row.phase, row.name) in b_totals.operators
        ],
        replaced=_replaced(a_totals, b_totals),
        kernels=_kernels(a_totals, b_totals),
        modules=_modules(a_totals, b_totals),
        memory=_memory(a_totals, b_totals),
        tree=call_tree(a_totals, b_totals),
    )


def _recorded(path: Path) -> dict[Path, tuple[str, int]]:
    """Stage and samples of each trace, from the records below a folder, or in the folders around a file."""
    folders = {file.parent for file in path.rglob(run_record.FILE_NAME)} if path.is_dir() else set(path.parents[:3])
    known = {}
    for folder in folders:
        try:
            stages = run_record.read(folder).stages
        except (FileNotFoundError, ValueError):  # no record, or one of an unknown version
            continue
        for name, stage in stages.items():
            if stage.trace is not None:
                with suppress(ValueError, RuntimeError):  # a name that no file can have; a link that leads to itself
                    known[(folder / stage.trace.path).resolve()] = (name, sum(stage.trace.samples))
    return known


def _unit(windows: Sequence[StageWindow]) -> str:
    if all(window.samples for window in windows):
        return "sample"
    return "step" if all(Index(window.trace).steps.marked for window in windows) else "trace"


def _list(windows: Sequence[StageWindow]) -> str:
    return ", ".join(f"{w.trace.path} is {w.stage or 'of no known stage'}" for w in windows)


def _derived_notes(a: TraceTotals, b: TraceTotals) -> list[str]:
    """Say which of the phases that one side derives the other one marks."""
    lines = []
    for name, side, other in (("A", a, b), ("B", b, a)):
        derived = [phase for phase, totals in side.phases.items() if totals.derived]
        marked = [phase for phase in derived if phase in other.phases and not other.phases[phase].derived]
        if marked:
            names = ", ".join(marked)
            lines.append(f"{name} derives phases that the other side marks: {names}; their bounds may differ")
    return lines


def _phases(a: TraceTotals, b: TraceTotals) -> list[PhaseDifference]:
    rows = []
    for phase in dict.fromkeys((*a.phases, *b.phases)):
        in_a, in_b = a.phases.get(phase, PhaseTotals()), b.phases.get(phase, PhaseTotals())
        difference = in_b.self_us - in_a.self_us
        operators = b.step_us.get(phase, 0.0) - a.step_us.get(phase, 0.0)
        waiting = in_b.wait_us - in_a.wait_us
        python = in_b.python_us - in_a.python_us
        rest = difference - operators - python - waiting
        derived = in_a.derived or in_b.derived
        rows.append(
            PhaseDifference(
                phase=phase,
                a_us=in_a.self_us,
                b_us=in_b.self_us,
                difference_us=difference,
                operators_us=operators,
                python_us=python,
                waiting_us=waiting,
                unattributed_us=rest,
                derived=derived,
                uncertain=_overlap(in_a.steps_us, in_b.steps_us),
            )
        )
    return rows


def _stages(names: Sequence[str], phases: Sequence[PhaseDifference]) -> list[StageDifference]:
    """Add up the phases of each stage; the times of several stages are no time of one step."""
    rows = []
    for name in sorted(names, key=[*STAGES, *names].index):
        own = [row for row in phases if len(names) == 1 or row.phase.rpartition("/")[0] == name]
        a_us, b_us = sum(row.a_us for row in own), sum(row.b_us for row in own)
        rows.append(StageDifference(name, a_us, b_us, sum(row.difference_us for row in own)))
    return rows


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether the ranges of two samples overlap, or one of them is no sample; a phase may be in no step of a side."""
    if not a or not b:
        return len(a or b) < _FEWEST_STEPS
    return min(len(a), len(b)) < _FEWEST_STEPS or (min(a) <= max(b) and min(b) <= max(a))


def _operators(a: TraceTotals, b: TraceTotals) -> list[OperatorDifference]:
    rows = []
    for phase, name in dict.fromkeys((*a.operators, *b.operators)):
        in_a, in_b = _both(a, b, (phase, name))
        rows.append(
            OperatorDifference(
                phase=phase,
                name=name,
                a_calls=in_a.calls,
                b_calls=in_b.calls,
                a_self_us=in_a.self_us,
                b_self_us=in_b.self_us,
                difference_us=in_b.self_us - in_a.self_us,
                a_device_us=in_a.device_us,
                b_device_us=in_b.device_us,
                a_allocated_bytes=in_a.allocated_bytes,
                b_allocated_bytes=in_b.allocated_bytes,
            )
        )
    return sorted(rows, key=lambda row: -abs(row.difference_us))


def _both(a: TraceTotals, b: TraceTotals, key: tuple[str, str]) -> tuple[OperatorTotals, OperatorTotals]:
    return a.operators.get(key, OperatorTotals()), b.operators.get(key, OperatorTotals())


def _causes(a: TraceTotals, b: TraceTotals, phases: Sequence[PhaseDifference]) -> list[Cause]:
    """Parts whose sum is the phases' differences, without the unattributed time; the largest first."""
    causes = [
        Cause(key[0], "operator", key[1], in_b.step_us - in_a.step_us)
        for key in dict.fromkeys((*a.operators, *b.operators))
        for in_a, in_b in [_both(a, b, key)]
    ]
    for row in phases:
        causes.append(Cause(row.phase, "python", "between operators", row.python_us))
    causes += [
        Cause(phase, "waiting", name, b.waiting.get((phase, name), 0.0) - a.waiting.get((phase, name), 0.0))
        for phase, name in dict.fromkeys((*a.waiting, *b.waiting))
    ]
    return sorted((cause for cause in causes if cause.difference_us), key=lambda cause: -abs(cause.difference_us))


def _replaced(a: TraceTotals, b: TraceTotals) -> list[Replacement]:
    """Pair the operators that only one side has by their nearest ancestor that both have, else by their phase.

    A fused, renamed or compiled implementation appears there, below the call that selected it.
    """
    pairs: dict[tuple[str, str], tuple[dict[str, float], dict[str, float]]] = defaultdict(
        lambda: (defaultdict(float), defaultdict(float))
    )
    for number, (side, peer) in enumerate(((a, b), (b, a))):
        links, shared = side.chains.links, _Shared(side, peer)
        for (phase, chain), self_us in side.chain_us.items():
            above, name = links[chain]
            if (phase, name) not in peer.operators:
                pairs[phase, shared.nearest(phase, above)][number][name] += self_us
    rows = [
        Replacement(
            phase=phase,
            under=under,
            removed=sorted(removed, key=lambda name: -removed[name]),
            added=sorted(added, key=lambda name: -added[name]),
            a_self_us=sum(removed.values()),
            b_self_us=sum(added.values()),
            difference_us=sum(added.values()) - sum(removed.values()),
        )
        for (phase, under), (removed, added) in pairs.items()
        if removed and added
    ]
    return sorted(rows, key=lambda row: -max(row.a_self_us, row.b_self_us))


class _Shared:
    """Which operators of the call chains of one side its peer has in the same phase, too."""

    def __init__(self, side: TraceTotals, peer: TraceTotals) -> None:
        self._links = side.chains.links
        self._operators = peer.operators
        self._by_phase: dict[str, list[str]] = {}

    def nearest(self, phase: str, chain: int) -> str:
        """Return the last such name of a chain (-1: of none), else the phase."""
        if phase not in self._by_phase:
            found: list[str] = []
            for above, name in self._links:
                found.append(name if (phase, name) in self._operators else found[above] if above >= 0 else phase)
            self._by_phase[phase] = found
        return self._by_phase[phase][chain] if chain >= 0 else phase


def _kernels(a: TraceTotals, b: TraceTotals) -> list[KernelDifference]:
    rows = []
    for name, operator in dict.fromkeys((*a.kernels, *b.kernels)):
        in_a, in_b = (side.kernels.get((name, operator), KernelTotals()) for side in (a, b))
        difference = in_b.device_us - in_a.device_us
        change = "slower" if difference > 0 else "faster" if difference < 0 else "same"
        if not (in_a.calls and in_b.calls):
            change = "removed" if in_a.calls else "added"
        rows.append(
            KernelDifference(
                name=name,
                operator=operator,
                change=change,
                a_calls=in_a.calls,
                b_calls=in_b.calls,
                a_device_us=in_a.device_us,
                b_device_us=in_b.device_us,
                difference_us=difference,
                a_wait_us=in_a.wait_us,
                b_wait_us=in_b.wait_us,
            )
        )
    return sorted(rows, key=lambda row: -abs(row.difference_us))


def _modules(a: TraceTotals, b: TraceTotals) -> list[ModuleDifference]:
    rows = []
    for path in dict.fromkeys((*a.modules, *b.modules)):
        in_a, in_b = a.modules.get(path, ModuleTotals()), b.modules.get(path, ModuleTotals())
        difference = in_b.self_us + in_b.backward_us - in_a.self_us - in_a.backward_us
        rows.append(ModuleDifference(path, in_a.self_us, in_b.self_us, in_a.backward_us, in_b.backward_us, difference))
    return sorted(rows, key=lambda row: -abs(row.difference_us))


def _memory(a: TraceTotals, b: TraceTotals) -> list[MemoryDifference]:
    return [
        MemoryDifference(
            device, x.peak_bytes, y.peak_bytes, x.allocated_bytes, y.allocated_bytes, x.own_peak_bytes, y.own_peak_bytes
        )
        for device in dict.fromkeys((*a.memory, *b.memory))
        for x, y in [(a.memory.get(device, MemoryTotals()), b.memory.get(device, MemoryTotals()))]
    ]
