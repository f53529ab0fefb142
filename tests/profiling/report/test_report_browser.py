"""report.html in a browser: offline, drawn, and on paper."""

from pathlib import Path
from typing import Any

import pytest

from profiling.report.page import write_report
from tests.profiling.report.reports import ARMS, FAILED, HOSTILE, compared, hostile_comparison, record_traces, recorded


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traces")
    record_traces(folder)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_offline_and_draws_its_charts(browser: Any, tmp_path: Path, traces: Path, scheme: str) -> None:
    records = [recorded(compared("nograd_off", 1.25), arms=ARMS), hostile_comparison(), recorded(FAILED)]
    out = tmp_path / "report.html"
    write_report(records, [traces] * 3, out)

    page = browser.new_page(color_scheme=scheme)
    said: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(out.as_uri())

    assert page.locator("svg.ladder").is_visible()
    assert page.locator(".chart .main-svg").count() == 0  # nothing is drawn before it is looked at
    page.get_by_role("link", name="nograd_off").click()
    page.locator("details:not([open]) > summary").nth(0).click()
    page.wait_for_function("document.querySelectorAll('.chart .main-svg').length >= 6")
    assert page.locator("#e0 .chart .barlayer path").count() == 4
    assert page.locator("#e0 .chart .scatterlayer .js-line").count() == 2
    assert page.locator("#e0 .chart .waterfalllayer .point").count() > 3
    labels = page.locator("#e1 .chart .ytick text").all_text_contents()
    assert labels[0] == "train"
    start, _, end = labels[1].partition("…")
    assert len(start) > 10 and HOSTILE.startswith(start) and HOSTILE.endswith(end)

    page.locator("#e1 .barlayer path").last.hover(force=True)
    hover = page.locator("#e1 .hoverlayer text")
    hover.first.wait_for()
    assert hover.first.text_content().startswith(HOSTILE)

    ink = page.locator("#e0 .ytick text").first.evaluate("node => getComputedStyle(node).fill")
    assert ink == {"light": "rgb(31, 35, 40)", "dark": "rgb(230, 237, 243)"}[scheme]
    page.emulate_media(color_scheme={"light": "dark", "dark": "light"}[scheme])
    page.wait_for_function("ink => getComputedStyle(document.querySelector('#e0 .ytick text')).fill !== ink", arg=ink)
    assert said == []
    assert requests == [out.as_uri()]
    page.close()


def test_paper_gets_every_section_in_light_colors(browser: Any, tmp_path: Path) -> None:
    records = [recorded(compared("nograd_off", 1.25)), recorded(FAILED)]
    write_report(records, [tmp_path] * 2, tmp_path / "report.html")
    page = browser.new_page(color_scheme="dark")
    page.goto((tmp_path / "report.html").as_uri())
    page.evaluate(
        """addEventListener("beforeprint", () => (window.printed = {
            open: document.querySelectorAll("details[open]").length,
            charts: document.querySelectorAll(".chart .barlayer path").length,
            ink: getComputedStyle(document.querySelector(".ytick text")).fill,
        }))"""
    )
    page.pdf(path=tmp_path / "report.pdf")
    assert page.evaluate("window.printed") == {"open": 2, "charts": 4, "ink": "rgb(31, 35, 40)"}
    page.wait_for_function("document.querySelectorAll('details[open]').length === 0")  # as it was
    page.close()
