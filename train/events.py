"""TensorBoard event files: curves, images, texts, and the configuration as hyperparameters."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.profiler import record_function
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from profiling.figures.pictures import confusion_image, predictions_image
from profiling.run_record import StageRecord
from profiling.step_sample import StepSample
from profiling.vocabulary import STAGES
from train.config.compose import flat, plain
from train.config.options import Histograms
from train.config.schema import Config
from train.loop import EpochMetrics
from train.ranks.event_files import whole_records
from train.session import Session
from train.summary import summarize

PREDICTIONS_SHOWN = 32
EPOCHS = "epoch"
CURVE_POINTS = 1024  # TensorBoard shows at most 1000, unless told otherwise


class EventFile:
    """One event file in `folder`; a context manager that closes it. Also on a full disk it ends with a whole record.

    Attributes:
        curves: stage -> number of the next step of its curves, and how many steps it had for them before; for the
            curves of epochs: EPOCHS -> number of the next step that may have a point, and 0.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.curves = dict.fromkeys((*STAGES, EPOCHS), (0, 0))
        with whole_records(folder):
            self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with whole_records(self._folder):
            self._writer.close()  # raises, again, what its thread could not write

    def describe(self, session: Session) -> None:
        """Write the hypothesis, the resolved configuration and a table of the model's layers, as texts."""
        config = session.config
        self._writer.add_text("1_hypothesis", hypothesis_card(config))
        self._writer.add_text("2_config", f"```yaml\n{OmegaConf.to_yaml(plain(config))}```")
        shape = (1, session.data.channels, session.data.image_size, session.data.image_size)
        self._writer.add_text("3_model", summarize(session.module, torch.zeros(shape, device=session.device)))

    def epoch(self, step: int, training: EpochMetrics, held_out: EpochMetrics, lr: float, samples_per_s: float) -> None:
        """Write the metrics of one epoch at global step `step`, once: a run that goes on may evaluate it again."""
        if step < self.curves[EPOCHS][0]:
            return
        for name, metrics in (("train", training), ("test", held_out)):
            self._writer.add_scalar(f"loss/{name}", metrics.mean_loss(), step)
            self._writer.add_scalar(f"accuracy/{name}", metrics.accuracy(), step)
        self._writer.add_scalar("brier/test", held_out.mean_brier(), step)
        self._writer.add_scalar("learning_rate", lr, step)
        self._writer.add_scalar("throughput/train_samples_per_s", samples_per_s, step)
        self.curves[EPOCHS] = step + 1, 0

    def histograms(self, module: nn.Module, step: int) -> None:
        """Write a histogram of every parameter; a trace marks this as the phase `log`."""
        with record_function("log"):
            for name, parameter in module.named_parameters():
                self._writer.add_histogram(name.replace(".", "/"), parameter.detach(), step)

    def flush(self) -> None:
        """Wait until all events are written to the file."""
        self._writer.flush()

    def steps(self, stage: str, sample: StepSample) -> None:
        """Write the time of each phase at the steps of a stage that `sample` has got since the last call.

        Returns when they are in the file, so that the writer's thread does not delay the next timed pass.
        """
        following, kept = self.curves[stage]
        steps = sample.timings(since=following)
        for row, number in enumerate(steps.step_numbers):
            if has_point(kept + row):
                for phase, seconds in steps.phase_s.items():
                    self._writer.add_scalar(f"time_ms/{stage}/{phase}", seconds[row] * 1e3, number)
            following = number + 1
        self.curves[stage] = following, kept + len(steps.step_s)
        self._writer.flush()

    def memory(self, stages: Mapping[str, StageRecord]) -> None:
        """Write the peak memory of each stage."""
        for stage, record in stages.items():
            self._writer.add_scalar(f"memory_mib/{stage}/resident_peak", record.peak_resident_bytes / 2**20)
            if record.peak_accelerator_bytes is not None:
                self._writer.add_scalar(f"memory_mib/{stage}/accelerator_peak", record.peak_accelerator_bytes / 2**20)
            if record.trace is not None and record.trace.peak_allocated_bytes is not None:
                peak_mib = record.trace.peak_allocated_bytes / 2**20
                self._writer.add_scalar(f"memory_mib/{stage}/allocated_peak", peak_mib)

    def pictures(self, session: Session, held_out: EpochMetrics, probabilities: torch.Tensor) -> None:
        """Write two images: the confusion matrix, and predictions on the first images of the test split.

        `probabilities` is float [N, classes], in the order of the split.
        """
        split, classes = session.data.test, session.data.classes
        self._writer.add_image(
            "confusion_matrix", confusion_image(held_out.confusion.cpu().numpy(), classes), dataformats="HWC"
        )
        indices = range(min(PREDICTIONS_SHOWN, len(split)))
        images = np.stack([split[index][0] for index in indices])
        labels = np.array([int(split[index][1]) for index in indices])
        predicted = probabilities[: len(images)].argmax(dim=1).cpu().numpy()
        picture = predictions_image(images, labels, predicted, classes)
        self._writer.add_image("predictions", picture, dataformats="HWC")

    def hyperparameters(
        self, config: Config, changed: Mapping[str, tuple[Any, Any]], results: Mapping[str, float]
    ) -> None:
        """Write one row of the HParams table: the configuration as columns, the results as metrics.

        TensorBoard shows those columns first that differ between runs, sorted by name: `_changed`, the difference from
        the baseline, is the first. It would write a truth value as 0.0000 or 1.0000, hence text.
        `SummaryWriter.add_hparams` is not used: it would open a second event file in a subfolder.
        """
        fields = {key: value for key, value in flat(plain(config)).items() if is_column(key)}
        columns = {key: value if type(value) in (int, float, str) else _text(value) for key, value in fields.items()}
        differing = (f"{key}={value}" for key, (_, value) in changed.items() if is_column(key) and key != "name")
        columns["_changed"] = ", ".join(differing) or "nothing"
        result_scalars = {f"result/{name}": value for name, value in results.items() if math.isfinite(value)}
        _, *session = hparams(columns, result_scalars)  # type: ignore[no-untyped-call]
        for summary in session:  # without the list of columns of this run: TensorBoard makes one of all runs
            self._writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        for name, value in result_scalars.items():
            self._writer.add_scalar(name, value)


