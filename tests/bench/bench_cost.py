"""What measuring costs: `python -m tests.bench.bench_cost`.

The light profiler window, as traced over unprofiled seconds per image of the same process, and interleaving: the same
arm's fastest step, and its median one, when it takes turns with another process, over blocks that follow each other
without a break. There is no target: the first is why traced steps are never timings, the second says how near an
interleaved figure is to that of a run alone.
"""

import tempfile
from pathlib import Path

from hydra import compose, initialize_config_module

from profiling import record, stats
from tests.bench.targets import Finding, out_argument, ratio, report
from train import cli
from train.ab.measure import PAUSE_S, PILOT_STEPS, SETTLE_STEPS, sized, timed_block
from train.ab.process import Process
from train.compose import to_config

LAUNCHES = 12
ROUNDS = 3


def launch(folder: Path) -> tuple[float, float, record.RunRecord]:
    """Seconds per image of one process, alone and taking turns with its twin, and what its traced window cost."""
    with initialize_config_module("configs", version_base="1.3"):
        config = to_config(compose("ab"))
    with Process(config, folder) as first, Process(config, folder) as second:
        for process in (first, second):
            timed_block("", process, SETTLE_STEPS)
        steps = sized(timed_block("", first, PILOT_STEPS).step_s, "train")
        alone, turns = [], []
        for _ in range(ROUNDS):
            timed_block("", first, steps)
            alone.append(first.ask("block", steps).s_per_sample["train"])
            timed_block("", second, steps)
            turns.append(timed_block("", first, steps).s_per_sample["train"])
        first.ask("finish", folder / "arm", "", {}, {})
    return min(alone), min(turns), record.read(folder / "arm")


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    cli.register()
    alone, turns = [], []
    overheads: dict[str, list[float]] = {}
    for _ in range(LAUNCHES):
        with tempfile.TemporaryDirectory() as folder:
            by_itself, by_turns, left = launch(Path(folder))
        alone.append(by_itself)
        turns.append(by_turns)
        for stage, measured in left.stages.items():
            overheads.setdefault(stage, []).append(1 + (measured.profiler_overhead() or 0.0))
    findings = [ratio("train s per image, taking turns / alone", stats.median_effect(alone, turns))]
    findings += [
        ratio(f"traced / unprofiled s per image, {stage}", stats.median_effect([1.0] * LAUNCHES, shares))
        for stage, shares in overheads.items()
    ]
    findings.append(Finding(name="pause before each block, ms", measured=PAUSE_S * 1e3))
    report("Cost of looking", findings, {"alone_s": alone, "turns_s": turns, "overheads": overheads}, out)


if __name__ == "__main__":
    main()
