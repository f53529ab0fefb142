"""Reading: exact counts, every odd layout, and a clear answer for whatever is broken."""

import gzip
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from profiling.analysis.account import TimeAccount
from profiling.analysis.index import Index
from profiling.analysis.kernels import device_work
from profiling.analysis.memory import memory
from profiling.analysis.notes import notes
from profiling.analysis.operators import operators
from profiling.analysis.phases import steps
from profiling.analysis.summary import summarize
from profiling.trace import columns, parse, text
from profiling.trace.columns import Kind
from profiling.trace.files import find_traces
from profiling.trace.parse import TraceError
from profiling.trace.trace import Trace, read_trace, read_traces
from tests.profiling.conftest import SHARED, Recording
from tests.profiling.make_trace import Event, event, write

OPERATORS: list[Event] = [event(f"aten::op{i % 7}", 10 * i, 9) for i in range(100)]


def names(trace: Trace) -> list[str]:
    return [trace.names[name] for name in trace.spans.name]


@pytest.mark.parametrize("full", [False, True], ids=["light", "full"])
def test_reads_every_event_that_torch_wrote(full: bool, recordings: Callable[[str, bool], Recording]) -> None:
    path = recordings("cnn", full).path
    events = json.loads(path.read_text())["traceEvents"]
    trace = read_trace(path)
    assert trace.whole
    assert sum(trace.counts.values()) == len(events)
    complete = [e for e in events if e["ph"] == "X"]
    assert trace.spans.name.size + trace.frames.name.size == len(complete)
    longest = max((e for e in complete if e["cat"] == "cpu_op"), key=lambda e: e["dur"])
    nanoseconds = trace.spans.dur_ns[trace.rows(Kind.OPERATOR)].max()
    assert nanoseconds == round(longest["dur"] * 1000)
    assert (trace.frames.name.size > 0) == full


@pytest.mark.parametrize(
    ("name", "operators_", "kernels", "busy_us", "rank", "marked"),
    [
        ("rocm_mi250_toy_train", 70, 14, 149.042, 0, 2),
        ("cuda_a100_simple_add", 359, 79, 49758, 0, 0),
        ("cuda_event_sync", 10, 4, 51, 0, 1),
        ("cuda_triton_kernel", 3, 1, 1.76, 0, 1),
        ("cuda_ddp_rank-0", 2329, 1154, 547656, 0, 2),
        ("cuda_ddp_rank-1", 2302, 1104, 580050, 1, 2),
        ("cpu_no_distributed_info", 2424, 0, 0, 0, 1),
        ("diff_base", 6, 6, None, 1, 2),
        ("diff_test", 9, 5, None, 1, 2),
    ],
)
def test_golden_counts(name: str, operators_: int, kernels: int, busy_us: float | None, rank: int, marked: int) -> None:
    path = SHARED / f"{name}.json.gz"
    if not path.exists():
        pytest.skip("the shared traces are not here")
    trace = read_trace(path)
    index = Index(trace)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert trace.whole
    assert trace.rank == rank
    assert sum(trace.counts.values()) == len(events)
    assert trace.rows(Kind.OPERATOR).size == operators_
    assert sum(row.calls for row in device_work(index).kernels) == trace.rows(Kind.KERNEL).size == kernels
    assert index.steps.marked == bool(marked)
    assert len(steps(TimeAccount(index))) == max(marked, 1)
    if busy_us is not None:
        work = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
        edges = sorted((e["ts"], e["ts"] + e["dur"]) for e in work)
        covered, end = 0.0, float("-inf")
        for low, high in edges:
            covered += max(high - max(low, end), 0)
            end = max(end, high)
        assert device_work(index).busy_us == pytest.approx(covered, abs=0.1) == pytest.approx(busy_us, abs=0.1)


