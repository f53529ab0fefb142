"""The TensorBoard tab in a real browser: time until the Overview is visible, and its cost for TensorBoard.

    python -m tests.bench.bench_tab [--out FILE]

*First* is the Overview of a 96 MB trace with an empty cache: from setting its address, in a page that shows another
run, until it is painted. *With TensorBoard's own page* is the same from opening the page. *Again* is from setting the
address, with the result in the server's cache, in a page that has not shown it. The reference is torch_tb_profiler
0.4.3, PyTorch's own tab until 2026: the time that its loader takes for the same run, without drawing.

That package is installed next to this environment, not in it (`make bench`): its entry point would add its tab to every
TensorBoard of this environment.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

from profiling import run_record
from tests.bench.bench_analysis import recorded
from tests.bench.targets import Finding, out_argument, report
from tests.profiling.make_trace import event, write
from tests.profiling.tb_plugin.conftest import make_record
from tests.tab.browser import CHROMIUM, Tab, chromium, tensorboard

PEERS = Path(sys.prefix) / "peers"
ROUNDS, STARTS, RUNS = 3, 6, 300
LOAD = """
import sys, tempfile, time
from torch_tb_profiler import io
from torch_tb_profiler.profiler import RunLoader

start = time.perf_counter()
with tempfile.TemporaryDirectory() as folder, io.Cache(folder) as cache:
    run = RunLoader("run", sys.argv[1], cache).load()
    seconds = time.perf_counter() - start
assert run.profiles
print(seconds)
"""
START = """
import sys
from tensorboard import default
from tensorboard.main import run_main

if sys.argv.pop(1) == "without":
    default.get_dynamic_plugins = list
run_main()
"""
PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def peer_s(run: Path) -> float | None:
    """Seconds that torch_tb_profiler takes to load a run; None where it is not installed."""
    if not (PEERS / "torch_tb_profiler").is_dir():
        print(f"torch_tb_profiler is not in {PEERS} (`make bench` puts it there): only our own times are measured")
        return None
    environment = {**os.environ, "PYTHONPATH": str(PEERS)}
    command = [sys.executable, "-W", "ignore", "-c", LOAD, str(run)]
    return float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def overview_s(tab: Tab, run: str) -> float:
    """Seconds from setting the address of a run's Overview until it is painted."""
    start = time.perf_counter()
    root = tab.open("overview", run=run)
    tab.page.evaluate(PAINTED)
    seconds = time.perf_counter() - start
    if root.locator(".plot").count() == 0:
        raise RuntimeError(f"nothing is to be seen: {root.text_content()}")
    return seconds


def browse(browser: Any, logdir: Path) -> dict[str, list[float]]:
    """Seconds until the Overview of the big run is painted; each round has a new TensorBoard and an empty cache."""
    times: dict[str, list[float]] = {"first": [], "first_with_page": [], "again": []}
    for _ in range(ROUNDS):
        for kind in ("first", "first_with_page"):
            with tempfile.TemporaryDirectory() as cache, tensorboard(logdir, Path(cache)) as url:
                pages = [Tab(browser, url)]
                if kind == "first":
                    overview_s(pages[0], "small")
                times[kind].append(overview_s(pages[0], "big"))
                pages.append(Tab(browser, url))
                overview_s(pages[1], "small")
                times["again"].append(overview_s(pages[1], "big"))
                for page in pages:
                    page.close()
    return times


def listing_s(logdir: Path) -> float:
    """Seconds of the first request for the list of runs."""
    with tempfile.TemporaryDirectory() as cache, tensorboard(logdir, Path(cache)) as url:
        start = time.perf_counter()
        with urlopen(f"{url}data/plugin/abtrace/runs") as response:
            found = response.read().count(b'"run":')
        seconds = time.perf_counter() - start
    if found != RUNS:
        raise RuntimeError(f"{found} runs were listed, not {RUNS}")
    return seconds


