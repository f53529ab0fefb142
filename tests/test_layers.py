"""The arrows between the packages, and what must not be imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("configs", "models", "profiling", "train")
ALLOWED = {
    "models": {"models"},
    "configs": {"configs"},
    "profiling": {"profiling"},
    "train": {"train", "models", "profiling"},
}
FROM_PROFILING = {"capture", "record", "compare", "comparison", "diff", "report"}  # what train may use of profiling


def imported(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_design_allows(package):
    for file in (ROOT / package).rglob("*.py"):
        for module in imported(file):
            top, *rest = module.split(".")
            assert top not in PACKAGES or top in ALLOWED[package], f"{file}: {module}"
            if package == "train" and top == "profiling":
                assert rest and rest[0] in FROM_PROFILING, f"{file}: {module}"


def test_only_capture_imports_torch_in_profiling():
    for file in (ROOT / "profiling").rglob("*.py"):
        if any(module.split(".")[0] in ("torch", "torchvision") for module in imported(file)):
            assert file.name == "capture.py"


@pytest.mark.parametrize("module", ["train.cli", "train.compose", "profiling.record"])
def test_what_must_answer_at_once_leaves_torch_alone(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_tab_costs_tensorboard_little_at_its_start():
    """What takes long to import, or much memory, is imported in the processes that analyze."""
    slow = "{'torch', 'numpy', 'scipy', 'plotly', 'viztracer', 'rich', 'pandas'}"
    code = f"import sys, profiling.tb_plugin.plugin; sys.exit(str({slow} & sys.modules.keys() or ''))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_the_top_level_is_the_five_folders():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {path.split("/")[0] for path in listing.splitlines() if "/" in path and not path.startswith(".")}
    assert folders <= {"configs", "models", "train", "profiling", "tests", "docs"}


def test_no_file_of_a_package_is_ignored_by_git():
    """A fresh clone has what this checkout has: an ignored `data/` once hid configs/data/."""
    ignored = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", *PACKAGES, "tests"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert [path for path in ignored if "__pycache__" not in path] == []
