"""The chart of effects: one beyond its axis says so, with an arrow and its ratio."""

from profiling.figures.forest import forest, forest_rows
from profiling.verdict.ladder import read_ladder
from profiling.verdict.record import write_comparison
from tests.profiling.report.reports import compared, recorded


def test_an_effect_beyond_the_axis_has_an_arrow_and_its_ratio(tmp_path):
    for name, shift in (("far", 4.36), ("near", 1.2)):
        (tmp_path / name).mkdir()
        write_comparison(recorded(compared(name, shift)), tmp_path / name)
    figure = forest(forest_rows(read_ladder(tmp_path).effects))
    (effects,) = [trace for trace in figure["data"] if "error_x" in trace]
    near, far = sorted(effects["text"])
    assert near == "" and far.startswith("×4.3") and far.rstrip().endswith("→")
    assert max(effects["x"]) < 4, "the mark itself stands at the edge"
