"""The tab shows the numbers that `python -m profiling … --json` gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiling.format import duration, duration_change, ratio, size
from tests.tab import logdir as made
from tests.tab.browser import Tab

Rows = list[dict[str, Any]]


def own_peak(device: dict[str, Any]) -> int:
    """The peak of a window without what was there before."""
    return int(device["peak_bytes"] - device["start_bytes"])


def same(saved: list[dict[str, str]], told: Rows, *keys: str) -> None:
    """The rows of a CSV file are those of the JSON, in any order, by all columns that both have."""
    shared = saved[0].keys() & told[0].keys()
    assert set(keys) <= shared
    assert sorted(_texts(row, shared) for row in saved) == sorted(_texts(row, shared) for row in told)


def _texts(row: dict[str, Any], keys: set[str]) -> list[str]:
    return [_text(row[key]) for key in sorted(keys)]


def _text(value: Any) -> str:
    """Write a value of either side alike; what a trace does not say is 0 here and nothing there."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return repr(float(value)) if float(value) else ""
    except (TypeError, ValueError):
        return value or ""


def needs(logdir: Path, run: str) -> None:
    if not (logdir / run).exists():
        pytest.skip(f"needs {made.SHARED}")


@pytest.mark.parametrize("run", [made.BASELINE, made.FOREIGN, made.DEVICE, "rocm", "ranks"])
def test_operators(tab: Tab, told: Callable[..., Any], logdir: Path, run: str) -> None:
    needs(logdir, run)
    operators = told("summary", run)["operators"]
    root = tab.open("operators", run=run)
    same(tab.csv(root, "operators"), operators, "name", "calls", "self_us", "total_us")
    for shown, row in zip(tab.cells(root.get_by_role("table")), operators, strict=True):
        assert shown[:3] == [row["name"], f"{row['calls']:,}", duration(row["self_us"])]


@pytest.mark.parametrize("by", ["shape", "stack"])
def test_operators_by_what_sets_them_apart(tab: Tab, told: Callable[..., Any], by: str) -> None:
    operators = told("summary", made.BASELINE, options=["--by", by])["operators"]
    root = tab.open("operators", run=made.BASELINE, by=by)
    column = {"shape": "shapes", "stack": "stack"}[by]
    same(tab.csv(root, "operators"), operators, "name", column, "calls", "self_us")


def test_the_overview(tab: Tab, told: Callable[..., Any]) -> None:
    summary = told("summary", made.BASELINE)
    root = tab.open("overview", run=made.BASELINE)
    same(tab.csv(root, "phases"), summary["phases"], "name", "derived", "calls", "total_us", "self_us", "operator_us")
    cards = {card[0]: card[1:] for card in map(str.splitlines, root.locator(".card").all_inner_texts())}
    for timing in summary["timings"]:
        value, rate, *_ = cards[f"Step time, {timing['stage']}"]
        assert value == duration(timing["median_us"])
        assert rate == f"{round(timing['samples_per_s']):,} samples/s"
    assert cards["Memory peak"][0] == size(max(own_peak(device) for device in summary["memory"]))
    assert cards["Waits most for"][0] == summary["step_time"]["waits_for"]


@pytest.mark.parametrize("run", [made.DEVICE, "rocm", "a100", "ranks"])
def test_waits(tab: Tab, told: Callable[..., Any], logdir: Path, run: str) -> None:
    needs(logdir, run)
    summary = told("summary", run)
    root = tab.open("overview", run=run)
    same(tab.csv(root, "waited-for"), summary["waited_for"], "kind", "name", "operator", "waited_in", "wait_us")
    same(tab.csv(root, "blocked-by"), summary["blocked_by"], "name", "kind", "calls", "wait_us")
    bound = sum(step["bound"] == "device" for step in summary["steps"])
    assert f"The device bounds {bound} of {len(summary['steps'])} step" in root.inner_text()


