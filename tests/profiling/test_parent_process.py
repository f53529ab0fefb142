"""No process outlives the one that started it: real processes, really killed."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

STARTERS = {
    "an analysis of the tab": """
from profiling.tb_plugin import analyses, cache
analyses.Analyses(cache.Cache(folder / "cache")).answer(folder, ["summary", "./pipe.json"], [])
""",
    "the reader of the second half": """
import time
from profiling.trace.parallel_reader import SecondHalf
second = SecondHalf(folder / "pipe.json", 0)
time.sleep(60)
""",
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("what", STARTERS)
def test_what_a_killed_process_had_started_ends(what: str, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.json")  # nobody writes into it: reading it never ends
    code = f"from pathlib import Path; folder = Path({str(tmp_path)!r}).resolve(); {STARTERS[what].lstrip()}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as starter:
        try:
            [child] = started(psutil.Process(starter.pid))
        finally:
            starter.kill()
    try:
        child.wait(timeout=5)
    except psutil.TimeoutExpired:
        child.kill()
        pytest.fail(f"{what} goes on")


def started(process: psutil.Process) -> list[psutil.Process]:
    """Wait for the child of a process, and until that one reads."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        children = process.children()
        if children and children[0].num_threads() > 1:
            return children
        time.sleep(0.05)
    pytest.fail("nothing was started")


def test_a_child_finds_a_package_that_is_on_no_path(tmp_path: Path) -> None:
    """As in a folder elsewhere with an editable install, which a finder of its own locates."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from profiling.parent_process import search_path; "
    code += f"sys.path.remove({str(ROOT)!r}); print(search_path())"
    path = subprocess.check_output([sys.executable, "-P", "-c", code], cwd=tmp_path, text=True)
    found = subprocess.check_output(
        [sys.executable, "-S", "-P", "-c", "import profiling; print(profiling.__file__)"],
        cwd=tmp_path,
        env={"PYTHONPATH": path.strip()},
        text=True,
    )
    assert Path(found.strip()) == ROOT / "profiling" / "__init__.py"
