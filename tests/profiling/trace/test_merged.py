"""Files into which several ranks were merged: device work belongs to the rank that launched it, or nothing is said."""

from itertools import chain
from pathlib import Path

import pytest

from profiling.__main__ import main
from profiling.analysis.summary import Summary, summarize
from profiling.trace.parse import TraceError
from profiling.trace.trace import read_traces
from tests.profiling.cases import case
from tests.profiling.make_trace import Event, event, write

CALLS = 5


def rank_events(
    number: int, host: int | str, device: int | str, *, first_id: int = 10, at: float = 0, calls: int = CALLS
) -> list[Event]:
    """A step of one rank: rank 0 launches kernels of 500 µs from aten::mm, rank 1 of 700 µs from aten::conv2d."""
    operator, duration = (("aten::mm", 500), ("aten::conv2d", 700))[number % 2]
    events = [event("ProfilerStep#1", at, 10_000, "user_annotation", tid=100)]
    for i in range(calls):
        start = at + 1000 * i + 100
        ids = {"correlation": first_id + i, "External_id": first_id + i}
        events.append(event(operator, start, 20, tid=100, External_id=first_id + i))
        events.append(event("cudaLaunchKernel", start + 2, 5, "cuda_runtime", tid=100, **ids))
        events.append(event(f"kernel_{number}", start + 100, duration, "kernel", tid=7, **ids))
    return [{**row, "pid": device if row["cat"] == "kernel" else host} for row in events]


def process_name(pid: int | str, name: str) -> Event:
    return {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}


def read(path: Path, *ranks: list[Event]) -> Summary:
    return summarize(read_traces(write(path / "merged.json", [*chain(*ranks)])))


def device_us(summary: Summary) -> dict[str, float]:
    return {row.name: row.device_us for row in summary.operators}


EACH_ITS_OWN = {"aten::mm": 2500, "aten::conv2d": 3500}


def test_the_case_of_merged_ranks() -> None:
    summary = summarize(read_traces(case("05-merged-ranks/merged.json")))
    assert device_us(summary) == EACH_ITS_OWN
    assert summary.trace.ranks == [0, 1]


@pytest.mark.parametrize(
    ("first", "second", "devices", "ranks"),
    [
        ("[TP00] 100", "[TP01] 101", ("[TP00] 0", "[TP01] 0"), [0, 1]),
        ("[TP03] 1", "[TP10] 1", ("[TP03] 0", "[TP10] 0"), [3, 10]),
        ("[TP00-PP01] 7", "[TP01-PP00] 7", ("[TP00-PP01] 0", "[TP01-PP00] 0"), [0, 1]),
        ("rank 0 python", "rank 1 python", ("rank 0 GPU 0", "rank 1 GPU 0"), [0, 1]),
        ("rank2/100", "rank7/100", ("rank2/0", "rank7/0"), [2, 7]),
    ],
)
def test_ranks_are_told_by_the_labels_of_their_pids(
    first: str, second: str, devices: tuple[str, str], ranks: list[int], tmp_path: Path
) -> None:
    summary = read(tmp_path, rank_events(0, first, devices[0]), rank_events(1, second, devices[1]))
    assert device_us(summary) == EACH_ITS_OWN
    assert summary.trace.ranks == ranks
    assert [step.number for step in summary.steps] == [1, 1]
    assert [device.work_us for device in summary.devices] == [2500, 3500]
    assert summary.events == {"cpu_op": 10, "cuda_runtime": 10, "kernel": 10, "user_annotation": 2}
    (note,) = summary.trace.notes
    assert "2 ranks were merged" in note


def test_ranks_are_told_by_the_names_of_their_processes(tmp_path: Path) -> None:
    named = [process_name(pid, f"rank {rank}") for pid, rank in ((100, 4), (0, 4), (101, 6), (1, 6))]
    summary = read(tmp_path, rank_events(0, 100, 0), rank_events(1, 101, 1), named)
    assert device_us(summary) == EACH_ITS_OWN
    assert summary.trace.ranks == [4, 6]


def test_processes_whose_ids_do_not_collide_are_ranks_of_their_own(tmp_path: Path) -> None:
    for device in (0, 1):  # also on the same device
        summary = read(tmp_path, rank_events(0, 100, 0), rank_events(1, 101, device, first_id=900))
        assert device_us(summary) == EACH_ITS_OWN
        assert summary.trace.ranks == [0, 1]


def test_a_device_is_of_the_only_process_that_launched_before_its_work(tmp_path: Path) -> None:
    summary = read(tmp_path, rank_events(0, 100, 0, at=50_000), rank_events(1, 101, 1, calls=CALLS - 1))
    assert device_us(summary) == {"aten::mm": 2500, "aten::conv2d": 2800}


def hidden_label(host: int) -> list[Event]:
    return [process_name(pid, f"rank {rank}") for rank, pid in ((0, host), (1, host + 1), (0, 0), (1, 0))]


