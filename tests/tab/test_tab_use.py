"""Using the tab: sorting, searching, exporting, following links, by mouse and by keyboard."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from profiling.figures.ladder import extent
from tests.tab import logdir as made
from tests.tab.browser import Tab

VARIANT, BASELINE = made.ARMS[1], made.ARMS[0]


def asked(tab: Tab) -> dict[str, str]:
    """What the address says."""
    pairs = tab.page.evaluate("decodeURIComponent(location.hash)").split("&")[1:]
    return {key.removeprefix("p.abtrace."): value for key, _, value in (pair.partition("=") for pair in pairs)}


def column(tab: Tab, table: Any, name: str) -> list[str]:
    return [row[table.get_by_role("columnheader").all_inner_texts().index(name)] for row in tab.cells(table)]


# Tables


def test_a_header_sorts_and_says_so(tab: Tab, told: Callable[..., Any]) -> None:
    calls = sorted(operator["calls"] for operator in told("summary", made.FOREIGN)["operators"])
    table = tab.open("operators", run=made.FOREIGN).get_by_role("table")
    header = table.get_by_role("columnheader", name="calls")
    for order, expected in (("descending", calls[::-1]), ("ascending", calls)):
        header.get_by_role("button").press("Enter")
        assert header.get_attribute("aria-sort") == order
        assert [int(text.replace(",", "")) for text in column(tab, table, "calls")] == expected


def test_a_search_keeps_what_matches_in_the_address_and_in_the_csv(tab: Tab, new_tab: Callable[..., Tab]) -> None:
    root = tab.open("operators", run=made.FOREIGN)
    root.get_by_role("searchbox").fill("ADDMM")
    names = column(tab, root.get_by_role("table"), "operator")
    assert names and all("addmm" in name.lower() for name in names)
    assert root.locator(".status").inner_text().startswith(f"{len(names)} of ")
    assert [row["name"] for row in tab.csv(root, "operators")] == names
    assert asked(tab)["q"] == "ADDMM"
    root.get_by_role("searchbox").fill("no such operator")
    assert "Nothing matches" in root.get_by_role("table").inner_text()


def test_long_tables_are_drawn_in_part_until_asked_for(tab: Tab, told: Callable[..., Any]) -> None:
    diff = told("diff", made.BASELINE, made.NOGRAD_OFF)
    rows = sum(len(diff[kind]) for kind in ("changed", "added", "removed"))
    assert rows > 200
    root = tab.open("compare", run=made.NOGRAD_OFF, against=made.BASELINE)
    table = root.get_by_role("table", name="operators that changed")
    assert len(tab.cells(table)) == 200
    root.get_by_role("button", name=f"Show all {rows} rows").click()
    assert len(tab.cells(table)) == rows


def test_operators_group_by_shape(tab: Tab) -> None:
    tab.open("operators", run=made.FOREIGN).get_by_label("Group by").select_option("input shapes")
    tab.main.get_by_role("columnheader", name="input shapes").wait_for()
    assert asked(tab)["by"] == "shape"


def test_a_process_group_filters_who_waits_for_whom(tab: Tab, new_tab: Callable[..., Tab]) -> None:
    root = tab.open("communication", run=made.GROUPS)
    waiting, collectives = root.get_by_role("table").all()
    assert [row[1:5] for row in tab.cells(waiting)] == [
        ["tp [2, 3]", "ranks 2, 3", "1", "rank 2"],
        ["tp [0, 1]", "ranks 0, 1", "1", "rank 1"],
    ]
    assert [row[-1] for row in tab.cells(collectives)] == ["unknown", "unknown", "2 KiB", "2 KiB"]
    root.get_by_label("Process group").select_option("tp [0, 1]")
    root.get_by_role("row", name="tp [2, 3]").first.wait_for(state="detached")
    other = new_tab()
    root = other.open("communication", run=made.GROUPS, group=asked(tab)["group"])
    waiting, collectives = root.get_by_role("table").all()
    assert [row[1] for row in other.cells(waiting)] == ["tp [0, 1]"]
    assert [row[1] for row in other.cells(collectives)] == ["tp [0, 1]", "tp [0, 1]"]


def test_the_tree_of_modules_opens_and_closes_by_keyboard(tab: Tab) -> None:
    rows = tab.open("modules", run=made.BASELINE).get_by_role("treegrid").locator("tbody tr:visible")
    everything = rows.count()
    rows.first.press("ArrowLeft")
    assert rows.count() == 1
    assert rows.first.get_attribute("aria-expanded") == "false"
    rows.first.press("Enter")
    assert rows.count() == everything
    rows.first.press("ArrowDown")
    assert rows.nth(1).evaluate("row => row === document.activeElement")


def axis(root: Any) -> list[float]:
    """The ends of the axis of the first chart, once it is drawn."""
    root.locator(".plot .xtick").first.wait_for()
    ends: list[float] = root.locator(".plot").first.evaluate("plot => plot.layout.xaxis.range")
    return ends


def test_the_ladder_filters(tab: Tab) -> None:
    root = tab.open("effects")
    everything = len(tab.cells(root.get_by_role("table")))
    whole = axis(root)
    root.get_by_label("Topic").select_option("autograd")
    part = axis(root)
    assert whole[0] <= part[0] < 0 < part[1] <= whole[1]  # in logarithms
    assert column(tab, root.get_by_role("table"), "topic") == ["autograd"]
    assert asked(tab)["topic"] == "autograd"
    root.get_by_label("Topic").select_option(made.HOSTILE)
    ends = extent([made.hostile_comparison().comparison.declared_effect])  # of an effect without any noise
    assert axis(root) == pytest.approx([math.log10(end) for end in ends])
    root.get_by_role("button", name="Clear filters").click()
    assert len(tab.cells(root.get_by_role("table"))) == everything
    assert "topic" not in asked(tab)


# Charts


@pytest.mark.parametrize(("view", "name"), [("operators", "operators"), ("compare", "compare-phases")])
def test_a_chart_saves_as_png(tab: Tab, view: str, name: str) -> None:
    root = tab.open(view, run=VARIANT)
    with tab.page.expect_download() as saved:
        root.locator(f"button[title$='{name}.png']").click()
    assert saved.value.suggested_filename == f"{name}.png"
    with Image.open(Path(saved.value.path())) as image:
        assert image.format == "PNG" and image.getcolors() is None  # more than 256 colors: something was drawn


# Addresses


@pytest.mark.parametrize("how", ["click", "Enter"])
def test_an_effect_opens_its_comparison(tab: Tab, how: str) -> None:
    row = tab.open("effects").get_by_role("row", name="nograd_off")
    row.click() if how == "click" else row.press(how)
    tab.main.locator(".view.compare").wait_for()
    assert asked(tab) == {"view": "compare", "run": VARIANT, "against": BASELINE}


def test_a_shared_address_opens_the_same_view(tab: Tab, new_tab: Callable[..., Tab]) -> None:
    root = tab.open("compare", run=made.NOGRAD_OFF, against=made.BASELINE)
    root.get_by_role("searchbox").first.fill("conv")
    other = new_tab()
    other.page.goto(tab.page.url)
    assert other.settled("compare").inner_text() == root.inner_text()


def test_tabs_are_links_that_keep_the_run_and_back_undoes_them(tab: Tab) -> None:
    tab.open("overview", run=made.FOREIGN)
    for name in ("Operators", "Memory"):
        tab.frame.get_by_role("link", name=name, exact=True).click()
        tab.settled(name.lower())
        assert asked(tab) == {"view": name.lower(), "run": made.FOREIGN}
        assert tab.frame.locator("nav [aria-current=page]").all_inner_texts() == [name]
    tab.page.go_back()
    tab.settled("operators")
    tab.page.go_back()
    tab.settled("overview")
    tab.page.go_forward()
    tab.settled("operators")


def test_choosing_runs_and_windows_changes_the_address(tab: Tab, logdir: Path) -> None:
    tab.open("memory", run=made.BASELINE)
    window = next(path.name for path in (logdir / made.BASELINE).glob("*_evaluate.*"))
    tab.choice("Window").select_option(window)
    tab.choice("Compare with").select_option(made.NOGRAD_OFF)
    tab.main.locator(".sides").wait_for()
    assert asked(tab) == {"view": "memory", "run": made.BASELINE, "window": window, "against": made.NOGRAD_OFF}
    tab.choice("Run").select_option(made.FOREIGN)
    tab.page.wait_for_function("!location.hash.includes('window')")
    assert asked(tab) == {"view": "memory", "run": made.FOREIGN, "against": made.NOGRAD_OFF}


def test_without_a_view_the_address_opens_the_ladder(new_tab: Callable[..., Tab]) -> None:
    tab = new_tab()
    tab.page.goto(f"{tab.url}#abtrace")
    tab.settled("effects")


# The theme


def test_the_tab_follows_tensorboards_theme(new_tab: Callable[..., Tab]) -> None:
    tab = new_tab()
    root = tab.open("operators", run=made.FOREIGN)
    colors: dict[str, list[str]] = {}
    for theme in ("Light", "Dark", "Light"):
        tab.page.locator("app-header-dark-mode-toggle button").click()
        tab.page.get_by_role("menuitem", name=theme).click()
        tab.frame.locator("html.dark" if theme == "Dark" else "html:not(.dark)").wait_for()
        root.locator(".plot .main-svg").first.wait_for()
        seen = [tab.frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")]
        seen += [root.locator(".ytick text").first.evaluate("text => getComputedStyle(text).fill")]
        assert colors.setdefault(theme, seen) == seen
    assert all(light != dark for light, dark in zip(*colors.values(), strict=True))
