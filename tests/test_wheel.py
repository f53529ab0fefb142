"""The wheel: built, installed beside the dependencies, and used from an empty folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from profiling.verdict.record import write_comparison
from tests.conftest import ROOT, TINY
from tests.profiling.report.reports import compared, recorded


def run(*command: str | Path, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a second environment, which has our wheel and sees the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in listing.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "-w", folder, source, folder=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (wheel,) = folder.glob("*.whl")
    interpreter = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "-qq", "--no-deps", wheel, folder=folder)
    return interpreter


def test_its_code_comes_from_the_wheel(python: Path, tmp_path: Path) -> None:
    code = "import configs, models, profiling, train; print(configs.__file__, profiling.__file__, train.__file__)"
    assert all(str(python.parents[1]) in file for file in run(python, "-c", code, folder=tmp_path).split())


def test_help_lists_the_experiments(python: Path, tmp_path: Path) -> None:
    assert "nograd_off" in run(python, "-m", "train", "--help", folder=tmp_path)


def test_a_run_trains_and_traces(python: Path, tmp_path: Path) -> None:
    run(python, "-m", "train", *TINY, folder=tmp_path)
    assert len(list(tmp_path.glob("runs/baseline*/*/*.pt.trace.json.gz"))) == 3


def test_a_report_and_a_picture_have_their_style(python: Path, tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    write_comparison(recorded(compared("nograd_off", 1.25)), tmp_path / "ab")
    for name in ("report.html", "ladder.svg"):
        run(python, "-m", "profiling", "report", "ab", "-o", name, folder=tmp_path)
        assert "<style>" in (tmp_path / name).read_text()


def test_tensorboard_finds_the_tab_and_its_files(python: Path, tmp_path: Path) -> None:
    code = (
        "from tensorboard.default import get_dynamic_plugins\n"
        "(plugin,) = [p for p in get_dynamic_plugins() if p.plugin_name == 'abtrace']\n"
        "from profiling.tb_plugin.plugin import STATIC\n"
        "print(plugin.__module__, len(list(STATIC.rglob('*.js'))))"
    )
    module, scripts = run(python, "-W", "ignore", "-c", code, folder=tmp_path).split()
    assert module == "profiling.tb_plugin.plugin"
    assert int(scripts) == len(list((ROOT / "profiling/tb_plugin/static").rglob("*.js")))
