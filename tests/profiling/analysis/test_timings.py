"""Unprofiled stage_timings, as the summary of a run tells them."""

import msgspec
import pytest

from profiling import run_record
from profiling.analysis.summary import summarize
from profiling.analysis.timings import StageTiming, stage_timings
from profiling.step_sample import StepSample
from profiling.trace.parse import TraceError
from profiling.trace.trace import read_trace
from tests.profiling.make_trace import event, write
from tests.profiling.test_run_record import RECORD

TRAIN = StageTiming(stage="train", steps=1, kept_steps=1, median_us=500_000, samples_per_s=2, profiler_overhead=1)


def test_a_run_tells_of_its_stages_and_a_trace_of_its_own(tmp_path):
    run_record.write(RECORD, tmp_path)
    assert stage_timings(tmp_path) == [TRAIN]
    assert stage_timings(tmp_path / "a.pt.trace.json.gz") == [TRAIN]
    assert stage_timings(tmp_path / "other.pt.trace.json.gz") == []


def test_of_a_sample_the_median_is_known_and_everything_else_of_all_steps(tmp_path):
    sample = StepSample(max_steps=4)
    for step_s in (1.0, 2.0, 3.0, 4.0, 10.0):
        sample.add(10, step_s, {})
    train = msgspec.structs.replace(RECORD.stages["train"], timed=sample.timings())
    run_record.write(msgspec.structs.replace(RECORD, stages={"train": train}), tmp_path)
    (timing,) = stage_timings(tmp_path)
    assert (timing.steps, timing.samples_per_s) == (5, 50 / 20)
    assert timing.kept_steps < 5
    trace = read_trace(write(tmp_path / "a.json", [event("aten::add", 0, 1)]))
    (note,) = summarize([trace], timings=[timing]).trace.notes
    assert note == f"train: the median is that of {timing.kept_steps} random steps of 5 unprofiled ones"


def test_what_was_not_recorded_has_no_timings(tmp_path):
    assert stage_timings(tmp_path) == []


@pytest.mark.parametrize("steps", [{"samples": []}, {"samples": [0]}, {"step_s": [0.0]}])
def test_a_record_that_contradicts_itself_is_one_line(tmp_path, steps):
    train = RECORD.stages["train"]
    timed = msgspec.structs.replace(train.timed, **steps)
    stages = {"train": msgspec.structs.replace(train, timed=timed)}
    run_record.write(msgspec.structs.replace(RECORD, stages=stages), tmp_path)
    with pytest.raises(TraceError, match=r"record\.json: stage 'train' has steps without samples or time"):
        stage_timings(tmp_path)
