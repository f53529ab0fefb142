"""Finding runs: cheap, never failing, whatever folders hold."""

import os
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from profiling import run_record
from profiling.tb_plugin.logdir import Logdir, NotFoundError
from profiling.trace.files import find_traces
from tests.profiling.cases import case
from tests.profiling.tb_plugin.conftest import make_record, trace


def names(logdir: Path) -> list[str]:
    return [run.run for run in Logdir(str(logdir)).listing().runs]


def test_a_run_is_a_folder_that_directly_holds_traces(logdir: Path) -> None:
    trace(logdir / "a")
    trace(logdir / "a" / "inner", "plain.json")
    trace(logdir / "packed", "rank-0.json.gz")
    trace(logdir / ".hidden")
    (logdir / "other").mkdir()
    (logdir / "other" / "data.json").write_text("[1, 2]")
    (logdir / "other" / "folder.pt.trace.json").mkdir()
    assert names(logdir) == ["a", "a/inner", "packed"]
    trace(logdir)
    assert names(logdir)[0] == "."


def test_windows_come_in_the_order_of_their_times(logdir: Path) -> None:
    for name in ("w.900.pt.trace.json", "w.1000.pt.trace.json.gz", "v.950.pt.trace.json", "other.json"):
        trace(logdir, name)
    (run,) = Logdir(str(logdir)).listing().runs
    assert [window.file.split(".")[1] for window in run.windows] == ["900", "950", "1000"]


def test_a_pipe_is_not_waited_for(logdir: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    for name in ("x.json", "x.pt.trace.json", "record.json", "comparison.json"):
        os.mkfifo(logdir / name)
    folder = Logdir(str(logdir))
    assert folder.listing().runs == []
    assert folder.records(".") == []
    with pytest.raises(NotFoundError):
        folder.run(".")


@pytest.fixture
def deep_logdir() -> Iterator[Path]:
    """A logdir beside pytest's own folders: pytest cannot remove so deep a tree, if this process is killed."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        while (down := Path(folder, "d")).exists():  # nor can shutil
            top = down.rename(Path(folder, "top"))
            if (top / "d").exists():
                (top / "d").rename(down)
            top.rmdir()


def test_folders_deeper_than_calls_and_paths(deep_logdir: Path) -> None:
    logdir = deep_logdir
    trace(logdir / "a")
    below = os.open(logdir, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=below)  # pathlib has no folder to start from
        deeper = os.open("d", os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    os.close(below)
    assert names(logdir) == ["a"]
    assert Logdir(str(logdir)).holds_traces(wait_s=60)


def test_links_in_circles_are_not_followed(logdir: Path) -> None:
    trace(logdir / "a")
    (logdir / "a" / "up").symlink_to(logdir)
    (logdir / "me.pt.trace.json").symlink_to(logdir / "me.pt.trace.json")
    assert names(logdir) == ["a"]
    linked = logdir.parent / "linked"
    linked.symlink_to(logdir)
    assert names(linked) == ["a"]


def test_records_that_cannot_be_read_cost_only_themselves(logdir: Path) -> None:
    for name, text in {"deep": b'{"config":' + b"[" * 200_000, "no": b"\xff", "old": b'{"name": "old"}'}.items():
        trace(logdir / name)
        (logdir / name / "record.json").write_bytes(text)
    trace(logdir / "good")
    run_record.write(make_record(), logdir / "good")
    found = {run.run: run for run in Logdir(str(logdir)).listing().runs}
    assert [run.record for run in found.values()] == [False, True, False, False]
    assert all("record.json is no run record" in (found[name].record_error or "") for name in ("deep", "no", "old"))
    assert (found["good"].name, found["good"].record_error) == ("baseline", None)


def test_three_hundred_runs_are_listed_at_once(logdir: Path) -> None:
    timed = msgspec.structs.replace(make_record().stages["train"].timed, step_s=[0.1] * 500, samples=[8] * 500)
    stage = msgspec.structs.replace(make_record().stages["train"], timed=timed)
    outcome = msgspec.structs.replace(make_record(), stages={"train": stage})
    for number in range(300):
        run_record.write(outcome, trace(logdir / f"{number:03}").parent)
    start = time.perf_counter()
    assert len(names(logdir)) == 300
    assert time.perf_counter() - start < 1


def test_it_is_looked_for_in_the_background_and_again(logdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Logdir(str(logdir))
    assert not folder.holds_traces()
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)  # long after
    file = trace(logdir / "new")
    assert folder.holds_traces()
    file.unlink()
    folder.holds_traces()
    monkeypatch.undo()
    assert not Logdir(str(logdir)).holds_traces()


def test_runs_come_in_numeric_order_whatever_their_traces_are_named(logdir: Path) -> None:
    for number in (100, 9, 10):
        trace(logdir / "traces" / f"iteration_{number}", "rank0_trace.json.gz")
    trace(logdir / "traces" / "iteration_9" / "deeper", "1764000000.1-TP-0.trace.json.gz")
    expected = ["iteration_9", "iteration_9/deeper", "iteration_10", "iteration_100"]
    assert names(logdir) == [f"traces/{run}" for run in expected]
    below = [file.parent.relative_to(logdir).as_posix() for file in find_traces(logdir)]
    assert below == names(logdir)  # as in the terminal


def test_a_trace_beside_its_packed_copy_is_one_window(logdir: Path) -> None:
    for name in ("w.1.pt.trace.json.gz", "w.1.pt.trace.json", "w.2.pt.trace.json.gz"):
        trace(logdir / "run", name)
    (run,) = Logdir(str(logdir)).listing().runs
    assert [window.file for window in run.windows] == ["w.1.pt.trace.json", "w.2.pt.trace.json.gz"]


def test_a_trace_in_a_zip_file_or_behind_a_large_header_is_found(logdir: Path) -> None:
    with zipfile.ZipFile(trace(logdir / "zip", "a.json").with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as file:
        file.write(logdir / "zip" / "a.json", "notes/readme.json.gz")
        file.writestr("b.json", "{}")
    (logdir / "zip" / "a.json").rename(logdir / "zip" / "a.txt")
    plain = (logdir / "zip" / "a.txt").read_text()
    (logdir / "large").mkdir()
    (logdir / "large" / "a.json").write_text(plain.replace("{", '{"x": "' + "y" * (3 << 20) + '", ', 1))
    assert names(logdir) == ["large", "zip"]


def test_large_files_that_are_no_traces_do_not_slow_the_listing(logdir: Path) -> None:
    content = '{"values": [' + "1234567, " * (3 << 20) + "0]}"
    for number in range(10):
        (logdir / f"{number}.json").write_text(content)
    start = time.perf_counter()
    assert names(logdir) == []
    assert time.perf_counter() - start < 2
    start = time.perf_counter()
    assert names(logdir) == []
    assert time.perf_counter() - start < 0.1  # they are not read again


def test_case_13_lists_the_same_runs_as_the_terminal() -> None:
    folder = case("13-torchtitan")
    expected = [f"profiling/traces/iteration_{number}" for number in (10, 20, 100)]
    assert names(folder) == expected
    assert list(dict.fromkeys(file.parent.relative_to(folder).as_posix() for file in find_traces(folder))) == expected


def test_case_15_is_found_and_case_16_is_one_window() -> None:
    assert names(case("15-large-header")) == ["."]
    (run,) = Logdir(str(case("16-json-and-gz"))).listing().runs
    assert [window.file for window in run.windows] == ["host_1.1.pt.trace.json"]
