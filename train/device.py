"""Where a run works: the device, the precision, and the settings that hold for the whole process."""

import ctypes
import os
import platform
from functools import cache

import torch

from profiling.errors import UserError
from train.config.options import Device, Precision
from train.config.schema import Config

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt's parameters, in glibc's malloc.h
RESERVE_BYTES = 2**28  # several times what nograd_off holds; written in 0.1 s
DEFAULT_THREADS = torch.get_num_threads()  # torch's own choice: one for each core, or OMP_NUM_THREADS


def choose_device(wanted: Device) -> torch.device:
    """The device that `wanted` names.

    Raises:
        UserError: it is not there.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if wanted is Device.auto:
        return accelerator or torch.device("cpu")
    if wanted is not Device.cpu and (accelerator is None or accelerator.type != wanted):
        there = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
        raise UserError(
            f"device={wanted}: there is none here; this machine has {', '.join(there)} (auto finds the best)"
        )
    return torch.device(wanted.value)


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """`auto` decided: bf16 only where the hardware computes in it; emulated bf16 is slower than float32."""
    if wanted is not Precision.auto:
        return wanted
    return Precision.bf16 if has_bf16(device) else Precision.fp32


def has_bf16(device: torch.device) -> bool:
    """Whether `device` has bf16 arithmetic."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "xpu"


def has_glibc() -> bool:
    """Whether memory comes from glibc's heap."""
    return platform.libc_ver()[0] == "glibc"


@cache
def keep_heap() -> None:
    """Have glibc never give freed memory back, by trimming its heap or unmapping large blocks, for this process' life.

    By default it does so by thresholds that move with what was freed before. Whether a step's tensors lie above or
    below is luck of the layout: identical processes evaluated at 26 or at 48 us an image for as long as they lived (2
    cores of an AMD EPYC). PyTorch's tuning guide recommends other allocators for the same reason. Source: man 3
    mallopt; https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    libc.mallopt(M_MMAP_MAX, 0)


def reserve_heap() -> None:
    """Have the heap that is kept hold more than a traced window needs, at hand and free.

    Otherwise the profiler puts its records into blocks that a step has freed, so that they no longer hold the next
    step's tensors, and memory is asked for anew: four traced steps of evaluation took 9.3, 15.7, 16.1 and 16.1 ms, all
    of it in operators that return large tensors, and 8.9 ms each without a profiler; then 8.7, 9.0, 9.2 and 8.8 ms.
    """
    torch.ones(RESERVE_BYTES, dtype=torch.uint8)  # written to, so that the pages are there


def set_process(config: Config) -> None:
    """Apply what holds for the whole process; every setting is set each time, since a sweep runs in one process.

    Raises:
        UserError: an earlier run of this process has set what cannot be undone.
    """
    if has_glibc() and config.keep_heap:
        keep_heap()
    elif keep_heap.cache_info().currsize:
        raise UserError(
            "keep_heap=false: an earlier run of this process keeps its heap, for good; "
            "give this one a process of its own, as train.ab does"
        )
    torch.set_num_threads(config.threads or DEFAULT_THREADS)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if config.tf32 else "ieee"
    torch.backends.cudnn.conv.fp32_precision = "tf32" if config.tf32 else "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses deterministic mode without it
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:
        torch.use_deterministic_algorithms(config.deterministic)  # imports torch._inductor, which takes 1.4 s
    torch.autograd.set_detect_anomaly(config.anomaly_detection)