@pytest.mark.parametrize("packed", [False, True], ids=["json", "gzip"])
def test_a_trace_cut_anywhere_gives_what_precedes_the_cut(
    packed: bool, recordings: Callable[[str, bool], Recording], tmp_path: Path
) -> None:
    whole = recordings("cnn", False).path.read_bytes()
    total = len(json.loads(whole)["traceEvents"])
    first = whole.index(b"[", whole.index(b"traceEvents"))
    data = gzip.compress(whole) if packed else whole
    path = tmp_path / "cut.json"
    chance = random.Random(0)
    for cut in sorted(chance.randrange(len(data)) for _ in range(200)):
        path.write_bytes(data[:cut])
        text = zlib.decompressobj(wbits=31).decompress(data[:cut]) if packed else data[:cut]
        if len(text) <= first:
            with pytest.raises(TraceError, match=str(path)):
                read_trace(path)
            continue
        trace = read_trace(path)
        found = sum(trace.counts.values())
        assert text.count(b'"ph": ') - 1 <= found <= total
        if found < total:
            assert f"partial: {trace.cut}" in notes(trace)[0]
            assert "cut short at byte" in notes(trace)[0]


LAYOUTS: dict[str, Callable[[list[Event]], str]] = {
    "compact": lambda events: json.dumps({"traceEvents": events}, separators=(",", ":")),
    "indented": lambda events: json.dumps({"traceEvents": events}, indent=4),
    "sorted keys": lambda events: json.dumps({"traceEvents": events}, sort_keys=True),
    "a bare list": json.dumps,
    "a line per event": lambda events: '{"traceEvents": [' + "\n,\n".join(map(json.dumps, events)) + "]}",
    "rank behind": lambda events: json.dumps({"traceEvents": events, "distributedInfo": {"rank": 0}}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", [64, 1000, 1 << 18])
def test_any_layout_of_json(layout: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    tricky = event('a "}, { \\"ph\\": 1" b', 5, 1, nested=[{"name": "x"}, {"ph": "y"}, {"ts": []}])
    path = tmp_path / "a.json"
    path.write_text(LAYOUTS[layout]([*OPERATORS, tricky, *OPERATORS]))
    trace = read_trace(path)
    assert trace.whole
    assert names(trace) == [e["name"] for e in [*OPERATORS, tricky, *OPERATORS]]


def test_distributed_info_behind_the_events(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"traceEvents": OPERATORS, "traceName": "x", "distributedInfo": {"rank": 3}}))
    assert read_trace(path).rank == 3


BROKEN: dict[str, tuple[str, str, int]] = {
    # what stands in for the sixth event, what the notes say, how many of the others are lost
    "an unescaped quote": ('{"ph": "X", "cat": "cpu_op", "name": "a "b" c", "ts": 1, "dur": 1}', "unreadable", 0),
    "a name that never ends": ('{"ph": "X", "cat": "cpu_op", "name": "abc, "ts": 1, "dur": 1}', "unreadable", 0),
    "log text": ("INFO: 12:00 collecting {}", "unreadable", 0),
    "a number": ("17", "unreadable", 0),
    "no time": ('{"ph": "X", "cat": "cpu_op", "name": "a", "dur": 1}', "without a usable time", 0),
    "an absurd time": ('{"ph": "X", "cat": "cpu_op", "name": "a", "ts": 1e300, "dur": 1}', "without a usable time", 0),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_broken_costs_only_itself_and_is_located(case: str, indent: int | None, tmp_path: Path) -> None:
    text, said, lost = BROKEN[case]
    parts = [json.dumps(e, indent=indent) for e in OPERATORS]
    parts.insert(5, text)
    path = tmp_path / "a.json"
    path.write_text('{"traceEvents": [' + ",\n".join(parts) + "]}")
    trace = read_trace(path)
    assert not trace.whole
    assert len(names(trace)) == len(OPERATORS) - lost
    assert any(said in note for note in notes(trace))
    if trace.damage:
        start = path.read_text().index(text)
        assert start <= trace.damage.byte <= start + len(text) + 2


MENDABLE = {
    "a Windows path": r'{"ph": "X", "cat": "cpu_op", "name": "C:\Users\me\x.py", "ts": 1, "dur": 1}',
    "N/A": '{"ph": "X", "cat": "cpu_op", "name": "x.py", "ts": 1, "dur": 1, "args": {"x": N/A}}',
    "a control character": '{"ph": "X", "cat": "cpu_op", "name": "tab\there x.py", "ts": 1, "dur": 1}',
    "NaN": '{"ph": "X", "cat": "cpu_op", "name": "x.py", "ts": 1, "dur": NaN, "args": {"occupancy": NaN}}',
    "bytes that are not UTF-8": '{"ph": "X", "cat": "cpu_op", "name": "\udcff x.py", "ts": 1, "dur": 1}',
}


@pytest.mark.parametrize("case", MENDABLE)
def test_known_mistakes_of_writers_are_put_right(case: str, tmp_path: Path) -> None:
    parts = [json.dumps(e) for e in OPERATORS]
    parts.insert(5, MENDABLE[case])
    path = tmp_path / "a.json"
    path.write_bytes(('{"traceEvents": [' + ",\n".join(parts) + "]}").encode("utf-8", "surrogateescape"))
    trace = read_trace(path)
    assert trace.whole
    assert names(trace)[5].endswith("x.py")
    assert len(names(trace)) == len(OPERATORS) + 1


ODD_EVENTS: list[tuple[dict[str, Any], float]] = [
    ({"dur": -5}, 0),
    ({"dur": None}, 0),
    ({"dur": "2.5"}, 2.5),
    ({"pid": "Spans", "tid": "PyTorch Profiler"}, 3),
    ({"pid": 1.5, "tid": None}, 3),
    ({"args": None}, 3),
    ({"args": []}, 3),
    ({"args": {"External id": "12", "Input Dims": None, "correlation": 2**70}}, 3),
]


@pytest.mark.parametrize(("change", "dur_us"), ODD_EVENTS)
def test_odd_values_cost_a_field_not_the_event(change: dict[str, Any], dur_us: float, tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "a.json", [event("a", 1, 3) | change, event("b", 9, 1)]))
    assert trace.whole
    assert names(trace) == ["a", "b"]
    assert trace.spans.dur_ns[0] == dur_us * 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"  \n ", "empty"),
        (b"PK\3\4 not json", "the zip file is cut short"),
        (b"hello", "not JSON (byte 0"),
        (b'{"a": 1, "b": 2}', "no traceEvents, only a, b"),
        (b'{"traceEvents": 7}', "its traceEvents are no list"),
        (b'{"a": ' + b"[" * 200_000, "recursion"),
        (b'{"schemaVersion": 1, "deviceProp', "ends before its events"),
        (b"\x1f\x8b\x08\0broken", "gzip"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line(text: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


HALF_A_PAIR = '"\\ud800"'  # JSON may hold it, no file of text can
NO_TEXT = '"\xff"'


@pytest.mark.parametrize("value", [HALF_A_PAIR, NO_TEXT, "[1e999]", f"{'[' * 500}{']' * 500}", '"' + "9" * 5000 + '"'])
@pytest.mark.parametrize("key", ["name", "Input Dims", "dtype", "grid", "Process Group Name", "cat", "tid", "rank"])
def test_no_value_in_a_trace_stops_an_analysis(key: str, value: str, tmp_path: Path) -> None:
    """Whatever stands there, the answer can be computed, and written as JSON."""
    collective = event("ncclDevKernel_AllReduce", 5, 9, "kernel", Collective_name="allreduce")
    marked = [event("ProfilerStep#1", 0, 50, "user_annotation"), event("aten::mm", 1, 2), collective]
    for one in marked:
        (one if key in one else one["args"])[key] = "HERE"
    text = json.dumps({"distributedInfo": {"rank": "HERE"}, "traceEvents": marked}).replace('"HERE"', value)
    path = tmp_path / "a.pt.trace.json"
    path.write_bytes(text.replace("ProfilerStep#1", "ProfilerStep#" + "9" * 5000).encode("latin-1"))
    for by in ("operator", "shape", "stack"):
        assert msgspec.json.encode(summarize([read_trace(path)], by=by))


def test_hostile_sizes_are_cut_off_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.json.gz"
    pack = zlib.compressobj(wbits=31)
    with bomb.open("wb") as file:
        file.write(pack.compress(b'{"traceEvents": ['))
        for _ in range(64):
            file.write(pack.compress(b" " * (1 << 20)))
        file.write(pack.flush())
    assert "no event ends within 8 MiB" in (read_trace(bomb).cut or "")

    monkeypatch.setattr(parse, "MAX_EVENTS", 50)
    monkeypatch.setattr(text, "BLOCK_BYTES", 1000)
    trace = read_trace(write(tmp_path / "a.json", OPERATORS))
    assert "the limit is 50 events" in (trace.cut or "")
    assert 50 < trace.spans.name.size < 80

    monkeypatch.setattr(columns, "MAX_NAME_CHARACTERS", 20)
    monkeypatch.setattr(parse, "MAX_EVENTS", 1000)
    trace = read_trace(write(tmp_path / "b.json", OPERATORS))
    assert trace.names == ["aten::op0", "aten::op1", columns.FOLDED_NAME]
    assert names(trace)[:4] == [*trace.names, columns.FOLDED_NAME]
    assert any("more names" in note for note in notes(trace))


def test_categories_of_every_age_and_backend(tmp_path: Path) -> None:
    events = [
        event("cudaLaunchKernel", 0, 1, "Runtime", correlation=1),
        event("hipLaunchKernel", 10, 1, "hip_runtime", correlation=2),
        event("zeLaunch", 20, 1, "xpu_driver", correlation=3),
        event("launch", 30, 1, "privateuse1_runtime", correlation=4),
        *(event("kernel", 5 + 10 * i, 3, "Kernel" if i else "kernel", tid=7, correlation=i + 1) for i in range(4)),
        event("something new", 0, 1, "quantum_op"),
        {"ph": "B", "cat": "cpu_op", "name": "begin", "ts": 1},
    ]
    trace = read_trace(write(tmp_path / "a.json", events))
    assert device_work(Index(trace)).unlinked == 0
    assert trace.counts["quantum_op"] == 1
    assert any("1 quantum_op" in note for note in notes(trace))
    assert any("1 cpu_op" in note for note in notes(trace))


def test_kernels_belong_to_the_operator_around_their_launch(tmp_path: Path) -> None:
    events = [
        event("aten::mm", 0, 10, External_id=5),
        event("cudaLaunchKernel", 2, 1, "cuda_runtime", correlation=9, External_id=9),
        event("cudaGraphLaunch", 20, 1, "cuda_runtime", correlation=10),
        event("gemm", 30, 5, "kernel", tid=7, correlation=9, External_id=9),
        event("gemm", 33, 5, "kernel", tid=8, correlation=10),
        event("gemm", 50, 5, "kernel", tid=8, correlation=10),
        event("orphan", 70, 5, "kernel", tid=8, correlation=77, External_id=5),
        event("user", 30, 50, "gpu_user_annotation", tid=7),
        event("Memcpy HtoD (Pageable -> Device)", 90, 4, "gpu_memcpy", tid=7, bytes=64),
    ]
    work = device_work(Index(read_trace(write(tmp_path / "a.json", events))))
    found = {(row.name, row.operator): (row.calls, row.device_us) for row in work.kernels}
    assert found == {("gemm", "aten::mm"): (1, 5), ("gemm", "graph launch"): (2, 10), ("orphan", "aten::mm"): (1, 5)}
    assert work.busy_us == 8 + 5 + 5 + 4  # the first two overlap; annotations are no work
    longest = [(gap.start_us, gap.idle_us, gap.before) for gap in work.devices[0].longest_gaps]
    assert longest[:2] == [(0, 30, "gemm"), (55, 15, "orphan")]
    assert [(copy.direction, copy.calls, copy.bytes) for copy in work.copies] == [("HtoD", 1, 64)]
    assert work.unlinked == 1


def test_memory_alive_at_the_peak(tmp_path: Path) -> None:
    def moved(ts: float, size: int, address: int, total: int) -> Event:
        args = {"Bytes": size, "Addr": address, "Total Allocated": total, "Device Type": 0, "Device Id": -1}
        return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts, "args": args}

    events = [
        event("forward", 0, 100, "user_annotation"),
        event("aten::empty", 0, 10),
        event("aten::mm", 20, 10),
        moved(1, 100, 0xA, 150),
        moved(2, -100, 0xA, 50),
        moved(3, 200, 0xA, 250),
        moved(25, 400, 0xB, 650),
        moved(26, 30, 0xC, 680),
        moved(27, -30, 0xC, 650),
        moved(40, -200, 0xA, 450),
    ]
    (device,) = memory(Index(read_trace(write(tmp_path / "a.json", events))))
    assert (device.device, device.peak_bytes, device.peak_time_us, device.before_bytes) == ("cpu", 680, 26, 50)
    assert (device.allocated_bytes, device.freed_bytes) == (730, 330)
    assert [(row.operator, row.phase, row.bytes, row.allocations) for row in device.alive_at_peak] == [
        ("aten::mm", "forward", 430, 2),
        ("aten::empty", "forward", 200, 1),
    ]


def test_memory_alive_at_the_peak_without_addresses(tmp_path: Path) -> None:
    """PyTorch 1.8 writes neither addresses nor totals; what is freed is then the latest allocation of its size."""
    moved = [(1, -50), (2, 100), (22, 100), (23, -100), (25, 300), (26, 7), (27, -7), (40, -300)]
    events = [
        {"ph": "X", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts, "dur": 0, "args": {"Bytes": size}}
        for ts, size in moved
    ]
    operators = [event("aten::empty", 0, 10, "Operator"), event("aten::mm", 20, 10, "Operator")]
    (device,) = memory(Index(read_trace(write(tmp_path / "a.json", [*operators, *events]))))
    assert (device.start_bytes, device.peak_bytes, device.peak_time_us, device.before_bytes) == (50, 407, 26, 0)
    assert [(row.operator, row.bytes, row.allocations) for row in device.alive_at_peak] == [
        ("aten::mm", 307, 2),
        ("aten::empty", 100, 1),
    ]


def test_flow_ids_repeat_and_marks_come_absurdly_late(tmp_path: Path) -> None:
    flows = [
        {"ph": ph, "cat": cat, "id": 1, "pid": 1, "tid": 1, "ts": 1, "name": cat}
        for cat in ("fwdbwd", "ac2g")
        for ph in "sf"
    ]
    late = {"ph": "i", "name": "Record Window End", "pid": "", "tid": "", "ts": 9e15}
    trace = read_trace(write(tmp_path / "a.json", [*OPERATORS, *flows, *flows, late]))
    assert trace.whole
    assert trace.extent_ns == (0, 999_000)
    assert trace.counts["fwdbwd"] == 4


def test_a_run_folder_holds_windows_and_ranks_in_order(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    for time, rank in ((900, 0), (1000, 0), (950, 1)):
        name = f"host_{rank}.{time}.pt.trace.json.gz"
        write(tmp_path / "traces" / name, OPERATORS, distributedInfo={"rank": rank})
    (tmp_path / "record.json").write_text("{}")
    traces = read_traces(tmp_path)
    assert [(trace.path.name.split(".")[1], trace.rank) for trace in traces] == [("900", 0), ("950", 1), ("1000", 0)]
    assert [sum(row.calls for row in operators(Index(trace))) for trace in traces] == [100, 100, 100]
    with pytest.raises(TraceError, match=r"did you mean .*traces"):
        find_traces(tmp_path / "trace")
