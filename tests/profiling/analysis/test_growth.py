"""Time and output grow in proportion to the trace, also for deep trees and many streams, threads and processes."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from profiling.analysis.modules import PATH_CHARACTERS
from profiling.analysis.stream_sets import reachable
from profiling.analysis.summary import summarize
from profiling.diff.diff import diff, load_windows
from profiling.trace.trace import read_traces
from tests.profiling.make_trace import Event, event, write


def nested_modules(depth: int, names: str = "Block_") -> list[Event]:
    """Modules that call each other, as many as `depth`, and an operator in the innermost one."""
    frames = [
        event(f"nn.Module: {names}{i}", i, 2 * (depth - i) + 1, "python_function", Python_id=i + 1)
        | {"args": {"Python id": i + 1, "Python parent id": i or None}}
        for i in range(depth)
    ]
    return [*frames, event("aten::mm", depth - 0.8, 0.5)]


def json_bytes(path: Path, events: list[Event]) -> tuple[int, int]:
    """Size of the JSON of the summary and of the comparison with itself."""
    write(path, events)
    windows = load_windows(path)
    results = summarize([window.trace for window in windows]), diff(windows, windows)
    return len(msgspec.json.encode(results[0])), len(msgspec.json.encode(results[1]))


@pytest.mark.parametrize("names", ["Block_", "B" * 3000], ids=["short names", "long names"])
def test_nested_modules_take_output_in_proportion(tmp_path: Path, names: str) -> None:
    small = json_bytes(tmp_path / "a.json", nested_modules(1000, names))
    large = json_bytes(tmp_path / "b.json", nested_modules(4000, names))
    assert all(more < 4.5 * less for less, more in zip(small, large, strict=True))


def test_a_long_path_has_the_hash_of_the_whole_and_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", nested_modules(200))
    windows = load_windows(path)
    summary, compared = summarize([window.trace for window in windows]), diff(windows, windows)
    rows = summary.modules
    assert [row.name for row in rows] == [f"Block_{i}" for i in range(200)]
    assert [(row.depth, row.parent) for row in rows] == [(i, i - 1) for i in range(200)]
    assert rows[100].path == "/".join(row.name for row in rows[:101])
    assert rows[199].path[17:] == "…" + "/".join(row.name for row in rows)[-PATH_CHARACTERS:]
    assert {row.path for row in compared.modules} == {row.path for row in rows}
    assert len({row.path for row in rows}) == 200
    (note,) = [note for note in summary.trace.notes if "paths" in note]
    assert note.startswith(f"{sum(len(row.path) > PATH_CHARACTERS for row in rows)} paths of modules are longer than")
    assert f"a.json: {note}" in compared.notes


def test_paths_that_end_alike_are_kept_apart(tmp_path: Path) -> None:
    """Two trees differ only in their root, which the paths of the inner modules do not show."""
    first = nested_modules(200)
    frames = [
        other | {"ts": other["ts"] + 1000, "args": {"Python id": i + 201, "Python parent id": i + 200 if i else None}}
        for i, other in enumerate(first[:-1])
    ]
    frames[0]["name"] = "nn.Module: Other"
    write(tmp_path / "a.json", [*first, *frames])
    rows = summarize(read_traces(tmp_path / "a.json")).modules
    assert len({row.path for row in rows}) == len(rows) == 400
    assert rows[199].path[17:] == rows[399].path[17:]


def test_modules_of_later_windows_follow_their_parents(tmp_path: Path) -> None:
    def module(name: str, start: float, dur: float) -> Event:
        return event(f"nn.Module: {name}", start, dur, "python_function")

    write(tmp_path / "a.1.pt.trace.json", [module("Net", 0, 10), module("A", 1, 2), module("Loss", 20, 1)])
    write(tmp_path / "a.2.pt.trace.json", [module("Net", 0, 10), module("B", 1, 2), module("C", 1.5, 0.5)])
    rows = summarize(read_traces(tmp_path)).modules
    assert [(row.path, row.depth, row.parent) for row in rows] == [
        ("Net", 0, -1),
        ("Net/A", 1, 0),
        ("Net/B", 1, 0),
        ("Net/B/C", 2, 2),
        ("Loss", 0, -1),
    ]


def chained_streams(count: int) -> list[Event]:
    """Each stream waits for the one before; the host waits for each, the last one first."""
    events = on_streams(count)
    for i in range(count):
        stream, at, number = count - 1 - i, 10 * i + 3, count + i + 1
        events.append(event("cudaStreamSynchronize", at, 5, "cuda_runtime", correlation=number))
        events.append(event("Stream Sync", at, 5, "cuda_sync", stream + 10, correlation=number))
        if i:
            waits = event("Stream Wait Event", at, 5, "cuda_sync", i + 10)
            events.append(waits | {"args": {"wait_on_stream": i + 9}})
    return events


def synchronized_contexts(count: int) -> list[Event]:
    events = on_streams(count)
    for i in range(count):
        events.append(event("cudaDeviceSynchronize", 10 * i + 3, 5, "cuda_runtime", correlation=count + i + 1))
        events.append(event("Context Sync", 10 * i + 3, 5, "cuda_sync", correlation=count + i + 1))
    return events


def on_streams(count: int) -> list[Event]:
    events = [event("ProfilerStep#0", 0, 10 * count, "user_annotation")]
    for i in range(count):
        events.append(event("cudaLaunchKernel", 10 * i, 2, "cuda_runtime", correlation=i + 1))
        events.append(event("k", 10 * i + 3, 8, "kernel", i + 10, correlation=i + 1))
    return events


def phases_on_threads(count: int) -> list[Event]:
    """Each thread has a phase early, and one late."""
    events = [event("ProfilerStep#0", 0, 8 * count, "user_annotation")]
    for i in range(2 * count):
        events.append(event("autograd::engine::evaluate_function: X", 4 * i, 3, tid=i % count + 2))
        events.append(event("forward", 4 * i + 1, 1, "user_annotation", i % count + 2))
    return events


@pytest.mark.parametrize("events", [chained_streams, synchronized_contexts, phases_on_threads])
def test_streams_and_threads_take_time_in_proportion(tmp_path: Path, events: Callable[[int], list[Event]]) -> None:
    def cpu_s(count: int) -> float:
        traces = read_traces(write(tmp_path / "a.json", events(count)))
        times = []
        for _ in range(2):
            start = time.process_time()
            summarize(traces)
            times.append(time.process_time() - start)
        return min(times)

    assert cpu_s(4800) < 8 * cpu_s(1200)


class CountedEdges(dict[int, list[int]]):
    """Edges of streams that count how often they are looked up."""

    seen: Counter[int]

    def get(self, key: int, default: object = None) -> object:  # type: ignore[override]
        self.seen[key] += 1
        return super().get(key, default)


@pytest.mark.parametrize("order", [1, -1])
def test_the_waits_of_each_stream_are_followed_once(order: int) -> None:
    waits = CountedEdges({i: [i - 1] for i in range(1, 2000)[::order]})
    waits.seen = Counter()
    reached = reachable(waits)
    assert all(reached[i] == (2 << i) - 1 for i in range(2000))
    assert max(waits.seen.values()) == 1


def test_streams_that_wait_for_each_other_have_the_same_set() -> None:
    assert reachable({1: [2, 4], 2: [3], 3: [1], 4: [4], 5: [3]}) == {
        **dict.fromkeys((1, 2, 3), 0b11110), 4: 0b10000, 5: 0b111110
    }  # fmt: skip
