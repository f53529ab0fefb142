"""Analysis of the traces of many ranks: `python -m tests.bench.bench_ranks`.

Two real ranks train and leave their traces; copies of these, under the numbers of more ranks, stand in for larger runs.
All are read by one `python -m profiling summary`.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.targets import Finding, out_argument, report

RANKS = (2, 8, 64)
REPEATS = 3
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def two_ranks(folder: Path) -> list[dict[str, Any]]:
    """The traced training windows of two ranks, as JSON."""
    command = [*TORCHRUN, "-m", "train", "epochs=1", "profiler.active=8", f"output={folder}"]
    subprocess.run(command, check=True, capture_output=True)
    return [json.loads(gzip.decompress(file.read_bytes())) for file in sorted(folder.rglob("*_train.*.json.gz"))]


def write_ranks(originals: list[dict[str, Any]], ranks: int, folder: Path) -> int:
    """Write a trace for each of so many ranks; return their bytes, uncompressed."""
    size = 0
    for rank in range(ranks):
        trace = originals[rank % len(originals)]
        group = trace["distributedInfo"]["pg_config"][0] | {"pg_size": ranks, "ranks": list(range(ranks))}
        trace["distributedInfo"] |= {"rank": rank, "world_size": ranks, "pg_config": [group]}
        content = json.dumps(trace).encode()
        size += len(content)
        (folder / f"host_{rank}_train.{1 + rank}.pt.trace.json.gz").write_bytes(gzip.compress(content, 1))
    return size


def summary(folder: Path) -> tuple[float, int]:
    """Seconds and peak memory in bytes of the command that summarizes all traces of a folder."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "profiling", "summary", folder, "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    found = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    assert len(found["communication"]["ranks"]) == len(list(folder.iterdir())), "no rank is left out"
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    findings, details = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        originals = two_ranks(Path(scratch) / "run")
        for ranks in RANKS:
            folder = Path(scratch) / str(ranks)
            folder.mkdir()
            size = write_ranks(originals, ranks, folder)
            taken = [summary(folder) for _ in range(REPEATS)]
            seconds, peak_bytes = median(s for s, _ in taken), max(peak for _, peak in taken)
            details[str(ranks)] = {"bytes": size, "seconds": seconds, "peak_bytes": peak_bytes}
            findings += [
                Finding(name=f"{ranks} ranks: traces, MB", measured=size / 1e6),
                Finding(name=f"{ranks} ranks: summary, s", measured=seconds),
                Finding(name=f"{ranks} ranks: peak memory, MB", measured=peak_bytes / 1e6),
            ]
    eight, sixty_four = (details[str(ranks)]["seconds"] for ranks in RANKS[1:])
    findings.append(Finding(name="64 ranks / 8 ranks: time", measured=sixty_four / eight, at_most=8.0))
    report("Traces of many ranks", findings, details, out)


if __name__ == "__main__":
    main()
