"""Which rank a trace is from: the file says it, in several types, or only its name does; and the order of folders."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from profiling.__main__ import main
from profiling.analysis.summary import summarize
from profiling.trace.trace import read_trace, read_traces
from tests.profiling.cases import case
from tests.profiling.make_trace import event, write

EVENTS = [event("aten::mm", 10, 20)]


def ranks(folder: Path) -> dict[str, int]:
    return {trace.path.relative_to(folder).as_posix(): trace.rank for trace in read_traces(folder)}


@pytest.mark.parametrize(
    ("stated", "rank", "note"),
    [
        (3, 3, None),
        ("3", 3, "its rank is written as '3' and read as 3"),
        (3.0, 3, "its rank is written as 3.0 and read as 3"),
        (None, 0, "the file states no rank: 0 is assumed"),
        (True, 0, "the file states the rank 'True': 0 is assumed"),
        (-1, 0, "the file states the rank '-1': 0 is assumed"),
        (3.5, 0, "the file states the rank '3.5': 0 is assumed"),
        (2**70, 0, f"the file states the rank '{2**70}': 0 is assumed"),
        ("x", 0, "the file states the rank 'x': 0 is assumed"),
    ],
)
def test_a_rank_of_any_type_is_read_or_said_not_to_be(stated: Any, rank: int, note: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", EVENTS, distributedInfo={"rank": stated})
    found = summarize([read_trace(path)]).trace
    assert found.rank == rank
    assert found.notes == ([f"a.json: {note}"] if note else [])


def test_a_trace_of_one_process_has_no_note(tmp_path: Path) -> None:
    assert summarize([read_trace(write(tmp_path / "a.json", EVENTS))]).trace.notes == []


NAMES: dict[str, dict[str, int]] = {
    "torchtitan": {"rank0_trace.json.gz": 0, "rank2_trace.json.gz": 2, "rank10_trace.json.gz": 10},
    "SGLang": {f"1764000000.1-TP-{tp}.trace.json.gz": tp for tp in (0, 1, 2, 10)},
    "SGLang, pipelines": {f"1764.5-TP-{tp}-PP-{pp}.trace.json.gz": 2 * pp + tp for tp in (0, 1) for pp in (0, 1)},
    "SGLang, experts": {f"1764.5-TP-{tp}-DP-{tp // 2}-EP-{tp}.trace.json.gz": tp for tp in range(4)},
    "vLLM": {f"dp0_pp0_tp{i}_dcp0_ep0_rank{i}.17640000{i}.pt.trace.json.gz": i for i in range(2)},
    "vLLM, replicas": {
        f"dp{dp}_pp0_tp{tp}_dcp0_ep0_rank{tp}.1764{dp}{tp}.pt.trace.json.gz": 2 * dp + tp
        for dp in (0, 1)
        for tp in (0, 1)
    },
    "Accelerate": {"profile_0.json": 0, "profile_3.json": 3},
    "PyTorch's examples": {"worker0.111.pt.trace.json": 0, "worker1.112.pt.trace.json": 1},
    "folders": {"rank0/h_1.1.pt.trace.json": 0, "rank_1/h_1.1.pt.trace.json": 1},
    "nodes": {f"node{node}_rank{rank}.json": 2 * node + rank for node in (0, 1) for rank in (0, 1)},
    "nodes, ranks of the job": {f"rank{rank}_node{rank // 2}.json": rank for rank in range(4)},
    "others": {"cuda_ddp_rank-4.json": 4, "trace_rank3.json": 3, "x_rank_12.y.json": 12, "Rank=5.json": 5},
    "no ranks": {"prank7.json": 0, "tp8.json": 0, "llama_dp2_tp4.json": 0, "1764000000.123.json": 0},
    "hosts": {"worker3_4711.113.pt.trace.json": 0, "node12_4711.113.pt.trace.json": 0, "node-2_1.3.pt.trace.json": 0},
}


@pytest.mark.parametrize("layout", NAMES)
def test_a_rank_that_only_the_name_knows_is_taken_from_there(layout: str, tmp_path: Path) -> None:
    for name in NAMES[layout]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, EVENTS)
    assert ranks(tmp_path) == NAMES[layout]
    for name, rank in NAMES[layout].items():
        alone = summarize([read_trace(tmp_path / name)]).trace
        assert alone.rank == rank
        assert any("is taken from its name" in note for note in alone.notes) == (layout not in ("no ranks", "hosts"))


def test_windows_of_one_rank_share_it(tmp_path: Path) -> None:
    for time in (1, 2):
        for tp in (0, 1):
            write(tmp_path / f"dp0_pp0_tp{tp}_rank{tp}.{time}.pt.trace.json", EVENTS)
    assert sorted(ranks(tmp_path).values()) == [0, 0, 1, 1]


def test_a_trace_without_a_rank_among_others_with_one_is_named(tmp_path: Path) -> None:
    write(tmp_path / "dp0_pp0_tp0_rank0.1764.pt.trace.json", EVENTS, distributedInfo={"rank": 0})
    write(tmp_path / "host_1.async_llm.1765.pt.trace.json", EVENTS)
    assert summarize(read_traces(tmp_path)).trace.notes == [
        "1 of 2 traces tell no rank and count as rank 0: host_1.async_llm.1765.pt.trace.json"
    ]


def test_several_processes_without_a_rank_are_said_to_count_as_one(tmp_path: Path) -> None:
    """Ranks in names of one's own spelling; windows of one process need no note."""
    for window in (1, 2):
        write(tmp_path / f"gpu1.{window}.pt.trace.json", EVENTS)
    assert summarize(read_traces(tmp_path)).trace.notes == []
    write(tmp_path / "gpu2.1.pt.trace.json", [{**event("aten::mm", 10, 20), "pid": 2}])
    assert summarize(read_traces(tmp_path)).trace.notes == [
        "traces of 2 processes tell no rank, so all count as rank 0: "
        "gpu1.1.pt.trace.json, gpu2.1.pt.trace.json, gpu1.2.pt.trace.json"
    ]


