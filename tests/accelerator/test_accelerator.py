"""The proof on a device, as far as a CPU shows it: what is asked, limits, resumption, and what is told."""

import json
import re
import sys
import tomllib
import zipfile

import psutil
import pytest

from tests.accelerator import correctness, packages, results, table
from tests.accelerator.context import Context
from tests.accelerator.ladder import EXPERIMENTS
from tests.accelerator.parent import Deadline, run_group
from tests.accelerator.results import CUT, FAILED, NOT_APPLICABLE, PASSED, Result
from tests.conftest import ROOT
from train.variants import TABLES


@pytest.mark.slow
def test_a_piece_that_fails_ends_its_process_or_hangs_costs_only_itself_and_leaves_nothing_running(tmp_path):
    shown = []
    deadline = Deadline(60)
    run_group("odd_pieces", "cpu", tmp_path, 1, Deadline(0), shown.append)
    assert shown == []  # no time, no process

    def stop_soon(result):
        shown.append(result)
        if result.name == "odd_pieces/goes_on":
            deadline.limit_s = deadline.used_s + 3

    run_group("odd_pieces", "cpu", tmp_path, 1, deadline, stop_soon)
    statuses = {result.name.partition("/")[2]: result.status for result in shown}
    assert statuses == {
        "passes": PASSED, "wrong": FAILED, "elsewhere": NOT_APPLICABLE, "killed": FAILED, "goes_on": PASSED,
        "hangs": CUT,
    }  # fmt: skip
    left = results.read_all(tmp_path)
    assert left["odd_pieces/wrong"].error == "AssertionError: 1 is not 2"
    assert left["odd_pieces/killed"].error == "its process ended with status -9"
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_second_start_asks_again_what_failed_or_was_cut_and_nothing_else(tmp_path):
    for status in (PASSED, NOT_APPLICABLE, FAILED, CUT):
        results.write(tmp_path, Result(f"group/{status}", status, 1.0, {}))
    results.forget_what_did_not_pass(tmp_path)
    assert set(results.read_all(tmp_path)) == {"group/passed", "group/not applicable"}


def test_every_experiment_and_every_option_of_every_table_is_asked(tmp_path):
    asked = correctness.pieces(Context("cuda", tmp_path))
    files = {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")}
    assert {f"runs/{name}" for name in files} <= asked.keys()
    options = {f"parity/{switch}={option}" for switch, table in TABLES.items() for option in [*table.options][1:]}
    assert options - asked.keys() == {"parity/parameters=frozen"}, "which stops before its first step"
    assert set(EXPERIMENTS) <= files


def test_the_table_has_the_ladder_the_figures_and_what_failed(tmp_path):
    effect = {"phase": "train", "ratio": 1.5, "ratio_low": 1.4, "ratio_high": 1.6, "floor_ratio": 1.01}
    found = {**effect, "verdict": "slower", "outcome": "confirmed"}
    results.write(tmp_path, Result("ladder/amp_off", PASSED, 40.0, found))
    results.write(tmp_path, Result("evidence/clocks", PASSED, 2.0, {"wall_s": 1.23456789}))
    results.write(tmp_path, Result("correctness/runs/x_off", FAILED, 1.0, {}, "first\nsecond"))
    text = table.write(tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    assert "| amp_off | train | ×1.500 (1.400 to 1.600) | ×1.010 | slower | confirmed |" in text
    assert "| evidence/clocks | wall_s: 1.235 |" in text
    assert "| correctness/runs | 0 | 0 | 1 | 0 | 1 |" in text
    assert "- correctness/runs/x_off: failed: first; second" in text
    assert len(json.loads((tmp_path / "results.json").read_text())) == 3


def test_a_wheel_is_used_without_pip(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_here/__init__.py", "")
    monkeypatch.setitem(packages.CARRIED, "carried-here", "carried_here")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "before")
    assert packages.missing() == ["carried-here"]
    packages.unpack(tmp_path, tmp_path / "unpacked")
    assert packages.missing() == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("devise=cpu", "error: devise=cpu: no such option; there are device=, limit_s=, out="),
        ("device=gpu", "error: device=gpu: not one of auto, cpu, cuda, xpu, mps"),
        ("limit_s=ten", "error: limit_s=ten: out of range; allowed: more than 20 seconds"),
    ],
)
def test_a_mistake_gets_one_line(argument, message, command):
    result = command("tests.accelerator", argument)
    assert (result.returncode, result.stderr.strip()) == (2, message)


def test_what_is_carried_is_what_the_project_needs_and_an_image_of_pytorch_lacks():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split("[<>=]", text)[0] for text in declared}
    assert names - packages.CARRIED.keys() == {
        "torch", "torchvision", "tensorboard", "PyYAML", "pillow", "numpy", "scipy", "scikit-learn", "psutil", "rich",
        "jinja2",
    }  # fmt: skip
