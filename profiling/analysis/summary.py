"""Summary of a trace or a run: all analyses, joined over windows and ranks."""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from msgspec import Struct, structs

from profiling.analysis.account import TimeAccount
from profiling.analysis.communication import Communication, Straggler, communication, stragglers
from profiling.analysis.index import Index
from profiling.analysis.kernels import Copies, DeviceActivity, Kernel, LaunchedOutside, device_work, launched_outside
from profiling.analysis.memory import DeviceMemory, memory
from profiling.analysis.modules import Module, modules
from profiling.analysis.operators import Operator, operator_order, operators, operators_by_shape, operators_by_stack
from profiling.analysis.owners import largest_other_owner
from profiling.analysis.phases import Phase, Step, StepTime, phases, step_time, steps
from profiling.analysis.timings import StageTiming
from profiling.analysis.waits import BlockingCall, WaitedFor, blocked_by, waited_for
from profiling.format import duration, size
from profiling.trace.columns import FOLDED_NAME, MAX_NAME_CHARACTERS, UNCATEGORIZED, Kind, kind_of
from profiling.trace.trace import Trace
from profiling.vocabulary import TRACE_PHASES

SCHEMA_VERSION = 1

Row = TypeVar("Row", bound=Struct)


class TraceInfo(Struct, frozen=True):
    """What was read. `notes` says in words what is missing or was repaired; empty if the files are whole.

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
    operator_table = {"shape": operators_by_shape, "stack": operators_by_stack}.get(by, operators)
    return Summary(
        schema_version=SCHEMA_VERSION,
        trace=describe(traces, [note for account in accounts for note in account_notes(account)]),
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
        modules=_joined([modules(index) for index in indices], lambda row: row.path),
        communication=Collectives(
            ranks=[rank for index in indices if (rank := communication(index)) is not None],
            stragglers=stragglers(indices),
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
        notes=[*joint_notes(traces), *(note for trace in traces for note in notes(trace)), *further_notes],
        device="+".join(devices) or "cpu",
        device_names=sorted({name for trace in traces for name in trace.device_names}),
        rank=ranks[0],
        ranks=ranks,
        threads=sum(len(trace.threads) for trace in traces),
        extent_us=sum(trace.extent_ns[1] - trace.extent_ns[0] for trace in traces) / 1e3,
    )


def joint_notes(traces: Sequence[Trace]) -> list[str]:
    """Describe what is uncertain about reading these traces together, one line each.

    They may be from several folders, so from runs that do not belong together; or only some of them know their rank.
    """
    lines = []
    folders = list(dict.fromkeys(trace.path.parent for trace in traces))
    if len(folders) > 1:
        above = os.path.commonpath(folders)
        names = [folder.relative_to(above).as_posix() for folder in folders]
        lines.append(f"the traces of {len(folders)} folders below {above} are added up: {_first(names)}")
    unknown = [trace.path.name for trace in traces if not trace.rank_known]
    if 0 < len(unknown) < len(traces):
        lines.append(f"{len(unknown):,} of {len(traces):,} traces tell no rank and count as rank 0: {_first(unknown)}")
    return lines


def notes(trace: Trace) -> list[str]:
    """Describe what is missing or was repaired: one line each, starting with the name of the file."""
    lines = []
    if trace.cut:
        lines.append(f"partial: {trace.cut}")
    if trace.unreadable and trace.damage:
        where = f"first at byte {trace.damage.byte}: {trace.damage.reason}"
        lines.append(f"{trace.unreadable:,} unreadable places were skipped, {where}")
    if trace.timeless:
        lines.append(f"{trace.timeless:,} events without a usable time were left out")
    if trace.distant:
        lines.append(f"{trace.distant:,} events are more than an hour from the rest, too many to be left out")
    if trace.renamed:
        lines.append(f"{trace.renamed:,} operators are annotations by their names, as in old releases")
    if trace.mended:
        lines.append(f"{trace.mended:,} events were readable after putting right a stray backslash or a bare word")
    if trace.left_out:
        lines.append(f"further files in the zip file were not read: {_first(trace.left_out)}")
    if trace.duplicates:
        lines.append(f"left out, as only the packing differs by name: {_first(trace.duplicates)}")
    if trace.rank_note:
        lines.append(trace.rank_note)
    if trace.too_large:
        lines.append(f"{trace.too_large:,} numbers of bytes or operations are too large, and count as less")
    if FOLDED_NAME in trace.names:
        lines.append(f"there are more names than {size(MAX_NAME_CHARACTERS)} hold: the rest count as {FOLDED_NAME}")
    if trace.ignored or (trace.blank and not lines):
        lines.append(_not_analyzed(trace))
    return [f"{trace.path.name}: {line}" for line in lines]


def account_notes(account: TimeAccount) -> list[str]:
    """Describe what an analysis had to leave out or to assume, in the form of `notes`."""
    lines = []
    index = account.index
    outside = launched_outside(index)
    if outside.events:
        lines.append(
            f"{outside.events:,} kernels and copies ({duration(outside.device_us)}) were launched outside the window: "
            "they keep the device busy, but belong to no operator and no step"
        )
    if account.operator_ns_outside > _WORTH_A_NOTE * (index.steps.end_ns - index.steps.start_ns).sum():
        lines.append(
            f"operators of {duration(account.operator_ns_outside / 1e3)} run outside the steps: they are in the table "
            "of operators, but belong to no step"
        )
    if index.stacks.overlapping:
        known = "the ids of the frames tell their callers" if index.stacks.by_id else "the stacks there are a guess"
        lines.append(f"{index.stacks.overlapping:,} Python frames overlap others, as if they never returned: {known}")
    if largest := largest_other_owner(index):
        name, time_ns, total_ns = largest
        times = f"{duration(time_ns / 1e3)} of {duration(total_ns / 1e3)}"
        lines.append(f"{times} of device time are in one row that is no operator: {name}")
    if index.derived_phases:
        names = ", ".join(TRACE_PHASES[phase] for phase in sorted(index.derived_phases))
        lines.append(
            f"phases are derived from the records of autograd and optimizers, not marked in the trace: {names}"
        )
    return [f"{index.trace.path.name}: {line}" for line in lines]


_WORTH_A_NOTE = 0.01


def _not_analyzed(trace: Trace) -> str:
    """Say which events no analysis uses; and that there are no others, where that is so."""
    others = "no operators, annotations, Python functions, device work or memory events"
    if not trace.ignored:
        return f"there is nothing to analyze: {others}"
    ignored = {_label(category): number for category, number in trace.ignored.items()}
    return f"{_few(ignored)} were not analyzed" + (f"; there are {others}" if trace.blank else "")


def _label(category: str) -> str:
    if category == UNCATEGORIZED:
        return "timed events without a category"
    return category if kind_of(category) in (Kind.OTHER, Kind.FLOW) else f"{category} without a duration"


def _first(names: Sequence[str], shown: int = 10) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def _few(counts: Mapping[str, int], shown: int = 20) -> str:
    kinds = [f"{number:,} {category}" for category, number in islice(counts.items(), shown)]
    return ", ".join(kinds) + (f" and {len(counts) - shown:,} more categories" if len(counts) > shown else "")


def _count(traces: Sequence[Trace]) -> dict[str, int]:
    total: dict[str, int] = {}
    for trace in traces:
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


_LABELS = {"depth"}
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
            values[field.name] = sum(value * weight for value, weight in known) / total if known else None
        elif isinstance(a, (int, float)) and field.name not in _LABELS:
            values[field.name] = a + b
        else:
            values[field.name] = a
    return type(first)(**values)


def shorten(summary: Summary, top: int) -> Summary:
    """Keep the first rows of each table."""
    tables = ("steps", "phases", "operators", "kernels", "copies", "modules")
    return structs.replace(summary, **{name: getattr(summary, name)[:top] for name in tables})
