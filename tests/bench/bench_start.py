"""Wall time of whole commands: `python -m tests.bench.bench_start`.

Each figure is the wall time of a new process, including interpreter and imports; files may be in the page cache.
`--help` and the imports alone alternate (A B, B A, ...), so that drift cancels in their paired ratio.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import PIPE, STDOUT

from profiling.verdict import stats
from tests.bench.targets import Finding, out_argument, ratio, report

RUNS = 3
PAIRS = 12
HELP = ("-m", "train", "--help")
IMPORTS = ("-c", "import torch, hydra")


def wall_s(*arguments: str) -> float:
    """Seconds that `python <arguments>` takes.

    Raises:
        subprocess.CalledProcessError: the command failed; its output is printed.
    """
    start = time.perf_counter()
    try:
        subprocess.run([sys.executable, *arguments], check=True, stdout=PIPE, stderr=STDOUT, text=True)
    except subprocess.CalledProcessError as error:
        print(error.stdout)
        raise
    return time.perf_counter() - start


def train_s() -> float:
    """Seconds of a default run, which must write a trace of each stage."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = wall_s("-m", "train", f"output={folder}")
        traces = list(Path(folder).glob("baseline/*/*.pt.trace.json.gz"))
        if len(traces) != 3:
            raise RuntimeError(f"a run wrote {len(traces)} of its 3 traces")
    return seconds


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    os.environ["COLUMNS"] = "120"
    runs_s = [train_s() for _ in range(RUNS)]
    wall_s(*HELP), wall_s(*IMPORTS)  # untimed: fills byte code and page cache
    help_s: list[float] = []
    imports_s: list[float] = []
    for pair in range(PAIRS):
        for arguments, times in ((IMPORTS, imports_s), (HELP, help_s))[:: 1 if pair % 2 == 0 else -1]:
            times.append(wall_s(*arguments))
    findings = [
        Finding(name=f"python -m train, seconds, slowest of {RUNS}", measured=max(runs_s), at_most=30),
        ratio("train --help / import torch, hydra", stats.median_effect(imports_s, help_s), at_most=1.5),
    ]
    report("Start", findings, {"train_s": runs_s, "help_s": help_s, "imports_s": imports_s}, out)


if __name__ == "__main__":
    main()
