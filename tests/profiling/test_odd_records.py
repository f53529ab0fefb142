"""Odd records, which must not stop an analysis of the traces beside them."""

import json
from pathlib import Path

import pytest

from profiling import run_record
from profiling.__main__ import main
from profiling.storage import MAX_RECORD_BYTES, WITHIN_VARIABLE, write_json
from tests.odd_files import ODD_FILES
from tests.profiling.make_trace import write
from tests.profiling.tb_plugin.conftest import STEP, make_record

NAME = "w.pt.trace.json"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write(tmp_path / NAME, STEP)
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("name", ["\0", "loop", "loop/x"])
def test_the_name_of_a_trace_in_a_record_may_be_no_file(name: str, run: Path) -> None:
    record = write_json(make_record(NAME), run / "record.json")
    content = json.loads(record.read_text())
    for stage in content["stages"].values():
        stage["trace"]["path"] = name
    record.write_text(json.dumps(content))
    assert main(["diff", str(run / NAME), str(run), "--json"]) == 0


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("kind", ODD_FILES)
def test_a_record_that_is_no_file_is_none(kind: str, within: bool, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ODD_FILES[kind](run / "record.json")
    if within:
        monkeypatch.setenv(WITHIN_VARIABLE, str(run))
    assert main(["summary", str(run / NAME), "--json"]) == 0
    assert main(["diff", str(run / NAME), str(run), "--json"]) == 0


def test_a_record_that_is_too_large_is_not_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (run / "record.json").open("wb") as file:
        file.truncate(MAX_RECORD_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(ValueError, match=r"record\.json: larger than 16 MiB$"):
        run_record.read(run)


@pytest.mark.parametrize("kind", ["link to itself", "link to nothing"])
def test_a_trace_that_is_a_link_to_nothing_is_told_so(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / NAME
    ODD_FILES[kind](path)
    assert main(["summary", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: a link that leads to no file or folder\n"
