"""ladder.svg, read back: what is where."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from profiling.figures.ladder import FARTHEST, ladder_svg
from profiling.verdict.judge import Comparison
from profiling.vocabulary import Verdict
from tests.profiling.report.reports import FAILED, NOT_APPLICABLE, PREDICTED, SVG, compared, recorded


def drawn(made: Comparison) -> ET.Element:
    """The row of one experiment in a ladder_svg that has a wider one beside it."""
    root = ET.fromstring(ladder_svg([recorded(made), recorded(compared("wide", 2.5))]))
    return next(row for row in root.iter(f"{SVG}g") if row[0].text.startswith(f"{made.experiment},"))


def middle(path: ET.Element) -> float:
    return float(re.search(r"translate\(([\d.]+),", path.get("transform"))[1])


def test_effects_stand_on_a_logarithmic_axis() -> None:
    made = [compared(name, shift) for name, shift in (("a", 0.8), ("b", 1.25), ("c", 2.0))]
    rows = ET.fromstring(ladder_svg([recorded(each) for each in made])).iter(f"{SVG}g")
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
    root = ET.fromstring(ladder_svg(made))
    assert [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "topic"] == ["autograd", "kernels"]
    names = [row[1].text for row in root.iter(f"{SVG}g")]
    assert names == ["b", "a", "too_large"]
