"""Two windows do not show a difference that is within the spread of their own steps, and `diff` says so."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from profiling.__main__ import main
from profiling.diff.diff import diff, load_windows
from profiling.diff.differences import Diff
from profiling.diff.explanation import explain
from profiling.figures.comparison import waterfall
from profiling.vocabulary import BASELINE, VARIANT
from tests.profiling.make_trace import Event, event, write


def steps(forward_us: Sequence[int], optimizer_us: Sequence[int]) -> list[Event]:
    """Marked steps of equal length, each with a forward pass and an optimizer of the given lengths."""
    events: list[Event] = []
    for number, (forward, optimizer) in enumerate(zip(forward_us, optimizer_us, strict=True)):
        start = 10 + 1000 * number
        events.append(event(f"ProfilerStep#{number}", start, 1000, "user_annotation"))
        events.append(event("forward", start, forward, "user_annotation"))
        events.append(event("aten::mm", start, forward - 1))
        events.append(event("optimizer", start + 600, optimizer, "user_annotation"))
    return events


def compared(a: Sequence[Event], b: Sequence[Event], tmp_path: Path) -> Diff:
    paths = [write(tmp_path / name, events) for name, events in (("a.json", a), ("b.json", b))]
    return diff(*map(load_windows, paths))


def uncertain(found: Diff) -> set[str]:
    return {row.phase for row in found.phases if row.uncertain}


def test_a_difference_within_the_spread_of_the_steps_is_uncertain(tmp_path: Path) -> None:
    a, b = steps([100, 140, 120], [50, 50, 52]), steps([110, 150, 160], [70, 71, 70])
    found = compared(a, b, tmp_path)
    assert "forward" in uncertain(found) and "optimizer" not in uncertain(found)


def test_a_single_step_shows_no_difference(tmp_path: Path) -> None:
    found = compared(steps([100], [50]), steps([300], [500]), tmp_path)
    assert {row.phase for row in found.phases} == uncertain(found)


def test_an_explanation_marks_it_and_says_whether_the_sign_rests_on_it(tmp_path: Path) -> None:
    a, b = steps([100, 140, 120], [50, 50, 52]), steps([110, 150, 160], [70, 71, 70])
    arms = {arm: load_windows(write(tmp_path / f"{arm}.json", events)) for arm, events in ((BASELINE, a), (VARIANT, b))}
    train, forward, optimizer = (explain({"train": arms}, phase) for phase in ("train", "forward", "optimizer"))
    assert train is not None and forward is not None and optimizer is not None
    marks = {cause.phase: train.mark(cause) for cause in train.causes}
    assert (marks["forward"], marks["optimizer"]) == ("~ ", "")
    assert (forward.is_certain, optimizer.is_certain) == (False, True)
    texts = waterfall(train)["data"][0]["hovertext"][: len(train.causes)]
    assert [text.startswith("~ ") for text in texts] == [bool(train.mark(cause)) for cause in train.causes]


def test_the_terminal_marks_what_is_uncertain_with_its_causes_and_says_how_to_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    a, b = steps([100, 140, 120], [50, 50, 52]), steps([110, 150, 160], [70, 71, 70])
    compared(a, b, tmp_path)
    assert main(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert ["~" in line for line in lines if line.startswith("forward")] == [True, True]  # the phase and its cause
    assert not any("~" in line for line in lines if line.startswith("optimizer"))
    assert "python -m train.ab" in printed
