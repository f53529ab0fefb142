"""One arm of this pipeline, in its own process: a session that answers the requests of `profiling.ab.messages`.

With several ranks, each is such a process. They answer together: timings are joined before rank 0 replies.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from profiling import run_record
from profiling.ab.arm_tools import Probe, randomize_heap
from profiling.ab.messages import Answer, ArmOutput, BlockTimings, Ready
from profiling.capture import Capture, NullCapture, TimedCapture
from profiling.run_record import RunRecord, StageRecord, StepTimings, TraceFile
from profiling.step_sample import StepSample
from profiling.vocabulary import STAGES
from train import environment, run, session
from train.batches import Batch
from train.config.compose import plain
from train.config.schema import Config
from train.events import EventFile, step_log
from train.ranks.join import joined

SETTLE_STEPS = {"train": 4, "evaluate": 1, "infer": 1}  # the first steps of a process, which do not count
ANSWER_STEPS = 8  # enough for a wrong gradient to show in the weights
ANSWER_IMAGES = 256


class ArmWorker:
    """A session that works on request. Its batches never end: the sources are repeated.

    Args:
        config: what the arm runs.
        changed: dotted key -> [baseline's value, this arm's], for the record.
        scratch: a folder for what is written while timing, such as histograms.
    """

    def __init__(self, config: Config, changed: Mapping[str, tuple[Any, Any]], scratch: Path) -> None:
        self._heap = randomize_heap()
        self._probe = Probe()
        self._changed = changed
        self._open = ExitStack()
        self._group = self._open.enter_context(joined(config))
        parts = self._parts = session.prepare(config, self._group)
        warmup_s = session.warm_up(parts)
        self.ready = Ready(warmup_s, environment.describe(parts.device, parts.precision), SETTLE_STEPS)
        sources = {"train": parts.train_batches, "evaluate": parts.test_batches, "infer": parts.infer_batches}
        self._batches: dict[str, Iterator[Batch]] = {
            stage: chain.from_iterable(repeat(source)) for stage, source in sources.items()
        }
        unshared = {stage: getattr(source, "source", source) for stage, source in sources.items()}
        loaders = {stage: source for stage, source in unshared.items() if isinstance(source, DataLoader)}
        self._workers = {stage: loader.num_workers for stage, loader in loaders.items()}
        self._ahead = {stage: loader.num_workers * (loader.prefetch_factor or 0) for stage, loader in loaders.items()}
        log = self._log = self._open.enter_context(step_log(parts, scratch))
        self._ahead["train"] = self._ahead.get("train", 0) + log.ahead
        # These must not refer to `self`. A DataLoader in a reference cycle loses its queues before it ends its workers,
        # and then waits 5 s for each of them.
        self._passes: dict[str, Callable[[Any, Capture], Any]] = {
            "train": lambda batches, capture: parts.fit(batches, capture, log.after_step),
            "evaluate": parts.evaluate,
            "infer": parts.infer,
        }
        self._steps = {stage: StepSample() for stage in STAGES}
        self._resident_bytes: dict[str, int] = dict.fromkeys(STAGES, 0)
        self._accelerator_bytes: dict[str, int] = {}
        self._per_stage = False

    def answer(self) -> Answer:
        """Train a few steps, then predict fixed images and score them; to be asked before any block."""
        parts = self._parts
        training = self._passes["train"](islice(self._batches["train"], ANSWER_STEPS), NullCapture())
        requests = math.ceil(ANSWER_IMAGES / parts.config.infer_batch_size)
        probabilities = self._passes["infer"](islice(parts.infer_batches, requests), NullCapture())
        held_out = self._passes["evaluate"](islice(parts.test_batches, 1), NullCapture())
        state = self._group.state_dicts.weights(parts.module)
        # Not the counters of batch norm: they differ by whole steps, beside which nothing else would show.
        weights = {name: _array(value) for name, value in state.items() if value.is_floating_point()}
        scores = {**run.scores(held_out), "train_loss": training.mean_loss()}
        return Answer(
            tensors={**weights, "probabilities": _array(probabilities)[:ANSWER_IMAGES]},
            results={f"{name}_after_{ANSWER_STEPS}_steps": value for name, value in scores.items()},
        )

    def probe(self) -> float:
        """Time the probe that tells whether cores share a cache, see `profiling.ab.machine_state`."""
        return self._probe.time_s()

    def block(self, steps: Mapping[str, int]) -> BlockTimings:
        """Time so many steps of each stage, in the order of `steps`.

        First the probe runs, in every arm, so that all begin with the same caches; its result is not used. Then the
        first steps of a stage run untimed: they are faster than the others, because workers of a DataLoader have
        prepared their batches while other arms worked, and because the queue of a log is empty. With workers, at least
        one step for each of them is timed.
        """
        self.probe()
        s_per_sample: dict[str, float] = {}
        means: dict[str, float] = {}
        step_s: dict[str, float] = {}
        for stage, asked in steps.items():
            workers, untimed = self._workers.get(stage, 0), self._ahead.get(stage, 0)
            count = max(asked, workers)
            capture = TimedCapture(self._parts.device, max_steps=untimed + count, is_queued=stage != "infer")
            with capture:
                self._passes[stage](islice(self._batches[stage], untimed + count), capture)
            self._log.flush()
            own = _slice(capture.timings(), untimed, untimed + count)
            timed = joint_steps(self._group.gathered(own) or [own])
            fastest = fastest_steps(timed, max(1, workers))
            for steps_of_it, per_sample in ((fastest, s_per_sample), (timed, means)):
                samples = sum(steps_of_it.samples)
                if stage == "train":
                    per_sample |= {phase: sum(seconds) / samples for phase, seconds in steps_of_it.phase_s.items()}
                per_sample[stage] = sum(steps_of_it.step_s) / samples
            step_s[stage] = sum(timed.step_s) / count
            self._keep(stage, timed, capture)
        return BlockTimings(s_per_sample, step_s, means)

    def _keep(self, stage: str, timed: StepTimings, capture: TimedCapture) -> None:
        """Add the timings and the memory of a block to those of the stage."""
        kept, memory = self._steps[stage], capture.memory
        for row, (samples, step_s) in enumerate(zip(timed.samples, timed.step_s, strict=True)):
            kept.add(samples, step_s, {phase: seconds[row] for phase, seconds in timed.phase_s.items()})
        self._per_stage = memory.per_stage
        self._resident_bytes[stage] = max(self._resident_bytes[stage], memory.resident_bytes)
        if memory.accelerator_bytes is not None:
            before = self._accelerator_bytes.get(stage, 0)
            self._accelerator_bytes[stage] = max(before, memory.accelerator_bytes)

    def finish(self, folder: Path, started: str, results: Mapping[str, float]) -> ArmOutput:
        """Trace one window of each stage; leave record, traces and event file in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)  # another rank may have been first
        traces = dict(session.trace(self._parts, folder, self._log.after_step))
        stages = self._stages(traces)
        rates = {f"{stage}_samples_per_s": record.timed.samples_per_s for stage, record in stages.items()}
        figures = {**results, **rates}
        config = self._parts.config
        own = self._open.enter_context(self._group.own_folder(folder))
        with EventFile(own) as events:
            events.describe(self._parts)
            for stage, steps in self._steps.items():
                events.steps(stage, steps)
            events.memory(stages)
            events.hyperparameters(config, self._changed, figures)
        record = RunRecord(
            name=config.name,
            status="complete",
            error=None,
            started=started,
            config=plain(config),
            changed=dict(self._changed),
            environment=self.ready.environment,
            stages=stages,
            results={name: value for name, value in figures.items() if math.isfinite(value)},
            ranks=self._group.ranks,
        )
        run_record.write(record, own)
        peaks = {stage: trace.peak_allocated_bytes for stage, trace in traces.items()}
        allocated_per_sample = {
            s: t.allocated_bytes / sum(t.samples) for s, t in traces.items() if t.allocated_bytes is not None
        }
        return ArmOutput(
            peak_resident_bytes=max(self._resident_bytes.values()),
            peak_allocated_bytes={stage: peak for stage, peak in peaks.items() if peak is not None},
            allocated_bytes_per_sample=allocated_per_sample,
            peak_accelerator_bytes=self._accelerator_bytes,
            traces={stage: trace.path for stage, trace in traces.items()},
        )

    def _stages(self, traces: Mapping[str, TraceFile]) -> dict[str, StageRecord]:
        return {
            stage: StageRecord(
                timed=steps.timings(),
                trace=traces.get(stage),
                peak_resident_bytes=self._resident_bytes[stage],
                resident_is_per_stage=self._per_stage,
                peak_accelerator_bytes=self._accelerator_bytes.get(stage),
            )
            for stage, steps in self._steps.items()
        }