@dataclass(frozen=True)
class StepLog:
    """Logging after every training step.

    Attributes:
        after_step: to be called after every step.
        flush: waits until all events are written to the file.
        ahead: number of steps after a flush that the writer thread does not delay, because its queue is empty.
    """

    after_step: Callable[[EpochMetrics], None]
    flush: Callable[[], None]
    ahead: int


@contextmanager
def step_log(session: Session, folder: Path) -> Iterator[StepLog]:
    """Log what the configuration asks for, to a new event file in `folder`."""
    if session.config.switches.histograms is Histograms.never:
        yield StepLog(after_step=lambda metrics: None, flush=lambda: None, ahead=0)
        return
    with EventFile(folder) as events:
        yield StepLog(
            after_step=lambda metrics: events.histograms(session.module, metrics.steps), flush=events.flush, ahead=1
        )


def has_point(index: int) -> bool:
    """Whether a curve shows its value number `index`: the first CURVE_POINTS, then every 2nd, every 4th, and so on."""
    return index % (1 << (index // CURVE_POINTS).bit_length()) == 0


def hypothesis_card(config: Config) -> str:
    """The hypothesis of a run, as Markdown."""
    hypothesis = config.hypothesis
    expected = ", ".join(f"{name} {value}" for name, value in plain(hypothesis.expect).items() if value)
    return (
        f"**{config.name}** ({hypothesis.topic}): {hypothesis.claim}\n\n"
        f"*because* {hypothesis.because}\n\n"
        f"looked for in: {hypothesis.phase}; expected: {expected or 'no claim'}; results: {hypothesis.numerics}"
    )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_column(key: str) -> bool:
    """Whether a key of the configuration says what the run computes, not why, how it is measured or where files are."""
    return not key.startswith(("hypothesis.", "profiler.", "ab.", "output", "checkpoint", "resume", "images", "task"))
