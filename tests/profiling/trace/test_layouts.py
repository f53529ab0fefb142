"""Old and foreign layouts: what can be analyzed is, and the rest is counted in one note."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from profiling.__main__ import main
from profiling.analysis.summary import Summary, summarize
from profiling.trace.trace import read_trace
from tests.profiling.cases import case
from tests.profiling.make_trace import Event, event, write

FORWARD = "## forward ##"


def summary(path: Path) -> Summary:
    return summarize([read_trace(path)])


def numbers(path: Path) -> dict[str, Any]:
    """The summary without the names of files and categories, and what is said about them."""
    found: dict[str, Any] = msgspec.to_builtins(summary(path))
    return found | {"events": None, "trace": found["trace"] | {"files": None, "notes": None}}


def old_trace(annotation: str = "Operator", *more: Event) -> list[Event]:
    """Two steps as PyTorch 1.8 wrote them: threads are text, `external id` is small, categories have other names."""
    events = []
    for step in range(2):
        at = 1_615_207_264_500_000 + 10_000 * step
        for name, start, dur in (
            (f"ProfilerStep#{step + 5}", 0, 10_000),
            ("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 10, 1_000),
            (FORWARD, 1_100, 3_000),
            ("DistributedDataParallel.forward", 1_200, 2_000),
            ("Optimizer.zero_grad#SGD.zero_grad", 4_200, 100),
            ("Optimizer.step#SGD.step", 8_000, 1_500),
        ):
            events.append(event(name, at + start, dur, annotation, "123", Input_Dims=[]))
        for name, start, dur in (
            ("aten::conv2d", 1_300, 500),
            ("mine::fused", 2_000, 100),
            ("detach", 2_200, 10),
            ("aten::add_", 8_100, 500),
        ):
            events.append(event(name, at + start, dur, "Operator", "123", Input_Dims=[[8, 3]]))
        for name, start in (
            ("CudnnConvolutionBackward", 5_000),
            ("torch::autograd::AccumulateGrad", 5_400),
            ("MulBackward0", 5_700),
        ):
            events.append(event(name, at + start, 200, "Operator", "456"))
        launch = {"correlation": step + 1, "external id": step + 1}
        events.append(event("cudaLaunchKernel", at + 1_400, 10, "Runtime", "123", **launch))
        events.append(event("volta_sgemm", at + 1_500, 300, "Kernel", "stream 7") | {"pid": 0, "args": launch})
        for ph, pid, tid, start in (("s", 1, "123", 1_400), ("f", 0, "stream 7", 1_500)):
            arrow = {
                "ph": ph,
                "id": step + 1,
                "pid": pid,
                "tid": tid,
                "ts": at + start,
                "cat": "async",
                "name": "launch",
            }
            events.append(arrow)
    return [*events, *more]


def test_annotations_that_old_releases_call_operators_count_as_annotations(tmp_path: Path) -> None:
    old = write(tmp_path / "old.json", old_trace())
    assert numbers(old) == numbers(write(tmp_path / "new.json", old_trace("user_annotation")))
    found = summary(old)
    assert [(step.number, step.total_us) for step in found.steps] == [(5, 10_000), (6, 10_000)]
    phases = {phase.name: (phase.calls, phase.total_us) for phase in found.phases}
    assert phases["load"] == (2, 2_000)
    assert phases["forward"] == (2, 6_000)
    assert phases["optimizer"] == (4, 3_200)
    assert {row.name for row in found.operators} == {
        "aten::conv2d",
        "mine::fused",
        "detach",
        "aten::add_",
        "CudnnConvolutionBackward",
        "torch::autograd::AccumulateGrad",
        "MulBackward0",
    }
    assert found.trace.notes[0] == "old.json: 12 operators are annotations by their names, as in old releases"


def test_the_old_releases_case_reads_as_its_translation_does() -> None:
    folder = case("49-annotations-are-operators")
    old = folder / "host_1.1615207264500.pt.trace.json"
    assert numbers(old) == numbers(folder / "as_user_annotation.json")
    found = summary(old)
    assert [step.total_us for step in found.steps] == [10_000] * 3
    times = {phase.name: phase.total_us for phase in found.phases}
    assert (times["load"], times["optimizer"]) == (3 * 4_000, 3 * 1_500)


def test_what_has_inputs_is_an_operator_whatever_its_name(tmp_path: Path) -> None:
    mine = event("MyFunction", 1_615_207_264_502_500, 100, "Operator", "123", Input_Dims=[[8, 3]])
    assert "MyFunction" in {
        row.name for row in summary(write(tmp_path / "a.json", old_trace("Operator", mine))).operators
    }


@pytest.mark.parametrize(
    "events",
    [
        [
            event("aten::mm", 0, 5, "Operator"),
            event("triton_kernel", 10, 5, "Operator"),
            event("step", 0, 50, "user_annotation"),
        ],
        [event("aten::mm", 0, 5), event("triton_kernel", 10, 5)],
        [event("conv2d", 0, 5, "Operator"), event("triton_kernel", 10, 5, "Operator")],
    ],
    ids=["annotations have a category", "no annotations", "before names had a namespace"],
)
def test_names_alone_make_no_annotation(events: list[Event], tmp_path: Path) -> None:
    found = summary(write(tmp_path / "a.json", events))
    assert "triton_kernel" in {row.name for row in found.operators}
    assert found.trace.notes == []


def test_annotations_of_old_releases_are_found_without_any_of_pytorch(tmp_path: Path) -> None:
    events = [event("my block", 0, 50, "Operator"), event("aten::mm", 2, 5, "Operator")]
    assert [row.name for row in summary(write(tmp_path / "a.json", events)).operators] == ["aten::mm"]


def test_steps_among_operators_are_steps_in_any_release(tmp_path: Path) -> None:
    events = [event("ProfilerStep#1", 0, 50), event("my block", 1, 40), event("aten::mm", 2, 5)]
    found = summary(write(tmp_path / "a.json", events))
    assert [step.number for step in found.steps] == [1]
    assert [row.name for row in found.operators] == ["aten::mm"]


@pytest.mark.parametrize("ph", ["i", "X"])
def test_memory_without_a_category_belongs_to_the_operator_around_it(ph: str, tmp_path: Path) -> None:
    """PyTorch 1.8 writes the thread as text in operators, as a number in memory events."""
    at = 1_615_207_264_501_400
    args = {"Device Type": 0, "Device Id": -1, "Bytes": 4096, "Addr": 77}
    allocation = {"ph": ph, "s": "t", "name": "[memory]", "pid": 1, "tid": 123, "ts": at, "args": args}
    found = summary(write(tmp_path / "a.json", old_trace("Operator", allocation)))
    assert [(device.device, device.allocated_bytes) for device in found.memory] == [("cpu", 4096)]
    assert {row.name: row.allocated_bytes for row in found.operators}["aten::conv2d"] == 4096
    assert found.trace.threads == summary(write(tmp_path / "b.json", old_trace())).trace.threads
    assert not any("not analyzed" in note for note in found.trace.notes)


def test_backward_functions_without_a_digit_are_the_backward_phase(tmp_path: Path) -> None:
    backward = next(
        phase for phase in summary(write(tmp_path / "a.json", old_trace())).phases if phase.name == "backward"
    )
    assert backward.operator_us == 2 * 3 * 200


def legacy(name: str, ts: float, dur: float, pid: int | str = "CPU functions", tid: int = 1) -> Event:
    return {"name": name, "ph": "X", "ts": ts, "dur": dur, "tid": tid, "pid": pid, "args": {}}


def test_operators_of_the_legacy_profiler_are_analyzed(tmp_path: Path) -> None:
    """Its `CUDA functions` span all that the device did during an operator, callers included: they are no kernels."""
    arrow = {
        "name": "aten::conv2d",
        "ph": "s",
        "ts": 100,
        "tid": 1,
        "pid": "CPU functions",
        "id": 0,
        "cat": "cpu_to_cuda",
    }
    events = [
        legacy("my block", 50, 400),
        legacy("aten::conv2d", 100, 300),
        legacy("aten::convolution", 110, 200),
        legacy("aten::conv2d", 500, 250, "CUDA functions", 0),
        arrow,
        arrow | {"ph": "f", "ts": 500, "tid": 0, "pid": "CUDA functions"},
    ]
    found = summary(write(tmp_path / "a.json", events))
    assert {row.name: (row.calls, row.self_us) for row in found.operators} == {
        "aten::conv2d": (1, 100),
        "aten::convolution": (1, 200),
    }
    assert not found.kernels
    assert found.trace.notes == [
        "a.json: 1 operators are annotations by their names, as in old releases",
        "a.json: 1 timed events without a category were not analyzed",
    ]


def test_the_legacy_case_has_its_operators() -> None:
    folder = case("08-legacy-no-cat")
    found = summary(folder / "host_1.1677241234.pt.trace.json")
    assert [(row.name, row.calls, row.self_us) for row in found.operators] == [("aten::mul", 50, 350)]
    assert (found.trace.whole, found.trace.notes) == (True, [])
    real = {row.name: row.calls for row in summary(folder / "real_legacy.json").operators}
    assert real == {"aten::ones": 1, "aten::empty": 1, "aten::fill_": 1, "aten::mul": 20}


def xla(count: int) -> list[Event]:
    named = {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "/device:TPU:0"}}
    return [
        named,
        *({"ph": "X", "pid": 1, "tid": 1, "ts": 10.0 * i, "dur": 8.0, "name": "fusion"} for i in range(count)),
    ]


def pairs(category: dict[str, str]) -> list[Event]:
    return [{"ph": ph, "pid": 1, "tid": 1, "ts": i, "name": "fusion", **category} for i, ph in enumerate("BE" * 7)]


FOREIGN: dict[str, tuple[list[Event], str]] = {
    "complete": (xla(7), "7 timed events without a category were not analyzed"),
    "pairs": (pairs({}), "7 timed events without a category were not analyzed"),
    "empty category": (pairs({"cat": ""}), "7 timed events without a category were not analyzed"),
    "unknown category": (pairs({"cat": "Eigen"}), "7 Eigen were not analyzed"),
    "both": ([*pairs({"cat": "Eigen"}), *xla(3)], "7 Eigen, 3 timed events without a category were not analyzed"),
    "operators in pairs": (pairs({"cat": "cpu_op"}), "7 cpu_op without a duration were not analyzed"),
    "no events": ([], "there is nothing to analyze"),
    "only names": (xla(0), "there is nothing to analyze"),
}
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "summary": lambda path: ["summary", path],
    "summary --json": lambda path: ["summary", path, "--json"],
    "memory": lambda path: ["memory", path],
    "diff": lambda path: ["diff", path, path],
    "check": lambda path: ["check", path],
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_foreign_trace_is_never_whole_and_zero_in_silence(
    kind: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, said = FOREIGN[kind]
    status = main(COMMANDS[command](str(write(tmp_path / "a.json", events))))
    shown = " ".join(capsys.readouterr().out.split())
    assert said in shown
    assert "no operators, annotations, Python functions, device work or memory events" in shown
    assert status == (command == "check")
    if command == "summary --json":
        assert not json.loads(shown)["trace"]["whole"]


def test_the_xla_case_says_that_its_events_are_not_analyzed() -> None:
    (path,) = case("18-xla-trace").rglob("*.json.gz")
    (note,) = summary(path).trace.notes
    assert "100 timed events without a category were not analyzed" in note


def test_foreign_events_beside_operators_are_counted_once(tmp_path: Path) -> None:
    counter = {"ph": "C", "name": "load", "ts": 1, "pid": 1, "args": {}}
    found = summary(write(tmp_path / "a.json", [event("aten::mm", 0, 5), *xla(3), *pairs({}), counter]))
    assert found.trace.notes == ["a.json: 10 timed events without a category were not analyzed"]
    assert found.trace.whole
    assert found.trace.extent_us == 5


def test_npu_rows_are_counted_in_one_note() -> None:
    found = summary(case("09-ascend") / "real_layout.json")
    assert found.trace.notes == ["real_layout.json: 100 timed events without a category were not analyzed"]
    assert [(row.name, row.calls, round(row.self_us)) for row in found.operators] == [("aten::mm", 100, 120)]
