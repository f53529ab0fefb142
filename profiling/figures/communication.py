"""Collectives: the time of each rank in them, the part that overlaps with computing, and stragglers by group."""

from collections.abc import Sequence

from profiling.analysis.communication import Collective, Communication, rank_labels
from profiling.analysis.stragglers import Straggler
from profiling.analysis.summary import Summary
from profiling.figures.blocks import Block, Column, chart, choice, message, note, notes, number, panel, table
from profiling.figures.style import LEGEND, PARTS, part, rows
from profiling.format import axis_unit, count, duration, percent, size

_NO_GROUP = "not recorded"
_ONE_GROUP = ("group", "process_group")


def communication(summary: Summary) -> list[Block]:
    """Return the blocks of the view; the tab filters those tables that name a process group."""
    ranks = summary.communication.ranks
    said = notes(summary.trace.notes)
    if not ranks:
        hint = (
            "A job of several processes (torch.distributed) has them. "
            "Put the traces of its ranks into one folder to see who waits for whom."
        )
        return [*said, message("empty", "This trace has no collectives.", hint)]
    groups = list(dict.fromkeys(_group(row) for rank in ranks for row in rank.collectives))
    options = {"": f"all {len(groups)} groups", **{name: name for name in groups}}
    chosen = [choice("Process group", "group", options)] if len(groups) > 1 else []
    return [
        *said,
        _overlap(ranks, rank_labels(ranks, summary.trace.files)),
        *chosen,
        _waiting(summary),
        _collectives(ranks),
    ]


def _group(row: Collective | Straggler) -> str:
    """Name a process group by its name and ranks, as several groups may have one name."""
    return " ".join(filter(None, (row.group, row.group_ranks))) or _NO_GROUP


def _overlap(ranks: Sequence[Communication], labels: Sequence[str]) -> Block:
    unit, unit_us = axis_unit(max(rank.busy_us for rank in ranks))
    data = []
    for name, key, style, ink in (
        ("hidden by computing", "overlapped_us", PARTS[0], "#ffffff"),
        ("exposed", "exposed_us", PARTS[1], "#1f2328"),
    ):
        times = [(rank, getattr(rank, key)) for rank in ranks]
        data.append(
            part(
                name,
                [time_us / unit_us for _, time_us in times],
                text=[f"{duration(time_us)}, {percent(time_us / (rank.busy_us or 1))}" for rank, time_us in times],
                hovertext=[
                    f"{label}: {name} {duration(time_us)} of {duration(rank.busy_us)}"
                    for label, (rank, time_us) in zip(labels, times, strict=True)
                ],
                marker=style,
                textfont={"color": ink},
            )
        )
    layout = {
        "barmode": "stack",
        "height": 40 * len(ranks) + 80,
        "xaxis": {"title": {"text": unit}},
        "yaxis": rows(labels),
        "legend": LEGEND,
    }
    text = "; ".join(
        f"{label}: {duration(rank.busy_us)} in collectives, {duration(rank.exposed_us)} exposed"
        for label, rank in zip(labels, ranks, strict=True)
    )
    explained = "Exposed is the time in which the device does nothing but communicate: what overlapping could save."
    return panel("Collectives by rank", note(explained), chart({"data": data, "layout": layout}, text, "communication"))


def _waiting(summary: Summary) -> Block:
    title = "Who waits for whom"
    if len(summary.trace.ranks) < 2:
        alone = (
            "Only one rank is here, so nobody can be seen waiting: "
            "put the traces of all ranks into one folder and choose all its windows."
        )
        return panel(title, note(alone))
    stragglers = summary.communication.stragglers
    if not stragglers:
        return panel(title, note("No collective could be compared between ranks; a note above says why."))
    explained = (
        "A collective ends on all ranks of its group at once: the rank that spends least time in it came last, "
        "and the others of the group waited for it."
    )
    columns = [
        Column("collective", "collective"),
        Column("process_group", "group", "name and ranks of the process group", _group),
        Column("compared", "compared", "the ranks that were compared", _compared, look="brief"),
        number("calls", "calls", count),
        number("last_rank", "last", lambda rank: f"rank {rank}", "the rank that came last most often"),
        number("last_share", "how often", percent, "share of the calls"),
        number("waited_us", "waited", duration, "by all the others together"),
    ]
    return panel(
        title, note(explained), table(stragglers, columns, label="stragglers", name="stragglers", only=_ONE_GROUP)
    )


def _compared(row: Straggler) -> str:
    missing = f" of {row.group_size:,}" if row.group_size > len(row.ranks) else ""
    if len(row.ranks) > 8 or missing:
        return f"{len(row.ranks):,}{missing} ranks"
    return f"ranks {', '.join(map(str, row.ranks))}"


def _collectives(ranks: Sequence[Communication]) -> Block:
    rows = [(rank.rank, row) for rank in ranks for row in rank.collectives]
    columns = [
        Column("name", "collective", value=lambda row: row[1].name),
        Column("process_group", "group", "name and ranks of the process group", lambda row: _group(row[1])),
        number("rank", "rank", str, value=lambda row: row[0]),
        number("calls", "calls", count, value=lambda row: row[1].calls),
        number("total_us", "total", duration, value=lambda row: row[1].total_us),
        number(
            "bytes",
            "bytes",
            size,
            "of the messages that the rank puts in",
            lambda row: row[1].bytes,
            missing="unknown",
        ),
    ]
    listing = table(rows, columns, label="collectives of each rank", name="collectives", search="q", only=_ONE_GROUP)
    return panel("Collectives", listing)
