"""One arm, in its own process: prepare, answer, blocks of work, traces."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from profiling import record
from profiling.capture import Capture, NullCapture, TimedCapture
from profiling.record import RunRecord, Samples, Stage, TraceFile
from train import environment, run, session
from train.ab.process import Answer, Block, Closing, Ready
from train.batches import Batch
from train.compose import plain
from train.config import Config
from train.events import EventFile, step_log
from train.options import STAGES

REFERENCE_REPEATS = 16
ANSWER_STEPS = 8  # enough for a wrong gradient to show in the weights
ANSWER_IMAGES = 256
SCATTERED = 512  # blocks of 64 bytes to SCATTERED_BYTES, about 9 MB; half of them are freed
SCATTERED_BYTES = 2**17  # glibc takes larger ones from elsewhere, and moves its threshold when they are freed


class Arm:
    """A session that works on request. Its batches never end: the sources are cycled."""

    def __init__(self, config: Config, scratch: Path) -> None:
        self._scattered = scatter()
        parts = self._parts = session.prepare(config)
        self.ready = Ready(session.warm_up(parts), environment.describe(parts.device, parts.precision))
        sources = {"train": parts.train_batches, "evaluate": parts.test_batches, "infer": parts.infer_batches}
        self._batches: dict[str, Iterator[Batch]] = {
            stage: chain.from_iterable(repeat(source)) for stage, source in sources.items()
        }
        loaders = {stage: source for stage, source in sources.items() if isinstance(source, DataLoader)}
        self._workers = {stage: loader.num_workers for stage, loader in loaders.items()}
        self._ahead = {stage: loader.num_workers * (loader.prefetch_factor or 0) for stage, loader in loaders.items()}
        self._open = ExitStack()
        log = self._log = self._open.enter_context(step_log(parts, scratch))
        self._ahead["train"] = self._ahead.get("train", 0) + log.ahead
        # No `self` in here: a DataLoader in a reference cycle waits 5 s for each worker: its queue is collected first.
        self._passes: dict[str, Callable[[Any, Capture], Any]] = {
            "train": lambda batches, capture: parts.fit(batches, capture, log.after_step),
            "evaluate": parts.evaluate,
            "infer": parts.infer,
        }
        self._steps = {stage: Samples(samples=[], step_s=[], phase_s=defaultdict(list)) for stage in STAGES}
        self._resident_bytes: dict[str, int] = dict.fromkeys(STAGES, 0)
        self._accelerator_bytes: dict[str, int] = {}
        self._per_stage = False
        self._reference = torch.zeros(2, 256, 256)  # both fit the cache of one core

    def answer(self) -> Answer:
        """Train a few steps, then predict fixed images and score them; to be asked before any block."""
        parts = self._parts
        training = self._passes["train"](islice(self._batches["train"], ANSWER_STEPS), NullCapture())
        requests = math.ceil(ANSWER_IMAGES / parts.config.infer_batch_size)
        probabilities = self._passes["infer"](islice(parts.infer_batches, requests), NullCapture())
        held_out = self._passes["evaluate"](islice(parts.test_batches, 1), NullCapture())
        weights = {name: _array(value) for name, value in parts.module.state_dict().items()}
        named = {**run.scores(held_out), "train_loss": training.mean_loss()}
        return Answer(
            tensors={**weights, "probabilities": _array(probabilities)[:ANSWER_IMAGES]},
            results={f"{name}_after_{ANSWER_STEPS}_steps": value for name, value in named.items()},
        )

    def reference(self) -> float:
        """Seconds of a small addition whose threads read what the other threads wrote: how near the cores are.

        A virtual machine's cores are moved about by its host. On one of 2 cores the fastest of 16 took 74 us, or 127 us
        for seconds on end while a cache line took 165 ns from core to core instead of 30: the cores no longer shared a
        cache. Evaluation then took 36 us an image instead of 25, but 26 as before with gradients on, whose tensors are
        too many for a cache in any case.
        """
        one, other = self._reference
        seconds = []
        for _ in range(REFERENCE_REPEATS):
            start = time.perf_counter()
            torch.add(one.t(), 1.0, out=other)
            torch.add(other.t(), 1.0, out=one)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def block(self, steps: Mapping[str, int]) -> Block:
        """Time so many steps of each stage, in the order of `steps`.

        The reference goes before them in every arm, so that none is warmer than another. So do steps that others spare
        work, by what they did, or will do, while other arms work: the batches that workers of a DataLoader have
        prepared, and what the queue of a log has room for. They do not count: logging_heavy is x1.8 with an empty queue
        and x3.0 with a full one, whose writer takes a core from every step. Of what workers prepare from then on, a
        step is timed for each.
        """
        self.reference()
        s_per_sample: dict[str, float] = {}
        step_s: dict[str, float] = {}
        for stage, asked in steps.items():
            workers, untimed = self._workers.get(stage, 0), self._ahead.get(stage, 0)
            count = max(asked, workers)
            with TimedCapture(self._parts.device) as capture:
                self._passes[stage](islice(self._batches[stage], untimed + count), capture)
            self._log.flush()
            timed = _steps(capture.samples(), untimed, untimed + count)
            best = fastest(timed, max(1, workers))
            samples = sum(best.samples)
            if stage == "train":
                s_per_sample |= {phase: sum(seconds) / samples for phase, seconds in best.phase_s.items()}
            s_per_sample[stage] = sum(best.step_s) / samples
            step_s[stage] = sum(timed.step_s) / count
            self._keep(stage, timed, capture)
        return Block(s_per_sample, step_s)

    def _keep(self, stage: str, timed: Samples, capture: TimedCapture) -> None:
        kept, memory = self._steps[stage], capture.memory
        kept.samples.extend(timed.samples)
        kept.step_s.extend(timed.step_s)
        for phase, seconds in timed.phase_s.items():
            kept.phase_s[phase].extend(seconds)
        self._per_stage = memory.per_stage
        self._resident_bytes[stage] = max(self._resident_bytes[stage], memory.resident_bytes)
        if memory.accelerator_bytes is not None:
            before = self._accelerator_bytes.get(stage, 0)
            self._accelerator_bytes[stage] = max(before, memory.accelerator_bytes)

    def finish(
        self, folder: Path, started: str, changed: Mapping[str, tuple[Any, Any]], results: Mapping[str, float]
    ) -> Closing:
        """Trace one window of each stage; leave record, traces and event file in `folder`."""
        folder.mkdir(parents=True)
        traces = session.trace(self._parts, folder, self._log.after_step)
        stages = self._stages(traces)
        rates = {f"{name}_samples_per_s": sum(s.timed.samples) / sum(s.timed.step_s) for name, s in stages.items()}
        figures = {**results, **rates}
        config = self._parts.config
        with EventFile(folder) as events:
            events.describe(self._parts)
            events.stages(stages)
            events.hyperparameters(config, changed, figures)
        outcome = RunRecord(
            name=config.name,
            status="complete",
            error=None,
            started=started,
            config=plain(config),
            changed=dict(changed),
            environment=self.ready.environment,
            stages=stages,
            results=figures,
        )
        record.write(outcome, folder)
        peaks = {stage: trace.peak_allocated_bytes for stage, trace in traces.items()}
        traffic = {s: t.allocated_bytes / sum(t.samples) for s, t in traces.items() if t.allocated_bytes is not None}
        return Closing(
            peak_resident_bytes=max(self._resident_bytes.values()),
            peak_allocated_bytes={stage: peak for stage, peak in peaks.items() if peak is not None},
            allocated_bytes_per_sample=traffic,
            peak_accelerator_bytes=self._accelerator_bytes,
            traces={stage: trace.path for stage, trace in traces.items()},
        )

    def _stages(self, traces: Mapping[str, TraceFile]) -> dict[str, Stage]:
        return {
            stage: Stage(
                timed=timed,
                trace=traces.get(stage),
                peak_resident_bytes=self._resident_bytes[stage],
                resident_is_per_stage=self._per_stage,
                peak_accelerator_bytes=self._accelerator_bytes.get(stage),
            )
            for stage, timed in self._steps.items()
        }


def scatter() -> list[bytearray]:
    """Fill the heap with blocks of random sizes and free half of them, so that no two processes lay out memory alike.

    Children of a fork server are alike to the last address: in every launch the tensors of a step lay where they had
    lain in the one before, in baseline and twin alike, and elsewhere in a variant whose configuration merely has
    another name. What follows from addresses then passes for an effect, which no number of launches averages away: of
    1.7 %, in 11 launches of 12.

    Source: Mytkowicz et al., Producing Wrong Data Without Doing Anything Obviously Wrong! (ASPLOS 2009); Curtsinger and
    Berger, STABILIZER: Statistically Sound Performance Evaluation (ASPLOS 2013).

    Returns:
        The blocks that must be kept.
    """
    random = np.random.default_rng()  # seeded by the system: forked processes share the state of any other
    sizes = np.exp(random.uniform(math.log(64), math.log(SCATTERED_BYTES), SCATTERED)).astype(int)
    blocks = [bytearray(size) for size in sizes]
    return [block for block in blocks if random.random() < 0.5]


def fastest(timed: Samples, steps: int) -> Samples:
    """So many consecutive steps, those with the least seconds per sample.

    Whatever else happens on a machine only ever adds time, so the fastest is nearest to what the code costs (as in
    https://docs.python.org/3/library/timeit.html#timeit.Timer.repeat). On a noisy 2-core virtual machine, the typical
    difference between neighboring blocks of 1 to 7 steps of 14 ms is 5.1, 5.1, 4.5, 4.2, 3.9, 3.7 and 3.3 %, and that
    of neighboring steps 4.2 %: it is the number of steps that helps. What does not come with every step is left out,
    such as a DataLoader's restart at the end of a pass; workers deliver in turns, hence one step for each.
    """
    slices = [_steps(timed, start, start + steps) for start in range(len(timed.samples) - steps + 1)]
    return min(slices, key=lambda part: sum(part.step_s) / sum(part.samples))


def _steps(timed: Samples, start: int, end: int) -> Samples:
    return Samples(
        samples=timed.samples[start:end],
        step_s=timed.step_s[start:end],
        phase_s={phase: seconds[start:end] for phase, seconds in timed.phase_s.items()},
    )


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().double().cpu().numpy()
