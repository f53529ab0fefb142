"""Traces that `python -m tests.fuzz traces` found to be read wrongly."""

from pathlib import Path

import pytest

from profiling.analysis.summary import Summary, summarize
from profiling.trace.trace import read_trace
from tests.profiling.analysis.test_account import adds_up
from tests.profiling.make_trace import Event, event, write


def summary(folder: Path, *events: Event) -> Summary:
    return summarize([read_trace(write(folder / "a.json", events))])


def step(number: int, start: float, end: float) -> Event:
    return event(f"ProfilerStep#{number}", start, end - start, "user_annotation")


def memory(ts: float, moved: int) -> Event:
    args = {"Bytes": moved, "Addr": 1, "Device Type": 0, "Device Id": -1}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts, "args": args}


WAIT = [event("cudaStreamSynchronize", 15, 60, "cuda_runtime"), event("gemm", 10, 70, "kernel", tid=7)]


@pytest.mark.parametrize(
    ("marks", "kept"),
    [
        ([(1, 0, 100), (1, 0, 100), (1, 0, 100)], [(1, 0, 100)]),
        ([(1, 0, 100), (2, 20, 40)], [(1, 0, 100)]),
        ([(1, 0, 60), (2, 50, 100)], [(1, 0, 50), (2, 50, 50)]),
    ],
)
def test_the_time_of_steps_that_overlap_counts_once(
    marks: list[tuple[int, int, int]], kept: list[tuple[int, int, int]], tmp_path: Path
) -> None:
    found = summary(tmp_path, *(step(*mark) for mark in marks), *WAIT)
    assert [(row.number, row.start_us, row.total_us) for row in found.steps] == kept
    adds_up(found)
    assert sum(row.device_wait_us for row in found.steps) == 60
    assert "marks of steps overlap" in "".join(found.trace.notes)


def test_steps_that_touch_or_overlap_by_rounding_are_no_news(tmp_path: Path) -> None:
    found = summary(tmp_path, step(1, 0, 50), step(2, 49.5, 80), step(3, 80, 100), *WAIT)
    assert [row.number for row in found.steps] == [1, 2, 3]
    adds_up(found)
    assert not any("overlap" in note for note in found.trace.notes)


def test_memory_that_is_freed_without_an_allocation_was_there_before(tmp_path: Path) -> None:
    (device,) = summary(tmp_path, step(1, 0, 50), memory(1, -512), memory(2, 256), memory(3, -1024)).memory
    assert (device.start_bytes, device.peak_bytes, device.before_bytes) == (1280, 1280 - 512 + 256, 768)
    assert device.curve.bytes == [768, 1024, 0]


@pytest.mark.parametrize("moved", [2**63, 2**64, 600])
def test_no_memory_is_less_than_none_before_an_allocation_that_exceeds_the_total(moved: int, tmp_path: Path) -> None:
    allocation = memory(1, moved)
    allocation["args"]["Total Allocated"] = 512
    (device,) = summary(tmp_path, step(1, 0, 50), allocation).memory
    assert (device.start_bytes, device.peak_bytes) == (0, 512)


def test_negative_counts_are_none_and_noted(tmp_path: Path) -> None:
    found = summary(tmp_path, event("aten::mm", 0, 10, flops=-(2**31)), event("aten::mm", 20, 10, flops=8))
    (row,) = found.operators
    assert (row.calls, row.flops) == (2, 8)
    assert "1 numbers of bytes or operations are negative" in "".join(found.trace.notes)


def test_the_mean_of_large_numbers_is_no_larger_than_they_are(tmp_path: Path) -> None:
    kernels = [event("gemm", 100 * n, 50, "kernel", tid=7, registers_per_thread=1e307) for n in range(2)]
    trace = read_trace(write(tmp_path / "a.json", kernels))
    for windows in [trace], [trace, trace]:
        (kernel,) = summarize(windows).kernels
        assert kernel.registers == pytest.approx(1e307)
