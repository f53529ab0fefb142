"""report.html and ladder_svg.svg: what they say, and the command that writes them."""

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from profiling import run_record
from profiling.analysis.index import Index
from profiling.analysis.memory import memory
from profiling.diff.differences import Cause
from profiling.diff.explanation import Explanation
from profiling.figures.comparison import waterfall
from profiling.figures.ladder import ladder_svg
from profiling.figures.measured import memory_curves, phase_bars
from profiling.format import ratio
from profiling.report.evidence import gather
from profiling.report.page import render, write_report
from profiling.run_record import RunRecord, StageRecord, StepTimings, TraceFile
from profiling.trace.trace import read_trace
from profiling.verdict.judge import correct_ladder, judge_comparison
from profiling.verdict.ladder import collect
from profiling.verdict.record import write_comparison
from profiling.verdict.timings import PhaseTimings
from tests.conftest import ROOT
from tests.profiling.report.reports import (
    ARMS,
    FAILED,
    HOSTILE,
    NOT_APPLICABLE,
    PREDICTED,
    SVG,
    Page,
    arm,
    compared,
    hostile_comparison,
    hypothesis,
    record_traces,
    recorded,
    render_one,
    samples,
)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traces")
    record_traces(folder)
    return folder


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
    assert ratio(value) == text


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
    write_report([], [], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "No comparisons." in page.text
    assert "0 confirmed" in page.text
    ET.fromstring(ladder_svg([]))


def test_partial_comparisons_and_repeated_experiments_are_told_apart() -> None:
    made = compared("nograd_off", 1.25)
    later = recorded(made, started="2026-11-22T08:00:00", partial=True)
    page = Page(render([recorded(made), later], [Path()] * 2))
    assert {"nograd_off (2026-11-21 22:10)", "nograd_off (2026-11-22 08:00)"} <= set(
        re.findall(r"nograd_off \(.+?\)", page.text)
    )
    assert page.text.count("Interrupted before") == 1


@pytest.mark.parametrize(
    ("near", "said"),
    [
        (6, "2 of 8 launches left out: the machine's cores were far from each other."),
        (3, "5 of 8 launches count though the machine's cores were far from each other: too few others remain."),
    ],
)
def test_launches_with_far_cores_are_said(near: int, said: str) -> None:
    marks = [False] * near + [True] * (8 - near)
    apart = PhaseTimings([1.0] * 8, [1.0] * 8, [1.0] * 8, cores_apart=marks)
    page = Page(render([recorded(compared("nograd_off", 1.25), timings={"train": apart})], [Path()]))
    assert said in page.text


# Traces


def test_memory_curves_are_those_of_the_traces(traces: Path) -> None:
    record = recorded(compared("a", 1.25), arms={"baseline": arm(evaluate="whole.pt.trace.json")})
    evidence = gather(record, traces)
    (device,) = memory(Index(read_trace(traces / "whole.pt.trace.json")))
    assert evidence.memory == {"evaluate": {"baseline": device}}
    assert evidence.notes == []
    figure = memory_curves(evidence.memory)
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
    made = judge_comparison("a", hypothesis(phase), {phase: samples(1.25, 0.01)})
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
    timed = StepTimings(samples=[8], step_s=[1.0], phase_s={})
    trace = TraceFile(path="t.pt.trace.json", samples=[8], step_s=[1.0], peak_allocated_bytes=None)
    stage = StageRecord(
        timed=timed, trace=trace, peak_resident_bytes=1, resident_is_per_stage=True, peak_accelerator_bytes=None
    )
    record = RunRecord(
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
    run_record.write(record, tmp_path / "baseline")
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
        phase_bars(record.comparison.phases),
        memory_curves(evidence.memory),
        waterfall(evidence.explanation),
    )
    for figure in figures:
        go.Figure(figure)  # raises on a property that it does not know


def test_a_waterfall_ends_where_its_causes_lead() -> None:
    causes = [Cause("forward", "operator", f"{HOSTILE}{size}", float(size)) for size in (*range(20, 5, -1), -3)]
    (bars,) = waterfall(Explanation("sample", 200.0, 8.0, causes))["data"]
    *parts, total = bars["x"]
    assert bars["measure"] == ["relative"] * len(parts) + ["total"]
    assert sum(parts) == total == 200
    assert parts[:10] == [float(size) for size in range(20, 10, -1)]
    assert bars["text"][-3:] == ["18 % (+37 µs)", "4 % (+8 µs)", "+200 µs"]
    assert "<img" not in str(bars["hovertext"])


def test_bars_are_the_times_of_both_arms_in_the_unit_of_the_axis() -> None:
    phases = compared("a", 1.25).phases
    figure = phase_bars(phases)
    unit_s = {"µs": 1e-6, "ms": 1e-3, "s": 1}[figure["layout"]["xaxis"]["title"]["text"].partition(" ")[0]]
    baseline, variant = figure["data"]
    assert baseline["x"] == pytest.approx([effect.baseline_s_per_sample / unit_s for effect in phases])
    assert variant["x"] == pytest.approx([effect.variant_s_per_sample / unit_s for effect in phases])


# Hostile text


def test_hostile_text_stays_text() -> None:
    hostile = hostile_comparison()
    page = render_one(hostile)
    expected = render_one(recorded(compared("plain", 1.2), arms={"x": arm(), "variant": arm()}))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in expected.tags}
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert page.text.count(HOSTILE) > 20
    assert "<" not in next(data for data in page.scripts if data.startswith("["))  # figures, as data
    assert ET.fromstring(ladder_svg([hostile])).find(f".//{SVG}img") is None


def test_the_page_allows_only_its_own_scripts() -> None:
    hostile = hostile_comparison()
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
        write_comparison(recorded(compared(name, 1.25), started=started), folder)
    found = collect([tmp_path, tmp_path / "ab" / "first"])
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
        write_comparison(recorded(each), tmp_path / each.experiment)
    found = [record.comparison for _, record in collect([tmp_path])]
    assert {each.experiment: each for each in found} == {each.experiment: each for each in correct_ladder(family)}
    assert any(each.phases[1].p_holm > each.phases[1].p_family for each in found)


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
