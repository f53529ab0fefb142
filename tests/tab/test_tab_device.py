"""What the tab shows of derived phases, waits and device work is named and whole."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from profiling.format import duration
from tests.tab import logdir as made
from tests.tab.browser import NARROW, Tab

TOO_WIDE = """root => [...root.querySelectorAll("table")]
    .filter(table => table.getBoundingClientRect().right > table.parentNode.getBoundingClientRect().right + 1)
    .map(table => table.ariaLabel)"""
BELOW_STEPS = """plot => [...plot.querySelectorAll(".xtick text")]
    .map(label => [label.textContent, label.getBoundingClientRect()])
    .map(([text, {left, right, height}]) => [text, left, right, height])"""
BARS = """plot => Object.fromEntries([...plot.querySelectorAll(".point")]
    .map(bar => [bar.textContent, bar.querySelector("path").getBoundingClientRect().width]))"""


def named(phases: list[dict[str, Any]], key: str) -> list[str]:
    """The names of phases as the command line prints them."""
    return [f"{phase[key]} (derived)" if phase["derived"] else phase[key] for phase in phases]


def test_derived_phases_are_named_as_such(tab: Tab, told: Callable[..., Any]) -> None:
    expected = named(told("summary", made.FOREIGN)["phases"], "name")
    assert "backward (derived)" in expected and "forward" in expected
    root = tab.open("overview", run=made.FOREIGN)
    assert [row[0] for row in tab.cells(root.get_by_role("table", name="Phases"))] == expected
    assert root.locator(".plot").nth(1).locator(".ytick text").all_text_contents() == expected

    diff = told("diff", made.PARTIAL, made.FOREIGN)
    expected = named(diff["phases"], "phase")
    assert any("(derived)" in name for name in expected)
    root = tab.open("compare", run=made.FOREIGN, against=made.PARTIAL)
    assert [row[0] for row in tab.cells(root.get_by_role("table", name="phases"))] == expected
    bars = root.locator(".plot").first.locator(".ytick text").all_text_contents()
    assert [name for name in bars if "smaller phases" not in name] == expected[: len(bars)]
    assert [row["derived"] for row in tab.csv(root, "compare-phases")] == [
        str(phase["derived"]).lower() for phase in diff["phases"]
    ]


def test_waits_and_names_of_windows_are_whole_on_a_small_screen(new_tab: Callable[..., Tab]) -> None:
    tab = new_tab(viewport=NARROW)
    root = tab.open("overview", run=made.DEVICE)
    assert root.get_by_role("table", name="what the host waits for").count() == 1
    assert root.evaluate(TOO_WIDE) == []
    labels = root.locator(".plot").first.evaluate(BELOW_STEPS)
    names = [label for label in labels if "1795736107341578482" in label[0]]
    expected = {f"7{stage}.1795736107341578482" for stage in ("evaluate", "infer", "train")}  # below step 7
    assert (len(labels), {text for text, *_ in names}) == (12, expected)
    assert all(height < 40 for *_, height in names)  # two level lines
    assert all(left[2] < right[1] for left, right in pairwise(names))


def test_device_work_outside_operators_has_bars_of_device_time(tab: Tab, told: Callable[..., Any]) -> None:
    rows = told("summary", made.DEVICE)["operators"]
    (graph,) = (row for row in rows if not row["self_us"])
    bars = tab.open("operators", run=made.DEVICE).locator(".plot").evaluate(BARS)
    assert max(bars, key=bars.__getitem__) == duration(graph["device_us"])
