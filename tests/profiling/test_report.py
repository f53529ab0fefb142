import math
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from plotly.offline import get_plotlyjs
from torch.profiler import ProfilerActivity, profile, record_function

from profiling import compare, comparison, record, report
from profiling.analysis.index import Index
from profiling.analysis.memory import memory
from profiling.compare import (
    Agreement,
    Comparison,
    Expectation,
    Hypothesis,
    Memory,
    PairedSamples,
    PeakMemory,
    PhaseSamples,
    Time,
    Verdict,
)
from profiling.comparison import Arm, ComparisonRecord
from profiling.diff import Cause
from profiling.record import Environment, RunRecord, Samples, Stage, TraceFile
from profiling.report import charts, words
from profiling.report.evidence import Explanation, gather
from profiling.report.page import render
from profiling.report.picture import FARTHEST, ladder
from profiling.trace import read
from tests.conftest import ROOT
from tests.tab.browser import CHROMIUM, chromium

HOSTILE = "<img src=x onerror=alert(1)>&lt;b&gt;</script><b>%{x}$x$"


def samples(shift: float, noise: float, seed: int = 0, seconds: float = 2e-4) -> PhaseSamples:
    draw = np.random.default_rng(seed).normal(0, noise, size=(4, 40))
    first, second, idle_first, idle_second = seconds * np.exp(draw)
    return PhaseSamples(
        PairedSamples(first.tolist(), (second * shift).tolist()),
        PairedSamples(idle_first.tolist(), idle_second.tolist()),
    )


def hypothesis(
    phase: str = "evaluate", time: Time | None = Time.slower, claim: str = "grad mode is slower"
) -> Hypothesis:
    return Hypothesis(claim, "it keeps activations", phase, Expectation(time, Memory.more))


def compared(name: str, shift: float, noise: float = 0.004, mismatch: bool = False) -> Comparison:
    """An experiment on `evaluate` that takes `shift` times as long."""
    return compare.compare(
        name,
        hypothesis(),
        {"train": samples(1.0, noise), "evaluate": samples(shift, noise, seed=1)},
        PeakMemory(400 * 2**20, 500 * 2**20),
        compare.agreement(Agreement.identical, 0.5 if mismatch else 0.0, 0.5 if mismatch else 0.0, 1e-3, 1e-5),
    )


def recorded(made: Comparison, topic: str = "autograd", **changes: Any) -> ComparisonRecord:
    made_record = ComparisonRecord(
        comparison=made,
        partial=False,
        started="2026-11-21T22:10:03",
        seconds=31.0,
        budget_s=45.0,
        configs={"baseline": {}, "variant": {"hypothesis": {"topic": topic}}},
        changed={"switches.eval_context": ("inference_mode", "grad")},
        environment=Environment(
            host="vm",
            platform="Linux",
            processor="AMD EPYC",
            cores=2,
            memory_bytes=24 * 2**30,
            device="cpu",
            device_name="AMD EPYC",
            precision="bf16",
            threads=2,
            versions={"torch": "2.14.1"},
        ),
        samples={},
        arms={},
    )
    return msgspec.structs.replace(made_record, **changes)


def arm(**traces: str) -> Arm:
    return Arm(
        warmup_s=1.5,
        peak_resident_bytes=400 * 2**20,
        peak_allocated_bytes={"evaluate": 20 * 2**20},
        peak_accelerator_bytes=None,
        results={"accuracy": 0.9777},
        traces=traces,
    )


ARMS = {"baseline": arm(evaluate="whole.pt.trace.json"), "variant": arm(evaluate="other.pt.trace.json")}
FAILED = compare.failed("too_large", hypothesis(), "MemoryError: 3 GiB were not there")
PREDICTED = compare.failed("frozen", hypothesis(time=Time.fails), "no parameter requires grad")
NOT_APPLICABLE = compare.not_applicable("tf32_off", hypothesis(), "needs cuda")


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole trace, one of other work, one that is cut short, and one that is no trace."""
    folder = tmp_path_factory.mktemp("traces")
    for name, operation in (("whole", torch.neg), ("other", torch.sort)):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            with record_function("forward"):
                operation(torch.ones(1000))
            with record_function("metrics"):
                torch.ones(1000).sum()
        profiler.export_chrome_trace(str(folder / f"{name}.pt.trace.json"))
    content = (folder / "whole.pt.trace.json").read_bytes()
    (folder / "cut.pt.trace.json").write_bytes(content[: content.rindex(b"},") + 2])
    (folder / "foreign.json").write_text("[1, 2]")
    return folder


class Page(HTMLParser):
    """The tags of a page, its text, and its tables as rows of cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.scripts: list[str] = []  # style sheets too
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is not None:
            self.scripts.append(data)
        else:
            self.text += data
            if self.in_cell:
                self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.in_cell = False

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(first))


