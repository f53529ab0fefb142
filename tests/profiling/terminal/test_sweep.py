"""The table at the end of a sweep: a row for each job, also for those that left nothing or a broken record."""

from pathlib import Path

import msgspec
import pytest

from profiling import run_record
from profiling.terminal.sweep import print_sweep
from tests.profiling.test_run_record import RECORD


@pytest.fixture
def jobs(tmp_path: Path) -> list[tuple[list[str], Path]]:
    found = [(["epochs=1", f"batch_size={size}"], tmp_path / str(size)) for size in (8, 16, 32, 64)]
    for (_, folder), status in zip(found, ("complete", "interrupted", None, "broken"), strict=True):
        if status:
            folder.mkdir()
            record = msgspec.structs.replace(RECORD, status=status, results={"accuracy": 0.75}, error=None)
            run_record.write(record, folder)
    (tmp_path / "64" / "record.json").write_text("{}")
    return found


def test_every_job_has_a_row(jobs: list[tuple[list[str], Path]], capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep(jobs)
    said = capsys.readouterr().out
    assert "the 4 jobs of this sweep" in said
    complete, interrupted, nothing, broken = (
        next(line for line in said.splitlines() if line.startswith(f"batch_size={size} ")) for size in (8, 16, 32, 64)
    )
    assert "complete" in complete and "75.00%" in complete
    assert "interrupted" in interrupted
    assert "left no record" in nothing
    assert "epochs=1" not in said
    assert "cannot be read" in broken


def test_a_single_job_needs_no_table(jobs: list[tuple[list[str], Path]], capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep(jobs[:1])
    assert capsys.readouterr().out == ""
