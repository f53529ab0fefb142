"""The command line: what people and scripts read, and one clear line for whatever is wrong."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from profiling.__main__ import main
from tests.conftest import ROOT
from tests.profiling.conftest import SHARED, Recording
from tests.profiling.make_trace import event, write

EVENTS = [event("ProfilerStep#3", 0, 100, "user_annotation"), event("aten::mm", 10, 20), event("aten::add", 40, 5)]


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_torch_and_slow_libraries_stay_out(recordings: Callable[[str, bool], Recording]) -> None:
    path = recordings("mlp", False).path
    code = (
        "import sys; from profiling.__main__ import main; sys.stdout = sys.stderr; "
        f"assert main(['summary', {str(path)!r}, '--json']) == 0; sys.stdout = sys.__stdout__; "
        "print(sorted({'torch', 'rich', 'scipy', 'plotly', 'pandas', 'hydra'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file here that is always full")
@pytest.mark.parametrize("arguments", [("summary", "--json"), ("summary",), ("check",)], ids=" ".join)
def test_output_that_does_not_fit_is_one_line(tmp_path: Path, arguments: Sequence[str]) -> None:
    command, *options = arguments
    trace = write(tmp_path / "a.json", EVENTS)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "profiling", command, str(trace), *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "standard output: No space left on device\n")


def test_summary_json_holds_the_documented_keys(
    capsys: pytest.CaptureFixture[str], recordings: Callable[[str, bool], Recording]
) -> None:
    found = run_json(capsys, "summary", str(recordings("resnet18", True).path), "--json")
    assert list(found) == [
        "schema_version",
        "trace",
        "events",
        "step_time",
        "step_times",
        "steps",
        "phases",
        "blocked_by",
        "waited_for",
        "operators",
        "kernels",
        "device_busy_us",
        "launched_outside",
        "devices",
        "copies",
        "memory",
        "modules",
        "communication",
        "timings",
    ]
    assert found["trace"]["whole"] is True
    assert found["trace"]["device"] == "cpu"
    assert found["operators"][0].keys() >= {"name", "calls", "self_us", "total_us", "device_us"}
    assert found["modules"][0]["path"] == "ResNet_0"
    assert found["memory"][0]["peak_bytes"] == max(found["memory"][0]["curve"]["bytes"])


def test_windows_of_a_run_are_added_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for time in (1, 2):
        write(tmp_path / f"w.{time}.pt.trace.json.gz", EVENTS)
    found = run_json(capsys, "summary", str(tmp_path), "--json")
    assert [row["calls"] for row in found["operators"]] == [2, 2]
    assert [row["self_us"] for row in found["operators"]] == [40, 10]
    assert [(step["window"], step["number"]) for step in found["steps"]] == [(0, 3), (1, 3)]
    assert found["events"] == {"cpu_op": 4, "user_annotation": 2}


def test_ranks_tell_who_came_late(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for rank, durations in enumerate(([50, 60], [10, 5])):
        kernels = [
            event("ncclDevKernel_AllReduce(int)", 100 * i, dur, "kernel", tid=9) for i, dur in enumerate(durations)
        ]
        compute = event("gemm", 100, 5, "kernel", tid=7)
        write(tmp_path / f"r{rank}.1.pt.trace.json", [*kernels, compute], distributedInfo={"rank": rank})
    found = run_json(capsys, "summary", str(tmp_path), "--json")
    assert found["trace"]["ranks"] == [0, 1]
    first, _ = found["communication"]["ranks"]
    assert (first["busy_us"], first["overlapped_us"], first["exposed_us"]) == (110, 5, 105)
    (late,) = found["communication"]["stragglers"]
    assert (late["last_rank"], late["last_share"], late["waited_us"]) == (1, 1.0, 95)


@pytest.mark.parametrize("by", ["operator", "shape", "stack", "phase", "module", "kernel"])
def test_tables_for_people(
    by: str, capsys: pytest.CaptureFixture[str], recordings: Callable[[str, bool], Recording]
) -> None:
    assert main(["summary", str(recordings("cnn", True).path), "--by", by, "--top", "4"]) == 0
    shown = capsys.readouterr().out
    expected = {"operator": "aten::", "shape": "[[", "stack": "autograd/__init__.py("}
    expected |= {"phase": "backward", "module": "Conv2d_0", "kernel": "none"}
    assert expected[by] in shown


def test_what_is_said_of_steps_is_true_of_one_of_several_and_of_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines above it are about a mean step; calls that block are counted over all steps."""
    monkeypatch.setenv("COLUMNS", "120")
    work = [
        event("aten::mm", 10, 20),
        event("cudaLaunchKernel", 12, 5, "cuda_runtime", correlation=1),
        event("gemm", 100, 800, "kernel", tid=7, correlation=1),
        event("cudaDeviceSynchronize", 200, 710, "cuda_runtime"),
    ]
    steps = [event(f"ProfilerStep#{number}", 1000 * number, 1000, "user_annotation") for number in range(2)]
    said = []
    for marks in ([], steps[:1], steps):
        assert main(["summary", str(write(tmp_path / "a.json", [*marks, *work]))]) == 0
        said.append(capsys.readouterr().out.splitlines())
    for lines, expected in zip(
        said,
        (
            ("the trace lasts 890 µs: ", "bound by the device", "block the host for 700 µs"),
            ("the step takes 1 ms: ", "bound by the device", "block the host for 710 µs"),
            (
                "a step takes 1 ms on average: ",
                "bound by the device in 1 of 2 steps, else by the host",
                "block the host for 710 µs in all 2 steps",
            ),
        ),
        strict=True,
    ):
        first, bound, call = expected
        assert any(line.startswith(first) for line in lines)
        assert bound in lines
        assert any(line.endswith(call) for line in lines)


