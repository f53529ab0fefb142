"""Which calls block the host, on less usual traces than those of `test_waits`."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from profiling.analysis.summary import Summary, summarize
from profiling.trace.trace import read_trace
from tests.profiling.make_trace import Event, event, write

STEP = event("ProfilerStep#1", 0, 10_000, "user_annotation")
GEMM = event("gemm", 100, 9000, "kernel", tid=7, correlation=1)
LAUNCH = [event("aten::mm", 10, 20), event("cudaLaunchKernel", 12, 5, "cuda_runtime", correlation=1), GEMM]


def of(tmp_path: Path, events: Sequence[Event]) -> Summary:
    return summarize([read_trace(write(tmp_path / "a.json", events))])


def call(name: str, start: float, dur: float, correlation: int = 2) -> Event:
    return event(name, start, dur, "cuda_runtime", correlation=correlation)


def waiting(found: Summary) -> dict[str, float]:
    (step,) = found.steps
    return {kind.value: time for kind, time in step.waiting_us.items()}


@pytest.mark.parametrize(
    ("name", "work", "category"),
    [
        ("cudaMemcpyAsync", "Memcpy DtoD (Device -> Device)", "gpu_memcpy"),
        ("cudaMemcpyPeerAsync", "Memcpy PtoP (Device -> Device)", "gpu_memcpy"),
        ("cudaMemcpyAsync", "Memcpy HtoD (Pinned -> Device)", "gpu_memcpy"),
        ("hipMemcpyAsync", "Memcpy HtoD (Host -> Device)", "gpu_memcpy"),
        ("cudaMemsetAsync", "Memset (Device)", "gpu_memset"),
        ("hipMemcpyAsync", "__amd_rocclr_copyBuffer", "kernel"),
    ],
)
def test_a_call_whose_work_begins_before_it_returns_but_ends_later_is_no_wait(
    tmp_path: Path, name: str, work: str, category: str
) -> None:
    events = [STEP, *LAUNCH, call(name, 9200, 10), event(work, 9202, 500, category, tid=7, correlation=2)]
    assert waiting(of(tmp_path, events)) == {}


@pytest.mark.parametrize(
    ("name", "work", "category"),
    [
        ("hipMemcpyWithStream", "CopyDeviceToDevice", "gpu_memcpy"),
        ("cudaMemcpyPeer", "Memcpy PtoP (Device -> Device)", "gpu_memcpy"),
        ("hipMemcpyWithStream", "__amd_rocclr_copyBuffer", "kernel"),
    ],
)
def test_short_copies_that_block_by_name_and_span_their_work_are_waits(
    tmp_path: Path, name: str, work: str, category: str
) -> None:
    events = [STEP, call(name, 200, 20), event(work, 212, 3, category, tid=7, correlation=2)]
    found = of(tmp_path, events)
    assert [(row.kind, row.wait_us) for row in found.blocked_by] == [("blocking copy", 20)]
    assert waiting(found) == {"kernel" if category == "kernel" else "copy": 3, "device idle": 17}


def test_a_long_copy_that_the_trace_did_not_record_is_a_blocking_copy(tmp_path: Path) -> None:
    found = of(tmp_path, [STEP, *LAUNCH, call("cudaMemcpyAsync", 200, 8990)])
    assert [(row.kind, row.wait_us) for row in found.blocked_by] == [("blocking copy", 8990)]


def test_a_graph_that_begins_with_a_copy_is_a_launch(tmp_path: Path) -> None:
    nodes = [
        event("Memcpy HtoD (Pageable -> Device)", 9155, 3, "gpu_memcpy", tid=7, correlation=2),
        event("node", 9170, 300, "kernel", tid=7, correlation=2),
    ]
    assert waiting(of(tmp_path, [STEP, *LAUNCH, call("cudaGraphLaunch", 9120, 40), *nodes])) == {}


def test_launches_of_some_microseconds_do_not_block(tmp_path: Path) -> None:
    """Rounded to microseconds, a kernel may seem to end within the launch that follows an earlier kernel's end."""
    events = [STEP]
    for i in range(1, 6):
        at = 100 * i
        events += [call("cudaLaunchKernel", at, 5, i), event("add", at + 2, 5, "kernel", tid=7, correlation=i)]
    assert not of(tmp_path, events).blocked_by


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cudaGraphInstantiate", "driver"),
        ("cudaStreamCreateWithPriority", "driver"),
        ("cudaMemGetInfo", "driver"),
        ("cudaFuncGetAttributes", "module loading"),
        ("cudaGetSymbolAddress", "module loading"),
        ("cuKernelGetFunction", "module loading"),
        ("cudaMemsetAsync", "blocked launch"),
        ("cudaEventRecord", "blocked launch"),
    ],
)
def test_only_calls_that_enqueue_something_wait_for_a_place_in_the_queue(tmp_path: Path, name: str, kind: str) -> None:
    """While the device is busy with earlier work, all the others do work of their own."""
    found = of(tmp_path, [STEP, *LAUNCH, call(name, 200, 5000)])
    assert [(row.kind, row.name, row.wait_us) for row in found.blocked_by] == [(kind, name, 5000)]


