"""A logdir that fills while TensorBoard runs."""

import shutil
from pathlib import Path

import pytest

from tests.tab import logdir as made
from tests.tab.browser import Tab


def reload(tab: Tab) -> None:
    tab.page.locator("app-header-reload button").click()


@pytest.mark.slow
def test_runs_and_windows_appear_on_reload(growing: tuple[Path, Tab], logdir: Path) -> None:
    folder, tab = growing
    tab.page.goto(tab.url)
    tab.page.get_by_text("No dashboards are active").wait_for()
    assert tab.page.get_by_role("tab", name="A/B Trace").count() == 0

    assert "No traces" in tab.open("overview").inner_text()
    first, second = sorted((logdir / made.FOREIGN).iterdir())
    (folder / "run").mkdir()
    shutil.copy(first, folder / "run")
    reload(tab)
    tab.page.get_by_role("tab", name="A/B Trace").wait_for()
    tab.main.locator(".cards").wait_for()  # by itself: the empty view found something to show

    shutil.copy(second, folder / "run")
    shutil.copytree(logdir / made.PARTIAL, folder / "other")
    reload(tab)
    tab.frame.locator("option", has_text="all 2").wait_for(state="attached")
    assert tab.choice("Run").locator("option").all_inner_texts() == ["other", "run"]


@pytest.mark.slow
def test_long_names_of_runs_lose_their_middle(growing: tuple[Path, Tab], logdir: Path) -> None:
    folder, tab = growing
    name = f"baseline+{'model.width=8+' * 8}loss/2026-11-28_07-36-11"
    shutil.copytree(logdir / made.PARTIAL, folder / name)
    tab.page.goto(tab.url)
    reload(tab)
    tab.page.get_by_role("tab", name="A/B Trace").wait_for()
    tab.open("overview", run=name)
    shown = tab.choice("Run").locator("option:checked").inner_text()
    assert shown.startswith("baseline+model") and shown.endswith("loss/2026-11-28_07-36-11") and len(shown) < 70


@pytest.mark.slow
def test_compare_begins_with_the_newest_baseline_and_counts_one_switch_as_one_line(
    growing: tuple[Path, Tab], logdir: Path
) -> None:
    folder, tab = growing
    for run in (made.BASELINE, made.NOGRAD_OFF):
        shutil.copytree(logdir / run, folder / run)
    tab.page.goto(tab.url)
    reload(tab)
    tab.page.get_by_role("tab", name="A/B Trace").wait_for()
    root = tab.open("compare", run=made.NOGRAD_OFF)
    assert tab.choice("Compare with").input_value() == made.BASELINE
    assert root.get_by_role("heading", name="Configuration: 1 line differs").count() == 1
