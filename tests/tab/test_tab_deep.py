"""Deeply nested modules: rows and chart stay in sight, and the paths are those of the command line."""

from pathlib import Path

from profiling.analysis.summary import summarize
from profiling.trace.trace import read_traces
from tests.profiling.analysis.test_growth import nested_modules
from tests.profiling.make_trace import write
from tests.tab.browser import Tab


def test_modules_nested_1_000_deep(growing: tuple[Path, Tab]) -> None:
    logdir, tab = growing
    (logdir / "deep").mkdir()
    write(logdir / "deep" / "a.pt.trace.json", nested_modules(1000))
    known = summarize(read_traces(logdir / "deep"))
    root = tab.open("modules", run="deep")
    assert root.get_by_text(next(note for note in known.trace.notes if "paths" in note)).is_visible()
    root.get_by_role("button", name="open all").click()
    rows = root.get_by_role("treegrid").locator("tbody tr")
    assert rows.evaluate_all("rows => rows.map(row => row.ariaLevel)") == [str(row.depth + 1) for row in known.modules]
    assert rows.locator("td.text").evaluate_all("cells => cells.map(cell => cell.title)") == [
        row.path for row in known.modules
    ]
    assert rows.last.locator("td").first.evaluate("cell => parseFloat(getComputedStyle(cell).paddingLeft)") < 1000
    plot = root.locator(".plot")
    (icicle,) = plot.evaluate("plot => plot.data")
    assert icicle["parents"] == ["", *icicle["ids"][:-1]]
    assert plot.evaluate("plot => plot.clientHeight") < 2000
    assert "Block_0 " in (plot.locator(".slicetext").first.text_content() or "")
