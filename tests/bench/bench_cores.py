"""Do the machine's cores move apart, and what does that change? `python -m tests.bench.bench_cores [--seconds 60]`.

The baseline and `nograd_off` evaluate in turns, each block after a probe (`profiling.ab.machine_state`). The blocks are
then split by whether their probe says that the cores shared a cache. There is no target: on a machine whose cores stay
where they are, nothing is apart.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_module

from profiling.ab.machine_state import cores_apart
from profiling.ab.measure import timed_block
from tests.bench.targets import Finding, report
from train.ab.arm_config import ArmConfig
from train.config import cli
from train.config.compose import to_config

STEPS = {"evaluate": 3}
ARMS = {"baseline": (), "nograd_off": ("+experiment=nograd_off",)}


def measure(seconds: float, scratch: Path) -> dict[str, list[tuple[float, float]]]:
    """Arm -> (probe, seconds per image of evaluation) of each of its blocks."""
    with initialize_config_module("configs", version_base="1.3"):
        configs = {name: to_config(compose("ab", overrides=list(overrides))) for name, overrides in ARMS.items()}
    arms = {name: ArmConfig(config, {}) for name, config in configs.items()}
    blocks: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
    with arms["baseline"].start(scratch) as baseline, arms["nograd_off"].start(scratch) as nograd_off:
        processes = {"baseline": baseline, "nograd_off": nograd_off}
        for name in ARMS:
            timed_block(processes, name, baseline.ready.settle_steps)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name in ARMS:
                probe_s = baseline.probe()
                blocks[name].append((probe_s, timed_block(processes, name, STEPS).s_per_sample["evaluate"]))
    return blocks


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    args = parser.parse_args()
    cli.register()
    with tempfile.TemporaryDirectory() as scratch:
        blocks = measure(args.seconds, Path(scratch))
    best_s = min(probe_s for of_arm in blocks.values() for probe_s, _ in of_arm)
    findings = [Finding(name="fastest probe, us", measured=best_s * 1e6)]
    for name, of_arm in blocks.items():
        apart = cores_apart([probe_s for probe_s, _ in of_arm], best_s)
        findings.append(Finding(name=f"{name}: share of blocks with cores apart", measured=statistics.mean(apart)))
        for text, wanted in (("together", False), ("apart", True)):
            evaluate_us = [s * 1e6 for (_, s), mark in zip(of_arm, apart, strict=True) if mark is wanted]
            if evaluate_us:
                findings.append(
                    Finding(
                        name=f"{name}: evaluate, us per image, cores {text}", measured=statistics.median(evaluate_us)
                    )
                )
    report(f"Cores over {args.seconds:.0f} s", findings, {"blocks": blocks}, args.out)


if __name__ == "__main__":
    main()