def joint_steps(of_ranks: Sequence[StepTimings]) -> StepTimings:
    """The same steps of all ranks together: samples of all, and times of the slowest, for which the others wait."""
    return StepTimings(
        samples=[sum(samples) for samples in zip(*(timed.samples for timed in of_ranks), strict=True)],
        step_s=[max(seconds) for seconds in zip(*(timed.step_s for timed in of_ranks), strict=True)],
        phase_s={
            phase: [max(seconds) for seconds in zip(*(timed.phase_s[phase] for timed in of_ranks), strict=True)]
            for phase in of_ranks[0].phase_s
        },
    )


def fastest_steps(timed: StepTimings, count: int) -> StepTimings:
    """Return the `count` consecutive steps with the fewest seconds per sample.

    Everything else that happens on a machine only adds time, so the fastest is closest to what the code itself costs
    (as in https://docs.python.org/3/library/timeit.html#timeit.Timer.repeat). Costs that do not come with every step,
    such as restarting a DataLoader at the end of a pass, are not part of it. The workers of a DataLoader deliver
    batches in turns, hence one step for each of them.
    """
    slices = [_slice(timed, start, start + count) for start in range(len(timed.samples) - count + 1)]
    return min(slices, key=lambda steps: sum(steps.step_s) / sum(steps.samples))


def _slice(timed: StepTimings, start: int, end: int) -> StepTimings:
    return StepTimings(
        samples=timed.samples[start:end],
        step_s=timed.step_s[start:end],
        phase_s={phase: seconds[start:end] for phase, seconds in timed.phase_s.items()},
    )


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().double().cpu().numpy()
