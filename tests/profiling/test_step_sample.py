"""Of a short run every step is kept; of a long one a sample of bounded size, and exact totals."""

import math
import tracemalloc
from random import Random

import msgspec
import numpy as np
import pytest

from profiling import run_record, step_sample
from profiling.run_record import TimeTotals
from profiling.step_sample import MAX_STEPS, StepSample
from profiling.storage import MAX_RECORD_BYTES
from tests.profiling.test_run_record import RECORD

PHASES = ("load", "transfer", "preprocess", "forward", "loss", "backward", "metrics", "optimizer")


def sample_of(steps, max_steps=MAX_STEPS, phases=("forward",)):
    """Step n has n + 1 images and takes n + 1 seconds, half of them in each phase."""
    sample = StepSample(max_steps)
    for number in range(steps):
        sample.add(number + 1, number + 1.0, dict.fromkeys(phases, (number + 1) / 2))
    return sample


@pytest.mark.parametrize("steps", [0, 1, 7, 300, MAX_STEPS])
def test_a_short_run_keeps_every_step(steps):
    timed = sample_of(steps).timings()
    assert timed.samples == timed.step_s == [number + 1 for number in range(steps)]
    assert timed.phase_s.get("forward", []) == [(number + 1) / 2 for number in range(steps)]
    assert (timed.numbers, timed.totals, timed.steps) == ([], None, steps)


@pytest.mark.parametrize("max_steps", [1, 2, 10, 256, 1000])
@pytest.mark.parametrize("more", [1, 2, 3, 700, 5000])
def test_a_longer_run_keeps_a_sample_and_the_totals_of_all(max_steps, more):
    steps = max_steps + max_steps % 2 + more
    timed = sample_of(steps, max_steps).timings()
    assert max_steps / 2 <= len(timed.step_s) <= max_steps + 1
    assert timed.numbers == sorted(set(timed.numbers))
    assert timed.step_s == timed.samples == [number + 1 for number in timed.numbers]
    assert timed.phase_s == {"forward": [step_s / 2 for step_s in timed.step_s]}
    total = steps * (steps + 1) / 2
    assert timed.totals.samples == total
    assert timed.totals.step == TimeTotals(steps=steps, sum_s=total, min_s=1, max_s=steps)
    assert timed.totals.phases == {"forward": TimeTotals(steps=steps, sum_s=total / 2, min_s=0.5, max_s=steps / 2)}
    assert (timed.steps, timed.samples_per_s) == (steps, 1)


def test_every_step_has_the_same_chance_to_be_kept(monkeypatch):
    """Of 1000 steps 64 to 128 are kept, also where a rhythm of two or four steps would meet that of the sample."""
    kept = np.zeros(1000)
    runs = 400
    seeds = iter(range(runs))
    monkeypatch.setattr(step_sample, "Random", lambda _: Random(next(seeds)))
    for _ in range(runs):
        sample = StepSample(max_steps=128)
        for _ in range(1000):
            sample.add(1, 1.0, {})
        kept[sample.timings().numbers] += 1
    share = kept / runs
    deviation = math.sqrt(share.mean() * (1 - share.mean()) / runs)
    assert np.abs(share - share.mean()).max() < 4.5 * deviation
    for period in (2, 4, 7, 8):
        means = [share[offset::period].mean() for offset in range(period)]
        assert np.ptp(means) < 6 * deviation / math.sqrt(1000 / period)
    quarters = share.reshape(4, -1).mean(axis=1)
    assert np.ptp(quarters) < 0.02 * share.mean()


def test_the_record_and_the_memory_of_a_long_run_are_bounded(tmp_path):
    tracemalloc.start()
    sizes = []
    sample = StepSample()
    for number in range(150_000):
        sample.add(128, 1e-3 + number * 1e-9, dict.fromkeys(PHASES, 1.234567890123e-4))
        if number % 50_000 == 49_999:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] < sizes[0] * 1.7  # between half and all of MAX_STEPS are kept
    stages = dict.fromkeys(
        ("train", "evaluate", "infer"), msgspec.structs.replace(RECORD.stages["train"], timed=sample.timings())
    )
    path = run_record.write(msgspec.structs.replace(RECORD, stages=stages), tmp_path)
    assert path.stat().st_size < MAX_RECORD_BYTES / 4
    assert run_record.read(tmp_path).stages["train"].timed.steps == 150_000


def test_what_came_since_a_step_can_be_asked_for():
    sample = sample_of(300)
    assert list(sample.timings(since=298).step_numbers) == [298, 299]
    assert list(sample.timings(since=300).step_numbers) == []
    sampled = sample_of(3000, max_steps=100)
    numbers = sampled.timings().numbers
    assert sampled.timings(since=1500).numbers == [number for number in numbers if number >= 1500]
