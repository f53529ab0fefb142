"""Collectives: which kernels and annotations they are, their names, groups and bytes."""

from pathlib import Path

import pytest

from profiling.__main__ import main
from profiling.analysis.collectives import element_bytes
from profiling.analysis.communication import Collective
from profiling.analysis.summary import summarize
from profiling.trace.trace import read_traces
from tests.profiling.cases import case
from tests.profiling.make_trace import Event, event, write

COLLECTIVES = [
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
    "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*, unsigned long, ncclWork*)",
    "nccldevkernel_allreduce_sum_bf16_ring_ll(nccldevkernelargsstorage<4096ul>)",
    "ncclSymkDevKernel_AllReduce_AGxLLMC_R_sum_bf16(ncclSymkDevWorkArgs4K)",
    "ncclSymDevKernel_AllGather_LLMC(ncclSymDevArgs)",
    "ncclAllReduceRingLLKernel_sum_f32(ncclColl)",
    "_Z23ncclDevKernel_Generic24ncclDevKernelArgsStorage",
    "ncclDevKernel_Generic_4(ncclDevKernelArgsStorage<4096ul>) [clone .kd]",
    "void nccl::kernel()",
    "rcclGenericKernel<1, true>(ncclDevKernelArgsStorage)",
    "void mscclKernel_Sum_float_LL(x)",
    "mscclpp::allreduce_kernel(int)",
    "nvshmemi_transfer_kernel",
    "rocshmem_put_kernel(int*)",
    "hcom_allReduce__567_1_1",
    "oneccl_allreduce_ring",
    "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>(vllm::RankData*, vllm::RankSignals, int)",
    "void sglang::cross_device_reduce_2stage<__nv_bfloat16, 8>(sglang::RankData*)",
    "void aiter::cross_device_reduce_2stage_naive<float, 4>(aiter::RankData*)",
    "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<2>(x)",
    "void tensorrt_llm::kernels::oneShotAllReduceKernel<__half, 2>(x)",
    "void c10d::symmetric_memory::(anonymous namespace)::multimem_all_reduce_kernel<c10::BFloat16, 16>(x)",
    "void c10d::symmetric_memory::(anonymous namespace)::barrier_kernel(unsigned int**, int)",
    "void (anonymous namespace)::one_shot_all_reduce_kernel<float, 8>(float*)",
    "two_shot_all_reduce_kernel",
    "multimem_all_gather_kernel",
    "void deep_ep::intranode::dispatch<8, 768, 8192>(int4*)",
    "void deep_ep::internode_ll::combine<true>(void*)",
    "void quickreduce::allreduce_prototype_twoshot<x>(y)",
    "kuserbuffers_pushrecv(int, int)",
    "void tensorrt_llm::kernels::moe_comm::moeA2ADispatchKernel<BlockPolicy, 8>(x)",
]
COMPUTING = [
    "gemm",
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, AllReduce, unsigned int, float, 4>>(x)",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>(int, all_reduce)",
    "void at::native::(anonymous namespace)::indexSelectLargeIndex<float>(x)",
    "void at::native::_scatter_gather_elementwise_kernel<128, 8>(int)",
    "small_reduce_kernel",
    "overall_gather",
    "triton_poi_fused_all_gather_into_tensor_wait_tensor_0",
    "triton_red_fused__to_copy_all_reduce_mean_1",
    "block_all_reduce_sum_f32_f32_kernel(float*)",
    "void deep_ep::layout::get_dispatch_layout<256, 32, 8>(long const*)",
    "void cutlass::device_kernel<AllGatherGemm<nccl>>(x)",
    "Memcpy PtoP (Device -> Device)",
    "void tensorrt_llm::kernels::moe_comm::moeA2APrepareDispatchKernel(int*)",
    "dispatch_kernel",
    "broadcast_tensors",
]


def collectives(tmp_path: Path, *events: Event, **header: object) -> list[Collective]:
    ranks = summarize(read_traces(write(tmp_path / "a.json", events, **header))).communication.ranks
    return [row for rank in ranks for row in rank.collectives]


def kernel(name: str = "ncclDevKernel_AllReduce(int)", ts: float = 0, dur: float = 10, **args: object) -> Event:
    return event(name, ts, dur, "kernel", tid=7, **args)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_a_kernel_that_communicates_is_known_by_its_name(name: str, tmp_path: Path) -> None:
    assert [row.calls for row in collectives(tmp_path, kernel(name), kernel("gemm"))] == [1]