def render_one(record: ComparisonRecord, folder: Path = Path()) -> Page:
    return Page(render([record], [folder]))


# What the page says


def test_figures_on_the_page_are_those_of_the_record() -> None:
    made = compared("nograd_off", 1.25)
    page = render_one(recorded(made))
    effect = made.phases[1]
    assert page.row("nograd_off") == [
        "nograd_off" + made.hypothesis.claim,
        "evaluate",
        f"×{effect.ratio:.3f}",
        f"{effect.ratio_low:.3f} – {effect.ratio_high:.3f}",
        "slower",
        "✓ confirmed",
        "400 MiB",
        "500 MiB",
        "×1.250",
        "✓ identical",
    ]
    phases = page.row("evaluate")
    assert phases[1:3] == [
        f"{effect.baseline_s_per_sample * 1e6:.3g} µs",
        f"{effect.variant_s_per_sample * 1e6:.3g} µs",
    ]
    assert phases[5:7] == [f"×{effect.floor_ratio:.3f}", f"×{effect.detectable_ratio:.3f}"]
    assert "switches.eval_context: inference_mode → grad" in page.text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0523, "×1.052"), (9.9994, "×9.999"), (21.34, "×21.3"), (12345.6, "×12,346"), (0.5, "×0.500")]
)
def test_ratios_are_rounded_to_what_can_be_told_apart(value: float, text: str) -> None:
    assert words.ratio(value) == text


def test_outcomes_are_counted_and_what_does_not_apply_is_no_outcome() -> None:
    made = [compared("a", 1.25), compared("b", 0.8), compared("c", 1.0, noise=0.2), FAILED, PREDICTED]
    made += [NOT_APPLICABLE] * 2
    page = render([recorded(each) for each in made], [Path()] * len(made))
    counts = re.findall(r"<b>(\d+)</b> ([a-z ]+)", page)
    outcomes = [each.outcome.value for each in made[:-2]]
    assert counts == [
        *((str(outcomes.count(name)), name) for name in ("confirmed", "refuted here", "undecided")),
        ("2", "not applicable here"),
    ]
    assert {"confirmed", "refuted here", "undecided"} <= set(outcomes)


def test_an_experiment_without_measurements_says_why() -> None:
    records = [recorded(each) for each in (FAILED, NOT_APPLICABLE)]
    page = Page(render(records, [Path()] * 2))
    assert "MemoryError: 3 GiB were not there" in page.text
    assert "needs cuda" in page.text
    assert page.row("too_large")[2:5] == ["–", "", "failed"]
    assert page.row("tf32_off")[4:6] == ["not applicable here", ""]


def test_a_mismatch_of_results_is_marked_in_color_and_in_text() -> None:
    page = render([recorded(compared("wrong", 0.8, mismatch=True))], [Path()])
    assert '<span class="bad">✗ different, declared identical</span>' in page
    assert 'class="bad"' not in render([recorded(compared("right", 0.8))], [Path()])


