"""Links in the logdir as the tab shows them, and labels that fit their charts."""

from pathlib import Path

from tests.profiling.make_trace import event, write
from tests.tab.browser import Tab

LABELS = """plot => {
    const right = plot.getBoundingClientRect().right;
    return [...plot.querySelectorAll(".bartext")].map(label => [
        label.textContent, label.getBoundingClientRect().right <= right, label.getBoundingClientRect().width]);
}"""


def test_links_that_lead_out_are_named_and_others_name_their_run(growing: tuple[Path, Tab], tmp_path: Path) -> None:
    folder, tab = growing
    (tmp_path / "outside").mkdir()
    (folder / "elsewhere").symlink_to(tmp_path / "outside")
    root = tab.open("overview")
    assert "A link leads out of the logdir, so what it leads to is not shown: elsewhere" in root.inner_text()
    assert "No traces" in root.inner_text()

    (folder / "run").mkdir()
    write(folder / "run" / "w.1.pt.trace.json", [event("aten::mm", 0, 9)])
    (folder / "latest").symlink_to("run")
    tab.page.locator("app-header-reload button").click()
    tab.main.locator(".cards").wait_for()
    assert "so what it leads to is not shown: elsewhere" in tab.settled("overview").inner_text()
    assert tab.choice("Run").locator("option").all_inner_texts() == ["run = latest"]
    tab.open("operators", run="latest")
    assert tab.main.locator(".message.empty").count() == 0
    assert tab.choice("Run").input_value() == "run"


def test_labels_of_busy_and_idle_time_are_whole(growing: tuple[Path, Tab]) -> None:
    folder, tab = growing
    expected = {500: "busy 500 µs, 0.5 %; idle 99.5 ms, 99.5 %", 97_000: "busy 97 ms, 97.0 %; idle 3.01 ms, 3.0 %"}
    for busy_us in expected:
        kernels = [
            event("gemm", 10, busy_us - 1, "kernel", tid=7, correlation=1, device=0, stream=7),
            event("gemm", 100_009, 1, "kernel", tid=7, correlation=2, device=0, stream=7),
        ]
        (folder / str(busy_us)).mkdir()
        write(folder / str(busy_us) / "w.1.pt.trace.json", [event("aten::mm", 0, 9), *kernels])
    for width in (1100, 1500):
        tab.page.set_viewport_size({"width": width, "height": 800})
        for busy_us, text in expected.items():
            found = tab.open("kernels", run=str(busy_us)).locator(".plot").first.evaluate(LABELS)
            labels = [label for label in found if label[0]]
            assert "; ".join(label for label, _, _ in labels) == text
            assert all(fits and pixels > 60 for _, fits, pixels in labels), labels
