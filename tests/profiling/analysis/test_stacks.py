"""Python stacks follow the ids of the frames; a frame that never returned does not adopt what comes after it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.analysis.summary import Summary, summarize
from profiling.trace.trace import read_trace
from tests.profiling.cases import case
from tests.profiling.conftest import MODELS, Recording
from tests.profiling.make_trace import Event, event, write

END = 1000


def frame(name: str, start: float, end: float, id_: Any, caller: Any, tid: int = 1, pid: int = 1) -> Event:
    made = event(name, start, end - start, "python_function", tid, Python_id=id_, Python_parent_id=caller)
    return made | {"pid": pid}


def summary_of(path: Path, events: list[Event]) -> Summary:
    return summarize([read_trace(write(path, events))], by="stack")


def stacks_of(summary: Summary) -> dict[str, str]:
    return {row.name: (row.stack or "").replace("\n", " < ") for row in summary.operators}


def overlap_notes(summary: Summary) -> list[str]:
    return [note for note in summary.trace.notes if "frames overlap" in note]


def test_a_generator_that_never_returns_adopts_nothing() -> None:
    summary = summarize([read_trace(case("07-python-overrun/trace.json"))], by="stack")
    assert stacks_of(summary) == {
        "aten::mm": "model.py(9): forward < train.py(1): main",
        "aten::add_": "opt.py(3): step < train.py(1): main",
    }
    assert "1 Python frames overlap" in overlap_notes(summary)[0]
    modules = summarize([read_trace(case("07-python-overrun/modules.json"))]).modules
    assert [(row.path, row.total_us) for row in modules] == [("Encoder_0", 80), ("Lost_0", 79), ("Decoder_0", 200)]


def test_operators_after_a_lost_frame_belong_to_the_function_that_runs(tmp_path: Path) -> None:
    events = [
        frame("a.py(1): main", 0, END, 0, None),
        frame("a.py(2): load", 10, 100, 1, 0),
        frame("a.py(3): generator", 20, END, 2, 1),
        frame("a.py(4): forward", 200, 300, 3, 0),
        event("in_generator", 50, 5),
        event("after_load", 150, 5),
        event("in_forward", 250, 5),
        event("after_forward", 400, 5),
    ]
    assert stacks_of(summary_of(tmp_path / "a.json", events)) == {
        "in_generator": "a.py(3): generator < a.py(2): load < a.py(1): main",
        "after_load": "a.py(1): main",
        "in_forward": "a.py(4): forward < a.py(1): main",
        "after_forward": "a.py(1): main",
    }


def test_a_lost_module_ends_when_its_caller_calls_another(tmp_path: Path) -> None:
    events = [
        frame("nn.Module: Net_0", 0, END, 1, None),
        frame("nn.Module: Lost_0", 100, END, 2, 1),
        frame("nn.Module: Inner_0", 120, END, 3, 2),
        frame("nn.Module: Next_0", 300, 400, 4, 1),
        frame("nn.Module: Last_0", 500, 700, 5, 1),
    ]
    summary = summary_of(tmp_path / "a.json", events)
    assert {row.path: (row.total_us, row.self_us) for row in summary.modules} == {
        "Net_0": (1000, 500),
        "Net_0/Lost_0": (200, 20),
        "Net_0/Lost_0/Inner_0": (180, 180),
        "Net_0/Next_0": (100, 100),
        "Net_0/Last_0": (200, 200),
    }
    assert "2 Python frames overlap" in overlap_notes(summary)[0]


def test_threads_and_processes_may_use_the_same_ids(tmp_path: Path) -> None:
    events: list[Event] = []
    for number, (tid, pid) in enumerate([(1, 1), (2, 1), (1, 2)]):
        events += [
            frame(f"m.py(1): main{number}", 0, END, 1, None, tid, pid),
            frame(f"m.py(2): lost{number}", 10, END, 2, 1, tid, pid),
            frame(f"m.py(3): work{number}", 50, 90, 3, 1, tid, pid),
            event(f"op{number}", 60, 5, tid=tid) | {"pid": pid},
        ]
    assert stacks_of(summary_of(tmp_path / "a.json", events)) == {
        f"op{number}": f"m.py(3): work{number} < m.py(1): main{number}" for number in range(3)
    }


def test_an_outermost_frame_may_have_no_field_for_its_caller(tmp_path: Path) -> None:
    first = frame("m.py(1): first", 0, END, 1, None)
    second = frame("m.py(2): second", 100, 300, 2, None)
    del second["args"]["Python parent id"]
    events = [first, second, frame("m.py(3): inner", 110, 200, 3, 2), event("op", 120, 5)]
    assert stacks_of(summary_of(tmp_path / "a.json", events)) == {"op": "m.py(3): inner < m.py(2): second"}


def test_without_ids_time_tells_the_stack_and_overlaps_are_said(tmp_path: Path) -> None:
    events = [
        event("m.py(1): main", 0, END, "python_function"),
        event("m.py(2): early", 100, 200, "python_function"),
        event("m.py(3): late", 250, 200, "python_function"),
        event("op", 120, 5),
    ]
    summary = summary_of(tmp_path / "a.json", events)
    assert stacks_of(summary) == {"op": "m.py(2): early < m.py(1): main"}
    assert "1 Python frames overlap" in overlap_notes(summary)[0]
    assert "guess" in overlap_notes(summary)[0]


@pytest.mark.parametrize(
    "ids",
    [
        [(1, 2), (2, 1), (3, 2)],  # each calls the other
        [(1, 1), (2, 2), (3, 3)],
        [(1, None), (1, 1), (1, 1)],  # one id for all
        [(1, None), (2, 77), (3, 2)],  # a caller that is not in the file
        [(2**40, None), (2**41, 2**40), (2**70, 2**41)],
        [(-5, None), (-6, -5), (-7, -6)],
        [(1, None), (2, 1), (3, -7)],
        [(1, None), (-3, 1), (2**40, 2)],
        [(2_000_000_000, None), (2_000_000_001, 2_000_000_000), (2_000_000_002, 2_000_000_001)],
        [("1", None), ("2", "1"), ("3", "2")],
        [(1, None), (2, None), (3, None)],
    ],
)
def test_ids_that_tell_nothing_leave_it_to_time(ids: list[tuple[Any, Any]], tmp_path: Path) -> None:
    names = ["m.py(1): a", "m.py(2): b", "m.py(3): c"]
    spans = [(0, END), (100, 800), (200, 300)]
    events = [frame(name, *span, *id_) for name, span, id_ in zip(names, spans, ids, strict=True)]
    found = stacks_of(summary_of(tmp_path / "a.json", [*events, event("op", 250, 5)]))
    assert found == {"op": "m.py(3): c < m.py(2): b < m.py(1): a"}


def test_a_caller_of_another_thread_or_a_later_time_is_none(tmp_path: Path) -> None:
    events = [
        frame("m.py(3): elsewhere", 0, END, 3, None, tid=2),
        frame("m.py(1): main", 0, END, 1, None),
        frame("m.py(2): inner", 100, 200, 2, 4),
        frame("m.py(4): later", 500, 600, 4, 3),
        event("op", 150, 5),
        event("op2", 550, 5),
    ]
    assert stacks_of(summary_of(tmp_path / "a.json", events)) == {
        "op": "m.py(2): inner < m.py(1): main",
        "op2": "m.py(4): later < m.py(1): main",
    }


def test_a_single_frame_may_have_been_called_by_one_that_is_missing(tmp_path: Path) -> None:
    events = [frame("m.py(1): only", 0, END, 1, 7), event("op", 50, 5)]
    assert stacks_of(summary_of(tmp_path / "a.json", events)) == {"op": "m.py(1): only"}


@pytest.mark.parametrize("model", MODELS)
def test_ids_and_time_agree_where_every_frame_returned(
    model: str, recordings: Callable[[str, bool], Recording], tmp_path: Path
) -> None:
    path = recordings(model, True).path
    whole = json.loads(path.read_text())
    for entry in whole["traceEvents"]:
        for key in ("Python id", "Python parent id"):
            entry.get("args", {}).pop(key, None)
    (tmp_path / "a.json").write_text(json.dumps(whole))
    by_id, by_time = (summarize([read_trace(file)], by="stack") for file in (path, tmp_path / "a.json"))
    assert by_id.operators == by_time.operators
    assert by_id.modules == by_time.modules
    assert not overlap_notes(by_id) and not overlap_notes(by_time)


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Event], dict[str, str]]:
    """Calls that nest, some of which never return in the file, and the true stack of each operator."""
    events: list[Event] = []
    stacks: dict[str, str] = {}
    ids = draw(st.permutations(range(100)))

    def operator(at: int, stack: list[str]) -> int:
        name = f"op{len(stacks)}"
        stacks[name] = " < ".join(stack[::-1])
        events.append(event(name, at, 2))
        return at + 5

    def call(at: int, stack: list[str], caller: int | None) -> int:
        number, name = ids[len(events)], f"m.py(1): f{len(events)}"
        here = len(events)
        lost = draw(st.booleans()) and draw(st.booleans())
        events.append(frame(name, at, 0, number, caller))
        start, stack = at, [*stack, name]
        at = operator(at + 5, stack)
        for _ in range(draw(st.integers(0, 3)) if len(stack) < 6 and len(events) < 60 else 0):
            at = call(at + 5, stack, number)
            returned = events[-1]["ts"] + events[-1]["dur"] < END * 10
            if draw(st.booleans()) and returned and not any(is_lost(entry) for entry in events[here + 1 :]):
                at = operator(at + 5, stack)
        events[here]["dur"] = (END * 10 if lost else at + 5) - start
        return at + 10

    call(0, [], None)
    return draw(st.permutations(events)), stacks


def is_lost(entry: Event) -> bool:
    return bool(entry["cat"] == "python_function" and entry["ts"] + entry["dur"] == END * 10)


@given(program=programs())
def test_every_operator_has_its_true_stack(
    program: tuple[list[Event], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    events, expected = program
    found = summary_of(tmp_path_factory.mktemp("program") / "a.json", events)
    assert stacks_of(found) == expected
