"""Analysis speed: `python -m profiling summary --json` against HolisticTraceAnalysis parsing the same file.

    python -m tests.bench.bench_analysis [--sizes 10 96 480] [--out FILE]

The benchmark records the traces: training steps of resnet18 on the CPU with shapes, memory and stacks. Both programs
are timed as whole processes, from start to exit. `profiling summary` runs five times and the median counts; a sixth run
measures memory, summed over its processes. HolisticTraceAnalysis (`bench` extra) runs once, because large files take it
long. It compares every event with every step, so the ratio depends on the number of steps in the file.
"""

import argparse
import importlib.util
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.bench.targets import Finding, report

MB_PER_STEP = 1.88
OURS = ("-m", "profiling", "summary", "{}", "--json")
HTA = (
    "-W",
    "ignore",
    "-c",
    "import sys; from hta.trace_analysis import TraceAnalysis; from pathlib import Path; path = Path(sys.argv[1]); "
    "TraceAnalysis(trace_files={0: str(path)}, trace_dir=str(path.parent))",
    "{}",
)
SPEEDUP = {96: 15.0, 480: 40.0}
GROWTH = 5.5
MEMORY_SHARE = 0.6


def record(steps: int, path: str) -> None:
    """Trace training steps of resnet18, about MB_PER_STEP each. To be called in a new process."""
    import torch
    from torch.profiler import ProfilerActivity, profile, schedule
    from torchvision.models import resnet18

    torch.set_num_threads(1)
    model = resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 2])
    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=0, warmup=1, active=steps),
        on_trace_ready=lambda window: window.export_chrome_trace(path),
        record_shapes=True,
        profile_memory=True,
        with_stack=True,
    ) as window:
        for _ in range(steps + 1):
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            window.step()


def recorded(size: int, path: Path) -> None:
    """Record a trace of about `size` MB, in a new process."""
    recorder = multiprocessing.get_context("spawn").Process(target=record, args=(round(size / MB_PER_STEP), str(path)))
    recorder.start()
    recorder.join()


def run(arguments: tuple[str, ...], path: Path, *, sampled: bool = False) -> tuple[float, int]:
    """Seconds from start to exit and, if `sampled`, the highest sum of resident bytes over the processes.

    Sampling slows the program down, so a sampled run is not used as a timing.

    Raises:
        subprocess.CalledProcessError: the program failed.
    """
    command = [sys.executable, *(argument.replace("{}", str(path)) for argument in arguments)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while sampled and process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.005)
    process.wait()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, peak


def resident(pid: int) -> int:
    """Resident bytes of a process and its children, at this moment."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total


def measure(size: int, folder: Path, *, against_hta: bool) -> dict[str, float]:
    """Record one trace and run both programs on it."""
    path = folder / f"{size}.pt.trace.json"
    recorded(size, path)
    row = {
        "file_bytes": path.stat().st_size,
        "ours_s": statistics.median(run(OURS, path)[0] for _ in range(5)),
        "ours_bytes": run(OURS, path, sampled=True)[1],
    }
    if against_hta:
        row["hta_s"], _ = run(HTA, path)
    path.unlink()
    return row


def findings(rows: dict[int, dict[str, float]]) -> list[Finding]:
    """The figures with their targets."""
    found = []
    for size, row in rows.items():
        found.append(Finding(name=f"{size} MB: seconds", measured=row["ours_s"]))
        if "hta_s" in row:
            faster = row["hta_s"] / row["ours_s"]
            found.append(Finding(name=f"{size} MB: times faster than HTA", measured=faster, at_least=SPEEDUP.get(size)))
        share = row["ours_bytes"] / row["file_bytes"]
        found.append(
            Finding(
                name=f"{size} MB: peak memory / file size",
                measured=share,
                at_most=MEMORY_SHARE if size >= 480 else None,
            )
        )
    if {96, 480} <= rows.keys():
        growth = rows[480]["ours_s"] / rows[96]["ours_s"]
        found.append(Finding(name="480 MB / 96 MB: time", measured=growth, at_most=GROWTH))
    return found


def main() -> None:
    """Measure each size, print the table and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 96, 480], metavar="MB", help="default: 10 96 480")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    against_hta = importlib.util.find_spec("hta") is not None
    if not against_hta:
        print("HolisticTraceAnalysis is not installed (pip install '.[bench]'): only our own times are measured")
    with tempfile.TemporaryDirectory() as folder:
        rows = {size: measure(size, Path(folder), against_hta=against_hta) for size in options.sizes}
    report("Analysis speed", findings(rows), {"sizes_mb": {str(size): row for size, row in rows.items()}}, options.out)


if __name__ == "__main__":
    main()
