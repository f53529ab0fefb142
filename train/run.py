"""A training run from its configuration to its folder: fit, evaluate, infer, trace, record."""

import logging
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from profiling import run_record
from profiling.capture import TimedCapture
from profiling.run_record import RunRecord, StageRecord, TraceFile
from profiling.vocabulary import STAGES
from train import checkpoint, environment, session
from train.checkpoint import Checkpoint
from train.config.compose import plain
from train.config.options import Execution, Histograms
from train.config.schema import Config
from train.console import PERCENTILES, Bar, print_run, progress_bar
from train.events import EventFile, step_log
from train.loop import EpochMetrics
from train.session import Session

INFER_PASSES = 5  # over the test split: latencies need more requests than one pass of the digits has

log = logging.getLogger(__name__)


def train(config: Config, changed: Mapping[str, tuple[Any, Any]], folder: Path) -> None:
    """Train, evaluate and infer, then trace a window of each; leave everything in `folder`.

    A run that is interrupted or fails leaves a record that says so, of what had been measured.

    Raises:
        UserError: something that the user can mend.
        NotApplicableError: the experiment cannot act here.
    """
    parts = session.prepare(config)
    timed = {stage: TimedCapture(parts.device) for stage in STAGES}
    traces: dict[str, TraceFile] = {}
    results: dict[str, float] = {}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    status, error = "interrupted", None
    try:
        with EventFile(folder) as events:
            run(parts, timed, events, folder, results)
            # What the traced steps log goes elsewhere: they are no part of the run's curves.
            with tempfile.TemporaryDirectory() as scratch, step_log(parts, Path(scratch)) as unseen:
                traces.update(session.trace(parts, folder, unseen.after_step))
            stages = summarize(timed, traces)
            events.stages(stages)
            events.hyperparameters(config, changed, results)
        status = "complete"
    except Exception as failure:
        status, error = "failed", str(failure)
        raise
    finally:
        outcome = RunRecord(
            name=config.name,
            status=status,
            error=error,
            started=started,
            config=plain(config),
            changed=dict(changed),
            environment=environment.describe(parts.device, parts.precision),
            stages=summarize(timed, traces),
            results=results,
        )
        run_record.write(outcome, folder)
    print_run(Console(soft_wrap=True), outcome, folder)


def run(
    parts: Session, timed: Mapping[str, TimedCapture], events: EventFile, folder: Path, results: dict[str, float]
) -> None:
    """The timed passes; fills in `results` and writes the checkpoint."""
    config = parts.config
    events.describe(parts)
    results["compile_s" if config.switches.execution is Execution.compiled else "warmup_s"] = session.warm_up(parts)
    steps_per_epoch = len(parts.train_batches)
    with progress_bar(Console(), config.epochs * steps_per_epoch) as bar:
        for epoch in range(config.epochs):
            observe = observer(parts, bar, events, epoch * steps_per_epoch)
            start = time.perf_counter()
            with timed["train"] as capture:
                training = parts.fit(parts.train_batches, capture, observe)
                training.mean_loss()  # waits for the device, so that the epoch's time is whole
            samples_per_s = training.samples / (time.perf_counter() - start)
            with timed["evaluate"] as capture:
                held_out = parts.evaluate(parts.test_batches, capture)
            learning_rate = float(parts.schedule.get_last_lr()[0])
            events.epoch((epoch + 1) * steps_per_epoch, training, held_out, learning_rate, samples_per_s)
            bar.show(training.mean_loss(), held_out.accuracy(), samples_per_s)
            log.debug("epoch %d: loss %.4f, accuracy %.4f", epoch, training.mean_loss(), held_out.accuracy())
    with timed["infer"] as capture:
        for _ in range(INFER_PASSES):
            probabilities = parts.infer(parts.infer_batches, capture)
    results.update(scores(held_out), **rates(timed))
    events.pictures(parts, held_out, probabilities)
    checkpoint.save(checkpoint_of(parts), folder)


def observer(parts: Session, bar: Bar, events: EventFile, steps_before: int) -> Any:
    """What is told after every training step."""

    def advance(metrics: EpochMetrics) -> None:
        bar.advance()

    def advance_and_log(metrics: EpochMetrics) -> None:
        bar.advance()
        events.histograms(parts.module, steps_before + metrics.steps)

    return advance if parts.config.switches.histograms is Histograms.never else advance_and_log


def scores(held_out: EpochMetrics) -> dict[str, float]:
    """How good the model is."""
    return {"accuracy": held_out.accuracy(), "loss": held_out.mean_loss(), "brier": held_out.mean_brier()}


def rates(timed: Mapping[str, TimedCapture]) -> dict[str, float]:
    """How fast each stage was, from its unprofiled steps; latency is that of one batch of inference."""
    figures = {}
    for stage, capture in timed.items():
        figures[f"{stage}_samples_per_s"] = capture.timings().samples_per_s
    latencies = np.percentile(timed["infer"].timings().step_s, PERCENTILES).tolist()
    named = zip(PERCENTILES, latencies, strict=True)
    return {**figures, **{f"infer_latency_p{rank}_s": seconds for rank, seconds in named}}


def summarize(timed: Mapping[str, TimedCapture], traces: Mapping[str, TraceFile]) -> dict[str, StageRecord]:
    """Everything measured of the stages that took at least one step."""
    stages = {}
    for name, capture in timed.items():
        steps = capture.timings()
        if steps.samples:
            stages[name] = StageRecord(
                timed=steps,
                trace=traces.get(name),
                peak_resident_bytes=capture.memory.resident_bytes,
                resident_is_per_stage=capture.memory.per_stage,
                peak_accelerator_bytes=capture.memory.accelerator_bytes,
            )
    return stages


def checkpoint_of(parts: Session) -> Checkpoint:
    """What inference needs of the trained model."""
    data = parts.data
    return Checkpoint(
        model=plain(parts.config.model),
        weights={name: value.detach().cpu().contiguous() for name, value in parts.module.state_dict().items()},
        classes=data.classes,
        channels=data.channels,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
    )