def test_no_comparisons_make_a_page_and_a_picture(tmp_path: Path) -> None:
    report.write([], [], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "No comparisons." in page.text
    assert "0 confirmed" in page.text
    ET.fromstring(ladder([]))


def test_partial_comparisons_and_repeated_experiments_are_told_apart() -> None:
    made = compared("nograd_off", 1.25)
    later = recorded(made, started="2026-11-22T08:00:00", partial=True)
    page = Page(render([recorded(made), later], [Path()] * 2))
    assert {"nograd_off (2026-11-21 22:10)", "nograd_off (2026-11-22 08:00)"} <= set(
        re.findall(r"nograd_off \(.+?\)", page.text)
    )
    assert page.text.count("Interrupted before") == 1


# Traces


def test_memory_curves_are_those_of_the_traces(traces: Path) -> None:
    record = recorded(compared("a", 1.25), arms={"baseline": arm(evaluate="whole.pt.trace.json")})
    evidence = gather(record, traces)
    (device,) = memory(Index(read(traces / "whole.pt.trace.json")))
    assert evidence.memory == {"evaluate": {"baseline": device}}
    assert evidence.notes == []
    figure = charts.memory_curves(evidence.memory)
    (curve,) = figure["data"]
    scale = {"B": 1, "KiB": 2**10, "MiB": 2**20}[figure["layout"]["yaxis"]["title"]["text"]]  # torch's totals go on
    assert max(curve["y"]) == pytest.approx(device.peak_bytes / scale, abs=1e-3)
    assert len(curve["x"]) == len(device.curve.time_us)


@pytest.mark.parametrize(
    ("trace", "note"),
    [
        ("gone.pt.trace.json", "no such file"),
        ("foreign.json", "foreign.json"),
        ("cut.pt.trace.json", "partial:"),
    ],
)
def test_traces_that_cannot_be_read_whole_are_named_on_the_page(traces: Path, trace: str, note: str) -> None:
    arms = {"baseline": arm(evaluate="whole.pt.trace.json"), "variant": arm(evaluate=trace)}
    evidence = gather(recorded(compared("a", 1.25), arms=arms), traces)
    assert len(evidence.notes) == 1
    assert evidence.notes[0].startswith("variant, evaluate: ")
    assert note in evidence.notes[0]
    assert evidence.notes[0] in render_one(recorded(compared("a", 1.25), arms=arms), traces).text


@pytest.mark.parametrize(("phase", "inside"), [("evaluate", {"forward", "metrics"}), ("forward", {"forward"})])
def test_the_difference_is_explained_in_the_declared_phase(traces: Path, phase: str, inside: set[str]) -> None:
    """`evaluate` is a stage of its own, `forward` a phase of training."""
    made = compare.compare("a", hypothesis(phase), {phase: samples(1.25, 0.01)})
    stage = "evaluate" if phase == "evaluate" else "train"
    arms = {"baseline": arm(**{stage: "whole.pt.trace.json"}), "variant": arm(**{stage: "other.pt.trace.json"})}
    found = gather(recorded(made, arms=arms), traces).explanation
    assert found is not None
    assert inside <= {cause.phase for cause in found.causes} <= inside | {"other", "beside"}
    signs = {(cause.name, cause.phase): cause.difference_us > 0 for cause in found.causes}
    assert signs["aten::sort", "forward"]
    assert not signs["aten::neg", "forward"]
    total = sum(cause.difference_us for cause in found.causes) + found.unattributed_us
    assert total == pytest.approx(found.difference_us, abs=0.01)


def test_arms_compare_also_where_one_lost_its_own_record(traces: Path, tmp_path: Path) -> None:
    made = compared("a", 1.25)
    for name, trace in (("baseline", "whole"), ("variant", "other")):
        (tmp_path / name).mkdir()
        shutil.copy(traces / f"{trace}.pt.trace.json", tmp_path / name / "t.pt.trace.json")
    timed = Samples(samples=[8], step_s=[1.0], phase_s={})
    trace = TraceFile(path="t.pt.trace.json", samples=[8], step_s=[1.0], peak_allocated_bytes=None)
    stage = Stage(
        timed=timed, trace=trace, peak_resident_bytes=1, resident_is_per_stage=True, peak_accelerator_bytes=None
    )
    run_record = RunRecord(
        name="baseline",
        status="complete",
        error=None,
        started="",
        config={},
        changed={},
        environment=recorded(made).environment,
        stages={"evaluate": stage},
        results={},
    )
    record.write(run_record, tmp_path / "baseline")
    arms = {name: arm(evaluate=f"{name}/t.pt.trace.json") for name in ("baseline", "variant")}
    assert gather(recorded(made, arms=arms), tmp_path).explanation is not None


def test_an_arm_without_a_trace_leaves_the_difference_unexplained(traces: Path) -> None:
    arms = {"baseline": arm(evaluate="whole.pt.trace.json"), "variant": arm()}
    evidence = gather(recorded(compared("a", 1.25), arms=arms), traces)
    assert evidence.explanation is None
    assert evidence.notes == ["variant: no trace was recorded"]


# Charts


def test_plotly_accepts_every_figure(traces: Path) -> None:
    record = recorded(compared("a", 1.25), arms=ARMS)
    evidence = gather(record, traces)
    assert evidence.explanation is not None
    figures = (
        charts.phase_bars(record.comparison.phases),
        charts.memory_curves(evidence.memory),
        charts.waterfall(evidence.explanation),
    )
    for figure in figures:
        go.Figure(figure)  # raises on a property that it does not know


def test_a_waterfall_ends_where_its_causes_lead() -> None:
    causes = [Cause("forward", "operator", f"{HOSTILE}{size}", float(size)) for size in (*range(20, 5, -1), -3)]
    (bars,) = charts.waterfall(Explanation("sample", 200.0, 8.0, causes))["data"]
    *parts, total = bars["x"]
    assert bars["measure"] == ["relative"] * len(parts) + ["total"]
    assert sum(parts) == total == 200
    assert parts[:10] == [float(size) for size in range(20, 10, -1)]
    assert bars["text"][-3:] == ["+37 µs", "+8 µs", "+200 µs"]
    assert "<img" not in str(bars["hovertext"])


def test_bars_are_the_times_of_both_arms_in_microseconds() -> None:
    phases = compared("a", 1.25).phases
    baseline, variant = charts.phase_bars(phases)["data"]
    assert baseline["x"] == [effect.baseline_s_per_sample * 1e6 for effect in phases]
    assert variant["x"] == [effect.variant_s_per_sample * 1e6 for effect in phases]


# The picture

SVG = "{http://www.w3.org/2000/svg}"


def drawn(made: Comparison) -> ET.Element:
    """The row of one experiment in a ladder that has a wider one beside it."""
    root = ET.fromstring(ladder([recorded(made), recorded(compared("wide", 2.5))]))
    return next(row for row in root.iter(f"{SVG}g") if row[0].text.startswith(f"{made.experiment},"))


def middle(path: ET.Element) -> float:
    return float(re.search(r"translate\(([\d.]+),", path.get("transform"))[1])


def test_effects_stand_on_a_logarithmic_axis() -> None:
    made = [compared(name, shift) for name, shift in (("a", 0.8), ("b", 1.25), ("c", 2.0))]
    rows = ET.fromstring(ladder([recorded(each) for each in made])).iter(f"{SVG}g")
    marks = [next(path for path in row.iter(f"{SVG}path") if "mark" in path.get("class")) for row in rows]
    left, between, right = map(middle, marks)
    low, at, high = (math.log(each.phases[1].ratio) for each in made)
    assert right - left > 100
    assert between == pytest.approx(left + (at - low) / (high - low) * (right - left), abs=0.2)


def test_the_floor_and_the_interval_are_drawn_to_scale() -> None:
    made = compared("a", 1.25, noise=0.05)
    effect = made.phases[1]
    row = drawn(made)
    floor = next(row.iter(f"{SVG}rect"))
    interval = next(path for path in row.iter(f"{SVG}path") if "interval" in path.get("class"))
    left, right = map(float, re.fullmatch(r"M([\d.]+),[\d.]+H([\d.]+)", interval.get("d")).groups())
    widths = (right - left) / float(floor.get("width"))
    assert widths == pytest.approx(
        math.log(effect.ratio_high / effect.ratio_low) / (2 * math.log(effect.floor_ratio)), rel=0.05
    )


def test_an_effect_off_the_scale_is_an_arrow_with_its_number() -> None:
    inside, outside = (drawn(compared("a", shift)) for shift in (1.25, 4 * FARTHEST))
    assert not [path for path in inside.iter(f"{SVG}path") if path.get("class") == "arrow"]
    assert len([path for path in outside.iter(f"{SVG}path") if path.get("class") == "arrow"]) == 1
    assert "×12.0" in [text.text for text in outside.iter(f"{SVG}text")]


def test_verdicts_differ_in_shape_and_in_words() -> None:
    made = [compared("a", 1.25), compared("b", 0.8), compared("c", 1.0), compared("d", 1.0, noise=0.2)]
    made += [FAILED, PREDICTED, NOT_APPLICABLE]
    assert {each.verdict for each in made} == set(Verdict)
    rows = [drawn(each) for each in made]
    assert len({list(row.iter(f"{SVG}path"))[-1].get("d") for row in rows}) == len(Verdict)
    assert len({list(row.iter(f"{SVG}text"))[-1].text for row in rows}) == len(Verdict)


def test_topics_group_the_ladder() -> None:
    made = [
        recorded(compared("a", 1.25), "kernels"),
        recorded(compared("b", 1.25), "autograd"),
        recorded(FAILED, "kernels"),
    ]
    root = ET.fromstring(ladder(made))
    assert [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "topic"] == ["autograd", "kernels"]
    names = [row[1].text for row in root.iter(f"{SVG}g")]
    assert names == ["b", "a", "too_large"]


# Hostile text


@pytest.fixture
def hostile() -> ComparisonRecord:
    made = compare.compare(
        HOSTILE, hypothesis(HOSTILE, claim=HOSTILE), {"train": samples(1, 0.01), HOSTILE: samples(1.2, 0.01, seed=1)}
    )
    variant = arm(**{HOSTILE: HOSTILE})
    variant = msgspec.structs.replace(variant, results={HOSTILE: 1.0}, peak_allocated_bytes={HOSTILE: 1})
    machine = recorded(made).environment
    for field in ("host", "platform", "processor", "device", "device_name", "precision"):
        machine = msgspec.structs.replace(machine, **{field: HOSTILE})
    machine = msgspec.structs.replace(machine, versions={HOSTILE: HOSTILE, "torch": HOSTILE})
    changed = {HOSTILE: (HOSTILE, [HOSTILE])}
    arms = {HOSTILE: variant, "variant": variant}
    return recorded(made, HOSTILE, started=HOSTILE, changed=changed, environment=machine, arms=arms)


def test_hostile_text_stays_text(hostile: ComparisonRecord) -> None:
    page = render_one(hostile)
    expected = render_one(recorded(compared("plain", 1.2), arms={"x": arm(), "variant": arm()}))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in expected.tags}
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert page.text.count(HOSTILE) > 20
    assert "<" not in next(data for data in page.scripts if data.startswith("["))  # figures, as data
    assert ET.fromstring(ladder([hostile])).find(f".//{SVG}img") is None


