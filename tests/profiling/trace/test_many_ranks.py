"""Many ranks in one file, or in one folder, take work in proportion to their number."""

import time
from pathlib import Path

import pytest

from profiling.trace.trace import read_trace, read_traces, split_ranks
from tests.profiling.make_trace import Event, event, write


def merged(ranks: int, ids_from: int) -> list[Event]:
    """Each process launches to a device of its own, with ids that are its own from the number `ids_from` on."""
    events = []
    for i in range(ranks):
        launch = event("cudaLaunchKernel", i, 2, "cuda_runtime", correlation=1 + ids_from * i)
        work = event("k", i + 3, 2, "kernel", 7, correlation=1 + ids_from * i)
        events += [event("aten::mm", i, 5) | {"pid": i + 1}, launch | {"pid": i + 1}, work | {"pid": ranks + i + 1}]
    return events


def test_merged_ranks_are_told_apart_in_proportion(tmp_path: Path) -> None:
    def cpu_s(ranks: int) -> float:
        trace = read_trace(write(tmp_path / "a.json", merged(ranks, 1)))
        start = time.process_time()
        parts = split_ranks(trace)
        elapsed = time.process_time() - start
        assert [part.spans.name.size for part in parts] == [3] * ranks
        return elapsed

    assert cpu_s(400) < 8 * cpu_s(100)


def test_a_folder_is_listed_once_for_the_ranks_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pipeline in range(4):
        for tensor in range(5):
            write(tmp_path / f"t-PP-{pipeline}-TP-{tensor}.pt.trace.json", [event("aten::mm", 0, 1)])
    listed: list[Path] = []
    iterdir = Path.iterdir

    def counted(folder: Path) -> object:
        listed.append(folder)
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", counted)
    assert sorted(trace.rank for trace in read_traces(tmp_path)) == list(range(20))
    assert len(listed) <= 3
