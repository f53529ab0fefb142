"""Operators agree with torch's own tables, and self times add up to the time that operators cover."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.analysis.account import TimeAccount
from profiling.analysis.index import Index
from profiling.analysis.modules import modules
from profiling.analysis.operators import STACK_FRAMES, operators, operators_by_shape, operators_by_stack
from profiling.analysis.phases import phases, steps
from profiling.trace.columns import Kind
from profiling.trace.trace import read_trace
from tests.profiling.conftest import MODELS, Recording
from tests.profiling.make_trace import Event, event, write


@pytest.mark.parametrize("full", [False, True], ids=["light", "full"])
@pytest.mark.parametrize("model", MODELS)
def test_agrees_with_key_averages(model: str, full: bool, recordings: Callable[[str, bool], Recording]) -> None:
    recording = recordings(model, full)
    rows = (row for row in recording.averages if not row.is_user_annotation and row.key != "[memory]")
    expected = {row.key: row for row in rows}
    found = {row.name: row for row in operators(Index(read_trace(recording.path)))}
    assert found.keys() >= expected.keys()
    for name, row in expected.items():
        assert found[name].calls == row.count, name
        assert found[name].self_us == pytest.approx(row.self_cpu_time_total, rel=0.01, abs=0.01), name
        assert found[name].total_us == pytest.approx(row.cpu_time_total, rel=0.01, abs=0.01), name


def test_every_phase_accounts_for_its_time(recordings: Callable[[str, bool], Recording]) -> None:
    index = Index(read_trace(recordings("cnn", False).path))
    rows = {row.name: row for row in phases(TimeAccount(index))}
    assert [rows[name].calls for name in ("forward", "loss", "backward")] == [2, 2, 2]
    for row in rows.values():
        assert row.operator_us + row.python_us + row.wait_us == pytest.approx(row.self_us, abs=0.01)
    operator_us = sum(row.self_us for row in operators(index))
    assert sum(row.operator_us for row in rows.values()) == pytest.approx(operator_us, abs=0.01)


def test_modules_form_the_tree_of_the_network(recordings: Callable[[str, bool], Recording]) -> None:
    rows = modules(Index(read_trace(recordings("cnn", True).path)))
    assert [row.path for row in rows] == [
        "Sequential_0",
        *(f"Sequential_0/{name}" for name in ("Conv2d_0", "BatchNorm2d_0", "ReLU_0", "Flatten_0", "Linear_0")),
    ]
    assert {row.calls for row in rows} == {2}
    assert rows[0].self_us == pytest.approx(rows[0].total_us - sum(row.total_us for row in rows[1:]), abs=0.01)
    assert all(row.backward_us > 0 for row in rows[1:])


@st.composite
def nestings(draw: st.DrawFn) -> list[Event]:
    """Operators that nest properly on a few threads, with touching siblings, empty ones and equal intervals."""
    events: list[Event] = []

    def fill(low: int, high: int, tid: int, depth: int) -> None:
        at = low
        while at <= high and len(events) < 60 and draw(st.booleans()):
            start = draw(st.integers(at, high))
            end = draw(st.integers(start, high))
            events.append(event(draw(st.sampled_from("abc")), start / 1000, (end - start) / 1000, tid=tid))
            if depth < 6:
                fill(start, end, tid, depth + 1)
            at = end

    for tid in range(draw(st.integers(1, 3))):
        fill(0, 3000, tid, 0)
    return draw(st.permutations(events))


@given(events=nestings(), offset=st.sampled_from([0, 4_438_560_409_459, 1_682_725_898_236]))
def test_self_times_add_up_to_the_union_per_thread(
    events: list[Event], offset: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("nesting")
    shifted = [{**entry, "ts": entry["ts"] + offset} for entry in events]
    nested = Index(read_trace(write(folder / "a.json", shifted))).operators
    self_ns = nested.self_ns()
    for tid in {entry["tid"] for entry in events}:
        covered = {
            tick
            for entry in events
            if entry["tid"] == tid
            for tick in range(round(entry["ts"] * 1000), round((entry["ts"] + entry["dur"]) * 1000))
        }
        threads = [thread.tid for thread in read_trace(folder / "a.json").threads]
        assert self_ns[nested.thread == threads.index(tid)].sum() == len(covered)


def test_a_call_that_only_repeats_the_one_around_it_counts_once(tmp_path: Path) -> None:
    events = [event("mul", 0, 10), event("mul", 1, 8), event("empty", 2, 1)]
    (mul, empty) = operators(Index(read_trace(write(tmp_path / "a.json", events))))
    assert (mul.calls, mul.total_us, mul.self_us) == (1, 10, 9)
    assert (empty.calls, empty.total_us) == (1, 1)


def test_rounding_to_microseconds_leaves_children_inside(tmp_path: Path) -> None:
    events = [event("parent", 10, 5), event("child", 12, 4), event("next", 17, 3)]
    rows = {row.name: row for row in operators(Index(read_trace(write(tmp_path / "a.json", events))))}
    assert rows["parent"].self_us == 2
    assert rows["next"].self_us == 3


def test_five_thousand_levels(tmp_path: Path) -> None:
    depth = 5000
    events = [event(f"level {i}", i, 2 * depth - 2 * i) for i in range(depth)]
    rows = operators(Index(read_trace(write(tmp_path / "a.json", [*events, event("after", 2 * depth, 7)]))))
    assert sum(row.self_us for row in rows) == 2 * depth + 7
    assert max(row.self_us for row in rows) == 7


def test_a_hundred_threads_stay_apart(tmp_path: Path) -> None:
    events = [event("op", 0, 10, tid=tid) for tid in range(100)] + [event("inner", 2, 3, tid=tid) for tid in range(100)]
    rows = {row.name: row for row in operators(Index(read_trace(write(tmp_path / "a.json", events))))}
    assert (rows["op"].calls, rows["op"].self_us) == (100, 700)


def test_annotations_and_python_are_not_operators(tmp_path: Path) -> None:
    events = [
        event("ProfilerStep#7", 0, 100, "user_annotation"),
        event("forward", 0, 50, "user_annotation"),
        event("model.py: forward", 1, 48, "python_function"),
        event("aten::mm", 10, 20),
    ]
    index = Index(read_trace(write(tmp_path / "a.json", events)))
    assert [(row.name, row.self_us) for row in operators(index)] == [("aten::mm", 20)]
    assert [(step.number, step.total_us, step.operator_us) for step in steps(TimeAccount(index))] == [(7, 100, 20)]


def test_shapes_split_operators(tmp_path: Path) -> None:
    events = [event("mm", i * 10, 1, Input_Dims=[[2, i % 2]]) for i in range(5)]
    rows = operators_by_shape(Index(read_trace(write(tmp_path / "a.json", events))))
    assert sorted((row.shapes, row.calls) for row in rows) == [("[[2, 0]]", 3), ("[[2, 1]]", 2)]


def test_modules_without_a_name_and_with_slashes_are_rows_of_their_own(tmp_path: Path) -> None:
    names = ["nn.Module: ", "nn.Module: a/b", "nn.Module: a\\b", "nn.Module: ", "nn.Module: c"]
    events = [event(name, at, 20 - 2 * at, "python_function") for at, name in enumerate(names)]
    rows = modules(Index(read_trace(write(tmp_path / "a.json", events))))
    assert [row.name for row in rows] == ["(unnamed)", "a\\b", "a\\b", "(unnamed)", "c"]
    assert [row.depth for row in rows] == [0, 1, 2, 3, 4]
    assert [row.calls for row in rows] == [1] * 5


def test_a_module_with_a_slash_in_its_name_keeps_its_place(tmp_path: Path) -> None:
    events = [event("nn.Module: a/b_0", 0, 50, "python_function"), event("nn.Module: C_0", 5, 30, "python_function")]
    rows = modules(Index(read_trace(write(tmp_path / "a.json", events))))
    assert [(row.path, row.depth) for row in rows] == [("a\\b_0", 0), ("a\\b_0/C_0", 1)]


def test_stacks_split_operators_innermost_frame_first(tmp_path: Path) -> None:
    frames = [
        ("train.py(1): <module>", 0, 100),
        ("train.py(7): step", 5, 60),
        ("torch/profiler/profiler.py(9): step", 6, 58),
        ("torch/nn/modules/module.py(3): _call_impl", 7, 56),
        ("nn.Module: Linear_0", 8, 54),
        ("<built-in function linear>", 9, 52),
    ]
    events = [event(name, start, dur, "python_function") for name, start, dur in frames]
    calls = [(10, 1, 1), (12, 1, 1), (80, 1, 2), (10, 2, 4)]  # start, thread, duration; no frames on thread 2
    events += [event("mm", start, dur, tid=thread) for start, thread, dur in calls]
    rows = operators_by_stack(Index(read_trace(write(tmp_path / "a.json", events))))
    assert {(row.stack, row.calls, row.self_us) for row in rows} == {
        ("train.py(7): step\ntrain.py(1): <module>", 2, 2),
        ("train.py(1): <module>", 1, 2),
        ("", 1, 4),
    }


def test_stacks_are_cut_at_the_outer_end(tmp_path: Path) -> None:
    events = [event(f"a.py({depth}): f", depth, 100 - 2 * depth, "python_function") for depth in range(20)]
    (row,) = operators_by_stack(Index(read_trace(write(tmp_path / "a.json", [*events, event("mm", 30, 5)]))))
    assert row.stack == "\n".join(f"a.py({depth}): f" for depth in range(19, 19 - STACK_FRAMES, -1))


def test_stacks_only_split_what_operators_sum_up(recordings: Callable[[str, bool], Recording]) -> None:
    index = Index(read_trace(recordings("mlp", True).path))
    rows = operators_by_stack(index)
    for whole in operators(index):
        parts = [row for row in rows if row.name == whole.name]
        assert sum(row.calls for row in parts) == whole.calls
        assert sum(row.self_us for row in parts) == pytest.approx(whole.self_us)
    assert any("linear.py" in (row.stack or "") for row in rows if row.name == "aten::linear")


def test_backward_on_its_own_thread_belongs_to_the_phase_that_waits_for_it(tmp_path: Path) -> None:
    backward = "autograd::engine::evaluate_function: MulBackward0"
    events = [
        event("backward", 0, 100, "user_annotation"),
        event("aten::ones_like", 1, 4),
        event(backward, 10, 60, tid=2),
        event("worker", 10, 80, tid=3),
    ]
    index = Index(read_trace(write(tmp_path / "a.json", events)))
    rows = {row.name: row for row in phases(TimeAccount(index))}
    assert (rows["backward"].operator_us, rows["backward"].python_us) == (64, 36)
    assert index.trace.rows(Kind.OPERATOR).size == 3


def test_autograd_marks_the_backward_pass_that_nobody_marked(tmp_path: Path) -> None:
    events = [event("aten::mm", 0, 10), event("autograd::engine::evaluate_function: MmBackward0", 20, 30)]
    rows = {row.name: row for row in phases(TimeAccount(Index(read_trace(write(tmp_path / "a.json", events)))))}
    assert (rows["backward"].operator_us, rows["other"].operator_us) == (30, 10)
    assert rows["backward"].self_us + rows["other"].self_us == 50
