"""What the tab shows: figures that plotly accepts, and tables with the texts of the command line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import plotly.graph_objects as go
import pytest

from profiling import run_record
from profiling.analysis.summary import summarize
from profiling.figures.compared_views import compared_views
from profiling.figures.effects import effects
from profiling.figures.steps import timed_steps
from profiling.figures.views import run_views
from profiling.figures.windows import window_names
from profiling.format import duration, size
from profiling.step_sample import StepSample
from profiling.trace.trace import read_traces
from profiling.verdict.ladder import read_ladder
from profiling.verdict.record import write_comparison
from tests.profiling.make_trace import event, write
from tests.profiling.report.reports import ARMS, compared, recorded
from tests.profiling.test_run_record import RECORD


def made(folder: Path, scale: float = 1) -> Path:
    """A run of two windows: steps, phases, a module, operators that launch kernels, and a copy."""
    folder.mkdir(parents=True)
    for window in ("train", "infer"):
        events = [
            event("ProfilerStep#1", 0, 100 * scale, "user_annotation"),
            event("forward", 5, 60 * scale, "user_annotation"),
            event("nn.Module: Net_0", 6, 50 * scale, "python_function", Python_id=1, Python_module_id=0),
            event("aten::mm", 10, 20 * scale, Input_Dims=[[2, 2]], External_id=1),
            event("cudaLaunchKernel", 12, 2, "cuda_runtime", correlation=1),
            event("gemm", 20, 30 * scale, "kernel", tid=7, correlation=1, device=0, stream=7),
            event("cudaDeviceSynchronize", 70, 20, "cuda_runtime", correlation=2),
            event("nccl", 60, 15, "kernel", tid=8, Collective_name="allreduce", Process_Group_Name="tp", dtype="Half"),
        ]
        write(folder / f"host_{window}.pt.trace.json", events)
    return folder


def charts(part: Any) -> Iterator[dict[str, Any]]:
    """All charts in an answer."""
    if isinstance(part, dict):
        if part.get("kind") == "chart":
            yield part
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for below in part:
            yield from charts(below)


def plotted(part: Any) -> int:
    """Let plotly check the charts of an answer: it raises on a property that it does not know; how many there are."""
    number = 0
    for each in charts(part):
        content = msgspec.json.encode({key: each[key] for key in ("data", "layout")})
        go.Figure(msgspec.json.decode(re.sub(rb"var\(--[\w-]+\)", b"#123456", content)))
        number += 1
    return number


def test_plotly_accepts_every_chart(tmp_path: Path) -> None:
    run, other = made(tmp_path / "run"), made(tmp_path / "other", scale=2)
    assert plotted(run_views(run, read_traces(run))) >= 7
    assert plotted(compared_views(run, other)) == 3
    for name, times in (("one", 1.25), ("two", 50.0)):
        (tmp_path / "ab" / name).mkdir(parents=True)
        write_comparison(recorded(compared(name, times), arms=ARMS), tmp_path / "ab" / name)
    assert plotted(effects(read_ladder(tmp_path / "ab"))) == 3


def test_the_column_is_marked_by_which_the_operators_of_a_cpu_are_sorted(tmp_path: Path) -> None:
    write(tmp_path / "host.pt.trace.json", [event("aten::mm", 10, 20), event("aten::add", 40, 30)])
    shown = msgspec.json.encode(run_views(tmp_path, read_traces(tmp_path))["operators"]).decode()
    assert '"sort":"-self_us"' in shown


@pytest.mark.parametrize(("cores", "told"), [(None, False), (0.1, False), (0.66, True)])
def test_the_overview_says_how_busy_the_machine_was(cores: float | None, told: bool, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    run_record.write(msgspec.structs.replace(RECORD, others_before_cores=cores), run)
    shown = msgspec.json.encode(run_views(run, read_traces(run))["overview"]).decode()
    assert ("Other processes used 66 % of a core when this run began." in shown) == told


def test_a_table_has_the_values_of_the_analysis_and_the_texts_of_the_command_line(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    found = summarize(read_traces(run))
    (table,) = (part for part in run_views(run, read_traces(run))["kernels"][-1]["blocks"] if part["kind"] == "table")
    columns = {column["key"]: column for column in table["columns"]}
    assert columns["name"]["values"] == [kernel.name for kernel in found.kernels]
    assert columns["device_us"]["values"] == [kernel.device_us for kernel in found.kernels]
    assert columns["device_us"]["texts"] == [duration(kernel.device_us) for kernel in found.kernels]


def test_thousands_of_steps_cost_numbers_not_sentences() -> None:
    sample = StepSample(max_steps=4000)
    for _ in range(4000):
        sample.add(8, 0.0123456789, {"forward": 0.0051234567, "backward": 0.0061234567})
    train = msgspec.structs.replace(RECORD.stages["train"], timed=sample.timings())
    (panel,) = timed_steps(msgspec.structs.replace(RECORD, stages={"train": train}), None)
    assert len(msgspec.json.encode(panel)) < 4000 * 60


@pytest.mark.parametrize(
    ("files", "stages", "names"),
    [
        (["w.1.pt.trace.json"], {}, ["w.1"]),
        (["w.1.pt.trace.json"], {"w.1.pt.trace.json": "train"}, ["train"]),
        (["cuda_rank-0.json.gz", "cuda_rank-1.json.gz"], {}, ["rank-0", "rank-1"]),
        (["a.json", "b.json"], {"b.json": "infer"}, ["a", "infer"]),
        ([f"same.json{end}" for end in ("", ".gz")], {}, ["same", "same"]),
    ],
)
def test_windows_are_named_by_what_tells_them_apart(files: list[str], stages: dict[str, str], names: list[str]) -> None:
    assert window_names(files, stages) == names


def test_the_arms_of_a_comparison_have_their_names(tmp_path: Path) -> None:
    baseline, variant = made(tmp_path / "ab" / "baseline"), made(tmp_path / "ab" / "variant", scale=2)
    for has_record, titles in ((False, ["A", "B"]), (True, ["baseline", "variant"])):
        if has_record:
            (tmp_path / "ab" / "comparison.json").write_text("{}")
        legend, *blocks = compared_views(baseline, variant)["compare"]
        assert [title for title, _, _ in legend["sides"]] == titles
        assert any(block["kind"] == "measured" for block in blocks) == has_record


def test_a_peak_is_said_where_the_chart_is(tmp_path: Path) -> None:
    made(tmp_path / "run")
    allocation = {"Bytes": 4096, "Addr": 1, "Total Allocated": 4096, "Device Type": 0, "Device Id": -1}
    at = {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "s": "t", "pid": 1, "tid": 1, "ts": 12.0}
    write(tmp_path / "run" / "host_train.pt.trace.json", [event("aten::mm", 10, 20), {**at, "args": allocation}])
    (chart,) = charts(run_views(tmp_path / "run", read_traces(tmp_path / "run"))["memory"])
    assert f"peak {size(4096)}" in chart["label"]