def test_a_table_by_stack_says_that_there_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["summary", str(write(tmp_path / "a.json", EVENTS)), "--by", "stack"]) == 0
    assert "no stacks" in capsys.readouterr().out


def test_memory_draws_the_curve(
    capsys: pytest.CaptureFixture[str], recordings: Callable[[str, bool], Recording]
) -> None:
    assert main(["memory", str(recordings("cnn", True).path)]) == 0
    shown = capsys.readouterr().out
    assert "█" in shown
    assert "alive at the peak" in shown
    found = run_json(capsys, "memory", str(recordings("cnn", True).path), "--json")
    assert found["memory"][0]["device"] == "cpu"


def test_check_tells_whole_from_partial_from_unreadable(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.json.gz", EVENTS)
    cut = tmp_path / "cut.json"
    cut.write_text(json.dumps({"traceEvents": EVENTS})[:-30])
    (tmp_path / "no.json").write_text("hello")
    assert main(["check", str(whole)]) == 0
    assert "whole" in capsys.readouterr().out
    assert main(["check", str(whole), str(cut), str(tmp_path / "no.json")]) == 1
    shown = capsys.readouterr()
    assert "PARTIAL" in shown.out
    assert "cut short at byte" in shown.out
    assert "no.json: not JSON" in shown.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["summry", "x"], 2, "did you mean 'summary'?"),
        (["summary", "{}", "--by", "shap"], 2, "did you mean 'shape'?"),
        (["summary", "{}", "--jsn"], 2, "did you mean '--json'?"),
        (["summary", "{}", "--top", "0"], 2, "from 1 upwards"),
        (["summary", "{}", "--top", "many"], 2, "'many' is no number"),
        (["summary"], 2, "required"),
        (["summary", "{}x"], 1, "did you mean"),
        (["summary", "{empty}"], 1, "no *.pt.trace.json"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.json", EVENTS)
    (tmp_path / "empty").mkdir()
    given = [word.replace("{empty}", str(tmp_path / "empty")).replace("{}", str(path)) for word in arguments]
    if status == 2:
        with pytest.raises(SystemExit, match="2"):
            main(given)
    else:
        assert main(given) == status
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_every_shared_trace_is_summarized(capsys: pytest.CaptureFixture[str]) -> None:
    if not SHARED.exists():
        pytest.skip("the shared traces are not here")
    for path in sorted(SHARED.glob("*.gz")):
        found = run_json(capsys, "summary", str(path), "--json")
        assert found["trace"]["whole"], path
        assert bool(found["kernels"]) == (found["device_busy_us"] > 0) == (found["trace"]["device"] != "cpu"), path


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_in_one_line(number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-m", "profiling", "summary", "-"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdin is not None
        reader.stdin.write(b" " * (1 << 20))  # more than a pipe holds: it has begun to read
        reader.send_signal(number)
        _, errors = reader.communicate(timeout=60)
    assert (reader.returncode, errors) == (status, b"interrupted\n")
