"""What a long run leaves is bounded, is written while it trains, and says what it holds."""

from itertools import pairwise

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from profiling import run_record
from profiling.capture import TimedCapture
from tests.conftest import TINY_DATA
from train import session
from train.events import CURVE_POINTS, has_point
from train.run import train

EPOCHS = 40
LONG = (*TINY_DATA, "model=mlp", "model.width=4", f"epochs={EPOCHS}", "batch_size=32", "threads=1")
STEPS_PER_EPOCH = 5
POINTS = 16
MAX_STEPS = 32


def points(folder, tag):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_the_curves_of_a_long_run_are_written_as_it_trains_with_few_points(configure, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.events.CURVE_POINTS", POINTS)
    monkeypatch.setattr(TimedCapture.__init__, "__defaults__", (MAX_STEPS,))
    seen = []

    def look(parts, folder, after_step):  # when training has ended, and nothing else
        seen.append(points(folder, "time_ms/train/backward"))
        return iter(())

    monkeypatch.setattr(session, "trace", look)
    train(configure(*LONG), {}, tmp_path)
    steps = EPOCHS * STEPS_PER_EPOCH
    written = points(tmp_path, "time_ms/train/backward")
    assert written == seen[0]
    assert [step for step, _ in written[:POINTS]] == list(range(POINTS))
    assert steps * 0.7 < written[-1][0] < steps
    assert POINTS < len(written) < 3 * POINTS
    accuracies = points(tmp_path, "accuracy/test")
    assert [step for step, _ in accuracies[:POINTS]] == [(n + 1) * STEPS_PER_EPOCH for n in range(POINTS)]
    assert accuracies[-1][0] == steps, "the last epoch is always there"
    left = run_record.read(tmp_path)
    assert accuracies[-1][1] == pytest.approx(left.results["accuracy"])
    assert len(accuracies) < 2.5 * POINTS
    timed = left.stages["train"].timed
    assert (timed.steps, timed.totals.samples) == (steps, 160 * EPOCHS)
    assert len(timed.step_s) <= MAX_STEPS
    shown = capsys.readouterr().out
    assert f"medians (of {len(timed.step_s)} random steps of {steps})" in shown


def test_curves_thin_out():
    assert all(has_point(index) for index in range(CURVE_POINTS))
    million = [index for index in range(1_000_000) if has_point(index)]
    assert len(million) < 7 * CURVE_POINTS
    assert all(2 * before - after >= -CURVE_POINTS for before, after in pairwise(million))