@pytest.mark.parametrize("name", COMPUTING)
def test_a_kernel_that_only_sounds_like_one_is_none(name: str, tmp_path: Path) -> None:
    assert collectives(tmp_path, kernel(name)) == []


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("all_reduce_hook", "user_annotation"),
        ("nccl_setup", "user_annotation"),
        ("aten::all_reduce", "cpu_op"),
        ("ncclAllReduce", "cuda_runtime"),
        ("Memcpy nccl", "gpu_memcpy"),
        ("nccl:all_reduce", "gpu_user_annotation"),
    ],
)
def test_other_events_are_no_collectives_whatever_their_name(name: str, category: str, tmp_path: Path) -> None:
    assert collectives(tmp_path, event(name, 0, 5, category), event("aten::mm", 0, 5)) == []


@pytest.mark.parametrize(("name", "count"), [("42-custom-collectives", 7), ("50-nccl-lowercase", 6)])
def test_the_cases_of_other_libraries(name: str, count: int) -> None:
    (rank,) = summarize(read_traces(case(f"{name}/trace.json"))).communication.ranks
    assert [row.total_us for row in rank.collectives] == [500] * count


def test_a_kernel_without_a_recorded_name_is_named_by_its_function(tmp_path: Path) -> None:
    name = "void c10d::symmetric_memory::(anonymous namespace)::multimem_all_reduce_kernel<c10::BFloat16, 16>(x)"
    calls = [kernel(name), kernel("hcom_allReduce__567_1_1"), kernel("hcom_allReduce__567_2_1")]
    found = {row.name: row.calls for row in collectives(tmp_path, *calls)}
    assert found == {"c10d::symmetric_memory::multimem_all_reduce_kernel<c10::BFloat16, 16>": 1, "hcom_allReduce": 2}


def test_in_old_traces_the_annotation_around_the_launch_names_the_collective(tmp_path: Path) -> None:
    events = []
    for i, name in enumerate(("nccl:all_to_all", "nccl:send 0->1")):
        events.append(event(name, 100 * i, 20, "user_annotation"))
        events.append(event("cudaLaunchKernel", 100 * i + 5, 5, "cuda_runtime", correlation=i + 1))
        events.append(kernel("ncclKernel_SendRecv(int)", 100 * i + 30, correlation=i + 1))
    events.append(kernel("ncclKernel_SendRecv(int)", 300, correlation=77))
    names = [row.name for row in collectives(tmp_path, *events)]
    assert sorted(names) == ["nccl:all_to_all", "nccl:send 0->1", "ncclKernel_SendRecv"]


BYTES = {
    1: "Float8_e4m3fn, Float8_e5m2, Float8_e4m3fnuz, Float8_e5m2fnuz, Float8_e8m0fnu, Float4_e2m1fn_x2, Byte, Char, "
    "Bool, QInt8, QUInt8, QUInt4x2, QUInt2x4, Bits8, Bits1x8, Bits2x4, Bits4x2, UInt1, UInt7, Int4, uint8, int8_t, "
    "signed char, unsigned char, c10::Float8_e4m3fn, torch.float8_e5m2, bool",
    2: "Half, BFloat16, Short, UInt16, Bits16, c10::Half, c10::BFloat16, bfloat16, float16, torch.bfloat16, short int, "
    "int16_t",
    4: "Float, Int, UInt32, QInt32, ComplexHalf, float, float32, int, unsigned int, uint32_t, complex32, "
    "c10::complex<c10::Half>",
    8: "Double, Long, UInt64, ComplexFloat, double, long, long int, long long, int64_t, complex64, c10::complex<float>",
    16: "ComplexDouble, complex128, c10::complex<double>",
}


@pytest.mark.parametrize(
    ("size", "name"), [(size, name) for size, names in BYTES.items() for name in names.split(", ")]
)
def test_every_type_of_element_has_its_size(size: int, name: str, tmp_path: Path) -> None:
    (row,) = collectives(tmp_path, kernel(Collective_name="allreduce", In_msg_nelems=1000, dtype=name))
    assert row.bytes == 1000 * size


def test_every_type_that_torch_has_is_known() -> None:
    torch = pytest.importorskip("torch")
    types = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    assert len(types) > 20
    for dtype in types:
        assert element_bytes(str(dtype)) == dtype.itemsize, dtype


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, None),
        ({"dtype": "Float"}, None),
        ({"In_msg_nelems": 10}, None),
        ({"In_msg_nelems": 10, "dtype": "Undefined"}, None),
        ({"In_msg_nelems": 0}, 0),
        ({"In_msg_nelems": 1000, "Out_msg_nelems": 8000, "dtype": "Float"}, 4000),
    ],
)
def test_bytes_that_the_trace_does_not_tell_are_unknown(
    message: dict[str, object], expected: int | None, tmp_path: Path
) -> None:
    (row,) = collectives(tmp_path, kernel(Collective_name="allgather", **message))
    assert row.bytes == expected


def test_one_call_without_a_size_makes_the_sum_unknown(tmp_path: Path) -> None:
    known = {"Collective_name": "allreduce", "In_msg_nelems": 5, "dtype": "Half"}
    assert [row.bytes for row in collectives(tmp_path, kernel(**known), kernel(**known))] == [20]
    assert [row.bytes for row in collectives(tmp_path, kernel(**known), kernel(Collective_name="allreduce"))] == [None]


