"""How far training is: the state is saved from time to time, and restored where a run goes on."""

import time
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor

from profiling.capture import TimedCapture
from profiling.errors import Terminated, UserError
from profiling.format import visible
from train import loop
from train.config.compose import plain
from train.config.schema import Config
from train.events import EventFile
from train.loop import EpochMetrics
from train.ranks import event_files, state
from train.ranks.alone import facts_of
from train.ranks.order import order_of
from train.ranks.state import RankState, TrainingState
from train.ranks.stop import StopRequest, is_inside
from train.session import Session

GROWTH = 2  # the clock is read again after at most so many times the steps of the last interval


class _Position(NamedTuple):
    """Between two steps, or after the last of an epoch: where a run can be ended, and go on.

    Attributes:
        epoch: number of the epoch, from 0.
        epoch_s: seconds since it began.
        metrics: of its steps so far.
        order: state of the generator before it drew the order of the epoch.
    """

    epoch: int
    epoch_s: float
    metrics: EpochMetrics
    order: Tensor | None


class Progress:
    """The epochs of a run, which begin with `saved`, the state of an earlier process, if there is one.

    A context manager: where Ctrl-C, SIGTERM or SIGHUP ends the block, the state is saved, and the signal's exception is
    raised after the step in progress. Of several ranks, all end after the same step.

    Args:
        parts: the run.
        timed: the timed steps of each stage, which are saved, too.
        events: the run's event file.
        folder: where this process leaves states.
        saved: where to go on; None is the beginning.
    """

    def __init__(
        self,
        parts: Session,
        timed: Mapping[str, TimedCapture],
        events: EventFile,
        folder: Path,
        saved: TrainingState | None,
    ) -> None:
        self._parts, self._timed, self._events, self._folder = parts, timed, events, folder
        self._order = order_of(parts.train_batches)
        self._saved = saved
        self._epoch = 0
        self._epoch_start_s = 0.0
        self._every_steps, self._every_s = interval(parts.config)
        self._steps = self._counted_steps = 0
        self._next_step = self._every_steps or 1
        self._saved_at_s = self._counted_at_s = time.perf_counter()
        self._position: _Position | None = None
        self._request = StopRequest(partial(_ends_at_once, parts.config.checkpoint_every, parts.group.ranks))

    def __enter__(self) -> Self:
        self._request.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._request.__exit__()
        if self._request.number is None:
            return
        if error is None:  # ranks that were asked to end after their last step
            raise self._request.stop()
        is_stop = isinstance(error, KeyboardInterrupt | Terminated) and not self._request.is_late
        if is_stop and self._position is not None:
            self._save(self._position)

    def epochs(self) -> Iterator[int]:
        """The numbers of the epochs to train, from 0; the first one may have begun before."""
        first, before_s = 0, 0.0
        if self._saved is not None:
            try:
                with warnings.catch_warnings(action="ignore"):
                    self._restore(self._saved)
            except Exception as error:  # torch and others raise almost anything for what is not theirs
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise UserError(f"{state.FOLDER}/: not a state of this run: {visible(reason)}") from error
            first, before_s = self._saved.epoch, self._saved.epoch_s
        for epoch in range(first, self._parts.config.epochs):
            self._epoch, self._epoch_start_s = epoch, time.perf_counter() - before_s
            yield epoch
            self._order.skipped, self._saved, before_s = 0, None, 0.0

    def epoch_s(self) -> float:
        """Seconds since the epoch began; the time between two processes does not count."""
        return time.perf_counter() - self._epoch_start_s

    def new_metrics(self) -> EpochMetrics:
        """The metrics with which the epoch begins: zeros, or those of its steps before."""
        metrics = self._parts.new_metrics()
        if self._saved is None:
            return metrics
        own = self._saved.ranks[self._parts.group.rank]
        metrics.loss.copy_(own.loss)
        metrics.brier.copy_(own.brier)
        metrics.confusion.copy_(own.confusion)
        metrics.steps, metrics.samples = own.steps, own.samples
        return metrics

    def after_step(self, metrics: EpochMetrics) -> None:
        """Save the state, if it is time; `metrics` are those of the epoch so far."""
        self._steps += 1
        if self._parts.config.checkpoint_every is None:
            return
        self._position = position = _Position(self._epoch, self.epoch_s(), metrics, self._order.state_of_pass)
        if self._request.number is not None and self._parts.group.all_end_after(self._steps):
            raise self._request.stop()
        if self._steps == self._next_step:
            self._next_step += self._every_steps or self._steps_to_go(position)
            if self._every_steps:
                self._save(position)

    def _steps_to_go(self, position: _Position) -> int:
        """Save the state if the last one is old; after how many steps to look again: all ranks at the same step."""
        now_s = time.perf_counter()
        step_s = (now_s - self._counted_at_s) / (self._steps - self._counted_steps)
        left_s = self._every_s - (now_s - self._saved_at_s)
        to_go = (left_s if left_s > 0 else self._every_s) / step_s
        is_due, to_go = self._parts.group.of_first((int(left_s <= 0), int(max(1, min(to_go, GROWTH * self._steps)))))
        if is_due:
            self._save(position)
        self._counted_steps, self._counted_at_s = self._steps, time.perf_counter()
        return to_go

    def _save(self, position: _Position) -> None:
        parts, metrics = self._parts, position.metrics
        assert position.order is not None  # the order of training is random
        accelerated = parts.device.type != "cpu"
        ranks = parts.group.gathered(
            RankState(
                random=torch.get_rng_state(),
                accelerator_random=_accelerator(parts.device).get_rng_state() if accelerated else None,
                augmentation=parts.generators[1].get_state(),
                loss=metrics.loss.detach().cpu(),
                brier=metrics.brier.cpu(),
                confusion=metrics.confusion.cpu(),
                steps=metrics.steps,
                samples=metrics.samples,
            )
        )
        weights = parts.group.state_dicts.weights(parts.module)
        optimizer = parts.group.state_dicts.optimizer(parts.module, parts.optimizer)
        if ranks:
            self._events.flush()
            state.save(
                TrainingState(
                    config=plain(parts.config),
                    data=facts_of(parts.data),
                    epoch=position.epoch,
                    step=metrics.steps,
                    epoch_s=position.epoch_s,
                    weights=weights,
                    optimizer=optimizer,
                    schedule=parts.schedule.state_dict(),
                    scaler=scaler.state_dict() if (scaler := _scaler(parts)) else {},
                    order=position.order,
                    timings={stage: capture.sample.state() for stage, capture in self._timed.items()},
                    events={file.name: file.stat().st_size for file in self._folder.glob(event_files.PATTERN)},
                    curves=self._events.curves,
                    ranks=ranks,
                ),
                self._folder,
            )
        self._saved_at_s = time.perf_counter()

    def _restore(self, saved: TrainingState) -> None:
        parts, own = self._parts, saved.ranks[self._parts.group.rank]
        parts.group.state_dicts.load(parts.module, parts.optimizer, saved.weights, saved.optimizer)
        parts.schedule.load_state_dict(saved.schedule)
        if scaler := _scaler(parts):
            scaler.load_state_dict(saved.scaler)
        parts.generators[0].set_state(saved.order)
        parts.generators[1].set_state(own.augmentation)
        torch.set_rng_state(own.random)
        if own.accelerator_random is not None:
            _accelerator(parts.device).set_rng_state(own.accelerator_random)
        self._order.skipped = saved.step
        for stage, content in saved.timings.items():
            self._timed[stage].sample.restore(content)
        self._events.curves = saved.curves


def interval(config: Config) -> tuple[int, float]:
    """`checkpoint_every` in steps, or 0, and in seconds, or infinity."""
    every = config.checkpoint_every
    if every is None:
        return 0, float("inf")
    return (0, float(every.removesuffix("s"))) if every.endswith("s") else (int(every), float("inf"))


def _scaler(parts: Session) -> torch.amp.GradScaler | None:
    """The scaler of gradients in float16, which the recipe's update has."""
    update: Any = parts.recipe.update
    return cast(torch.amp.GradScaler | None, update.keywords["scaler"])


def _accelerator(device: torch.device) -> Any:
    return getattr(torch, device.type)


def _ends_at_once(checkpoint_every: str | None, ranks: int, frame: FrameType | None) -> bool:
    """Whether a signal need not wait for the end of a step: other ranks may be waiting for this one in it.

    No method of `Progress`, which would then live, with the workers of its loaders, until a garbage collection.
    """
    return checkpoint_every is None or (ranks == 1 and not is_inside(loop.fit, frame))
