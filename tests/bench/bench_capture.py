"""Overhead of the profiler's window: `python -m tests.bench.bench_capture`.

Default runs, each in a new process: the median traced step relative to the median unprofiled step of the same run and
stage, from `record.json`. There is no target: the overhead is the reason why traced steps are no timings.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from profiling import run_record
from tests.bench.targets import Finding, out_argument, report

RUNS = 3


def run() -> run_record.RunRecord:
    """The record of one default run."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "train", f"output={folder}"], check=True, stdout=subprocess.DEVNULL)
        (written,) = Path(folder).glob(f"baseline/*/{run_record.FILE_NAME}")
        return run_record.read(written.parent)


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    overheads: dict[str, list[float]] = {}
    for _ in range(RUNS):
        for name, stage in run().stages.items():
            overhead = stage.profiler_overhead()
            if overhead is not None:
                overheads.setdefault(name, []).append(overhead)
    findings = [
        Finding(name=f"traced / unprofiled s per image, {name}", measured=1 + statistics.median(shares))
        for name, shares in overheads.items()
    ]
    report("Cost of the light profiler window", findings, {"overhead_share": overheads}, out)


if __name__ == "__main__":
    main()
