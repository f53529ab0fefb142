"""A training run, from its configuration to the files in its folder: fit, evaluate, infer, trace, record."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from profiling import run_record
from profiling.capture import TimedCapture, stage_records
from profiling.machine_load import warning
from profiling.run_record import RunRecord, TraceFile
from profiling.terminal.runs import PERCENTILES, Bar, print_run, progress_bar
from profiling.terminal.streams import standard_output
from profiling.terminal.tables import PlainConsole
from profiling.vocabulary import STAGES
from train import checkpoint, environment, health, session
from train.checkpoint import Checkpoint
from train.config import cli
from train.config.compose import plain
from train.config.options import Execution, Histograms
from train.config.schema import Config
from train.events import EventFile, has_point, step_log
from train.loop import EpochMetrics
from train.ranks.alone import ALONE, RankGroup
from train.ranks.progress import Progress
from train.ranks.resume import saved_state
from train.ranks.scratch import scratch_folder
from train.ranks.state import TrainingState, discard
from train.session import Session

INFER_PASSES = 5  # over the test split: one pass has too few requests for percentiles of latency

log = logging.getLogger(__name__)


def train(
    config: Config,
    changed: Mapping[str, tuple[Any, Any]],
    folder: Path,
    group: RankGroup = ALONE,
    others_cores: float | None = None,
) -> None:
    """Train, evaluate and infer, then trace one window of each stage; write all files to `folder`.

    A run that fails or is interrupted also writes a record, with its status and what was measured before.

    Args:
        config: the run.
        changed: dotted key -> (baseline's value, this run's value), for the record.
        folder: the run's folder.
        group: the processes that train together; each leaves its traces, the first one everything else.
        others_cores: cores that other processes use, see `profiling.machine_load`.

    Raises:
        UserError: an error that the user can correct.
        NotApplicableError: a need of the experiment is not met.
    """
    if (line := warning(others_cores)) is not None:
        log.warning("warning: %s", line)
    with group.own_folder(folder) as own:
        parts = session.prepare(config, group)
        timed = {stage: TimedCapture(parts.device, is_queued=stage != "infer") for stage in STAGES}
        traces: dict[str, TraceFile] = {}
        results: dict[str, float] = {}
        started = datetime.now(UTC).isoformat(timespec="seconds")
        status, error = "interrupted", None
        saved = saved_state(parts, folder)  # refused, it leaves the record as it was
        try:
            with EventFile(own) as events:
                run(parts, timed, events, own, results, saved)
                # Traced steps log to a temporary folder: they are not part of the run's curves.
                with scratch_folder() as scratch, step_log(parts, scratch) as scratch_log:
                    traces.update(session.trace(parts, folder, scratch_log.after_step))
                stages = stage_records(timed, traces)
                events.memory(stages)
                events.hyperparameters(config, changed, results)
            status = "complete"
        except Exception as failure:
            status, error = "failed", str(failure)
            raise
        finally:
            record = RunRecord(
                name=config.name,
                status=status,
                error=error,
                started=started,
                config=plain(config),
                changed=dict(changed),
                environment=environment.describe(parts.device, parts.precision),
                stages=stage_records(timed, traces),
                results=results,
                ranks=group.ranks,
                others_before_cores=others_cores,
            )
            run_record.write(record, own)
        discard(own)
    if group.rank == 0:
        with standard_output(cli.fail, f"the run is complete: {folder}"):
            print_run(PlainConsole(soft_wrap=True), record, folder)


def run(
    parts: Session,
    timed: Mapping[str, TimedCapture],
    events: EventFile,
    folder: Path,
    results: dict[str, float],
    saved: TrainingState | None,
) -> None:
    """Run all timed passes, from `saved` on; add to `results`, write events and the checkpoint."""
    config = parts.config
    progress = Progress(parts, timed, events, folder, saved)
    if saved is None:
        events.describe(parts)
    compiles = config.switches.execution in (Execution.compiled, Execution.cuda_graphs)
    results["compile_s" if compiles else "warmup_s"] = session.warm_up(parts)
    steps_per_epoch = len(parts.train_batches)
    with progress:
        with progress_bar(PlainConsole(), config.epochs * steps_per_epoch) as bar:
            for epoch in progress.epochs():
                after_step = step_callback(parts, bar, events, epoch * steps_per_epoch, progress)
                with timed["train"] as capture:
                    training = parts.fit(parts.train_batches, capture, after_step, progress.new_metrics)
                    training.mean_loss()  # waits for the device: the time includes all kernels of the epoch
                samples_per_s = training.samples / progress.epoch_s()
                with timed["evaluate"] as capture:
                    held_out = parts.evaluate(parts.test_batches, capture)
                health.check_pass(parts.module, f"the training loss of epoch {epoch + 1}", training.loss)
                health.check_pass(parts.module, f"the loss on held-out images after epoch {epoch + 1}", held_out.loss)
                learning_rate = float(parts.schedule.get_last_lr()[0])
                if has_point(epoch) or epoch == config.epochs - 1:
                    events.epoch((epoch + 1) * steps_per_epoch, training, held_out, learning_rate, samples_per_s)
                events.steps("train", timed["train"].sample)
                events.steps("evaluate", timed["evaluate"].sample)
                bar.show(training.mean_loss(), held_out.accuracy(), samples_per_s)
                log.debug("epoch %d: loss %.4f, accuracy %.4f", epoch, training.mean_loss(), held_out.accuracy())
        with timed["infer"] as capture:
            for _ in range(INFER_PASSES):
                probabilities = parts.infer(parts.infer_batches, capture)
        events.steps("infer", timed["infer"].sample)
    health.check_pass(parts.module, "a probability of inference", probabilities)
    results.update(scores(held_out), **rates(timed, parts.group))
    events.pictures(parts, held_out, probabilities)
    checkpoint.save(checkpoint_of(parts), folder)


def step_callback(
    parts: Session, bar: Bar, events: EventFile, steps_before: int, progress: Progress
) -> Callable[[EpochMetrics], None]:
    """The function to call after every training step of an epoch that begins after `steps_before` steps."""

    def advance(metrics: EpochMetrics) -> None:
        bar.advance()
        progress.after_step(metrics)

    def log_and_advance(metrics: EpochMetrics) -> None:
        events.histograms(parts.module, steps_before + metrics.steps)
        advance(metrics)

    return advance if parts.config.switches.histograms is Histograms.never else log_and_advance


def scores(held_out: EpochMetrics) -> dict[str, float]:
    """Quality of the model, per image of the test split."""
    return {"accuracy": held_out.accuracy(), "loss": held_out.mean_loss(), "brier": held_out.mean_brier()}


def rates(timed: Mapping[str, TimedCapture], group: RankGroup = ALONE) -> dict[str, float]:
    """Throughput of each stage in all processes, and percentiles of this one's latency of one batch of inference."""
    own = {f"{stage}_samples_per_s": capture.timings().samples_per_s for stage, capture in timed.items()}
    throughputs = group.summed(own)
    latencies = np.percentile(timed["infer"].timings().step_s, PERCENTILES).tolist()
    percentiles = zip(PERCENTILES, latencies, strict=True)
    return {**throughputs, **{f"infer_latency_p{rank}_s": latency_s for rank, latency_s in percentiles}}


def checkpoint_of(parts: Session) -> Checkpoint:
    """The checkpoint of the trained model."""
    data, weights = parts.data, parts.group.state_dicts.weights(parts.module)
    return Checkpoint(
        model=plain(parts.config.model),
        weights={name: value.contiguous() for name, value in weights.items()},
        classes=data.classes,
        channels=data.channels,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        data=plain(parts.config.data),
        switches={name: plain(parts.config.switches)[name] for name in checkpoint.WEIGHT_SWITCHES},
    )
