"""What blocks the host, and what the device does meanwhile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from profiling.analysis.summary import Summary, summarize
from profiling.trace.trace import read_trace
from tests.profiling.cases import case
from tests.profiling.make_trace import Event, event, write

STEP = event("ProfilerStep#1", 0, 10_000, "user_annotation")
LAUNCH = [
    event("aten::mm", 10, 20),
    event("cudaLaunchKernel", 12, 5, "cuda_runtime", correlation=1),
    event("gemm", 100, 9000, "kernel", tid=7, correlation=1),
]


def summary(path: Path) -> Summary:
    return summarize([read_trace(path)])


def of(tmp_path: Path, events: Sequence[Event]) -> Summary:
    return summary(write(tmp_path / "a.json", events))


def copy(call: str, start: float, dur: float, kind: str, at: float, time: float, **args: Any) -> list[Event]:
    """A copying call of the host, and its copy on stream 7."""
    return [
        event(call, start, dur, "cuda_runtime", correlation=2),
        event(f"Memcpy {kind}", at, time, "gpu_memcpy", tid=7, correlation=2, **args),
    ]


def waiting(found: Summary) -> dict[str, float]:
    (step,) = found.steps
    assert sum(step.waiting_us.values()) == pytest.approx(step.device_wait_us, abs=1e-6)
    return {kind.value: time for kind, time in step.waiting_us.items()}


@pytest.mark.parametrize("name", ["01-hip-blocking-copy", "02-cuda-pageable-dtoh"])
def test_the_handed_blocking_copies_wait_for_the_kernel_before_them(name: str) -> None:
    found = summary(case(f"{name}/trace.json"))
    (step,) = found.steps
    assert step.device_wait_us == 8990
    kernel = found.waited_for[0]
    assert (kernel.kind, kernel.name, kernel.operator, kernel.wait_us) == ("kernel", "gemm", "aten::mm", 8897)
    assert waiting(found)["copy"] == 3
    assert waiting(found)["device idle"] == 90
    assert step.bound == "device"


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("cudaMemcpyAsync", "DtoH (Device -> Pageable)"),
        ("cudaMemcpy", "DtoH (Device -> Pinned)"),
        ("hipMemcpyWithStream", "DtoH (Device -> Host)"),
        ("hipMemcpy", "CopyDeviceToHost"),
        ("urEnqueueUSMMemcpy", "DtoH"),
        ("aclrtMemcpy", "copy"),
    ],
)
def test_a_copy_that_returns_after_its_work_is_a_wait(tmp_path: Path, call: str, kind: str) -> None:
    found = of(tmp_path, [STEP, *LAUNCH, *copy(call, 200, 8990, kind, 9180, 3)])
    assert waiting(found) == {"kernel": 8900, "copy": 3, "device idle": 87}
    assert [(row.kind, row.name, row.calls, row.wait_us) for row in found.blocked_by] == [
        ("blocking copy", call, 1, 8990)
    ]


@pytest.mark.parametrize("call", ["cudaMemcpyAsync", "hipMemcpyWithStream"])
def test_a_copy_that_returns_at_once_is_no_wait(tmp_path: Path, call: str) -> None:
    found = of(tmp_path, [STEP, *LAUNCH, *copy(call, 200, 8, "DtoH (Device -> Pinned)", 9180, 3)])
    assert waiting(found) == {}
    assert not found.blocked_by


def test_a_copy_from_pageable_memory_is_a_wait_while_it_is_staged(tmp_path: Path) -> None:
    found = of(tmp_path, [STEP, *copy("cudaMemcpyAsync", 200, 5000, "HtoD (Pageable -> Device)", 300, 4950)])
    assert waiting(found) == {"copy": 4900, "device idle": 100}
    part = of(tmp_path, [STEP, *copy("cudaMemcpyAsync", 200, 220, "HtoD (Pageable -> Device)", 380, 110)])
    assert waiting(part) == {"copy": 40, "device idle": 180}
    behind = of(tmp_path, [STEP, *copy("cudaMemcpyAsync", 200, 14, "HtoD (Pageable -> Device)", 218, 1)])
    assert waiting(behind) == {}


def test_a_copy_whose_work_was_not_recorded_is_told_by_its_name(tmp_path: Path) -> None:
    found = of(tmp_path, [STEP, *LAUNCH, event("cudaMemcpy", 200, 1000, "cuda_runtime", correlation=5)])
    assert waiting(found) == {"kernel": 1000}


def test_a_short_kernel_that_ends_within_its_launch_is_no_wait(tmp_path: Path) -> None:
    events = [event("cudaLaunchKernel", 20, 12, "cuda_runtime", correlation=1)]
    found = of(tmp_path, [STEP, *events, event("fill", 25, 3, "kernel", tid=7, correlation=1)])
    assert waiting(found) == {}


@pytest.mark.parametrize(
    ("launch", "kernels", "kind", "expected"),
    [
        # CUDA_LAUNCH_BLOCKING: the launch returns after its kernel
        ((100, 1000), [(120, 970, 9)], "blocked launch", {"kernel": 970, "device idle": 30}),
        # the queue is full of earlier work, and the kernel itself starts later
        ((100, 1000), [(50, 4000, 8), (4060, 10, 9)], "blocked launch", {"kernel": 1000}),
        # the first launch of this kernel, while the device idles: its code is loaded
        ((100, 1000), [(1105, 10, 9)], "module loading", {"module loading": 1000}),
    ],
)
def test_a_launch_that_blocks_says_why(
    tmp_path: Path,
    launch: tuple[float, float],
    kernels: Sequence[tuple[float, float, int]],
    kind: str,
    expected: dict[str, float],
) -> None:
    events = [
        event("cudaLaunchKernel", 2, 5, "cuda_runtime", correlation=8),
        event("cudaLaunchKernel", *launch, "cuda_runtime", correlation=9),
        *(event(f"k{key}", at, dur, "kernel", tid=7, correlation=key) for at, dur, key in kernels),
    ]
    found = of(tmp_path, [STEP, *events])
    assert [row.kind for row in found.blocked_by] == [kind]
    assert waiting(found) == expected


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("cudaMalloc", "device memory"),
        ("hipFree", "device memory"),
        ("cuMemCreate", "device memory"),
        ("cudaHostAlloc", "pinned memory"),
        ("hipHostMalloc", "pinned memory"),
        ("cudaFreeHost", "pinned memory"),
        ("cuModuleLoadData", "module loading"),
        ("cuLibraryLoadData", "module loading"),
        ("cudaStreamCreateWithFlags", "driver"),
    ],
)
def test_calls_without_work_of_their_own_have_kinds_of_their_own(tmp_path: Path, call: str, kind: str) -> None:
    found = of(tmp_path, [STEP, event(call, 500, 300, "cuda_runtime", correlation=4)])
    assert [(row.kind, row.name, row.wait_us) for row in found.blocked_by] == [(kind, call, 300)]
    assert waiting(found) == {kind: 300}


@pytest.mark.parametrize("call", ["cudaMallocAsync", "cudaStreamWaitEvent", "cudaEventQuery", "cudaEventRecord"])
def test_short_calls_that_only_enqueue_do_not_block(tmp_path: Path, call: str) -> None:
    assert not of(tmp_path, [STEP, event(call, 500, 30, "cuda_runtime", correlation=4)]).blocked_by


@pytest.mark.parametrize(
    "call",
    [
        "cudaDeviceSynchronize",
        "hipEventSynchronize",
        "zeEventHostSynchronize",
        "urQueueFinish",
        "aclrtSynchronizeStream",
    ],
)
def test_synchronizations_of_every_backend_are_waits(tmp_path: Path, call: str) -> None:
    category = "xpu_runtime" if call[0] in "zu" else "privateuse1_runtime" if call[0] == "a" else "cuda_runtime"
    found = of(tmp_path, [STEP, *LAUNCH, event(call, 200, 9000, category, correlation=4)])
    assert waiting(found) == {"kernel": 8900, "device idle": 100}


def test_a_stream_is_waited_for_with_what_it_waits_for(tmp_path: Path) -> None:
    """The compute stream 7 waits for stream 20; stream 30 has nothing to do with it."""
    kernels = [
        event("mm", 100, 100, "kernel", tid=7, correlation=1),
        event("ncclDevKernel_AllReduce_Sum(int)", 200, 300, "kernel", tid=20, correlation=2),
        event("unrelated", 500, 200, "kernel", tid=30, correlation=3),
    ]
    launches = [event("cudaLaunchKernel", 10 * i, 2, "cuda_runtime", correlation=i) for i in (1, 2, 3)]
    behind = event("Stream Wait Event", 60, 1, "cuda_sync", tid=7, correlation=40)
    behind["args"]["wait_on_stream"] = 20
    call = event("cudaStreamSynchronize", 100, 650, "cuda_runtime", correlation=41)
    mark = event("Stream Sync", 101, 648, "cuda_sync", tid=7, correlation=41)
    found = of(tmp_path, [STEP, *launches, *kernels, behind, call, mark])
    assert waiting(found) == {"kernel": 100, "collective": 300, "other streams": 200, "device idle": 50}
    alone = of(tmp_path, [STEP, *launches, *kernels, call, mark])
    assert waiting(alone) == {"kernel": 100, "other streams": 500, "device idle": 50}
    whole = of(tmp_path, [STEP, *launches, *kernels, call])
    assert waiting(whole) == {"kernel": 300, "collective": 300, "device idle": 50}


def test_waits_are_explained_by_the_operator_and_phase_that_launched_the_work(tmp_path: Path) -> None:
    events = [
        event("forward", 0, 100, "user_annotation"),
        event("metrics", 200, 9300, "user_annotation"),
        *LAUNCH,
        event("aten::item", 210, 9200),
        *copy("cudaMemcpyAsync", 220, 8970, "DtoH (Device -> Pageable)", 9180, 3),
    ]
    found = of(tmp_path, [STEP, *events])
    gemm = found.waited_for[0]
    assert (gemm.operator, gemm.launched_in, gemm.waited_in, gemm.waits) == ("aten::mm", "forward", "metrics", 1)
    assert sum(row.wait_us for row in found.waited_for) == sum(row.wait_us for row in found.phases) == 8970
    metrics = next(row for row in found.phases if row.name == "metrics")
    assert (metrics.operator_us, metrics.wait_us, metrics.python_us) == (230, 8970, 100)


def test_other_threads_and_the_closing_synchronization_belong_to_no_step() -> None:
    found = summary(case("03-wait-on-side-thread/trace.json"))
    (step,) = found.steps
    assert (step.device_wait_us, step.operator_us, step.python_us) == (0, 4000, 6000)
    for side in ("a", "b"):
        found = summary(case(f"40-trailing-sync/{side}.json"))
        assert [step.device_wait_us for step in found.steps] == [0, 0, 0]
        assert not found.blocked_by


@pytest.mark.parametrize(
    ("name", "parts"),
    [("load", (80, 0, 0, 20)), ("two", (80, 0, 0, 20)), ("leaving_its_operator", (60, 0, 2, 38))],
)
def test_each_microsecond_of_the_overlapping_waits_counts_once(name: str, parts: tuple[float, ...]) -> None:
    (step,) = summary(case(f"62-overlapping-waits/{name}.json")).steps
    assert (step.device_wait_us, step.load_us, step.operator_us, step.python_us) == parts


def test_work_that_was_launched_before_the_window_is_said_and_belongs_to_no_step() -> None:
    found = summary(case("45-earlier-steps-kernels/trace.json"))
    assert (found.launched_outside.events, found.launched_outside.device_us) == (10, 3900)
    assert sum(row.device_us for row in found.phases) == sum(row.device_us for row in found.operators) == 1950
    (device,) = found.devices
    assert (device.busy_us, device.span_us) == (5850, 10_000)
    assert any("10 kernels and copies (3.9 ms) were launched outside the window" in note for note in found.trace.notes)
    assert {row.operator for row in found.kernels if row.name == "gemm_prev"} == {"(launched outside the window)"}


def test_utilization_is_that_of_the_steps(tmp_path: Path) -> None:
    found = of(tmp_path, [event("ProfilerStep#1", 1000, 1000, "user_annotation"), *LAUNCH])
    (device,) = found.devices
    assert (device.busy_us, device.span_us, device.idle_us, device.work_us) == (1000, 1000, 0, 9000)
    assert found.steps[0].bound == "device"
