"""No process outlives the one that started it: real processes, really killed."""

import os
import subprocess
import sys
import time
from contextlib import suppress
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
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)  # nobody writes into it: reading it never ends
    code = f"from pathlib import Path; folder = Path({str(tmp_path)!r}).resolve(); {STARTERS[what].lstrip()}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as starter:
        try:
            writer = opened_once_read(pipe)
            [child] = psutil.Process(starter.pid).children()
        finally:
            starter.kill()
    try:
        child.wait(timeout=5)
    except psutil.TimeoutExpired:
        child.kill()
        pytest.fail(f"{what} goes on")
    finally:
        os.close(writer)


def opened_once_read(pipe: Path) -> int:
    """Wait until a process reads a named pipe; return the other end, which keeps it reading."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with suppress(OSError):  # ENXIO: nobody reads it
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
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
