"""Who waits for whom: collectives are compared within their process group, call by call, or it is said why not."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.__main__ import main
from profiling.analysis.stragglers import Straggler
from profiling.analysis.summary import Summary, summarize
from profiling.trace.trace import read_traces
from tests.profiling.cases import case
from tests.profiling.make_trace import Event, event, write


def call(
    dur: float,
    ts: float,
    name: str = "allreduce",
    group: str = "tp",
    ranks: Sequence[int] | str = (),
    number: int | str | None = None,
) -> Event:
    args = {"Collective_name": name, "Process_Group_Name": group, "dtype": "Float", "In_msg_nelems": 1}
    if ranks:
        args["Process_Group_Ranks"] = ranks if isinstance(ranks, str) else json.dumps(list(ranks))
        args["Group_size"] = 8 if isinstance(ranks, str) else len(ranks)
    if number is not None:
        args["Seq"] = number
    return event("ncclDevKernel_AllReduce(int)", ts, dur, "kernel", tid=7, **args)


def one_after_another(durations: Sequence[float], name: str = "allreduce", **group: object) -> list[Event]:
    return [call(dur, 1000 * i, name, **group) for i, dur in enumerate(durations)]  # type: ignore[arg-type]


def compare(folder: Path, windows: Mapping[tuple[int, int], Sequence[Event]], **info: object) -> Summary:
    """Summarize a job from the events of each (rank, window)."""
    for (rank, window), events in windows.items():
        path = folder / f"rank{rank}.{window}.pt.trace.json"
        write(path, [*events, event("aten::add", 0, 1)], distributedInfo={"rank": rank, **info})
    return summarize(read_traces(folder))


def told(late: Straggler) -> tuple[str, list[int], int, float]:
    return late.group, late.ranks, late.last_rank, late.waited_us


def test_the_case_of_two_groups() -> None:
    summary = summarize(read_traces(case("06-straggler-subgroups")))
    assert [told(late) for late in summary.communication.stragglers] == [
        ("tp_a", [0, 1], 1, 50),
        ("tp_b", [2, 3], 3, 50),
    ]
    assert summary.trace.notes == []


def test_groups_of_one_name_are_told_apart_by_their_ranks(tmp_path: Path) -> None:
    windows = {
        (rank, 1): one_after_another([dur], ranks=(0, 1) if rank < 2 else (2, 3))
        for rank, dur in enumerate((15, 10, 100, 104))
    }
    found = compare(tmp_path, windows).communication.stragglers
    assert [(told(late), late.group_ranks) for late in found] == [
        (("tp", [0, 1], 1, 5), "[0, 1]"),
        (("tp", [2, 3], 2, 4), "[2, 3]"),
    ]


def test_a_rank_in_two_groups_is_compared_in_each(tmp_path: Path) -> None:
    def rank(tp: float, dp: float) -> list[Event]:
        return [call(tp, 0, group="tp", ranks=(0, 1)), call(dp, 500, group="dp", ranks=(0, 2))]

    windows = {(0, 1): rank(30, 10), (1, 1): rank(10, 5)[:1], (2, 1): rank(10, 60)[1:]}
    found = compare(tmp_path, windows).communication.stragglers
    assert [told(late) for late in found] == [("dp", [0, 2], 0, 50), ("tp", [0, 1], 1, 20)]


def test_shortened_lists_of_ranks_are_one_group(tmp_path: Path) -> None:
    windows = {(rank, 1): one_after_another([10 + rank], ranks="[0, 1, ..., 7]") for rank in range(8)}
    (late,) = compare(tmp_path, windows).communication.stragglers
    assert told(late) == ("tp", list(range(8)), 0, 28)


def test_ranks_that_are_not_here_are_named_in_a_note(tmp_path: Path) -> None:
    windows = {(rank, 1): one_after_another([10 + rank], ranks=(0, 1, 2, 3)) for rank in (1, 3)}
    summary = compare(tmp_path, windows)
    (late,) = summary.communication.stragglers
    assert (told(late), late.group_size) == (("tp", [1, 3], 1, 2), 4)
    (note,) = summary.trace.notes
    assert "allreduce of tp [0, 1, 2, 3] (2 of 4 ranks)" in note


def test_more_ranks_than_a_group_has_are_several_groups_and_not_compared(tmp_path: Path) -> None:
    windows = {(rank, 1): [call(10 + rank, 0)] for rank in range(4)}
    for (made,) in windows.values():
        made["args"]["Group size"] = 2
    summary = compare(tmp_path, windows)
    assert summary.communication.stragglers == []
    assert "more ranks name the group than it has" in summary.trace.notes[0]


def test_calls_pair_by_their_number_where_one_rank_recorded_more(tmp_path: Path) -> None:
    first = [call(dur, 1000 * i, number=i) for i, dur in enumerate((500, 20, 30))]
    second = [call(dur, 1000 * i, number=str(i + 1)) for i, dur in enumerate((10, 10, 99))]
    summary = compare(tmp_path, {(0, 1): first, (1, 1): second})
    (late,) = summary.communication.stragglers
    assert (late.calls, late.last_rank, late.waited_us) == (2, 1, 30)
    assert "allreduce of tp (2 of 3 compared)" in summary.trace.notes[0]


def test_calls_without_a_number_are_left_out_where_ranks_made_unequally_many(tmp_path: Path) -> None:
    summary = compare(tmp_path, {(0, 1): one_after_another([10, 20]), (1, 1): one_after_another([5])})
    assert summary.communication.stragglers == []
    assert "allreduce of tp (0 of 2 compared)" in summary.trace.notes[0]


def step(number: int) -> Event:
    return event(f"ProfilerStep#{number}", 0, 5000, "user_annotation")


def test_windows_pair_by_their_steps(tmp_path: Path) -> None:
    windows = {
        (0, 1): [step(1), *one_after_another([1000, 1000])],
        (0, 2): [step(7), *one_after_another([10, 20])],
        (1, 2): [step(7), *one_after_another([15, 25])],
    }
    summary = compare(tmp_path, windows)
    (late,) = summary.communication.stragglers
    assert (late.calls, late.last_rank, late.waited_us) == (2, 0, 10)
    assert "(2 of 4 compared)" in summary.trace.notes[0]


def test_a_window_in_which_a_rank_recorded_fewer_calls_does_not_shift_the_next(tmp_path: Path) -> None:
    windows = {
        (0, 1): [step(1), *one_after_another([50, 60])],
        (0, 2): [step(7), *one_after_another([10])],
        (1, 1): [step(1), *one_after_another([50])],
        (1, 2): [step(7), *one_after_another([14])],
    }
    (late,) = compare(tmp_path, windows).communication.stragglers
    assert (late.calls, late.last_rank, late.waited_us) == (1, 0, 4)


@pytest.mark.parametrize(
    "name", ["send", "recv", "isend", "batch_isend_irecv", "coalesced", "broadcast", "reduce", "gather", "scatter"]
)
def test_one_sided_operations_are_communication_but_no_evidence(name: str, tmp_path: Path) -> None:
    summary = compare(tmp_path, {(rank, 1): one_after_another([10 + rank], name) for rank in (0, 1)})
    assert [rank.busy_us for rank in summary.communication.ranks] == [10, 11]
    assert summary.communication.stragglers == []
    (note,) = summary.trace.notes
    assert f"{name} of tp" in note


@pytest.mark.parametrize("name", ["ncclDevKernel_SendRecv(int)", "rcclGenericKernel(int)", "nvshmemi_transfer_kernel"])
def test_kernels_whose_operation_is_not_known_are_no_evidence(name: str, tmp_path: Path) -> None:
    summary = compare(tmp_path, {(rank, 1): [event(name, 0, 10 + rank, "kernel", tid=7)] for rank in (0, 1)})
    assert summary.communication.stragglers == []
    assert "left out" in summary.trace.notes[0]


@pytest.mark.parametrize(
    "name",
    ["allreduce", "all_gather", "_allgather_base", "reduce_scatter_tensor_coalesced", "all_to_allv", "barrier"],
)
def test_operations_in_which_all_ranks_meet_are_evidence(name: str, tmp_path: Path) -> None:
    windows = {(rank, 1): one_after_another([10 + rank], name, ranks=(0, 1)) for rank in (0, 1)}
    summary = compare(tmp_path, windows)
    assert [told(late) for late in summary.communication.stragglers] == [("tp", [0, 1], 0, 1)]
    assert summary.trace.notes == []


def test_annotations_of_the_host_are_compared_unless_they_end_with_the_launch(tmp_path: Path) -> None:
    for library, count in (("gloo", 1), ("nccl", 0)):
        events = [event(f"{library}:all_reduce", 0, 10, "user_annotation")]
        summary = compare(tmp_path, {(rank, 1): events for rank in (0, 1)})
        assert len(summary.communication.stragglers) == count


def test_calls_that_may_be_of_any_of_several_groups_are_not_compared(tmp_path: Path) -> None:
    groups = [
        {"pg_name": name, "pg_size": len(ranks), "ranks": ranks} for name, ranks in (("0", [0, 1, 2]), ("1", [0, 1]))
    ]
    events = [event("gloo:all_reduce", 0, 10, "user_annotation")]
    summary = compare(tmp_path, {(rank, 1): events for rank in (0, 1)}, pg_config=groups)
    assert summary.communication.stragglers == []
    assert "which of the job's groups ran gloo:all_reduce" in summary.trace.notes[0]
    summary = compare(tmp_path, {(rank, 1): events for rank in (0, 1)}, pg_config=groups[1:])
    assert [told(late) for late in summary.communication.stragglers] == [("1", [0, 1], 0, 0)]


def test_traces_that_name_no_group_are_compared_as_one_with_a_note(tmp_path: Path) -> None:
    kernels = [[event("ncclDevKernel_AllReduce(int)", 0, dur, "kernel", tid=7)] for dur in (10, 30)]
    summary = compare(tmp_path, {(rank, 1): own for rank, own in enumerate(kernels)})
    assert [told(late) for late in summary.communication.stragglers] == [("", [0, 1], 0, 20)]
    assert "all ranks were taken as one group" in summary.trace.notes[0]


def test_a_rank_alone_has_no_stragglers_and_no_note(tmp_path: Path) -> None:
    summary = compare(tmp_path, {(0, 1): one_after_another([10, 20], ranks=(0, 1))})
    assert (summary.communication.stragglers, summary.trace.notes) == ([], [])


def test_a_group_of_one_rank_is_no_matter(tmp_path: Path) -> None:
    windows = {(rank, 1): one_after_another([10], ranks=(rank,)) for rank in (0, 1)}
    summary = compare(tmp_path, windows)
    assert (summary.communication.stragglers, summary.trace.notes) == ([], [])


def test_the_terminal_names_the_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(tmp_path, {(rank, 1): one_after_another([10 + rank], ranks=(0, 1)) for rank in (0, 1)})
    assert main(["summary", str(tmp_path)]) == 0
    assert "allreduce of tp [0, 1]: ranks waited 1 µs in 1 calls, 100% of them for rank 0" in capsys.readouterr().out


@st.composite
def jobs(draw: st.DrawFn) -> list[tuple[list[int], list[list[int]]]]:
    """Groups that divide four to six ranks, twice: the ranks of a group, and [rank, call] durations in µs."""
    world = draw(st.integers(4, 6))
    groups = []
    for _ in range(2):
        order = draw(st.permutations(range(world)))
        cut = draw(st.integers(2, world - 2))
        for ranks in (sorted(order[:cut]), sorted(order[cut:])):
            calls = draw(st.integers(1, 4))
            row = st.lists(st.integers(1, 50), min_size=calls, max_size=calls)
            groups.append((ranks, draw(st.lists(row, min_size=len(ranks), max_size=len(ranks)))))
    return groups


@given(jobs(), st.booleans(), st.randoms(use_true_random=False))
def test_waiting_is_that_of_each_group_alone(
    job: list[tuple[list[int], list[list[int]]]], numbered: bool, random: Random
) -> None:
    events: dict[tuple[int, int], list[Event]] = {}
    expected = []
    for place, (ranks, durations) in enumerate(job):
        mesh = f"mesh{place // 2}"  # the two groups of a mesh have one name
        for rank, own in zip(ranks, durations, strict=True):
            for i, dur in enumerate(own):
                number = 10 + i if numbered else None
                made = call(dur, 1000 * i + 100 * place, "allreduce", mesh, ranks, number)
                events.setdefault((rank, 1), []).append(made)
        fastest = [min(column) for column in zip(*durations, strict=True)]
        waited = sum(dur - fastest[i] for own in durations for i, dur in enumerate(own))
        expected.append((mesh, ranks, waited))
    for own in events.values():
        random.shuffle(own)  # files are in no order
    with TemporaryDirectory() as folder:
        found = compare(Path(folder), events).communication.stragglers
    assert sorted((late.group, late.ranks, late.waited_us) for late in found) == sorted(expected)