def start_s(plugin: str, logdir: Path) -> float:
    """Seconds from the start of TensorBoard, `with` or `without` the plugin, until it serves."""
    command = [sys.executable, "-c", START, plugin, "--logdir", str(logdir), "--port", "0"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "http://" in line:
                return time.perf_counter() - start
    finally:
        process.terminate()
        process.communicate()
    raise RuntimeError("TensorBoard did not start")


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """Yield the peak resident bytes, inside the context, of the TensorBoard that this process started and its analyses.

    Memory that was resident before counts too. TensorBoard's data server, which reads no traces, does not count.
    """
    server = next(child for child in psutil.Process().children() if "tensorboard" in " ".join(child.cmdline()))
    peaks, ended = {"tensorboard": 0, "analyses": 0}, threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            peaks["tensorboard"] = max(peaks["tensorboard"], server.memory_info().rss)
            analyses = 0
            for child in server.children(recursive=True):
                try:
                    analyses += child.memory_info().rss if "profiling" in " ".join(child.cmdline()) else 0
                except psutil.NoSuchProcess:
                    continue
            peaks["analyses"] = max(peaks["analyses"], analyses)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def memory(browser: Any, logdir: Path) -> dict[str, int]:
    """Peak resident bytes while the Overview of the big run is computed and shown."""
    with tempfile.TemporaryDirectory() as cache, tensorboard(logdir, Path(cache)) as url:
        page = Tab(browser, url)
        page.page.set_default_timeout(60_000)
        overview_s(page, "small")
        with watched() as peaks:
            overview_s(page, "big")
        page.close()
    return peaks


def logdir_of(folder: Path, size: int) -> Path:
    """Create a logdir with a small run, and a run whose trace has `size` MB."""
    for run in ("small", "big"):
        (folder / run).mkdir(parents=True)
    write(folder / "small" / "w.1.pt.trace.json", [event("ProfilerStep#1", 0, 9, "user_annotation"), event("op", 1, 5)])
    recorded(size, folder / "big" / "w.1.pt.trace.json")
    return folder


def many_runs(folder: Path) -> Path:
    """Create a logdir of RUNS runs, each with a record and three windows."""
    for number in range(RUNS):
        run = folder / f"{number % 20}" / f"{number:03}"
        run.mkdir(parents=True)
        for window in range(3):
            write(run / f"w.{window}.pt.trace.json.gz", [event("op", 1, 5)])
        run_record.write(make_record(), run)
    return folder


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    if not CHROMIUM.exists():
        sys.exit(f"needs {CHROMIUM}")
    findings, details = [], {}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        logdir = logdir_of(Path(folder) / "96", 96)
        details["peer_s"] = peer_s(logdir / "big")
        details |= browse(browser, logdir)
        first, with_page, again = (statistics.median(details[kind]) for kind in ("first", "first_with_page", "again"))
        findings += [
            Finding(name="96 MB: first Overview, seconds", measured=first),
            Finding(name="96 MB: first Overview with TensorBoard's own page, seconds", measured=with_page),
        ]
        if peer := details["peer_s"]:
            findings += [
                Finding(name="96 MB: torch_tb_profiler loads the run, seconds", measured=peer),
                Finding(name="96 MB: first Overview / that", measured=first / peer, at_most=1 / 3),
                Finding(
                    name="96 MB: first Overview with TensorBoard's page / that",
                    measured=with_page / peer,
                    at_most=1 / 3,
                ),
            ]
        findings.append(Finding(name="96 MB: Overview again, seconds", measured=again, at_most=0.7))

        runs = many_runs(Path(folder) / "many")
        details["listing_s"] = [listing_s(runs) for _ in range(ROUNDS)]
        findings.append(
            Finding(name=f"{RUNS} runs: list, seconds", measured=statistics.median(details["listing_s"]), at_most=1)
        )
        start_s("with", runs), start_s("without", runs)  # untimed: fills byte code and page cache
        pairs = [(start_s("with", runs), start_s("without", runs)) for _ in range(STARTS)]
        details["starts_s"] = pairs
        longer = statistics.median(ours - theirs for ours, theirs in pairs)
        findings.append(Finding(name="TensorBoard starts later by, seconds", measured=longer, at_most=0.3))

        logdir = logdir_of(Path(folder) / "480", 480)
        details["peaks_bytes"] = memory(browser, logdir)
        size = (logdir / "big" / "w.1.pt.trace.json").stat().st_size
        for process, limit in (("tensorboard", 1.0), ("analyses", None)):
            share = details["peaks_bytes"][process] / size
            findings.append(Finding(name=f"480 MB: peak memory of {process} / file", measured=share, at_most=limit))
    report("The TensorBoard tab", findings, details, out)


if __name__ == "__main__":
    main()