@pytest.mark.parametrize(
    "ranks",
    [
        pytest.param([rank_events(0, 100, 0), rank_events(1, 101, 1)], id="two devices"),
        pytest.param([rank_events(0, 100, 0), rank_events(1, 101, 0)], id="one device"),
        pytest.param([rank_events(0, 100, 0), rank_events(1, 101, 0, calls=3)], id="one device, unequal calls"),
        pytest.param([rank_events(0, 100, 0), rank_events(1, 100, 0)], id="equal pids"),
        pytest.param([rank_events(0, 100, 0), rank_events(1, 101, 0), hidden_label(100)], id="device of two ranks"),
        pytest.param([rank_events(0, "[TP0] 1", "[TP0] 0"), rank_events(1, "[TP0] 2", "[TP0] 1")], id="equal labels"),
    ],
)
@pytest.mark.parametrize("command", ["summary", "memory", "check"])
def test_ranks_that_nothing_tells_apart_are_refused(
    ranks: list[list[Event]], command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "merged.json", [*chain(*ranks)])
    assert main([command, str(path)]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "merged.json" in line
    assert "correlation ids" in line


def test_one_rank_with_a_label_and_the_rows_of_the_profiler_is_one_rank(tmp_path: Path) -> None:
    own = [event("PyTorch Profiler (0)", 0, 10, "Trace") | {"pid": "Spans"}]
    summary = read(tmp_path, rank_events(0, "[TP03] 100", "[TP03] 0"), own, [process_name(100, "python")])
    assert device_us(summary) == {"aten::mm": 2500}
    assert summary.trace.ranks == [0]
    assert summary.trace.notes == []


def test_ids_that_one_rank_repeats_are_no_second_rank(tmp_path: Path) -> None:
    own = rank_events(0, 100, 0)
    drivers = [
        {**row, "cat": "cuda_driver", "name": "cuGraphLaunch", "dur": 2} for row in own if row["cat"] == "cuda_runtime"
    ]
    graphs = [{**row, "tid": 8, "name": "second of the graph"} for row in own if row["cat"] == "kernel"]
    summary = read(tmp_path, own, drivers, graphs)
    assert device_us(summary) == {"aten::mm": 5000}
    assert summary.trace.notes == []


def test_stacks_and_memory_are_those_of_the_rank(tmp_path: Path) -> None:
    def more(number: int, host: str) -> list[Event]:
        names = ("outer", "inner") if number else ("main",)
        frames = [
            event(f"r{number}.py({i}): {name}", 10 * i, 9_000 - 20 * i, "python_function", tid=100, Python_id=i + 1)
            for i, name in enumerate(names)
        ]
        for i, frame in enumerate(frames):
            frame["args"]["Python parent id"] = i or None
        sizes = {"Bytes": 1024 * (number + 1), "Addr": 1, "Device Type": 0, "Device Id": -1}
        memory = event("[memory]", 105, 0, "cpu_instant_event", tid=100) | {"ph": "i", "args": sizes}
        return [row | {"pid": host} for row in (*frames, memory)]

    ranks = [rank_events(i, f"[TP0{i}] 1", f"[TP0{i}] 0", calls=1) + more(i, f"[TP0{i}] 1") for i in (0, 1)]
    found = summarize(read_traces(write(tmp_path / "merged.json", [*chain(*ranks)])), by="stack")
    assert {(row.name, row.stack, row.allocated_bytes) for row in found.operators} == {
        ("aten::mm", "r0.py(0): main", 1024),
        ("aten::conv2d", "r1.py(1): inner\nr1.py(0): outer", 2048),
    }


def test_stragglers_are_found_within_a_merged_file(tmp_path: Path) -> None:
    ranks = [
        [event("ncclDevKernel_AllReduce", 0, dur, "kernel", tid=7) | {"pid": f"[TP0{rank}] 0"}]
        for rank, dur in enumerate((30, 10, 20))
    ]
    (late,) = read(tmp_path, *ranks).communication.stragglers
    assert (late.ranks, late.last_rank, late.waited_us) == ([0, 1, 2], 1, 30)


def test_processes_without_a_device_are_ranks(tmp_path: Path) -> None:
    summary = read(tmp_path, [event("aten::mm", 0, 5) | {"pid": pid} for pid in (7, 8, 9)])
    assert summary.trace.ranks == [0, 1, 2]


def test_a_merged_file_is_told_in_one_line_even_with_many_ranks(tmp_path: Path) -> None:
    ranks = [rank_events(i, f"[TP{i:02}] 1", f"[TP{i:02}] 0", calls=1) for i in range(40)]
    summary = read(tmp_path, *ranks)
    assert summary.trace.ranks == list(range(40))
    (note,) = summary.trace.notes
    assert len(note) < 250
    with pytest.raises(TraceError, match="and 36 more"):
        read(tmp_path, *(rank_events(i, 100 + i, i, calls=1) for i in range(40)))


def test_merged_ranks_may_have_a_single_frame_whose_caller_is_unknown(tmp_path: Path) -> None:
    ranks = [rank_events(number, f"rank {number} python", f"rank {number} GPU 0") for number in (0, 1)]
    frame = {**event("nn.Module: Net_0", 0, 50, "python_function", tid=100), "pid": "rank 0 python"}
    summary = read(tmp_path, *ranks, [frame])
    assert summary.trace.ranks == [0, 1]
    assert [row.path for row in summary.modules] == ["Net_0"]