def test_kernels_of_two_runs(tab: Tab, told: Callable[..., Any], logdir: Path) -> None:
    needs(logdir, "rocm")
    needs(logdir, "a100")
    diff = told("diff", "a100", "rocm")
    root = tab.open("compare", run="rocm", against="a100")
    same(tab.csv(root, "compare-kernels"), diff["kernels"], "name", "operator", "change", "difference_us")


@pytest.mark.parametrize("run", [made.BASELINE, made.FOREIGN])
def test_memory(tab: Tab, told: Callable[..., Any], run: str) -> None:
    devices = told("memory", run)["memory"]
    root = tab.open("memory", run=run)
    same(tab.csv(root, "memory-traffic"), devices, "device", "peak_bytes", "peak_time_us", "allocated_bytes", "frees")
    peaks = [f"peak {size(own_peak(device))}" for device in devices]
    labels = root.locator(".plot").evaluate_all("all => all.map(plot => plot.ariaLabel)")
    assert all(peak in label for peak, label in zip(peaks, labels, strict=True))


def test_modules(tab: Tab, told: Callable[..., Any]) -> None:
    modules = told("summary", made.BASELINE)["modules"]
    root = tab.open("modules", run=made.BASELINE)
    same(tab.csv(root, "modules"), modules, "path", "calls", "total_us", "self_us", "backward_us")


@pytest.mark.parametrize("run", ["rocm", "a100", "triton", "ranks"])
def test_kernels(tab: Tab, told: Callable[..., Any], logdir: Path, run: str) -> None:
    needs(logdir, run)
    summary = told("summary", run)
    root = tab.open("kernels", run=run)
    same(tab.csv(root, "kernels"), summary["kernels"], "name", "operator", "calls", "device_us")
    # The tab adds the rank to the name.
    devices = [{key: value for key, value in row.items() if key != "device"} for row in summary["devices"]]
    same(tab.csv(root, "devices"), devices, "busy_us", "idle_us", "span_us", "gaps")


def test_communication(tab: Tab, told: Callable[..., Any], logdir: Path) -> None:
    needs(logdir, "ranks")
    found = told("summary", "ranks")["communication"]
    root = tab.open("communication", run="ranks")
    collectives = [{**row, "rank": rank["rank"]} for rank in found["ranks"] for row in rank["collectives"]]
    same(tab.csv(root, "collectives"), collectives, "name", "rank", "calls", "total_us")
    same(tab.csv(root, "stragglers"), found["stragglers"], "collective", "last_rank", "waited_us")


@pytest.mark.parametrize(("run", "against"), [made.ARMS[::-1], (made.NOGRAD_OFF, made.BASELINE), made.FOREIGN_AND_CUT])
def test_differences(tab: Tab, told: Callable[..., Any], run: str, against: str) -> None:
    diff = told("diff", against, run)
    root = tab.open("compare", run=run, against=against)
    operators = [row for kind in ("changed", "added", "removed") for row in diff[kind]]
    same(tab.csv(root, "compare-operators"), operators, "name", "phase", "a_self_us", "b_self_us", "difference_us")
    facts = root.locator(".panel", has_text="In the traces").inner_text()
    for stage in diff["stages"]:
        assert f"{duration(stage['a_us'])} → {duration(stage['b_us'])}" in facts
        assert duration_change(stage["difference_us"]) in facts


def test_effects(tab: Tab, told: Callable[..., Any]) -> None:
    effects = told("effects", ".")["effects"]
    root = tab.open("effects")
    rows = {row["title"]: row for row in tab.csv(root, "effects")}
    assert rows.keys() == {effect["title"] for effect in effects}
    for effect in effects:
        phase = effect["hypothesis"]["phase"]
        (declared,) = (row for row in effect["phases"] if row["phase"] == phase)
        row = rows[effect["title"]]
        for key in ("ratio", "ratio_low", "ratio_high"):
            assert float(row[key]) == declared[key]
        assert (row["verdict"], row["outcome"]) == (effect["verdict_text"], effect["outcome"])
        assert ratio(declared["ratio"]) in root.get_by_role("row", name=effect["title"]).inner_text()
