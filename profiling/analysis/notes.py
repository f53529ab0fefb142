"""What is said beside the figures: what is missing, was repaired, assumed or left out; one line each."""

import os
from collections.abc import Mapping, Sequence
from itertools import islice

from profiling.analysis.account import TimeAccount
from profiling.analysis.communication import hidden_wait_ns
from profiling.analysis.kernels import launched_outside
from profiling.analysis.owners import largest_other_owner
from profiling.format import duration, size
from profiling.trace.columns import FOLDED_NAME, MAX_NAME_CHARACTERS, UNCATEGORIZED, Kind, kind_of
from profiling.trace.groups import distinct
from profiling.trace.trace import Trace
from profiling.vocabulary import TRACE_PHASES

_LISTED_RANKS = 8
_WORTH_A_NOTE = 0.01
"""Share of the steps' time from which on something is worth a note."""


def reading_notes(traces: Sequence[Trace]) -> list[str]:
    """Describe what is missing, was repaired or is uncertain in the traces of a file or folder, one line each."""
    files = one_per_file(traces)
    return _joint_notes(files) + [note for trace in files for note in notes(trace)]


def _joint_notes(traces: Sequence[Trace]) -> list[str]:
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
    elif unknown and (processes := len({pid for trace in traces for pid in _processes(trace)})) > 1:
        lines.append(f"traces of {processes:,} processes tell no rank, so all count as rank 0: {_first(unknown)}")
    return lines


def _processes(trace: Trace) -> set[str]:
    """The processes whose operators a trace has."""
    threads = distinct(trace.spans.thread[trace.rows(Kind.OPERATOR)])
    return {str(trace.threads[number].pid) for number in threads.tolist()}


def notes(trace: Trace) -> list[str]:
    """Describe what is missing or was repaired: one line each, starting with the name of the file."""
    lines = []
    if trace.merged:
        labels = [f"rank {rank} is {label}" for label, rank in islice(trace.merged.items(), _LISTED_RANKS)]
        more = f" and {len(trace.merged) - _LISTED_RANKS} more" if len(trace.merged) > _LISTED_RANKS else ""
        lines.append(f"{len(trace.merged)} ranks were merged into this file: {', '.join(labels)}{more}")
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
        lines.append(
            f"{trace.too_large:,} numbers of bytes or operations are negative or too large, and were put into range"
        )
    if FOLDED_NAME in trace.names:
        lines.append(f"there are more names than {size(MAX_NAME_CHARACTERS)} hold: the rest count as {FOLDED_NAME}")
    if trace.ignored or (trace.blank and not lines):
        lines.append(_not_analyzed(trace))
    return [f"{trace.path.name}: {line}" for line in lines]


def account_notes(account: TimeAccount) -> list[str]:
    """Describe what an analysis had to leave out or to assume, in the form of `notes`."""
    lines = []
    index = account.index
    steps_ns = (index.steps.end_ns - index.steps.start_ns).sum()
    outside = launched_outside(index)
    if outside.events:
        lines.append(
            f"{outside.events:,} kernels and copies ({duration(outside.device_us)}) were launched outside the window: "
            "they keep the device busy, but belong to no operator and no step"
        )
    if (index.launching_rows >= 0).any() and not index.operators.rows.size:
        lines.append(
            "no operators are in the trace: what the host does besides waiting is not known, and counts as Python"
        )
    if account.operator_ns_outside > _WORTH_A_NOTE * steps_ns:
        lines.append(
            f"operators of {duration(account.operator_ns_outside / 1e3)} run outside the steps: they are in the table "
            "of operators, but belong to no step"
        )
    if (hidden_ns := hidden_wait_ns(account)) > _WORTH_A_NOTE * steps_ns:
        lines.append(
            f"{duration(hidden_ns / 1e3)} of what counts as Python are spent while collectives run: the step waits for "
            "other ranks, in a call that no trace shows"
        )
    if index.steps.overlapping:
        lines.append(
            f"{index.steps.overlapping:,} marks of steps overlap an earlier one: those inside it are left out, else it "
            "ends where the next begins"
        )
    if index.stacks.overlapping:
        known = "the ids of the frames tell their callers" if index.stacks.by_id else "the stacks there are a guess"
        lines.append(f"{index.stacks.overlapping:,} Python frames overlap others, as if they never returned: {known}")
    if largest := largest_other_owner(index):
        name, time_ns, total_ns = largest
        times = f"{duration(time_ns / 1e3)} of {duration(total_ns / 1e3)}"
        lines.append(f"{times} of device time launched here are in one row that is no operator: {name}")
    if index.derived_phases:
        names = ", ".join(TRACE_PHASES[phase] for phase in sorted(index.derived_phases))
        lines.append(
            f"phases are derived from the records of autograd, modules and optimizers, not marked in the trace: {names}"
        )
    return [f"{index.trace.path.name}: {line}" for line in lines]


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


def one_per_file(traces: Sequence[Trace]) -> list[Trace]:
    """The first trace of each file: what is said about a file is the same in all of its ranks."""
    return list({trace.path: trace for trace in reversed(traces)}.values())[::-1]


def _few(counts: Mapping[str, int], shown: int = 20) -> str:
    kinds = [f"{number:,} {category}" for category, number in islice(counts.items(), shown)]
    return ", ".join(kinds) + (f" and {len(counts) - shown:,} more categories" if len(counts) > shown else "")