@pytest.mark.parametrize(
    ("copy", "expected"),
    [
        ("Memcpy M2D (Memory -> Device)", {"copy": 3, "device idle": 17}),
        ("Memcpy D2M (Device -> Memory)", {"copy": 3, "device idle": 17}),
        ("Memcpy H2D (Host -> Device)", {}),  # pinned: the host only enqueues
    ],
)
def test_on_xpu_the_kind_of_memory_tells_whether_a_copy_blocks(
    tmp_path: Path, copy: str, expected: dict[str, float]
) -> None:
    """The same call enqueues copies that block and others, so that its name tells nothing."""
    events = [event("urEnqueueUSMMemcpy", 200, 20, "xpu_runtime", correlation=2)]
    found = of(tmp_path, [STEP, *events, event(copy, 212, 3, "gpu_memcpy", tid=7, correlation=2)])
    assert waiting(found) == expected
    assert [row.direction for row in found.copies] == ["DtoH" if copy.startswith("Memcpy D") else "HtoD"]
    assert waiting(of(tmp_path, [STEP, *events])) == {}


def test_what_a_step_waits_for_most_is_the_device_only_if_it_works(tmp_path: Path) -> None:
    synchronized = of(tmp_path, [STEP, *LAUNCH, call("cudaDeviceSynchronize", 200, 8990)])
    allocated = of(tmp_path, [STEP, call("cudaMalloc", 200, 3000), call("cudaHostAlloc", 4000, 5000)])
    assert [found.step_time.waits_for for found in (synchronized, allocated)] == ["device", "driver"]
    assert [found.steps[0].bound for found in (synchronized, allocated)] == ["device", "host"]


def test_launches_into_a_full_queue_wait_for_the_kernels_that_run(tmp_path: Path) -> None:
    """Kernels of 30 us; a launch takes 4 us until 1,022 are queued, then until one of them has ended."""
    events, ends, host, device, blocked = [], [], 10.0, 20.0, 0.0
    for i in range(1500):
        start, end = host, host + 4
        if i >= 1022 and ends[i - 1022] > end:
            end = ends[i - 1022]
            blocked += end - start
        device = max(device, end + 2) + 30
        ends.append(device)
        events += [call("cudaLaunchKernel", start, end - start, i + 1)]
        events += [event("add", device - 30, 30, "kernel", tid=7, correlation=i + 1)]
        host = end + 2
    found = of(tmp_path, [event("ProfilerStep#1", 0, device, "user_annotation"), *events])
    assert blocked > 5000
    assert [(row.kind, row.wait_us) for row in found.blocked_by] == [("blocked launch", pytest.approx(blocked))]
    assert waiting(found)["kernel"] == pytest.approx(blocked)
    (step,) = found.steps
    assert step.bound == "device"


