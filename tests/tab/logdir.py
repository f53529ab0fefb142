"""A real logdir, made once and cheaply: our own runs, one comparison, foreign traces, broken ones and hostile names."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule, tensorboard_trace_handler

from profiling import run_record
from profiling.run_record import Environment, RunRecord, StageRecord, StepTimings, TraceFile
from profiling.verdict.hypothesis import Expectation, Hypothesis
from profiling.verdict.judge import PeakMemory, judge_comparison
from profiling.verdict.numerics import check_numerics
from profiling.verdict.record import ArmRecord, ComparisonRecord, write_comparison
from profiling.verdict.timings import PhaseTimings
from profiling.vocabulary import Agreement, ExpectedTime
from tests.conftest import ROOT, TINY
from tests.profiling.make_trace import Event, event, write

HOSTILE = "<img src=x onerror=alert(1)>"

BASELINE, NOGRAD_OFF, COMPARISON = "baseline/tiny", "nograd_off/tiny", "ab/nograd_off"
ARMS = (f"{COMPARISON}/baseline", f"{COMPARISON}/variant")
FOREIGN, PARTIAL, BROKEN, GROUPS = "foreign", "partial", "broken", "groups"
DEVICE, UTF16, ZSTANDARD = "device", "utf16", "zstandard"
FOREIGN_AND_CUT = (PARTIAL, FOREIGN)
EVIL, EVIL_COMPARISON = HOSTILE, f"evil/{HOSTILE}"

SHARED = ROOT.parent / "shared" / "traces"
SHARED_RUNS = {
    "rocm": ["rocm_mi250_toy_train"],
    "a100": ["cuda_a100_simple_add"],
    "triton": ["cuda_triton_kernel"],
    "ranks": ["cuda_ddp_rank-0", "cuda_ddp_rank-1"],
}

OURS = (*TINY, "model.width=4", "profiler=full")


def build(logdir: Path) -> None:
    """Fill `logdir`; the two programs that measure run side by side, since nothing here is a timing."""
    both = ("+experiment=baseline,nograd_off", f"hydra.sweep.dir={logdir}", "hydra.sweep.subdir=${name}/tiny")
    measured = ("+experiment=nograd_off", "ab.budget_s=1", f"hydra.run.dir={logdir / COMPARISON}")
    with _start("train", "-m", *both) as train, _start("train.ab", *measured) as ab:
        foreign(logdir / FOREIGN)
        groups(logdir / GROUPS)
        device(logdir / DEVICE)
        broken(logdir)
        hostile(logdir)
        shared(logdir)
        for process in (train, ab):
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output


def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments, *OURS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def foreign(folder: Path) -> None:
    """Two windows of a program that knows nothing of this project, without stacks."""
    network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    with profile(
        activities=[ProfilerActivity.CPU],
        schedule=schedule(wait=0, warmup=1, active=2, repeat=2),
        on_trace_ready=tensorboard_trace_handler(str(folder)),
        record_shapes=True,
        profile_memory=True,
        acc_events=True,  # without it, torch warns at the second window
    ) as profiler:
        for size in (4, 4, 8, 4, 4, 8):
            with record_function("forward"):
                loss = network(torch.ones(size, 8)).sum()
            loss.backward()
            profiler.step()


def groups(folder: Path) -> None:
    """Four ranks in two process groups of one name; of the first, the messages have no known size."""
    folder.mkdir()
    for rank, dur in enumerate((40, 10, 100, 300)):
        members, message = ("[0, 1]", {}) if rank < 2 else ("[2, 3]", {"In_msg_nelems": 1024, "dtype": "Half"})
        args = {"Collective_name": "allreduce", "Process_Group_Name": "tp", "Process_Group_Ranks": members, **message}
        call = event("ncclDevKernel_AllReduce", 0, dur, "kernel", tid=7, **args)
        write(folder / f"rank{rank}.pt.trace.json", [call], distributedInfo={"rank": rank})


def device(folder: Path) -> None:
    """Three windows with long names, of steps that wait in many ways, and with a graph that no operator launches."""
    kernel = f"void at::native::vectorized_elementwise_kernel<4, {'at::native::' * 9}>"
    folder.mkdir()
    for stage in ("train", "evaluate", "infer"):
        events = []
        for number in range(1, 5):
            start = 1000 * number
            calls = [("cudaMalloc", 20, 30), ("cudaHostAlloc", 60, 30), ("cuModuleLoadData", 100, 30)]
            events += [
                event(f"ProfilerStep#{number + 4}", start, 990, "user_annotation"),
                *(event(name, start + at, dur, "cuda_runtime") for name, at, dur in calls),
                event("aten::add", start + 140, 20, External_id=number),
                event("cudaLaunchKernel", start + 150, 5, "cuda_runtime", correlation=10 * number),
                event(kernel, start + 160, 100, "kernel", tid=7, correlation=10 * number),
                event("cudaGraphLaunch", start + 170, 5, "cuda_runtime", correlation=10 * number + 1),
                event("gemm", start + 300, 500, "kernel", tid=7, correlation=10 * number + 1),
                event("cudaDeviceSynchronize", start + 180, 650, "cuda_runtime", correlation=10 * number + 2),
            ]
        write(folder / f"host_1_{stage}.1795736107341578482.pt.trace.json", events)


def broken(logdir: Path) -> None:
    """A trace that was cut short, a file that only has a trace's name, and files that the Perfetto UI cannot read."""
    (logdir / PARTIAL).mkdir()
    (whole, _) = sorted((logdir / FOREIGN).glob("*.pt.trace.json"))
    content = whole.read_bytes()
    (logdir / PARTIAL / "cut.pt.trace.json").write_bytes(content[: content.index(b"},", len(content) * 2 // 3) + 2])
    (logdir / BROKEN).mkdir()
    (logdir / BROKEN / "no.pt.trace.json").write_bytes(b"not a trace\n")
    (logdir / UTF16).mkdir()
    (logdir / UTF16 / "w.pt.trace.json").write_text(whole.read_text(encoding="utf-8"), encoding="utf-16")
    (logdir / ZSTANDARD).mkdir()
    (logdir / ZSTANDARD / "w.pt.trace.json.zst").write_bytes(b"\x28\xb5\x2f\xfd and more")


def shared(logdir: Path) -> None:
    """Traces from accelerators, where the checkout has them beside it; the two ranks of one job are one run."""
    for run, files in SHARED_RUNS.items() if SHARED.is_dir() else ():
        (logdir / run).mkdir()
        for file in files:
            shutil.copyfile(SHARED / f"{file}.json.gz", logdir / run / f"{file}.pt.trace.json.gz")


def hostile(logdir: Path) -> None:
    """Every name that a file can carry is a tag that runs a script: of the folders, and of all that is in them."""
    for folder, scale in ((logdir / EVIL, 1), (logdir / EVIL_COMPARISON / "variant", 2)):
        folder.mkdir(parents=True)
        write(folder / f"{HOSTILE}.pt.trace.json", hostile_events(scale), deviceProperties=[{"id": 0, "name": HOSTILE}])
        run_record.write(hostile_record(), folder)
    shutil.copytree(logdir / EVIL, logdir / EVIL_COMPARISON / "baseline")
    write_comparison(hostile_comparison(), logdir / EVIL_COMPARISON)


def hostile_events(scale: float) -> list[Event]:
    """One step with every kind of event; operators and kernels take `scale` times as long."""
    stacks = [
        event(f"nn.Module: {HOSTILE}_0", 10, 60 * scale, "python_function", Python_id=1, Python_module_id=0),
        event(f"{HOSTILE}.py(1): {HOSTILE}", 5, 90 * scale, "python_function", Python_id=2),
    ]
    launches = [
        event("cudaLaunchKernel", 12, 1, "cuda_runtime", correlation=1),
        event("cudaLaunchKernel", 15, 1, "cuda_runtime", correlation=2),
    ]
    device = [
        event(f"kernel{HOSTILE}", 20, 30 * scale, "kernel", tid=7, correlation=1, device=0, stream=7),
        event(f"ncclDevKernel_{HOSTILE}", 25, 40 * scale, "kernel", tid=8, correlation=2, device=0, stream=8),
        event("nccl", 70, 5, "kernel", tid=8, Collective_name=HOSTILE, Process_Group_Name=HOSTILE, dtype=HOSTILE),
    ]
    operators = [
        event(HOSTILE, 11, 20 * scale, Input_Dims=[[2, 2]], External_id=1),
        event(f"{HOSTILE}{scale}", 40, 10, Input_Dims=[[2, 2]]),
    ]
    phases = [event("ProfilerStep#1", 0, 200 * scale, "user_annotation"), event("forward", 4, 99, "user_annotation")]
    return [*phases, *stacks, *operators, *launches, *device, *(_allocation(at, scale) for at in (13, 42))]


def _allocation(at: float, scale: float) -> Event:
    size = int(4096 * scale)
    args = {"Bytes": size, "Addr": int(at), "Total Allocated": size, "Device Type": 0, "Device Id": -1}
    made = {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "s": "t", "pid": 1, "tid": 1, "ts": at}
    return {**made, "args": args}


def _environment() -> Environment:
    return Environment(
        host=HOSTILE,
        platform=HOSTILE,
        processor=HOSTILE,
        cores=2,
        memory_bytes=2**30,
        device=HOSTILE,
        device_name=HOSTILE,
        precision=HOSTILE,
        threads=2,
        versions={HOSTILE: HOSTILE},
    )


def hostile_record() -> RunRecord:
    """A record whose every text is hostile."""
    steps = StepTimings(
        samples=[4, 4], step_s=[0.01, 0.02], phase_s={"forward": [0.005, 0.01], HOSTILE: [0.001, 0.002]}
    )
    trace = TraceFile(path=f"{HOSTILE}.pt.trace.json", samples=[4], step_s=[0.03], peak_allocated_bytes=8192)
    stage = StageRecord(
        timed=steps, trace=trace, peak_resident_bytes=2**20, resident_is_per_stage=True, peak_accelerator_bytes=None
    )
    return RunRecord(
        name=HOSTILE,
        status="complete",
        error=HOSTILE,
        started=HOSTILE,
        config={HOSTILE: HOSTILE, "data": {HOSTILE: [HOSTILE]}},
        changed={HOSTILE: (HOSTILE, [HOSTILE])},
        environment=_environment(),
        stages={HOSTILE: stage},
        results={HOSTILE: 1.0, "accuracy": 0.5},
    )


def hostile_comparison() -> ComparisonRecord:
    """A comparison whose every text is hostile, the claim of its hypothesis too."""
    times = [1e-4 + 1e-6 * (n % 5) for n in range(24)]
    twin = times[1:] + times[:1]
    same, slower = (PhaseTimings(times, [ratio * time for time in times], twin) for ratio in (1.0, 1.5))
    hypothesis = Hypothesis(HOSTILE, HOSTILE, HOSTILE, Expectation(time=ExpectedTime.slower))
    judged = judge_comparison(
        HOSTILE,
        hypothesis,
        {"train": same, HOSTILE: slower},
        PeakMemory(2**20, 2**21),
        check_numerics(Agreement.identical, 0.0, 0.0, 1e-3, 1e-5),
    )
    arm = ArmRecord(
        warmup_s=0.1,
        peak_resident_bytes=2**20,
        peak_allocated_bytes={HOSTILE: 2**20},
        peak_accelerator_bytes=None,
        results={HOSTILE: 1.0},
        traces={},
    )
    config = {"hypothesis": {"topic": HOSTILE, "claim": HOSTILE}, HOSTILE: HOSTILE}
    return ComparisonRecord(
        comparison=judged,
        partial=False,
        started=HOSTILE,
        seconds=1.0,
        budget_s=1.0,
        configs={"baseline": config, "variant": config},
        changed={HOSTILE: (HOSTILE, [HOSTILE])},
        environment=_environment(),
        timings={"train": same, HOSTILE: slower},
        arms={
            name: msgspec.structs.replace(arm, traces={HOSTILE: f"{name}/{HOSTILE}.pt.trace.json"})
            for name in ("baseline", "variant")
        },
    )
