"""Two traces, or two runs: what changed, and which operators the difference comes from.

    found = diff(load_windows("runs/baseline"), load_windows("runs/nograd_off"))

Everything is per sample where both sides know how many they processed, else per step, else for the whole trace. The
windows of a run are compared stage by stage (training with training), since the same phase does different work in each.

Within a phase the time on the path that a step takes is what its operators take themselves, plus waiting for the
device, plus what lies between: Python and dispatch. The differences of these three add up to the difference of the
phase; only time outside every phase, where phases are marked, and operators that run at once on several threads can
stay unattributed.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from profiling import run_record
from profiling.analysis.index import Index
from profiling.diff.call_tree import CallNode, call_tree
from profiling.diff.totals import MemoryTotals, ModuleTotals, OperatorTotals, PhaseTotals, StageWindow, TraceTotals
from profiling.trace.parse import TraceError
from profiling.trace.trace import read_traces
from profiling.vocabulary import OUTSIDE

SCHEMA_VERSION = 1


class PhaseDifference(Struct, frozen=True):
    """One phase, without the phases inside it; `difference_us` is the sum of the four figures behind it."""

    phase: str
    a_us: float
    b_us: float
    difference_us: float
    operators_us: float
    python_us: float
    waiting_us: float
    unattributed_us: float


class OperatorDifference(Struct, frozen=True):
    """One operator in one phase; on the side where it does not occur, everything is 0."""

    phase: str
    name: str
    a_calls: float
    b_calls: float
    a_self_us: float
    b_self_us: float
    difference_us: float
    a_device_us: float
    b_device_us: float
    a_allocated_bytes: float
    b_allocated_bytes: float


class Replacement(Struct, frozen=True):
    """Operators that took the place of others under an ancestor, or phase, that both sides have."""

    phase: str
    under: str
    removed: list[str]
    added: list[str]
    a_self_us: float
    b_self_us: float
    difference_us: float


class ModuleDifference(Struct, frozen=True):
    """One module, without its child modules; `difference_us` covers its forward and backward time."""

    path: str
    a_self_us: float
    b_self_us: float
    a_backward_us: float
    b_backward_us: float
    difference_us: float


class MemoryDifference(Struct, frozen=True):
    """One device; peaks are absolute, traffic is per unit."""

    device: str
    a_peak_bytes: int
    b_peak_bytes: int
    a_allocated_bytes: float
    b_allocated_bytes: float


class Cause(Struct, frozen=True):
    """One reason for the difference: `kind` is `operator`, `python` or `waiting`."""

    phase: str
    kind: str
    name: str
    difference_us: float


class Diff(Struct, frozen=True):
    """The answer of `diff --json`: B minus A, per `unit` (`sample`, `step` or `trace`), the largest changes first.

    `unattributed_us` sums what the phases leave unattributed, whatever its sign; `attributed_share` is 1 minus its part
    of the phases' differences, likewise summed. `tree` has the time of each call chain, see `profiling.diff.call_tree`.
    """

    schema_version: int
    a: list[str]
    b: list[str]
    unit: str
    a_units: int
    b_units: int
    notes: list[str]
    a_us: float
    b_us: float
    difference_us: float
    attributed_share: float
    unattributed_us: float
    causes: list[Cause]
    phases: list[PhaseDifference]
    added: list[OperatorDifference]
    removed: list[OperatorDifference]
    changed: list[OperatorDifference]
    replaced: list[Replacement]
    modules: list[ModuleDifference]
    memory: list[MemoryDifference]
    tree: list[CallNode]


def load_windows(path: str | Path, samples_per_step: int | None = None) -> list[StageWindow]:
    """Read the traces at a path, with what the run's `record.json` says of each.

    `samples_per_step` is for traces without a record; it counts only where steps are marked.

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
    """Compare two runs, stage by stage.

    Raises TraceError if they have no stage in common.
    """
    stages = [stage for stage in dict.fromkeys(w.stage for w in a) if stage in {w.stage for w in b}]
    if not stages:
        raise TraceError(f"nothing to compare: {_list(a)}, but {_list(b)}")
    both = [window for window in (*a, *b) if window.stage in stages]
    unit = _unit(both)
    one, other = (TraceTotals([w for w in windows if w.stage in stages], unit) for windows in (a, b))
    operators = _operators(one, other)
    phases = _phases(one, other)
    total = sum(abs(row.difference_us) for row in phases)
    unattributed = sum(abs(row.unattributed_us) for row in phases)
    unpaired = [
        f"{w.trace.path.name}: the other side has no {w.stage or 'such'} stage" for w in (*a, *b) if w not in both
    ]
    return Diff(
        schema_version=SCHEMA_VERSION,
        a=[str(window.trace.path) for window in a],
        b=[str(window.trace.path) for window in b],
        unit=unit,
        a_units=one.units,
        b_units=other.units,
        notes=unpaired + [f"{w.trace.path.name}: partial: {w.trace.cut}" for w in both if w.trace.cut],
        a_us=sum(row.a_us for row in phases),
        b_us=sum(row.b_us for row in phases),
        difference_us=sum(row.difference_us for row in phases),
        attributed_share=max(0.0, 1 - unattributed / total) if total else float(not unattributed),
        unattributed_us=unattributed,
        causes=_causes(one, other, phases),
        phases=phases,
        added=[row for row in operators if not row.a_calls],
        removed=[row for row in operators if not row.b_calls],
        changed=[row for row in operators if row.a_calls and row.b_calls],
        replaced=_replaced(one, other),
        modules=_modules(one, other),
        memory=_memory(one, other),
        tree=call_tree(one, other),
    )