def test_a_copy_waits_for_the_stream_that_its_own_stream_waits_for(tmp_path: Path) -> None:
    """Without records of such waits: the optimizer's kernel starts when the collectives on stream 20 have ended."""
    events = [
        *LAUNCH[:2],
        event("gemm", 100, 3000, "kernel", tid=7, correlation=1),
        call("cudaLaunchKernelExC", 42, 5, 2),
        event("ncclDevKernel_AllReduce", 1000, 3000, "kernel", tid=20, correlation=2),
        call("cudaLaunchKernelExC", 72, 5, 3),
        event("ncclDevKernel_AllReduce", 4100, 3000, "kernel", tid=20, correlation=3),
        call("cudaLaunchKernel", 102, 5, 4),
        event("adam", 7180, 2000, "kernel", tid=7, correlation=4),
        call("cudaMemcpyAsync", 200, 9000, 5),
        event("Memcpy DtoH (Device -> Pageable)", 9190, 3, "gpu_memcpy", tid=7, correlation=5),
        event("Memcpy HtoD (Pinned -> Device)", 7100, 2890, "gpu_memcpy", tid=24, correlation=6),
    ]
    found = of(tmp_path, [STEP, *events])
    # 3100-4000 and 4100-7100 are collectives; 7100-7180, 9180-9190 and 9193-9200 only stream 24 works
    expected = {"kernel": 4900, "collective": 3900, "copy": 3, "other streams": 97, "device idle": 100}
    assert waiting(found) == expected
    assert found.steps[0].bound == "device"


def test_a_trace_of_the_device_alone_waits_on_the_thread_that_launches(tmp_path: Path) -> None:
    """As with `activities=[CUDA]`: the file begins with kernels, and there are no operators and no steps."""
    events = [
        GEMM,
        event("last", 9210, 90, "kernel", tid=7, correlation=3),
        event("cudaEventQuery", 50, 1, "cuda_runtime", tid=9),
        call("cudaLaunchKernel", 0, 5, 1),
        call("cudaDeviceSynchronize", 200, 8910),
        call("cudaLaunchKernel", 9150, 5, 3),
    ]
    found = of(tmp_path, events)
    assert waiting(found) == {"kernel": 8900, "device idle": 10}
    assert any("no operators are in the trace" in note for note in found.trace.notes)


def test_a_call_that_is_cut_by_another_is_one_wait(tmp_path: Path) -> None:
    """A call of the runtime contains one of the driver."""
    events = [call("cudaStreamSynchronize", 200, 8990), event("cuStreamSynchronize", 205, 8980, "cuda_driver")]
    found = of(tmp_path, [STEP, *LAUNCH, *events])
    assert (found.waited_for[0].name, found.waited_for[0].wait_us, found.waited_for[0].waits) == ("gemm", 8900, 1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cnrtSyncDevice", "synchronization"),
        ("cnrtMalloc", "device memory"),
        ("synDeviceFree", "device memory"),
        ("cnrtHostMalloc", "pinned memory"),
    ],
)
def test_private_backends_have_the_same_kinds_of_calls(tmp_path: Path, name: str, kind: str) -> None:
    found = of(tmp_path, [STEP, *LAUNCH, event(name, 200, 8990, "privateuse1_runtime")])
    assert [row.kind for row in found.blocked_by] == [kind]
    assert waiting(found)["kernel"] == 8900


def test_steps_that_overlap_count_no_time_twice(tmp_path: Path) -> None:
    """By rounding, or where the same step is recorded twice."""
    marks = [(1, 0, 1001), (2, 1000, 1000), (2, 1001, 900)]
    events = [event(f"ProfilerStep#{i}", at, dur, "user_annotation") for i, at, dur in marks]
    found = of(tmp_path, [*events, call("cudaDeviceSynchronize", 900, 300)])
    assert [(step.number, step.total_us, step.device_wait_us) for step in found.steps] == [
        (1, 1000, 100),
        (2, 1000, 200),
    ]
    assert [sum(step.waiting_us.values()) for step in found.steps] == [100, 200]