def test_the_case_of_small_and_large_elements() -> None:
    (rank,) = summarize(read_traces(case("26-fp8-collective/trace.json"))).communication.ranks
    assert [row.bytes for row in rank.collectives] == [1000, 2000, 8000, 2000, 4000]


def test_collectives_are_listed_by_group(tmp_path: Path) -> None:
    groups = [("tp", "[0, 1]"), ("dp", "[0,2]"), ("dp", [0, 2])]
    calls = [
        kernel(dur=10 - i, Collective_name="allreduce", Process_Group_Name=name, Process_Group_Ranks=ranks)
        for i, (name, ranks) in enumerate(groups)
    ]
    rows = collectives(tmp_path, *calls)
    assert [(row.group, row.group_ranks, row.calls) for row in rows] == [("dp", "[0, 2]", 2), ("tp", "[0, 1]", 1)]


def test_the_header_tells_the_ranks_of_a_group_and_the_only_group_there_is(tmp_path: Path) -> None:
    config = {"pg_name": "0", "pg_desc": "default_pg", "pg_size": 2, "ranks": [0, 1]}
    for call in (kernel(), kernel(Collective_name="allreduce", Process_Group_Name="0")):
        (row,) = collectives(tmp_path, call, distributedInfo={"rank": 0, "pg_config": [config]})
        assert (row.group, row.group_ranks) == ("0", "[0, 1]")


def test_on_a_cpu_operators_that_call_no_other_hide_a_collective(tmp_path: Path) -> None:
    """An operator that calls others may wait between them; those of `c10d` hand over a message."""
    events = [
        event("gloo:all_reduce", 0, 100, "user_annotation", tid=2),
        event("c10d::allreduce_", 0, 5),
        event("aten::mm", 10, 30),
        event("autograd::engine::evaluate_function: AddmmBackward0", 50, 40),
        event("aten::linear", 55, 30),
        event("aten::addmm", 60, 10),
    ]
    write(tmp_path / "r0.1.pt.trace.json", events, distributedInfo={"rank": 0, "backend": "gloo"})
    (rank,) = summarize(read_traces(tmp_path)).communication.ranks
    assert (rank.busy_us, rank.overlapped_us, rank.exposed_us) == (100, 40, 60)


def test_python_that_only_waits_for_other_ranks_is_told(tmp_path: Path) -> None:
    """The collectives of gloo run on a thread of their own; the step waits in a call that the trace does not have."""
    events = [
        event("ProfilerStep#1", 0, 100, "user_annotation"),
        event("aten::mm", 0, 40),
        event("gloo:all_reduce", 30, 50, "user_annotation", tid=2),
    ]
    found = summarize(read_traces(write(tmp_path / "r0.1.pt.trace.json", events)))
    assert found.steps[0].python_us == 60
    assert found.trace.notes == [
        "r0.1.pt.trace.json: 40 µs of what counts as Python are spent while collectives run: the step waits for other "
        "ranks, in a call that no trace shows"
    ]
    events[1] = event("aten::mm", 0, 80)
    hidden = summarize(read_traces(write(tmp_path / "r0.1.pt.trace.json", events)))
    assert hidden.trace.notes == []


def test_the_windows_of_a_rank_are_told_apart_by_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [event("gloo:all_reduce", 0, 10, "user_annotation")]
    for number, (stage, rank) in enumerate((("train", 1), ("train", 0), ("infer", 1), ("infer", 0))):
        header = {"distributedInfo": {"rank": rank, "backend": "gloo"}}
        write(tmp_path / f"vm_{rank}_{stage}.{number}.pt.trace.json", events, **header)
    assert main(["summary", str(tmp_path)]) == 0
    told = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if "hidden" in line]
    assert told == ["rank 0, vm_0_train", "rank 0, vm_0_infer", "rank 1, vm_1_train", "rank 1, vm_1_infer"]


def test_the_memory_of_several_windows_is_told_apart_by_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = {"Bytes": 64, "Addr": 1, "Total Allocated": 64, "Device Type": 0, "Device Id": -1}
    events = [event("aten::mm", 0, 10), {**event("[memory]", 5, 0, "cpu_instant_event", **moved), "ph": "i"}]
    write(tmp_path / "vm_7_train.1.pt.trace.json", events)
    assert main(["summary", str(tmp_path)]) == 0
    assert "\ncpu: peak 64 B at" in capsys.readouterr().out
    write(tmp_path / "vm_7_infer.2.pt.trace.json", events)
    assert main(["summary", str(tmp_path)]) == 0
    told = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if "peak" in line]
    assert told == ["cpu, vm_7_train", "cpu, vm_7_infer"]