def test_what_the_file_says_comes_before_its_name(tmp_path: Path) -> None:
    found = summarize([read_trace(write(tmp_path / "rank9.json", EVENTS, distributedInfo={"rank": 1}))]).trace
    assert (found.rank, found.notes) == (1, [])
    nothing = read_trace(write(tmp_path / "rank8.json", EVENTS, distributedInfo={"rank": None}))
    assert nothing.rank == 8


def test_the_name_inside_a_zip_file_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as file:
        file.writestr("rank3_trace.json", json.dumps({"traceEvents": EVENTS}))
    assert read_trace(tmp_path / "download.zip").rank == 3


def iterations(folder: Path, numbers: Sequence[int]) -> None:
    for number in numbers:
        (folder / f"iteration_{number}").mkdir(parents=True)
        for rank in (0, 1):
            name = f"iteration_{number}/rank{rank}_trace.json.gz"
            write(folder / name, EVENTS, distributedInfo={"rank": rank})


def test_folders_below_are_joined_in_numeric_order_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    iterations(tmp_path, (100, 20, 9))
    assert main(["summary", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["trace"]
    expected = [f"{tmp_path}/iteration_{i}/rank{rank}_trace.json.gz" for i in (9, 20, 100) for rank in (0, 1)]
    assert found["files"] == expected
    assert found["notes"] == [
        f"the traces of 3 folders below {tmp_path} are added up: iteration_9, iteration_20, iteration_100"
    ]
    assert found["ranks"] == [0, 1]
    assert summarize(read_traces(tmp_path / "iteration_9")).trace.notes == []


def test_a_folder_with_traces_is_one_run_whatever_lies_below(tmp_path: Path) -> None:
    iterations(tmp_path, (1,))
    write(tmp_path / "fit-profiler-[Strategy]DDPStrategy.training_step.pt.trace.json", EVENTS)
    assert len(read_traces(tmp_path)) == 1


def test_case_13_lists_its_runs_in_numeric_order() -> None:
    found = summarize(read_traces(case("13-torchtitan"))).trace
    assert [Path(file).parent.name for file in found.files[::2]] == ["iteration_10", "iteration_20", "iteration_100"]
    assert "iteration_10, iteration_20, iteration_100" in found.notes[0]


def test_case_20_has_four_ranks() -> None:
    found = summarize(read_traces(case("20-rank-in-name-only"))).trace
    assert found.ranks == [0, 1, 2, 3]
    assert len(found.notes) == 4


def test_case_43_reads_ranks_of_every_type() -> None:
    folder = case("43-rank-types")
    found = {name: summarize([read_trace(folder / f"{name}.json")]).trace for name in ("str", "float", "null")}
    assert {name: trace.rank for name, trace in found.items()} == {"str": 3, "float": 3, "null": 0}
    assert all(len(trace.notes) == 1 for trace in found.values())