def test_the_page_allows_only_its_own_scripts(hostile: ComparisonRecord) -> None:
    page = render([hostile], [Path()])
    policy = next(dict(attributes) for tag, attributes in Page(page).tags if "http-equiv" in attributes)["content"]
    assert policy.startswith("default-src 'none'")
    assert len(re.findall(r"'sha256-[\w+/=]+'", policy)) == 2
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert page.count(get_plotlyjs()) == 1


# The command line


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profiling", "report", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_of_many_makes_a_page_and_a_picture(tmp_path: Path) -> None:
    for name, started in (("second", "2026-11-22T00:00:00"), ("first", "2026-11-21T00:00:00")):
        folder = tmp_path / "ab" / name
        folder.mkdir(parents=True)
        comparison.write(recorded(compared(name, 1.25), started=started), folder)
    found = report.collect([tmp_path, tmp_path / "ab" / "first"])
    assert [(folder.name, record.comparison.experiment) for folder, record in found] == [
        ("first",) * 2,
        ("second",) * 2,
    ]
    for name in ("report.html", "ladder.svg"):
        done = run(tmp_path / "ab", "-o", tmp_path / name)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Page((tmp_path / "report.html").read_text()).row("first")[4] == "slower"
    assert len(list(ET.parse(tmp_path / "ladder.svg").getroot().iter(f"{SVG}g"))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ab", "ladder.svg", "report.html"]


def test_comparisons_that_are_shown_together_are_judged_together(tmp_path: Path) -> None:
    family = [compared(f"e{seed}", 1 + seed / 1000, noise=0.01) for seed in range(12)]
    for each in family:
        (tmp_path / each.experiment).mkdir()
        comparison.write(recorded(each), tmp_path / each.experiment)
    found = [record.comparison for _, record in report.collect([tmp_path])]
    assert {each.experiment: each for each in found} == {
        each.experiment: each for each in compare.correct_ladder(family)
    }
    assert any(each.phases[1].p_holm > each.phases[1].p_value for each in found)


@pytest.mark.parametrize(
    ("content", "out", "message"),
    [
        (None, "r.html", "no comparison.json in this folder"),
        ("{}", "r.html", "not a comparison"),
        ("{}", "r.pdf", "ends in neither .html nor .svg"),
        ("{}", "gone/r.html", "there is no folder"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, content: str | None, out: str, message: str) -> None:
    if content is not None:
        (tmp_path / "comparison.json").write_text(content)
    done = run(tmp_path, "-o", tmp_path / out)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / out).exists()


def test_plotly_waits_for_a_page_and_torch_is_never_imported() -> None:
    code = "import sys, profiling.__main__, profiling.report; sys.exit(bool({'torch', 'plotly'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_offline_and_draws_its_charts(
    browser: Any, tmp_path: Path, traces: Path, hostile: ComparisonRecord, scheme: str
) -> None:
    records = [recorded(compared("nograd_off", 1.25), arms=ARMS), hostile, recorded(FAILED)]
    out = tmp_path / "report.html"
    report.write(records, [traces] * 3, out)

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
    assert labels[1].rstrip("…") == HOSTILE[: len(labels[1]) - 1]

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
    report.write(records, [tmp_path] * 2, tmp_path / "report.html")
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
