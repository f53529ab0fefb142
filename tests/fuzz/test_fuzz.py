"""A few cases of each kind; `make fuzz` runs thousands."""

import json
from pathlib import Path

import pytest

from tests.fuzz.__main__ import read, save
from tests.fuzz.harness import again, fuzz, make

CASES = {"traces": 40, "configs": 20, "checkpoints": 60, "images": 120, "requests": 60}


SLOW = {"states": 100, "runs": 4, "ranks": 2, "resumes": 3}


@pytest.mark.parametrize("kind", [*CASES, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_odd_input_is_answered_or_told_in_one_line(kind: str) -> None:
    cases = {**CASES, **SLOW}[kind]
    failures = [f"case {failure.case.number}: {failure.fault}" for failure in fuzz(kind, 0, range(cases))]
    assert not failures, f"{failures}\nagain: python -m tests.fuzz {kind} --cases {cases}"


def test_a_saved_case_is_the_case(tmp_path: Path) -> None:
    case = make("images", 3, 7)
    file = save(case, tmp_path)
    assert json.loads(file.read_text())["number"] == 7
    assert read(file) == case == make("images", 3, 7)
    assert again(read(file)) is None
