"""Derived phases against marked ones: `python -m tests.bench.bench_phases [--out FILE]`.

Each model is trained by `python -m train`, and its trace read twice: as it is, and with the annotations of the pipeline
taken out. A phase's error is the median over the steps, so that a single interruption does not matter.
"""

import gzip
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from profiling.analysis.summary import summarize
from profiling.trace.trace import read_trace
from profiling.vocabulary import TRACE_PHASES
from tests.bench.targets import Finding, out_argument, report

RUNS = {
    "mlp": ("model=mlp",),
    "cnn": (),
    "cnn, stacks": ("profiler=full",),
    "resnet18": ("model=resnet18", "batch_size=16"),
    "vit": ("model=vit",),
    "cnn, optimizer for-loop": ("+experiment=optimizer_for_loop",),
}
STEPS = 12
PHASES = (("forward", "loss"), ("backward",), ("optimizer",))
CLOSE = 0.05


def record(overrides: tuple[str, ...], folder: Path) -> list[dict[str, Any]]:
    """The events of the training window of one run."""
    command = [sys.executable, "-m", "train", *overrides, f"hydra.run.dir={folder}", f"profiler.active={STEPS}"]
    subprocess.run([*command, "epochs=2"], check=True, stdout=subprocess.DEVNULL)
    (path,) = folder.glob("train*.pt.trace.json.gz")
    events: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return events


def by_step(events: list[dict[str, Any]], folder: Path) -> list[dict[str, float]]:
    """Own time of each phase in each step, in microseconds."""
    times = []
    for step in (event for event in events if event["name"].startswith("ProfilerStep#")):
        start, end = step["ts"], step["ts"] + step["dur"]
        own = [event for event in events if event.get("ph") == "X" and start <= event["ts"] < end]
        (folder / "step.json").write_text(json.dumps({"traceEvents": own}))
        times.append({row.name: row.self_us for row in summarize([read_trace(folder / "step.json")]).phases})
    return times


def errors(events: list[dict[str, Any]], folder: Path) -> dict[str, float]:
    """Relative error of each derived phase, or pair of phases, against the marked ones."""

    def is_mark(event: dict[str, Any]) -> bool:
        return event.get("cat") == "user_annotation" and event["name"] in TRACE_PHASES

    marked = by_step(events, folder)
    derived = by_step([event for event in events if not is_mark(event)], folder)
    return {
        "+".join(names): statistics.median(
            sum(found.get(name, 0.0) for name in names) / sum(right[name] for name in names) - 1
            for right, found in zip(marked, derived, strict=True)
        )
        for names in PHASES
    }


def main() -> None:
    """Record, compare and report."""
    out = out_argument(__doc__)
    findings = []
    for title, overrides in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            events = record(overrides, Path(folder) / "run")
            for phase, error in errors(events, Path(folder)).items():
                name = f"{title}: {phase}, derived / marked"
                findings.append(Finding(name=name, measured=1 + error, at_least=1 - CLOSE, at_most=1 + CLOSE))
    report("phases derived from traces whose marks were taken out", findings, {}, out)


if __name__ == "__main__":
    main()
