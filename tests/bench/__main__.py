"""Run benchmarks, each in a process of its own: `python -m tests.bench [NAME ...] [--out FILE]`.

A benchmark is a module `bench_<name>.py` of this folder. With `--out FILE` it prints its tables and writes its figures
to FILE as JSON. The figures of all benchmarks are collected under their names.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

NAMES = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def run(name: str) -> tuple[int, Any]:
    """Exit status of one benchmark, and its figures; None if it wrote none."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        # As in train.config.cli: hides the profiler's messages at the start and stop of every window.
        environment = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ}
        # As installed: pip compiles the peers' modules to bytecode, so ours may not be compiled anew in every process.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", f"tests.bench.bench_{name}", "--out", str(figures)]
        status = subprocess.call(command, env=environment)
        return status, msgspec.json.decode(figures.read_bytes()) if figures.exists() else None


def main() -> int:
    """Run the benchmarks one after the other; a failed one does not stop the rest. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; none is all of them")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"), help="default: %(default)s")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(NAMES)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    figures, failed = {}, []
    for name in args.names or NAMES:
        print(f"== {name}", flush=True)
        status, figures[name] = run(name)
        if status:
            failed.append(name)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1))
    print(f"figures: {args.out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
