"""Summary of a trace or a run: all analyses, joined over windows and ranks."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from msgspec import Struct, structs

from profiling.analysis.account import TimeAccount
from profiling.analysis.collectives import find_collectives
from profiling.analysis.communication import Communication, communication
from profiling.analysis.index import Index
from profiling.analysis.kernels import Copies, DeviceActivity, Kernel, LaunchedOutside, device_work
from profiling.analysis.memory import DeviceMemory, memory
from profiling.analysis.modules import Module, modules, path_notes, tree_order
from profiling.analysis.notes import account_notes, one_per_file, reading_notes
from profiling.analysis.operators import Operator, operator_order, operators, operators_by_shape, operators_by_stack
from profiling.analysis.phases import Phase, Step, StepTime, phases, step_time, steps
from profiling.analysis.stragglers import Straggler, compare_ranks
from profiling.analysis.timings import StageTiming, timing_notes
from profiling.analysis.waits import BlockingCall, WaitedFor, blocked_by, waited_for
from profiling.trace.trace import Trace

SCHEMA_VERSION = 1

Row = TypeVar("Row", bound=Struct)


class TraceInfo(Struct, frozen=True):
    """What was read. `notes` says in words what is missing or was repaired; empty if the files are whole.

    `files` has one entry per window and rank: a file into which several ranks were merged is listed for each of them.

    `rank` is the first of `ranks`; `device` is the type of device that ran kernels and copies, `cpu` if there are none.
    """

    files: list[str]
    whole: bool
    notes: list[str]
    device: str
    device_names: list[str]
    rank: int
    ranks: list[int]
    threads: int
    extent_us: float


class Collectives(Struct, frozen=True):
    """Collectives by rank, and compared between ranks."""

    ranks: list[Communication]
    stragglers: list[Straggler]


class Summary(Struct, frozen=True):
    """The output of `summary --json`. Times are in microseconds; points in time count from the start of their window.

    `step_times` has one entry per window, in the order of `trace.files`; `step_time` covers all of them. `timings` are
    those of unprofiled steps, from the run's record; empty without a record. `blocked_by` has the calls that block the
    steps, `waited_for` what the device does meanwhile: both add up to the waiting of all phases.
    """

    schema_version: int
    trace: TraceInfo
    events: dict[str, int]
    step_time: StepTime
    step_times: list[StepTime]
    steps: list[Step]
    phases: list[Phase]
    blocked_by: list[BlockingCall]
    waited_for: list[WaitedFor]
    operators: list[Operator]
    kernels: list[Kernel]
    device_busy_us: float
    launched_outside: LaunchedOutside
    devices: list[DeviceActivity]
    copies: list[Copies]
    memory: list[DeviceMemory]
    modules: list[Module]
    communication: Collectives
    timings: list[StageTiming]


def summarize(traces: Sequence[Trace], *, by: str = "operator", timings: Sequence[StageTiming] = ()) -> Summary:
    """Summarize the windows and ranks of one run; rows with the same name are summed.

    If `by` is `shape` or `stack`, operators are split by the shapes of their inputs, or by the Python stack.
    """
    indices = [Index(trace) for trace in traces]
    work = [device_work(index, number) for number, index in enumerate(indices)]
    accounts = [TimeAccount(index) for index in indices]
    step_tables = [steps(account, number) for number, account in enumerate(accounts)]
    step_rows = [step for table in step_tables for step in table]
    marked = [index.steps.marked for index in indices]
    collectives = [find_collectives(index) for index in indices]
    compared = compare_ranks(collectives)
    of_windows = filter(None, (communication(calls, number) for number, calls in enumerate(collectives)))
    module_rows = _joined_modules([modules(index) for index in indices])
    operator_table = {"shape": operators_by_shape, "stack": operators_by_stack}.get(by, operators)
    found = [note for account in accounts for note in account_notes(account)]
    return Summary(
        schema_version=SCHEMA_VERSION,
        trace=describe(traces, [*found, *compared.notes, *path_notes(module_rows), *timing_notes(timings)]),
        events=_count(traces),
        step_time=step_time(step_rows, marked=all(marked)),
        step_times=[step_time(table, marked=known) for table, known in zip(step_tables, marked, strict=True)],
        steps=step_rows,
        phases=_joined([phases(account) for account in accounts], lambda row: row.name),
        blocked_by=_joined(
            [blocked_by(account) for account in accounts], lambda row: (row.kind, row.name), lambda row: -row.wait_us
        ),
        waited_for=_joined(
            [waited_for(account) for account in accounts],
            lambda row: (row.kind, row.name, row.operator, row.launched_in, row.waited_in),
            lambda row: -row.wait_us,
        ),
        operators=_joined(
            [operator_table(index) for index in indices],
            lambda row: (row.name, row.shapes, row.stack),
            operator_order,
        ),
        kernels=_joined(
            [part.kernels for part in work], lambda row: (row.name, row.operator), lambda row: -row.device_us
        ),
        device_busy_us=sum(part.busy_us for part in work),
        launched_outside=LaunchedOutside(
            sum(part.launched_outside.events for part in work), sum(part.launched_outside.device_us for part in work)
        ),
        devices=[device for part in work for device in part.devices],
        copies=_joined([part.copies for part in work], lambda row: row.direction, lambda row: -row.device_us),
        memory=[device for number, index in enumerate(indices) for device in memory(index, number)],
        modules=module_rows,
        communication=Collectives(
            ranks=sorted(of_windows, key=lambda rank: rank.rank),
            stragglers=compared.stragglers,
        ),
        timings=list(timings),
    )


def describe(traces: Sequence[Trace], further_notes: Sequence[str] = ()) -> TraceInfo:
    """Describe the files that were read, and what could not be read."""
    ranks = sorted({trace.rank for trace in traces})
    devices = sorted({trace.backend for trace in traces} - {"cpu"})
    return TraceInfo(
        files=[str(trace.path) for trace in traces],
        whole=all(trace.whole for trace in traces),
        notes=[*reading_notes(traces), *further_notes],
        device="+".join(devices) or "cpu",
        device_names=sorted({name for trace in traces for name in trace.device_names}),
        rank=ranks[0],
        ranks=ranks,
        threads=sum(len(trace.threads) for trace in traces),
        extent_us=sum(trace.extent_ns[1] - trace.extent_ns[0] for trace in traces) / 1e3,
    )


def _count(traces: Sequence[Trace]) -> dict[str, int]:
    total: dict[str, int] = {}
    for trace in one_per_file(traces):
        for category, number in trace.counts.items():
            total[category] = total.get(category, 0) + number
    return dict(sorted(total.items()))


def _joined(
    tables: list[list[Row]], key: Callable[[Row], Hashable], order: Callable[[Row], float] | None = None
) -> list[Row]:
    """Join the tables of several windows: rows with the same key are summed; a single table is returned as it is."""
    if len(tables) == 1:
        return tables[0]
    joined: dict[Hashable, Row] = {}
    for table in tables:
        for row in table:
            joined[key(row)] = _sum(joined[key(row)], row) if key(row) in joined else row
    return sorted(joined.values(), key=order) if order else list(joined.values())


def _joined_modules(tables: list[list[Module]]) -> list[Module]:
    """Join the trees of several windows; each module is followed by its children, as in one window."""
    rows = _joined(tables, lambda row: row.path)
    if len(tables) == 1:
        return rows
    number = {row.path: i for i, row in enumerate(rows)}
    above = {row.path: number[table[row.parent].path] for table in tables for row in table if row.parent >= 0}
    parents = [above.get(row.path, -1) for row in rows]
    order = tree_order(parents)
    place = {-1: -1} | {i: row for row, i in enumerate(order)}
    return [structs.replace(rows[i], parent=place[parents[i]]) for i in order]


_LABELS = {"depth", "parent"}
_MEANS = {"occupancy_percent", "blocks_per_sm", "registers"}


def _sum(first: Row, second: Row) -> Row:
    """Sum two rows: numbers are added, means are weighted by device time, labels are those of the first."""
    values = {}
    for field in structs.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, bool):
            values[field.name] = a or b
        elif field.name in _MEANS:
            weights = max(first.device_us, 1e-3), max(second.device_us, 1e-3)  # type: ignore[attr-defined]
            known = [(value, weight) for value, weight in zip((a, b), weights, strict=True) if value is not None]
            total = sum(weight for _, weight in known)
            values[field.name] = sum(value * (weight / total) for value, weight in known) if known else None
        elif isinstance(a, (int, float)) and field.name not in _LABELS:
            values[field.name] = a + b
        else:
            values[field.name] = a
    return type(first)(**values)


def shorten(summary: Summary, top: int) -> Summary:
    """Keep the first rows of each table."""
    tables = ("steps", "phases", "blocked_by", "waited_for", "operators", "kernels", "copies", "modules")
    return structs.replace(summary, **{name: getattr(summary, name)[:top] for name in tables})
