"""Unprofiled stage_timings, as the summary of a run tells them."""

import msgspec
import pytest

from profiling import run_record
from profiling.analysis.timings import StageTiming, stage_timings
from profiling.trace.parse import TraceError
from tests.profiling.test_run_record import RECORD

TRAIN = StageTiming(stage="train", steps=1, median_us=500_000, samples_per_s=2, profiler_overhead=1)


def test_a_run_tells_of_its_stages_and_a_trace_of_its_own(tmp_path):
    run_record.write(RECORD, tmp_path)
    assert stage_timings(tmp_path) == [TRAIN]
    assert stage_timings(tmp_path / "a.pt.trace.json.gz") == [TRAIN]
    assert stage_timings(tmp_path / "other.pt.trace.json.gz") == []


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
