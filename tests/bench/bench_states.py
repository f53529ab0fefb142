"""Cost of saving the state of training: `python -m tests.bench.bench_states`.

Passes of training without states, with the default `checkpoint_every`, and with a state after each step take turns. The
difference per step between the last and the first is what one state costs; by default, there is one in 60 s.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import hydra

from profiling.capture import TimedCapture
from profiling.verdict import stats
from profiling.vocabulary import STAGES
from tests.bench.targets import Finding, out_argument, ratio, report
from train import session
from train.config import cli
from train.config.compose import to_config
from train.events import EventFile
from train.ranks.progress import Progress, interval

PASSES = 15
MODELS = {"cnn (the default)": (), "resnet18": ("model=resnet18", "data.image_size=32")}
EVERY = {"never": "checkpoint_every=null", "by default": "", "each step": "checkpoint_every=1"}
MOST = 0.01
"""Of training time."""


def passes(overrides: tuple[str, ...]) -> tuple[dict[str, list[float]], int, float]:
    """Seconds of passes with each of EVERY, in turns; steps of a pass; seconds between two states by default."""
    seconds: dict[str, list[float]] = {name: [] for name in EVERY}
    for number in range(PASSES + 1):
        for name in list(EVERY)[:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                with hydra.initialize_config_module("configs", version_base="1.3"):
                    given = [*overrides, "epochs=1", *filter(None, [EVERY[name]])]
                    config = to_config(hydra.compose("config", overrides=given))
                parts = session.prepare(config)
                session.warm_up(parts)
                timed = {stage: TimedCapture(parts.device) for stage in STAGES}
                with EventFile(Path(folder)) as events, Progress(parts, timed, events, Path(folder), None) as progress:
                    for _ in progress.epochs():
                        start_s = time.perf_counter()
                        with timed["train"] as capture:
                            parts.fit(parts.train_batches, capture, progress.after_step)
                        if number:  # the first pass is warm-up
                            seconds[name].append(time.perf_counter() - start_s)
            if name == "by default":
                _, every_s = interval(config)
    return seconds, len(parts.train_batches), every_s


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    cli.register()
    findings, details = [], {}
    for model, overrides in MODELS.items():
        seconds, steps, every_s = passes(overrides)
        save_s = median(
            (each - none) / steps for each, none in zip(seconds["each step"], seconds["never"], strict=True)
        )
        share = save_s / every_s
        findings.append(Finding(name=f"states, share of training time, {model}", measured=share, at_most=MOST))
        looks = stats.paired_effect(seconds["never"], seconds["by default"])
        findings.append(ratio(f"pass without a state, by default / never, {model}", looks))
        details[model] = {"save_s": save_s, "steps": steps, "seconds": seconds}
    report("States of training", findings, details, out)


if __name__ == "__main__":
    main()
