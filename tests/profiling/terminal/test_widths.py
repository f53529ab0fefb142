"""Tables in narrow terminals, in pipes, and in encodings that lack characters."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from profiling.__main__ import BY, main
from profiling.run_record import StepTimings
from profiling.terminal.comparisons import show_comparison, show_comparisons
from profiling.terminal.runs import print_run
from profiling.terminal.tables import PlainConsole, wide_console
from profiling.verdict.record import write_comparison
from tests.profiling.make_trace import Event, event, write
from tests.profiling.report.reports import NOT_APPLICABLE, arm, compared, recorded
from tests.profiling.tb_plugin.conftest import make_record

WIDTHS = (40, 60, 80, 100, 132)
WIDE = 400  # everything fits
LONG_NAME = "aten::a_name_that_is_longer_than_the_narrowest_terminal"
FIGURE = re.compile(r"[-+×]?\d[\d,.]*(?: ?(?:[KMGT]?i?B|[nµm]?s|%))?(?!\w)")

TABLES = [["summary", "A", "--by", by] for by in BY] + [["memory", "A"], ["diff", "A", "B"]]


def allocation(ts: float, count: int, total: int) -> Event:
    args = {"Bytes": count, "Addr": int(ts), "Total Allocated": total, "Device Type": 0, "Device Id": -1}
    made = {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts}
    return {**made, "args": args}


def events(scale: float) -> list[Event]:
    """Every kind of row, with values as wide as they get: `999 ms`, `1,010 GiB`, thousands of calls."""
    calls = [event(f"{LONG_NAME}_again", 999_000 + i, 0.5) for i in range(1200)]
    return [
        event("ProfilerStep#7", 0, 1_999_000 * scale, "user_annotation"),
        event("forward", 10, 998_000 * scale, "user_annotation"),
        event(f"nn.Module: {LONG_NAME}_b", 20, 997_600 * scale, "python_function", Python_id=1, Python_module_id=0),
        event(f"a/long/path/to/a/file.py(3): {LONG_NAME}", 21, 997_400 * scale, "python_function", Python_id=2),
        event(LONG_NAME, 30, 555_444 * scale, Input_Dims=[[]]),
        allocation(40, int(990 * 2**30 * scale), int(990 * 2**30 * scale)),
        allocation(50, int(19.9 * 2**30), int(1009.9 * 2**30 * scale)),
        event("cudaLaunchKernel", 60, 12, "cuda_runtime", correlation=1),
        event(
            f"void {LONG_NAME}<float>", 80, 333_222 * scale, "kernel", tid=7, correlation=1, device=0, stream=7,
            **{"est. achieved occupancy %": 100},
        ),
        event("cudaDeviceSynchronize", 600_000 * scale, 262_626, "cuda_runtime"),
        *calls,
    ]  # fmt: skip


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the traces A and B; it is the working directory, so that printed paths are short."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "A", events(1))
    write(tmp_path / "B", events(1.3))
    return tmp_path


@pytest.fixture
def at_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, Callable[[], object]], str]:
    """What a function prints in a terminal of a width."""

    def show(width: int, run: Callable[[], object]) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        run()
        return capsys.readouterr().out

    return show


def figures(shown: str) -> list[str]:
    """The figures with their units, also where a line ends between them."""
    return FIGURE.findall(" ".join(shown.split()))


def too_long(shown: str, width: int) -> list[str]:
    return [line for line in shown.splitlines() if len(line) > width]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("arguments", TABLES, ids=" ".join)
def test_every_figure_is_whole_and_every_line_fits(
    arguments: Sequence[str], width: int, traces: Path, at_width: Callable[[int, Callable[[], object]], str]
) -> None:
    narrow, wide = (at_width(columns, lambda: main(arguments)) for columns in (width, WIDE))
    assert not too_long(narrow, width)
    assert figures(narrow)
    assert set(figures(narrow)) <= set(figures(wide))


@pytest.mark.parametrize("width", WIDTHS)
def test_comparisons_and_ladders_fit_too(
    width: int, tmp_path: Path, at_width: Callable[[int, Callable[[], object]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    records = [
        recorded(compared(name, shift), arms={"baseline": arm(), "variant": arm()})
        for name, shift in (("no_long_name", 1), ("other", 13.5))
    ]
    for record in records:
        Path(record.comparison.experiment).mkdir()
        write_comparison(record, Path(record.comparison.experiment))

    def ladder() -> None:
        assert main(["effects", "."]) == 0
        show_comparisons(PlainConsole(), records, Path("report.html"))
        show_comparison(PlainConsole(), records[1], 1.0, 0.0, Path())

    narrow, wide = (at_width(columns, ladder) for columns in (width, WIDE))
    assert not too_long(narrow, width)
    assert set(figures(narrow)) <= set(figures(wide))
    assert narrow.count("×13.5") >= 3


def test_an_effect_that_does_not_apply_is_not_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_comparison(recorded(NOT_APPLICABLE), tmp_path)
    assert main(["effects", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "not applicable here" in told and "undecided" not in told


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tables_of_a_run_fit_too(width: int, at_width: Callable[[int, Callable[[], object]], str]) -> None:
    record = make_record()
    stage = record.stages["train"]
    timed = StepTimings(samples=[8] * 1200, step_s=[1.2345] * 1200, phase_s={"a phase with a long name": [0.98] * 1200})
    stages = dict.fromkeys(("train", "infer"), msgspec.structs.replace(stage, timed=timed))
    results = {"accuracy": 0.5, "loss": 1.0, "train_samples_per_s": 9.0, "infer_samples_per_s": 9.0}
    config = {"infer_batch_size": 8, "output": "runs"}
    record = msgspec.structs.replace(record, stages=stages, results=results, config=config)
    narrow, wide = (
        at_width(columns, lambda: print_run(PlainConsole(), record, Path("runs/a"))) for columns in (width, WIDE)
    )
    assert not too_long(narrow, width)
    assert set(figures(narrow)) <= set(figures(wide))


@pytest.mark.parametrize(
    ("output", "folder", "shown"),
    [
        ("runs", "runs/baseline/now", "runs"),
        ("my runs", "my runs/baseline/now", "'my runs'"),
        ("runs", "elsewhere/now", "elsewhere"),  # hydra.run.dir=elsewhere/now
    ],
)
def test_the_command_that_shows_a_run_can_be_pasted(
    output: str, folder: str, shown: str, at_width: Callable[[int, Callable[[], object]], str]
) -> None:
    record = make_record()
    stages = {"infer": record.stages["train"]}
    results = {"accuracy": 0.5, "loss": 1.0, "train_samples_per_s": 9.0, "infer_samples_per_s": 9.0}
    config = {"infer_batch_size": 8, "output": output}
    record = msgspec.structs.replace(record, stages=stages, results=results, config=config)
    text = at_width(WIDE, lambda: print_run(PlainConsole(), record, Path(folder)))
    assert text.splitlines()[-1].strip() == f"show: tensorboard --logdir {shown}"


def test_the_title_names_the_columns_that_are_left_out(
    traces: Path, at_width: Callable[[int, Callable[[], object]], str]
) -> None:
    narrow = " ".join(at_width(40, lambda: main(["summary", "A"])).split())
    assert "(in a wider terminal also: calls, total, allocated)" in narrow
    assert "operator self device" in narrow
    assert "wider" not in at_width(WIDE, lambda: main(["summary", "A"]))


def test_names_give_way_before_columns_do(traces: Path, at_width: Callable[[int, Callable[[], object]], str]) -> None:
    shown = at_width(80, lambda: main(["summary", "A"]))
    (row,) = (line for line in shown.splitlines() if line.startswith("aten::") and "1,200" not in line)
    assert re.match(r"aten::a_name_that_is\w*… +1 +555 ms +555 ms +333 ms +1,010 GiB$", row)


def test_a_pipe_is_eighty_columns_wide_or_as_wide_as_it_is_told(traces: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    for columns, width in (({}, 80), ({"COLUMNS": "44"}, 44)):
        done = subprocess.run(
            [sys.executable, "-m", "profiling", "summary", "A"],
            env=environment | columns | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
        assert not too_long(done.stdout, width)
        assert "1,010 GiB" in done.stdout
    assert wide_console().width == 132


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("arguments", [*TABLES, ["check", "A"], ["summary", "µ日"]], ids=" ".join)
def test_no_encoding_lacks_what_is_printed(arguments: Sequence[str], encoding: str, traces: Path) -> None:
    write(traces / "A", [*events(1), event("日本語 µ ×", 1_999_500, 20)])
    done = subprocess.run(
        [sys.executable, "-m", "profiling", *arguments],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode(encoding)
    assert (done.returncode, said.count("\n")) == ((1, 1) if arguments[-1] == "µ日" else (0, 0))
    if arguments == ["summary", "A", "--by", "operator"]:
        assert rf"\u65e5\u672c\u8a9e {'u x' if encoding == 'ascii' else 'µ ×'}" in done.stdout.decode(encoding)


def test_json_is_ascii_and_holds_every_name(traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "日本語 \U0001f600 µ \x7f \u2028"
    write(traces / "C", [event(name, 0, 50)])
    assert main(["summary", "C", "--json"]) == 0
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert json.loads(shown)["operators"][0]["name"] == name


@pytest.mark.skipif(sys.platform != "linux", reason="only there a name may be any bytes")
def test_a_file_whose_name_is_no_text_is_analyzed(traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (traces / "A").rename(traces / "\udcff")
    for arguments in (["summary", "\udcff"], ["memory", "\udcff"], ["diff", "\udcff", "B"]):
        assert main(arguments) == 0
        assert r"\udcff" in capsys.readouterr().out
        assert main([*arguments, "--json"]) == 0
        assert "\udcff" in json.dumps(json.loads(capsys.readouterr().out), ensure_ascii=False)
