"""Names that files carry stay text, in every view."""

from typing import Any

import pytest

from tests.tab import logdir as made
from tests.tab.browser import VIEWS, Tab

ARMS = {"run": f"{made.EVIL_COMPARISON}/variant", "against": f"{made.EVIL_COMPARISON}/baseline"}
MARKUP = """document => [...document.querySelectorAll("*")]
    .filter(node => node.matches("img, image") || node.getAttributeNames().some(name => name.startsWith("on")))
    .map(node => node.outerHTML)"""
MARKS = ", ".join(f".plot {mark}" for mark in (".points path", ".slice path", ".point path"))


def stays_text(tab: Tab, root: Any) -> None:
    assert made.HOSTILE[:4] in root.inner_text()  # of a collective's name, the first word is shown
    for frame in tab.page.frames:
        if "/perfetto/" not in frame.url and frame != tab.page.main_frame:
            assert frame.evaluate(f"({MARKUP})(document)") == []


@pytest.mark.parametrize("view", VIEWS)
def test_hostile_names_stay_text(tab: Tab, view: str) -> None:
    root = tab.open(view, **ARMS)
    stays_text(tab, root)
    assert root.locator(".message.error").count() == 0


@pytest.mark.parametrize("view", ["effects", "operators", "compare", "modules", "kernels"])
def test_hostile_names_stay_text_under_the_pointer(tab: Tab, view: str) -> None:
    root = tab.open(view, **ARMS)
    hover = root.locator(".hoverlayer .hovertext")
    found = []
    for mark in root.locator(MARKS).all():
        box = mark.bounding_box()
        if box and box["width"] and box["height"]:
            mark.hover(force=True)
            found += hover.all_text_contents()
    assert any(made.HOSTILE in text for text in found)
    stays_text(tab, root)


def test_a_hostile_comparison_opens_by_its_row(tab: Tab) -> None:
    tab.open("effects").get_by_role("row", name=made.HOSTILE).click()
    stays_text(tab, tab.settled("compare"))
    assert tab.choice("Run").input_value() == ARMS["run"]
