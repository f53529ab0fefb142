"""Every view opens on every kind of run, and says so where there is nothing to show."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tab import logdir as made
from tests.tab.browser import NARROW, VIEWS, WIDE, Tab

OURS, FOREIGN = (made.BASELINE, *made.ARMS), (made.FOREIGN, made.PARTIAL)
RUNS = (*OURS, *FOREIGN, made.EVIL, *made.SHARED_RUNS)
OF_A_RUN = tuple(view for view in VIEWS if view not in ("effects", "compare", "timeline"))
EMPTY = {
    "memory": ("profile_memory=True", (made.PARTIAL, *made.SHARED_RUNS)),
    "modules": ("with_stack=True", (*FOREIGN, *made.SHARED_RUNS)),
    "kernels": ("accelerator", (*OURS, *FOREIGN)),
    "communication": ("torch.distributed", (*OURS, *FOREIGN, "rocm", "a100", "triton")),
}
NAMELESS = """root => [...root.querySelectorAll("button, input, select, table, iframe, [role=img], a")]
    .filter(node => !(node.ariaLabel || node.title || node.textContent.trim() || node.labels?.length))
    .map(node => node.outerHTML)"""
WITHOUT_EXPORT = """root => [...root.querySelectorAll("table, .plot")]
    .filter(node => !node.closest(".table, .chart").querySelector("button.export"))
    .map(node => node.ariaLabel)"""


def looked_at(root: Any) -> None:
    """Nothing failed, everything has a name, and every table and chart can be saved."""
    assert root.locator(".message.error").all_text_contents() == []
    assert root.evaluate(NAMELESS) == []
    assert root.evaluate(WITHOUT_EXPORT) == []


@pytest.mark.parametrize("run", RUNS)
def test_every_view_of_a_run_opens(tab: Tab, logdir: Path, run: str) -> None:
    if not (logdir / run).exists():
        pytest.skip(f"needs {made.SHARED}")
    for view in OF_A_RUN:
        root = tab.open(view, run=run)
        looked_at(root)
        hint, runs = EMPTY.get(view, ("", ()))
        empty = root.locator(".message.empty")
        if run in runs:
            assert hint in " ".join(empty.all_text_contents())
            assert root.locator(".plot").count() == 0
        elif view != "overview":  # which says what is not known of a foreign run
            assert empty.count() == 0
            assert root.locator(".plot").count() > 0


@pytest.mark.parametrize("view", ["compare", "memory"])
@pytest.mark.parametrize(("run", "against"), [made.ARMS[::-1], (made.NOGRAD_OFF, made.BASELINE), made.FOREIGN_AND_CUT])
def test_two_runs_are_shown_against_each_other(tab: Tab, run: str, against: str, view: str) -> None:
    root = tab.open(view, run=run, against=against)
    looked_at(root)
    assert [link.strip() for link in root.locator(".sides a").all_text_contents()] == [against, run]
    assert root.locator(".plot").count() > 0


@pytest.fixture
def narrow_tab(tab: Tab) -> Iterator[Tab]:
    tab.page.set_viewport_size(NARROW)
    yield tab
    tab.page.set_viewport_size(WIDE)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_a_small_screen(narrow_tab: Tab, view: str) -> None:
    narrow_tab.open(view, run=made.ARMS[1], against=made.ARMS[0])
    assert narrow_tab.frame.locator("html").evaluate("page => page.scrollWidth <= page.clientWidth")


def test_the_ladder_opens(tab: Tab) -> None:
    looked_at(tab.open("effects"))


def test_one_window_can_be_looked_at_alone(tab: Tab, told: Callable[..., Any], logdir: Path) -> None:
    (window,) = (path.name for path in (logdir / made.BASELINE).glob("*_evaluate.*"))
    cells = tab.cells(tab.open("overview", run=made.BASELINE, window=window).locator("table[aria-label=Phases]"))
    expected = told("summary", f"{made.BASELINE}/{window}")["phases"]
    assert [row[0] for row in cells] == [phase["name"] for phase in expected]


@pytest.mark.parametrize("view", ["overview", "memory", "modules", "kernels"])
def test_a_partial_trace_is_shown_as_such_with_the_reason(tab: Tab, view: str) -> None:
    said = tab.open(view, run=made.PARTIAL).inner_text()
    assert "cut.pt.trace.json: partial: cut short at byte" in said


@pytest.mark.parametrize("view", OF_A_RUN)
def test_what_is_no_trace_gets_one_line(tab: Tab, view: str) -> None:
    root = tab.open(view, run=made.BROKEN)
    (said,) = root.locator(".message.error p").all_text_contents()[:1]
    assert "not JSON" in said and "Traceback" not in said
    assert root.locator("table, .plot").count() == 0
    assert {line.partition(":")[0] for line in tab.said} == {"Failed to load resource"}  # Chromium, of status 422
    tab.said.clear()


@pytest.mark.parametrize("keys", [{"run": "gone"}, {"run": made.FOREIGN, "against": "gone"}, {"run": "../.."}])
def test_an_address_that_leads_nowhere_says_so(tab: Tab, keys: dict[str, str]) -> None:
    assert "There is no run" in tab.open("compare", **keys).locator(".message.empty").inner_text()


def test_the_timeline_says_what_it_cannot_show(tab: Tab) -> None:
    root = tab.open("timeline", run=made.ZSTANDARD)
    assert "does not unpack zstandard data" in root.get_by_role("alert").inner_text()
    assert root.locator("iframe").count() == 0


@pytest.mark.parametrize("run", [made.BASELINE, made.UTF16, "rocm"])
def test_perfetto_opens_the_trace_and_the_link_downloads_it(tab: Tab, logdir: Path, run: str) -> None:
    if not (logdir / run).exists():
        pytest.skip(f"needs {made.SHARED}")
    root = tab.open("timeline", run=run)
    perfetto = root.frame_locator("iframe")
    perfetto.locator(".pf-timeline-page, .page.viewer-page, canvas").first.wait_for()
    root.locator(".message.loading").wait_for(state="detached")
    with tab.page.expect_download() as saved:
        root.get_by_role("link", name="Download").click()
    assert Path(saved.value.path()).read_bytes() == (logdir / run / saved.value.suggested_filename).read_bytes()
