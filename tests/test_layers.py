"""The arrows between packages and inside profiling/, one name for one thing, and what must not be imported."""

import ast
import subprocess
import sys
from collections import defaultdict

import pytest

from tests.conftest import ROOT

PACKAGES = ("configs", "models", "profiling", "train")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}

EVERYBODY = {"vocabulary", "storage", "format", "errors"}
"""Parts of profiling/ that all others may import. `errors` is not in the design's list: an arm's process must tell a
mistake of the user's from a failure, in profiling/ab as in train/."""

INSIDE_PROFILING = {
    "vocabulary": set(),
    "storage": set(),
    "format": set(),
    "errors": set(),
    "marks": set(),
    "parent_process": set(),
    "out_of_memory": {"format"},
    "run_record": {"storage", "vocabulary"},
    "step_sample": {"run_record"},
    "machine": {"run_record"},
    "heap": set(),
    "machine_load": set(),
    "trace": EVERYBODY | {"parent_process"},
    # `summary` shows the unprofiled timings of a run's record beside what its traces say.
    "analysis": EVERYBODY | {"trace", "run_record"},
    "capture": EVERYBODY | {"trace", "analysis", "run_record", "step_sample"},
    "diff": EVERYBODY | {"trace", "analysis", "run_record"},
    "verdict": EVERYBODY | {"run_record", "machine_load"},
    # A comparison of scripts goes from the command line to the report; what a traced window held is in the trace.
    "ab": EVERYBODY
    | {
        "verdict",
        "run_record",
        "step_sample",
        "machine",
        "machine_load",
        "heap",
        "trace",
        "analysis",
        "report",
        "terminal",
    },
    # The views of the tab show a run's record beside what its traces say: `figures` reads both, once.
    "figures": EVERYBODY | {"trace", "analysis", "diff", "verdict", "run_record", "machine_load"},
    "report": EVERYBODY | {"trace", "analysis", "diff", "verdict", "run_record", "figures"},
    "terminal": EVERYBODY | {"analysis", "diff", "verdict", "run_record"},
    "tb_plugin": {"storage", "vocabulary", "format", "parent_process", "run_record", "trace"},
}
"""Part of profiling/ -> the parts that it may import; __main__ may import all."""

TRAIN_MAY_USE = EVERYBODY | {
    "ab",
    "capture",
    "diff",
    "figures",
    "machine",
    "heap",
    "machine_load",
    "out_of_memory",
    "report",
    "run_record",
    "step_sample",
    "terminal",
    "verdict",
}


OF_ARMS = {"profiling.ab.script_arm", "profiling.ab.script_steps", "profiling.ab.arm_tools"}
"""What runs in the user's interpreter, which may have nothing of this project; torch is imported where it is used."""


def imported(module: str) -> set[str]:
    """The modules of the product that a module imports, anywhere in it; lazy imports count."""
    names = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in FILES else name.rpartition(".")[0] for name in names if name.split(".")[0] in PACKAGES}


IMPORTS = {module: imported(module) for module in FILES}


@pytest.mark.parametrize("module", FILES)
def test_an_import_follows_the_arrows(module):
    package, *below = module.split(".")
    for other in IMPORTS[module]:
        top, *rest = other.split(".")
        if package == "profiling" and below and below[0] != "__main__":
            assert top == "profiling", other
            assert not rest or rest[0] == below[0] or rest[0] in INSIDE_PROFILING[below[0]], other
        elif package == "train":
            assert top in ("train", "models") or rest[0] in TRAIN_MAY_USE, other
        else:
            assert top == package, other


def test_what_runs_in_a_users_process_needs_nothing_of_this_project():
    for module in OF_ARMS:
        assert IMPORTS[module] <= OF_ARMS, module
        tree = ast.parse(FILES[module].read_text(), feature_version=(3, 9))
        names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        tops = {name.split(".")[0] for name in names} - {"profiling", "torch"}
        assert tops <= set(sys.stdlib_module_names), module


def test_the_tab_imports_only_what_lists_runs():
    used = {other for module in FILES if module.startswith("profiling.tb_plugin") for other in IMPORTS[module]}
    of_trace = {other for other in used if other.startswith("profiling.trace")}
    assert of_trace == {"profiling.trace.files"}


def test_every_part_of_profiling_has_its_arrows():
    parts = {module.split(".")[1] for module in FILES if module.startswith("profiling.")}
    assert parts - {"__main__"} == set(INSIDE_PROFILING)


def test_there_are_no_cycles_not_even_lazy_ones():
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in IMPORTS[module]:
                visit(other, [*path, module])
            done.add(module)

    for module in FILES:
        visit(module, [])


def test_no_two_classes_of_the_product_have_one_name():
    places = defaultdict(list)
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(module)
            elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("StrEnum("):
                places[ast.unparse(node.targets[0])].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def loaded(code: str, *unwanted: str) -> str:
    """Run `code` in a process of its own; what it printed of `unwanted` modules that it had imported then."""
    check = f"import sys; {code}; print(sorted(set({unwanted!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_profiling_leaves_torch_and_plotly_alone():
    """All of it but `capture`, and the tab, which TensorBoard imports."""
    modules = [module for module in FILES if module.startswith("profiling") and module != "profiling.capture"]
    assert loaded(f"import {', '.join(modules)}", "torch", "plotly", "train", "models") == "[]"


def test_only_capture_and_the_arms_import_torch_in_profiling():
    for module in FILES:
        if module.startswith("profiling.") and module not in ("profiling.capture", *OF_ARMS):
            tree = ast.parse(FILES[module].read_text())
            names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
            names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            assert not any(name.split(".")[0] in ("torch", "torchvision") for name in names), module


@pytest.mark.parametrize(
    "module", ["train.config.cli", "train.config.compose", "train.ab.experiment", "train.ab.arm_config"]
)
def test_what_must_answer_at_once_leaves_torch_alone(module):
    assert loaded(f"import {module}", "torch") == "[]"


def test_listing_traces_needs_no_numpy():
    assert loaded("import profiling.trace.files", "numpy") == "[]"


def test_the_tab_costs_tensorboard_little_at_its_start():
    """What takes long to import, or much memory, is imported in the processes that analyze."""
    slow = ("torch", "numpy", "scipy", "plotly", "viztracer", "rich", "pandas")
    assert loaded("import profiling.tb_plugin.plugin", *slow) == "[]"


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


def test_files_are_not_long():
    """A file of more than 450 lines is one to ask whether it holds two subjects."""
    lengths = {path: len(path.read_text().splitlines()) for path in FILES.values()}
    assert {str(path): length for path, length in lengths.items() if length > 450} == {}


def test_the_pipeline_can_be_read_in_an_evening() -> None:
    """What one process runs: not the comparison of two (`train/ab/`), nor several ranks (`train/ranks/`)."""
    own = [path for pattern in ("train/*.py", "train/config/*.py", "models/*.py") for path in ROOT.glob(pattern)]
    assert 1000 < sum(len(path.read_text().splitlines()) for path in own) < 4500
