"""The time of steps and phases adds up, whatever the events: checked against a count of single microseconds."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.analysis.summary import Summary, summarize
from profiling.diff.diff import diff
from profiling.diff.totals import StageWindow
from profiling.trace.trace import read_trace
from profiling.vocabulary import TRACE_PHASES
from tests.profiling.conftest import SHARED, Recording
from tests.profiling.make_trace import Event, event, write

END = 60  # microseconds of a generated trace
PARTS = ("device_wait_us", "load_us", "operator_us", "python_us")
moments = st.integers(0, END)


@st.composite
def traces(draw: st.DrawFn) -> list[Event]:
    """Steps one after another; phases that nest; operators and blocking calls anywhere, also on a side thread."""
    cuts = sorted(draw(st.sets(moments, min_size=2, max_size=4)))
    events = [event("the whole window", 0, END, "user_annotation")]  # so that times count from 0
    events += [
        event(f"ProfilerStep#{i}", low, high - low, "user_annotation") for i, (low, high) in enumerate(pairwise(cuts))
    ]

    def phases(low: int, high: int, depth: int) -> None:
        for _ in range(draw(st.integers(0, 2))):
            if high - low < 2 or depth == 3:
                return
            start = draw(st.integers(low, high - 1))
            end = draw(st.integers(start + 1, high))
            events.append(event(draw(st.sampled_from(TRACE_PHASES)), start, end - start, "user_annotation"))
            phases(start, end, depth + 1)
            low = end

    phases(0, END, 0)
    for name, category, tids in (
        ("aten::mm", "cpu_op", (1, 1, 2)),
        ("cudaStreamSynchronize", "cuda_runtime", (1, 1, 2)),
        ("gemm", "kernel", (7, 8)),
    ):
        for number in range(draw(st.integers(0, 5))):
            start, dur = draw(moments), draw(st.integers(0, 30))
            tid = draw(st.sampled_from(tids))
            events.append(event(name, start, dur, category, tid=tid, correlation=number + 1))
    return events


def summary(path: Path) -> Summary:
    return summarize([read_trace(path)])


def adds_up(found: Summary) -> None:
    for step in found.steps:
        parts = [getattr(step, part) for part in PARTS]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(step.total_us, abs=1e-6)
        assert sum(step.waiting_us.values()) == pytest.approx(step.device_wait_us, abs=1e-6)
    for row in found.phases:
        assert min(row.operator_us, row.python_us, row.wait_us) >= 0
        assert row.operator_us + row.python_us + row.wait_us == pytest.approx(row.self_us, abs=1e-6)
    waited = sum(row.wait_us for row in found.phases)
    assert sum(row.wait_us for row in found.waited_for) == pytest.approx(waited, abs=1e-6)
    assert sum(row.wait_us for row in found.blocked_by) == pytest.approx(waited, abs=1e-6)


def covered(events: Sequence[Event], name: str, at: int) -> bool:
    """Whether one of these events of the main thread covers the microsecond that begins at `at`."""
    return any(e["name"] == name and e["tid"] == 1 and e["ts"] <= at < e["ts"] + e["dur"] for e in events)


@settings(max_examples=400, deadline=None)
@given(events=traces())
def test_every_microsecond_of_a_step_counts_once(events: list[Event], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("trace") / "a.json", events)
    found = summary(path)
    adds_up(found)
    for step in found.steps:
        count = dict.fromkeys(PARTS, 0)
        for at in range(int(step.start_us), int(step.start_us + step.total_us)):
            if covered(events, "cudaStreamSynchronize", at):
                count["device_wait_us"] += 1
            elif covered(events, "load", at):
                count["load_us"] += 1
            elif covered(events, "aten::mm", at):
                count["operator_us"] += 1
            else:
                count["python_us"] += 1
        assert {part: getattr(step, part) for part in PARTS} == count
    inside = sum(row.self_us for row in found.phases)
    marked = {
        at
        for at in range(END)
        if any(
            covered(events, name, at) for name in (*TRACE_PHASES, *(e["name"] for e in events if "Step" in e["name"]))
        )
    }
    assert inside == len(marked)


@settings(max_examples=100, deadline=None)
@given(events=traces())
def test_a_generated_trace_does_not_differ_from_itself(
    events: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> None:
    window = StageWindow(read_trace(write(tmp_path_factory.mktemp("trace") / "a.json", events)))
    found = diff([window], [window])
    assert not (found.causes or found.added or found.removed or found.replaced)
    assert all(row.a_calls > 0 for row in found.changed)
    assert all(row.change == "same" for row in found.kernels)


@pytest.mark.parametrize("path", sorted(SHARED.glob("*.json.gz")), ids=lambda path: path.name)
def test_the_time_of_real_traces_adds_up(path: Path) -> None:
    adds_up(summary(path))
    window = StageWindow(read_trace(path))
    found = diff([window], [window])
    assert not (found.causes or found.added or found.removed or found.replaced)


def test_the_time_of_recorded_traces_adds_up(recordings: Callable[[str, bool], Recording]) -> None:
    for model in ("cnn", "attention"):
        adds_up(summary(recordings(model, True).path))


def test_an_operator_that_repeats_its_caller_in_another_phase_is_a_call_there(tmp_path: Path) -> None:
    events = [
        event("ProfilerStep#1", 0, 100, "user_annotation"),
        event("forward", 0, 50, "user_annotation"),
        event("aten::mul", 40, 40),
        event("aten::mul", 60, 10),
    ]
    window = StageWindow(read_trace(write(tmp_path / "a.json", events)))
    found = diff([window], [window])
    assert not (found.added or found.removed)
    assert {(row.phase, row.a_calls, row.a_self_us) for row in found.changed} == {("forward", 1, 30), ("other", 1, 10)}
