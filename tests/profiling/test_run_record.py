"""record.json: what is written comes back, and what is not a record is refused in one line."""

import json

import pytest

from profiling import run_record
from profiling.run_record import Environment, RunRecord, StageRecord, StepTimings, TraceFile

RECORD = RunRecord(
    name="nograd_off",
    status="complete",
    error=None,
    started="2026-11-21T00:00:00+00:00",
    config={"epochs": 1, "switches": {"eval_context": "grad"}},
    changed={"switches.eval_context": ("inference_mode", "grad"), "batch_size": (128, None)},
    environment=Environment(
        host="h", platform="p", processor="c", cores=2, memory_bytes=1, device="cpu", device_name="c",
        precision="bf16", threads=2, versions={"torch": "2"},
    ),
    stages={
        "train": StageRecord(
            timed=StepTimings(samples=[1], step_s=[0.5], phase_s={"forward": [0.25]}),
            trace=TraceFile(path="a.pt.trace.json.gz", samples=[1], step_s=[1.0], peak_allocated_bytes=5),
            peak_resident_bytes=1,
            resident_is_per_stage=True,
            peak_accelerator_bytes=None,
        )
    },
    results={"accuracy": 0.5},
)  # fmt: skip


def test_a_record_comes_back_as_it_was(tmp_path):
    run_record.write(RECORD, tmp_path)
    assert run_record.read(tmp_path) == RECORD


def test_a_record_of_version_1_has_every_step(tmp_path):
    content = json.loads(run_record.write(RECORD, tmp_path).read_text())
    timed = content["stages"]["train"]["timed"]
    del timed["numbers"], timed["totals"]
    run_record.write(RECORD, tmp_path).write_text(json.dumps(content | {"schema_version": 1}))
    old = run_record.read(tmp_path).stages["train"].timed
    assert (old.steps, list(old.step_numbers), old.samples_per_s) == (1, [0], 2.0)


def test_units_stand_in_the_keys(tmp_path):
    stage = json.loads(run_record.write(RECORD, tmp_path).read_text())["stages"]["train"]
    assert stage["timed"]["step_s"] == [0.5]
    assert stage["peak_resident_bytes"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a run record"),
        (lambda text: text.replace('"status": "complete"', '"status": 3'), "not a run record"),
        (
            lambda text: text.replace('"schema_version": 2', '"schema_version": 9'),
            "schema version 9, this program reads 1 and 2",
        ),
    ],
)
def test_what_is_not_a_record_is_refused_in_one_line(tmp_path, change, message):
    path = run_record.write(RECORD, tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        run_record.read(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