def _recorded(path: Path) -> dict[Path, tuple[str, int]]:
    """Find the stage and samples of each trace in the records of the runs at or around a path."""
    folders = {file.parent for file in path.rglob(run_record.FILE_NAME)} if path.is_dir() else set(path.parents[:3])
    known = {}
    for folder in folders:
        try:
            stages = run_record.read(folder).stages
        except (FileNotFoundError, ValueError):  # no record, or one of another version: then nothing is known
            continue
        for name, stage in stages.items():
            if stage.trace is not None:
                known[(folder / stage.trace.path).resolve()] = (name, sum(stage.trace.samples))
    return known


def _unit(windows: Sequence[StageWindow]) -> str:
    if all(window.samples for window in windows):
        return "sample"
    return "step" if all(Index(window.trace).steps.marked for window in windows) else "trace"


def _list(windows: Sequence[StageWindow]) -> str:
    return ", ".join(f"{w.trace.path} is {w.stage or 'of no known stage'}" for w in windows)


def _phases(a: TraceTotals, b: TraceTotals) -> list[PhaseDifference]:
    rows = []
    marked = any(not phase.endswith(OUTSIDE) for phase in (*a.phases, *b.phases))
    for phase in dict.fromkeys((*a.phases, *b.phases)):
        one, other = a.phases.get(phase, PhaseTotals()), b.phases.get(phase, PhaseTotals())
        difference = other.self_us - one.self_us
        operators = b.path_us.get(phase, 0.0) - a.path_us.get(phase, 0.0)
        waiting = other.wait_us - one.wait_us
        named = not (marked and phase.endswith(OUTSIDE))
        python = other.python_us - one.python_us if named else 0.0
        left = difference - operators - python - waiting
        rows.append(PhaseDifference(phase, one.self_us, other.self_us, difference, operators, python, waiting, left))
    return rows


def _operators(a: TraceTotals, b: TraceTotals) -> list[OperatorDifference]:
    rows = []
    for phase, name in dict.fromkeys((*a.operators, *b.operators)):
        one, other = _both(a, b, (phase, name))
        rows.append(
            OperatorDifference(
                phase=phase,
                name=name,
                a_calls=one.calls,
                b_calls=other.calls,
                a_self_us=one.self_us,
                b_self_us=other.self_us,
                difference_us=other.self_us - one.self_us,
                a_device_us=one.device_us,
                b_device_us=other.device_us,
                a_allocated_bytes=one.allocated_bytes,
                b_allocated_bytes=other.allocated_bytes,
            )
        )
    return sorted(rows, key=lambda row: -abs(row.difference_us))


def _both(a: TraceTotals, b: TraceTotals, key: tuple[str, str]) -> tuple[OperatorTotals, OperatorTotals]:
    return a.operators.get(key, OperatorTotals()), b.operators.get(key, OperatorTotals())


def _causes(a: TraceTotals, b: TraceTotals, phases: Sequence[PhaseDifference]) -> list[Cause]:
    """What adds up to the phases' differences, without what is unattributed; the largest first."""
    causes = [
        Cause(key[0], "operator", key[1], other.path_us - one.path_us)
        for key in dict.fromkeys((*a.operators, *b.operators))
        for one, other in [_both(a, b, key)]
    ]
    for row in phases:
        causes.append(Cause(row.phase, "python", "between operators", row.python_us))
        causes.append(Cause(row.phase, "waiting", "for the device", row.waiting_us))
    return sorted((cause for cause in causes if cause.difference_us), key=lambda cause: -abs(cause.difference_us))


def _replaced(a: TraceTotals, b: TraceTotals) -> list[Replacement]:
    """Pair operators that only one side has by the nearest ancestor that both have, else by their phase.

    That is where a fused, renamed or compiled implementation stands in for another: under the call that chose it.
    """
    found: dict[tuple[str, str], tuple[dict[str, float], dict[str, float]]] = defaultdict(
        lambda: (defaultdict(float), defaultdict(float))
    )
    for number, (side, peer) in enumerate(((a, b), (b, a))):
        for (phase, chain), self_us in side.chains.items():
            if (phase, chain[-1]) not in peer.operators:
                shared = (name for name in reversed(chain[:-1]) if (phase, name) in peer.operators)
                found[phase, next(shared, phase)][number][chain[-1]] += self_us
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
        for (phase, under), (removed, added) in found.items()
        if removed and added
    ]
    return sorted(rows, key=lambda row: -max(row.a_self_us, row.b_self_us))


def _modules(a: TraceTotals, b: TraceTotals) -> list[ModuleDifference]:
    rows = []
    for path in dict.fromkeys((*a.modules, *b.modules)):
        one, other = a.modules.get(path, ModuleTotals()), b.modules.get(path, ModuleTotals())
        difference = other.self_us + other.backward_us - one.self_us - one.backward_us
        rows.append(ModuleDifference(path, one.self_us, other.self_us, one.backward_us, other.backward_us, difference))
    return sorted(rows, key=lambda row: -abs(row.difference_us))


def _memory(a: TraceTotals, b: TraceTotals) -> list[MemoryDifference]:
    return [
        MemoryDifference(device, one.peak_bytes, other.peak_bytes, one.allocated_bytes, other.allocated_bytes)
        for device in dict.fromkeys((*a.memory, *b.memory))
        for one, other in [(a.memory.get(device, MemoryTotals()), b.memory.get(device, MemoryTotals()))]
    ]
