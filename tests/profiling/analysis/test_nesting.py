"""Rounded time stamps do not nest operators that ran one after the other, nor tear apart those that did nest."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.analysis.index import Index
from profiling.analysis.operators import Operator, operators
from profiling.trace.trace import read_trace
from tests.profiling.make_trace import Event, event, write

EPOCH_US = 1_700_000_000_000_000
"""An absolute time as older releases write it; a float64 resolves a quarter of a microsecond there."""


def at_epoch(name: str, start_ns: int, dur_ns: int) -> Event:
    """An operator whose start is rounded to a float64, as a reader of its text gets it."""
    return event(name, EPOCH_US + start_ns / 1000, dur_ns / 1000)


def rows_of(path: Path, events: list[Event]) -> dict[str, Operator]:
    return {row.name: row for row in operators(Index(read_trace(write(path, events))))}


@given(
    durations=st.lists(st.integers(1, 249), min_size=2, max_size=30),
    gap=st.integers(0, 40),
    names=st.sampled_from(["a", "ab", "abc"]),
)
def test_operators_shorter_than_the_resolution_are_siblings(
    durations: list[int], gap: int, names: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events, at = [], 0
    for number, duration in enumerate(durations):
        events.append(at_epoch(names[number % len(names)], at, duration))
        at += duration + gap
    rows = rows_of(tmp_path_factory.mktemp("tiny") / "a.json", events)
    assert sum(row.calls for row in rows.values()) == len(durations)
    for number, name in enumerate(names[: len(durations)]):
        assert rows[name].self_us == pytest.approx(sum(durations[number :: len(names)]) / 1000)


@pytest.mark.parametrize("start_ns", range(0, 1000, 125))
def test_a_callee_stays_inside_its_caller_when_starts_are_rounded(tmp_path: Path, start_ns: int) -> None:
    events = [at_epoch("aten::t", start_ns, 900), at_epoch("aten::transpose", start_ns + 150, 700)]
    events.append(at_epoch("aten::alias", start_ns + 700, 100))
    rows = rows_of(tmp_path / "a.json", events)
    assert sum(row.self_us for row in rows.values()) == pytest.approx(0.9, abs=0.26)
    assert rows["aten::t"].self_us <= 0.46
    assert rows["aten::transpose"].self_us <= 0.7


def test_an_operator_that_follows_another_is_not_its_child_by_rounding(tmp_path: Path) -> None:
    # Starts of 0.13 and 5.24 us are read as 0.25 and 5.25: the first seems to end 0.1 us after the second began.
    rows = rows_of(tmp_path / "a.json", [at_epoch("long", 130, 5100), at_epoch("next", 5240, 900)])
    assert (rows["long"].self_us, rows["next"].self_us) == (5.1, 0.9)
    rows = rows_of(tmp_path / "c.json", [at_epoch("first", 130, 900), at_epoch("next", 1030, 600)])
    assert (rows["first"].self_us, rows["next"].self_us) == (0.9, 0.6)
    same = rows_of(tmp_path / "b.json", [at_epoch("same", 130, 5100), at_epoch("same", 5240, 80)])["same"]
    assert (same.calls, same.self_us) == (2, pytest.approx(5.18))


def test_what_outlasts_an_operator_is_no_child_of_it(tmp_path: Path) -> None:
    # Starts of 0.126 and 0.624 us are read as 0.25 and 0.5.
    rows = rows_of(tmp_path / "a.json", [at_epoch("short", 126, 498), at_epoch("long", 624, 600)])
    assert (rows["short"].self_us, rows["long"].self_us) == (0.498, 0.6)


def test_exact_times_tolerate_no_overlap(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.json", [event("first", 0.001, 5), event("second", 4.501, 1.3)])
    assert (rows["first"].self_us, rows["second"].self_us) == (5, 1.3)
