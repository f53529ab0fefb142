"""Causes are shares of the traced difference, beside the effect that was measured; peaks and Python time agree."""

import pytest

from profiling.analysis.summary import summarize
from profiling.diff.diff import diff
from profiling.diff.differences import Cause
from profiling.diff.explanation import Explanation, same_operators
from profiling.diff.totals import StageWindow
from profiling.figures.comparison import waterfall
from profiling.trace.trace import read_trace
from tests.profiling.make_trace import event, write


def test_causes_are_shares_of_what_the_traces_show_and_the_measured_effect_stands_beside():
    causes = [Cause("forward", "operator", "aten::mm", 24.0), Cause("forward", "operator", "aten::t", 7.0)]
    explanation = Explanation("sample", 31.0, -7e-12, causes)
    assert explanation.against(18.8) == "measured +18.8 µs per sample; under the profiler +31 µs, of which"
    assert explanation.share(24.0) == "77 %"
    texts = waterfall(explanation)["data"][0]["text"]
    assert texts == ["77 % (+24 µs)", "23 % (+7 µs)", "0 % (0 µs)", "+31 µs"]


@pytest.mark.parametrize(
    ("measured_us", "is_rough"), [(18.8, False), (10.0, True), (70.0, True), (-18.8, True), (0.0, True)]
)
def test_a_traced_difference_of_another_size_is_called_a_hint(measured_us, is_rough):
    said = Explanation("sample", 31.0, 0.0, []).against(measured_us)
    assert said.endswith("(another size: the causes are a hint), of which") is is_rough


def test_no_difference_has_no_shares():
    assert Explanation("sample", 1e-12, 0.0, []).share(3.0) == ""


@pytest.mark.parametrize("marks", [[], [event("ProfilerStep#1", 0, 100, "user_annotation")]])
def test_summary_and_diff_give_the_same_python_time_in_every_phase(tmp_path, marks):
    phase = event("forward", 10, 40, "user_annotation")
    a = read_trace(write(tmp_path / "a.json", [*marks, phase, event("aten::mm", 12, 30), event("aten::t", 60, 10)]))
    b = read_trace(write(tmp_path / "b.json", [*marks, phase, event("aten::mm", 12, 20), event("aten::t", 80, 2)]))
    summaries = [{row.name: row.python_us for row in summarize([trace]).phases} for trace in (a, b)]
    found = diff([StageWindow(a)], [StageWindow(b)])
    assert {row.phase for row in found.phases} == {"forward", "other"}
    for row in found.phases:
        assert row.python_us == pytest.approx(summaries[1][row.phase] - summaries[0][row.phase]), row.phase


def test_an_effect_where_both_arms_do_the_same_work_is_none_of_the_code(tmp_path):
    def arm(name, *loops, size=64):
        events = [event("preprocess", 0, 20, "user_annotation"), event("forward", 30, 50, "user_annotation")]
        events += [event("aten::sub", ts, 2) for ts in loops] + [event("aten::mm", 35, 10 if loops[1:] else 9)]
        if size:
            args = {"Bytes": size, "Addr": 1, "Total Allocated": size, "Device Type": 0, "Device Id": -1}
            made = {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "s": "t", "pid": 1, "tid": 1, "ts": 36}
            events.append({**made, "args": args})
        return [StageWindow(read_trace(write(tmp_path / f"{name}.json", events)), "train", 4)]

    windows = {"train": {"baseline": arm("a", 2), "variant": arm("b", 2, 6, 10)}}
    assert same_operators(windows, ["preprocess", "forward", "evaluate"]) == ["forward"]
    assert same_operators(windows, ["train"]) == []
    larger = {"train": {"baseline": arm("c", 2), "variant": arm("d", 2, size=128)}}
    assert same_operators(larger, ["forward"]) == [], "the same names, on other sizes"
    unknown = {"train": {"baseline": arm("e", 2, size=0), "variant": arm("f", 2, size=0)}}
    assert same_operators(unknown, ["forward"]) == []
