"""Overhead of measuring: `python -m tests.bench.bench_cost`.

Of the light profiler window: seconds per image, traced / unprofiled, in the same process. Of interleaving: seconds per
image of an arm that takes turns with another process, divided by those of its consecutive blocks. There is no target:
the first is the reason why traced steps are no timings, the second shows how close an interleaved timing is to that of
a run alone.
"""

import tempfile
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_module

from profiling import run_record
from profiling.ab.measure import PAUSE_S, timed_block
from profiling.ab.plan import PILOT_STEPS, steps_per_block
from profiling.verdict import stats
from tests.bench.targets import Finding, out_argument, ratio, report
from train.ab.arm_config import ArmConfig
from train.config import cli
from train.config.compose import to_config

LAUNCHES = 12
ROUNDS = 3


def launch(folder: Path) -> tuple[float, float, run_record.RunRecord]:
    """Seconds per image of one arm, alone and taking turns with its twin, and its record with the traced windows."""
    with initialize_config_module("configs", version_base="1.3"):
        config = to_config(compose("ab"))
    start = partial(ArmConfig(config, {}).start, folder)
    with start() as first, start() as second:
        block = partial(timed_block, {"first": first, "second": second})
        for arm in ("first", "second"):
            block(arm, first.ready.settle_steps)
        steps = steps_per_block(block("first", PILOT_STEPS).step_s, "train")
        alone, turns = [], []
        for _ in range(ROUNDS):
            block("first", steps)
            alone.append(first.block(steps).s_per_sample["train"])
            block("second", steps)
            turns.append(block("first", steps).s_per_sample["train"])
        first.finish(folder / "arm", "", {})
    return min(alone), min(turns), run_record.read(folder / "arm")


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
    findings = [ratio("train s per image, taking turns / alone", stats.paired_effect(alone, turns))]
    findings += [
        ratio(f"traced / unprofiled s per image, {stage}", stats.paired_effect([1.0] * LAUNCHES, shares))
        for stage, shares in overheads.items()
    ]
    findings.append(Finding(name="pause before each block, ms", measured=PAUSE_S * 1e3))
    report("Cost of looking", findings, {"alone_s": alone, "turns_s": turns, "overheads": overheads}, out)


if __name__ == "__main__":
    main()
