"""A full disk, TMPDIR or output, and a limit of file sizes: one line, status 1, no partial file under a final name."""

import gzip
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from profiling import run_record
from profiling.capture import ProfilerWindow, TracedCapture
from tests.conftest import ROOT, TINY
from tests.train.test_run import event_bytes
from train import checkpoint
from train.events import EventFile

SMALL = (*TINY, "model.width=4")
CPU = torch.device("cpu")

# The thread of an event file's writer may end only after the test that has made its write fail.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def traced(folder):
    """Trace a few operators into `folder`."""
    capture = TracedCapture("train", CPU, ProfilerWindow(folder, 0, 1, 1, {"record_shapes": True}))
    with capture:
        for _ in range(2):
            for _ in range(100):
                torch.ones(8, 8) @ torch.ones(8, 8)
            capture.step(samples=1)
    return capture.trace()


@contextmanager
def file_limit(size):
    """Limit the size of files of this process, in bytes; no longer than needed: pytest's own output may be a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1000, 50_000])
def test_a_trace_that_is_too_large_for_the_limit_of_files_leaves_nothing(tmp_path, size):
    with file_limit(size), pytest.raises(OSError, match="File too large") as caught:
        traced(tmp_path)
    assert Path(caught.value.filename).parent == tmp_path
    assert caught.value.filename.endswith(".pt.trace.json.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "export", [lambda path: None, lambda path: Path(path).write_text('{"traceEvents": [{"ph": "X", "na')]
)
def test_a_trace_that_is_not_whole_gets_no_name(tmp_path, monkeypatch, export):
    monkeypatch.setattr("profiling.capture.profile.export_chrome_trace", lambda self, path: export(path))
    with pytest.raises(OSError, match="the profiler's export is incomplete: "):
        traced(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_trace_needs_no_room_in_tmpdir(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    trace = traced(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [trace.path]
    assert json.loads(gzip.decompress((tmp_path / trace.path).read_bytes()))["traceEvents"]


@pytest.mark.parametrize("size", [0, 30, 200, 3000])
def test_an_event_file_ends_with_a_whole_record(tmp_path, size):
    with file_limit(size), pytest.raises(OSError, match="File too large") as caught, EventFile(tmp_path) as events:
        for step in range(100):
            events._writer.add_scalar("curve", 1.0, step)
    assert "tfevents" in caught.value.filename
    for file in tmp_path.iterdir():
        assert 0 < event_bytes(file) == file.stat().st_size <= size


def limited(size, *arguments):
    """Run the command line with files of at most `size` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "train", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip


def test_a_run_under_a_limit_of_files_fails_in_one_line_and_its_record_says_why(tmp_path):
    result = limited(200_000, *SMALL, "model.width=16", f"output={tmp_path}")
    assert result.returncode == 1
    (folder,) = tmp_path.glob("*/*")
    assert result.stderr.startswith(f"error: {folder}/")
    assert result.stderr.endswith(".pt.trace.json.gz: File too large\n")
    assert result.stderr.count("\n") == 1
    left = run_record.read(folder)
    assert left.status == "failed"
    assert "File too large" in left.error
    assert left.stages["train"].timed.steps == 2
    checkpoint.load(folder / checkpoint.FILE_NAME)
    assert not list(folder.rglob("*.pt.trace.json.gz"))
    assert not list(folder.rglob(".tmp-*"))


def test_hydras_files_that_cannot_be_written_are_one_line(tmp_path):
    result = limited(2000, *SMALL, f"output={tmp_path}")
    assert result.returncode == 1
    assert result.stderr.endswith(": File too large\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_run_whose_output_cannot_be_printed_is_complete_and_says_so(tmp_path):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "train", *SMALL, f"output={tmp_path}"],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=300,
        )  # fmt: skip
    (folder,) = tmp_path.glob("*/*")
    assert result.stderr == f"error: standard output: No space left on device; the run is complete: {folder}\n"
    assert result.returncode == 1
    assert run_record.read(folder).status == "complete"
    assert len(list(folder.glob("*.pt.trace.json.gz"))) == 3


def test_a_closed_pipe_is_one_line():
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "train", "--cfg", "job"],
        cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "error: standard output: Broken pipe\n")


@pytest.mark.parametrize("module", ["train", "profiling"])
def test_a_closed_output_is_one_line(module, tmp_path):
    trace = tmp_path / "trace.json"
    trace.write_text(
        '{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "pid": 1, "tid": 1, "ts": 1, "dur": 2}]}'
    )
    arguments = {"train": ["--cfg", "job"], "profiling": ["summary", str(trace)]}[module]
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, timeout=60, preexec_fn=lambda: os.close(1),
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.removeprefix("error: ") == "standard output: Bad file descriptor\n"


@pytest.mark.parametrize("name", ["closed", "full"])
def test_an_error_that_nobody_can_read_has_its_status(name):
    result = subprocess.run(
        [sys.executable, "-m", "profiling", "summary", "nothing"], cwd=ROOT, check=False, timeout=60,
        preexec_fn=lambda: os.close(2) if name == "closed" else os.dup2(os.open("/dev/full", os.O_WRONLY), 2),
    )  # fmt: skip
    assert result.returncode == 1


def test_files_do_not_get_the_descriptors_of_closed_streams(tmp_path):
    code = (
        "from profiling.terminal.streams import open_closed_streams; open_closed_streams(); "
        f"assert open({str(tmp_path / 'file')!r}, 'w').fileno() > 2"
    )
    closed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, preexec_fn=lambda: [os.close(n) for n in range(3)]
    )
    assert closed.returncode == 0
