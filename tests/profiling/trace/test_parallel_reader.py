"""Large files are read by two processes, with the same result as by one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import asdict

from profiling.trace import parallel_reader
from profiling.trace.trace import Trace, read_trace
from tests.profiling.conftest import Recording
from tests.profiling.make_trace import Event, event, write

OPERATORS: list[Event] = [event(f"aten::op{i % 7}", 10 * i, 9) for i in range(100)]


def halved(path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """Read a small file the way a large one is read."""
    monkeypatch.setattr(parallel_reader, "SMALLEST_BYTES", 0)
    monkeypatch.setattr(parallel_reader.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    second = parallel_reader.second_half(path)
    assert second is not None
    second.close()
    return read_trace(path)


def assert_equal(one: Trace, other: Trace) -> None:
    assert (one.names, one.threads, one.shapes, one.details) == (
        other.names,
        other.threads,
        other.shapes,
        other.details,
    )
    assert (one.counts, one.cut, one.unreadable, one.header) == (
        other.counts,
        other.cut,
        other.unreadable,
        other.header,
    )
    for table in ("spans", "frames", "allocations", "flows"):
        columns = asdict(getattr(other, table))
        for name, column in asdict(getattr(one, table)).items():
            np.testing.assert_array_equal(column, columns[name], f"{table}.{name}")


def test_two_processes_read_what_one_reads(
    recordings: Callable[[str, bool], Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recordings("cnn", True).path
    assert_equal(read_trace(path), halved(path, monkeypatch))


def test_a_second_process_that_starts_in_the_wrong_place_or_dies_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = [{"ph": "X", "cat": "kernel", "name": "not an event", "ts": 1, "dur": 1}] * 2000
    path = write(tmp_path / "nested.json", [*OPERATORS, event("outer", 5, 1, nested=inside), *OPERATORS])
    assert_equal(read_trace(path), halved(path, monkeypatch))
    path = write(tmp_path / "plain.json", OPERATORS)
    monkeypatch.setattr(parallel_reader.sys, "executable", "/bin/false")
    assert_equal(read_trace(path), halved(path, monkeypatch))


def test_a_second_process_that_has_begun_before_is_used_for_its_own_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = write(tmp_path / "a.json", OPERATORS), write(tmp_path / "b.json", OPERATORS[:50])
    monkeypatch.setattr(parallel_reader, "SMALLEST_BYTES", 0)
    monkeypatch.setattr(parallel_reader.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    begun = parallel_reader.second_half(path, early=True)
    assert begun is not None
    monkeypatch.setattr(parallel_reader, "SMALLEST_BYTES", 1 << 40)
    assert_equal(read_trace(other, begun=begun), read_trace(other))
    assert_equal(read_trace(path, begun=begun), read_trace(path))


def test_a_second_half_that_is_cut_short_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.json", OPERATORS)
    path.write_bytes(path.read_bytes()[:-300])
    assert_equal(read_trace(path), halved(path, monkeypatch))
    assert "cut short" in (read_trace(path).cut or "")


def test_a_second_process_takes_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users have folders called `profiling` too, and files called as modules of the standard library."""
    path = write(tmp_path / "a.json", OPERATORS)
    for name in ("profiling/__init__.py", "profiling/trace/__init__.py", "json.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    second = parallel_reader.SecondHalf(path, 0)
    try:
        assert second.result() is not None
    finally:
        second.close()
