"""Names from files are text: no markup, and no control character reaches the terminal."""

import json
import re
from pathlib import Path

import pytest

from profiling.__main__ import BY, main
from profiling.format import visible
from profiling.terminal.comparisons import show_comparison, show_comparisons
from profiling.terminal.tables import wide_console
from profiling.verdict.record import write_comparison
from tests.profiling.make_trace import event, write
from tests.profiling.report.reports import ARMS, compared, recorded

HOSTILE = "[/] [red]x[/red] :smile: \x1b[2J\x07\x9b31m\u202e"
SHOWN = "[/] [red]x[/red] :smile: \\x1b[2J\\x07\\x9b31m\\u202e"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    events = [
        event(HOSTILE, 0, 50),
        event(HOSTILE, 5, 10, cat=HOSTILE),
        event(f"nn.Module: {HOSTILE}", 0, 60, "python_function"),
        event(f"{HOSTILE}(3): f", 0, 60, "python_function"),
        event("cudaLaunchKernel", 10, 2, "cuda_runtime", correlation=1),
        event(HOSTILE, 20, 10, "kernel", tid=7, correlation=1),
        {
            "ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": 8,
            "args": {"Bytes": 512, "Addr": 1, "Total Allocated": 512, "Device Type": 0, "Device Id": -1},
        },
    ]  # fmt: skip
    return write(tmp_path / "[bold]trace.json", events)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    output = "".join(capsys.readouterr())
    assert not CONTROL.search(output)
    return output


@pytest.mark.parametrize("arguments", [["summary", "--by", by] for by in BY] + [["memory"], ["check"], ["diff"]])
def test_names_of_a_trace_are_shown_as_text(
    arguments: list[str], trace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    command, *options = arguments
    paths = [str(trace)] * (2 if command == "diff" else 1)
    assert main([command, *paths, *options]) == 0
    output = printed(capsys)
    assert "[bold]trace.json" in output
    assert SHOWN in output or command == "diff"  # equal sides have no causes


def test_json_for_a_terminal_has_no_control_character_and_the_same_content(
    trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["summary", str(trace), "--json"])
    assert json.loads(printed(capsys))["operators"][0]["name"] == HOSTILE


def test_a_file_that_is_not_there_is_named_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(tmp_path / HOSTILE)]) == 1
    assert SHOWN in printed(capsys)


def test_a_comparison_and_a_ladder_are_shown_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    record = recorded(compared(HOSTILE, 1.0, mismatch=True), topic=HOSTILE, arms=ARMS)
    show_comparison(wide_console(), record, 1.0, 0.0, tmp_path / HOSTILE)
    show_comparisons(wide_console(), [record], tmp_path / HOSTILE)
    assert printed(capsys).count(SHOWN) >= 4
    write_comparison(record, tmp_path)
    assert main(["effects", str(tmp_path)]) == 0
    assert SHOWN in printed(capsys)


@pytest.mark.parametrize("hidden", [*"\u00ad\u061c\u180e\u200b\u200f\u2028\u2060\u206a\ufeff\ufff9\U000e0041"])
def test_what_has_no_picture_is_escaped(hidden: str) -> None:
    assert visible(f"a{hidden} b") == f"a{hidden.encode('unicode_escape').decode()} b"


def test_what_is_plain_stays_as_it_is() -> None:
    assert visible("aten::mul µs ✓ 日本語") == "aten::mul µs ✓ 日本語"
