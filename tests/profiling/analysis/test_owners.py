"""Device work that no operator launched has named rows, so that the rows add up to all device time."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.analysis.operators import Operator
from profiling.analysis.summary import Summary, summarize
from profiling.trace.columns import Kind
from profiling.trace.trace import read_trace
from tests.profiling.cases import case
from tests.profiling.conftest import SHARED
from tests.profiling.make_trace import Event, event, write

TABLES = ("operator", "shape", "stack")
GPU_TRACES = [
    "cuda_a100_simple_add",
    "cuda_ddp_rank-0",
    "cuda_ddp_rank-1",
    "cuda_event_sync",
    "cuda_triton_kernel",
    "diff_base",
    "diff_test",
    "rocm_mi250_toy_train",
]


def launch(name: str, ts: float, correlation: int, cat: str = "cuda_runtime", **args: Any) -> Event:
    return event(name, ts, 2, cat, correlation=correlation, **args)


def kernel(ts: float, dur: float, correlation: int, name: str = "gemm") -> Event:
    return event(name, ts, dur, "kernel", tid=7, correlation=correlation)


def summary_of(path: Path, events: list[Event], by: str = "operator") -> Summary:
    return summarize([read_trace(write(path, events))], by=by)


def owners_of(summary: Summary) -> dict[str, tuple[int, float]]:
    return {row.name: (row.calls, row.device_us) for row in summary.operators}


def device_us(path: Path) -> float:
    trace = read_trace(path)
    return float(trace.spans.dur_ns[trace.rows(Kind.KERNEL, Kind.COPY, Kind.SET)].sum()) / 1e3


def total(rows: list[Operator]) -> float:
    return sum(row.device_us for row in rows)


def test_a_graph_launch_owns_the_kernels_of_the_graph() -> None:
    summary = summarize([read_trace(case("11-graph-launch/trace.json"))])
    assert owners_of(summary) == {"graph launch": (1, 9500), "aten::copy_": (1, 5)}
    assert summary.operators[0].name == "graph launch"  # the most time first, also on the device
    assert {row.operator for row in summary.kernels if row.name.startswith("decode")} == {"graph launch"}
    assert any(
        "9.5 ms of 9.51 ms of device time launched here" in note and "graph launch" in note
        for note in summary.trace.notes
    )


@pytest.mark.parametrize(
    "call",
    [
        "cudaGraphLaunch",
        "hipGraphLaunch",
        "cuGraphLaunch",
        "cudaGraphLaunch_v10000",
        "urEnqueueCommandBufferExp",
        "aclmdlRIExecuteAsync",
    ],
)
def test_every_launch_of_a_graph_counts(call: str, tmp_path: Path) -> None:
    events = [event("ProfilerStep#3", 0, 1000, "user_annotation"), event("forward", 0, 400, "user_annotation")]
    for number in range(1, 4):
        events += [launch(call, 100 * number, number), kernel(100 * number, 30, number), kernel(500, 10, number)]
    events += [event("aten::add", 600, 10), launch("cudaLaunchKernel", 602, 9), kernel(700, 200, 9)]
    summary = summary_of(tmp_path / "a.json", events)
    assert owners_of(summary) == {"aten::add": (1, 200), "graph launch": (3, 120)}
    assert [row.self_us for row in summary.operators] == [0, 10]
    assert not summary.trace.notes  # the graph has not most of the time


@pytest.mark.parametrize(
    ("category", "region"),
    [
        ("cpu_op", "Torch-Compiled Region: 0/0"),
        ("user_annotation", "Torch-Compiled Region: 0/0"),
        ("cpu_op", "CompiledFunction"),
        ("cpu_op", "CompiledFunctionBackward"),
    ],
)
@pytest.mark.parametrize("call", ["cuLaunchKernelEx", "cudaGraphLaunch"])
def test_a_compiled_region_owns_what_it_launches(category: str, region: str, call: str, tmp_path: Path) -> None:
    events = [
        event("ProfilerStep#3", 0, 1000, "user_annotation"),
        event(region, 10, 500, category),
        event("## Call CompiledFxGraph fabc ##", 20, 400, "user_annotation"),
        launch(call, 30, 1, "cuda_driver"),
        kernel(40, 300, 1, "triton_poi_fused_add_0"),
        event("aten::mm", 600, 20),
        launch("cudaLaunchKernel", 605, 2),
        kernel(640, 7, 2),
    ]
    summary = summary_of(tmp_path / "a.json", events)
    assert owners_of(summary) == {region: (1, 300), "aten::mm": (1, 7)}
    assert [row.operator for row in summary.kernels] == [region, "aten::mm"]
    assert any("300 µs of 307 µs" in note and region in note for note in summary.trace.notes)


def test_other_launches_are_named_by_what_is_around_them(tmp_path: Path) -> None:
    events = [
        event("ProfilerStep#3", 0, 1000, "user_annotation"),
        event("Optimizer.step#SGD.step", 0, 100, "user_annotation"),
        launch("cudaMemsetAsync", 10, 1),
        event("Memset (Device)", 15, 4, "gpu_memset", tid=7, correlation=1),
        event("my block", 200, 100, "user_annotation"),
        launch("cudaLaunchKernel", 210, 2),
        kernel(220, 5, 2),
        launch("cudaLaunchKernel", 220, 3),
        kernel(230, 5, 3),
        event("elsewhere", 400, 100, "user_annotation", tid=2),
        launch("cudaGraphLaunch", 410, 4),
        kernel(420, 6, 4),
        kernel(500, 7, 88, "without a call"),
    ]
    summary = summary_of(tmp_path / "a.json", events)
    named = {name: row for name, row in owners_of(summary).items() if name != "(no operator)"}
    assert named == {"my block": (2, 10), "cudaMemsetAsync": (1, 4), "graph launch": (1, 6)}
    assert total(summary.operators) == 4 + 10 + 6
    assert (summary.launched_outside.events, summary.launched_outside.device_us) == (1, 7)


def test_work_launched_in_an_annotation_named_like_an_operator_is_in_its_row(tmp_path: Path) -> None:
    events = [
        event("block", 0, 10),
        event("block", 20, 10, "user_annotation"),
        launch("cudaLaunchKernel", 22, 1),
        kernel(30, 5, 1),
    ]
    assert owners_of(summary_of(tmp_path / "a.json", events)) == {"block": (1, 5)}


def test_modules_have_the_device_time_of_the_graphs_that_they_launch(tmp_path: Path) -> None:
    events = [
        event("nn.Module: Net_0", 0, 100, "python_function"),
        event("nn.Module: Decoder_0", 10, 50, "python_function"),
        launch("cudaGraphLaunch", 20, 1),
        kernel(40, 300, 1),
    ]
    modules = {row.path: row.device_us for row in summary_of(tmp_path / "a.json", events).modules}
    assert modules == {"Net_0": 0, "Net_0/Decoder_0": 300}


@pytest.mark.parametrize("name", GPU_TRACES)
@pytest.mark.parametrize("by", TABLES)
def test_the_rows_of_a_real_trace_add_up_to_all_device_time(name: str, by: str) -> None:
    path = SHARED / f"{name}.json.gz"
    if not path.exists():
        pytest.skip(f"{SHARED} is not here")
    summary = summarize([read_trace(path)], by=by)
    inside = device_us(path) - summary.launched_outside.device_us
    assert total(summary.operators) == pytest.approx(inside, rel=1e-9)


@st.composite
def launches(draw: st.DrawFn) -> list[Event]:
    """Operators, annotations, launches in and beside them, and device work, some of it without a launch."""
    events: list[Event] = []
    for number in range(draw(st.integers(1, 25))):
        start, tid = draw(st.integers(0, 300)), draw(st.integers(1, 2))
        kind = draw(st.sampled_from(["operator", "annotation", "launch", "kernel"]))
        correlation = draw(st.integers(1, 6))
        if kind == "operator":
            events.append(event(draw(st.sampled_from(["a", "b"])), start, draw(st.integers(1, 99)), tid=tid))
        elif kind == "annotation":
            names = ["forward", "a", "ProfilerStep#1", "Torch-Compiled Region: 1/0"]
            events.append(event(draw(st.sampled_from(names)), start, draw(st.integers(1, 99)), "user_annotation", tid))
        elif kind == "launch":
            name = draw(st.sampled_from(["cudaLaunchKernel", "hipGraphLaunch"]))
            events.append(event(name, start, 1, "cuda_runtime", tid, correlation=number + 1))
        else:
            cat = draw(st.sampled_from(["kernel", "gpu_memcpy", "gpu_memset"]))
            events.append(event("work", start, draw(st.integers(0, 50)), cat, 7, correlation=correlation))
    return events


@given(events=launches(), by=st.sampled_from(TABLES))
def test_the_rows_add_up_to_all_device_time(
    events: list[Event], by: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("launches") / "a.json"
    summary = summary_of(path, events, by)
    inside = device_us(path) - summary.launched_outside.device_us
    assert total(summary.operators) == pytest.approx(inside)
    kernels = sum(row.device_us for row in summary.kernels)
    assert kernels + sum(row.device_us for row in summary.copies) == pytest.approx(device_us(path))
