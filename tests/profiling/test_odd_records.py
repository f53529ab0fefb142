"""Records that `python -m tests.fuzz requests` found to stop an analysis of the traces beside them."""

import json
from pathlib import Path

import pytest

from profiling.__main__ import main
from profiling.storage import WITHIN_VARIABLE, write_json
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
def test_a_record_that_is_a_link_to_itself_is_none(within: bool, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "record.json").symlink_to("record.json")
    if within:
        monkeypatch.setenv(WITHIN_VARIABLE, str(run))
    assert main(["summary", str(run / NAME), "--json"]) == 0
    assert main(["diff", str(run / NAME), str(run), "--json"]) == 0
