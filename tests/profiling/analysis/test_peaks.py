"""The peak of a window has one definition everywhere, and what holds the memory is what asked for it."""

from profiling.analysis.index import Index
from profiling.analysis.memory import memory, peak_text, window_memory
from profiling.diff.diff import diff
from profiling.diff.totals import StageWindow
from profiling.trace.trace import read_trace
from tests.profiling.make_trace import event, write


def allocation(ts, moved, address, total):
    """An event of the allocator, as torch records it."""
    return {
        "ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": ts, "pid": 1, "tid": 1, "s": "t",
        "args": {"Device Type": 0, "Device Id": -1, "Bytes": moved, "Addr": address, "Total Allocated": total},
    }  # fmt: skip


def window(tmp_path):
    """1,000 bytes are there before; a product of matrices asks `aten::empty` for 300, which itself has a caller."""
    return read_trace(
        write(
            tmp_path / "a.json",
            [
                event("aten::mm", 10, 30),
                event("aten::empty", 12, 5),
                allocation(14, 300, 7, 1300),
                event("aten::empty", 50, 5),
                allocation(52, 20, 8, 1320),
                allocation(60, -300, 7, 1020),
            ],
        )
    )


def test_memory_belongs_to_the_operator_that_asked_for_it_if_there_is_one(tmp_path):
    (device,) = memory(Index(window(tmp_path)))
    assert {row.operator: row.bytes for row in device.alive_at_peak} == {"aten::mm": 300, "aten::empty": 20}


def test_a_peak_is_named_with_and_without_what_was_there_before(tmp_path):
    trace = window(tmp_path)
    (device,) = memory(Index(trace))
    assert (device.own_peak_bytes, device.peak_bytes) == (320, 1320)
    assert window_memory(trace, "cpu")[0] == device.own_peak_bytes, "what a record has"
    assert device.peak_text == "320 B (1.29 KiB with what was there before the window)"
    (difference,) = diff([StageWindow(trace)], [StageWindow(trace)]).memory
    assert (difference.a_own_peak_bytes, difference.b_peak_bytes) == (320, 1320)
    assert peak_text(320, 320) == "320 B"
