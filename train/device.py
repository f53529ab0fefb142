"""The device and the precision of a run, and the settings that apply to the whole process."""

import os

import torch

from profiling.errors import UserError
from profiling.heap import has_glibc, keep_heap
from profiling.out_of_memory import limit_memory
from train.config.options import Device, Precision
from train.config.schema import Config
from train.ranks.launch import threads_of_rank

DEFAULT_THREADS = torch.get_num_threads()  # torch's own choice: one for each core, or OMP_NUM_THREADS


def choose_device(wanted: Device) -> torch.device:
    """The device that `wanted` names; `auto` is the accelerator if there is one, else the CPU.

    Raises:
        UserError: this machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if wanted is Device.auto:
        return accelerator or torch.device("cpu")
    if wanted is not Device.cpu and (accelerator is None or accelerator.type != wanted):
        available = ["cpu"] if accelerator is None else ["cpu", accelerator.type]
        raise UserError(
            f"device={wanted}: there is none here; this machine has {', '.join(available)} (auto finds the best)"
        )
    return torch.device(wanted.value)


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """`wanted` with `auto` resolved: bf16 only if the hardware supports it; emulated bf16 is slower than float32."""
    if wanted is not Precision.auto:
        return wanted
    return Precision.bf16 if has_bf16(device) else Precision.fp32


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware of `device` has bf16 arithmetic."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "xpu"


def set_process(config: Config, device: torch.device) -> None:
    """Apply the settings of the whole process; each is set every time, because a sweep runs in one process.

    Raises:
        UserError: `keep_heap` is false, but an earlier run of this process has irreversibly set it.
    """
    if has_glibc() and config.keep_heap:
        keep_heap()
    elif keep_heap.cache_info().currsize:
        raise UserError(
            "keep_heap=false: an earlier run of this process keeps its heap, for good; "
            "give this one a process of its own, as train.ab does"
        )
    if device.type == "cpu":  # drivers of accelerators map host memory of their own
        limit_memory()
    torch.set_num_threads(config.threads or threads_of_rank(DEFAULT_THREADS))
    # Not by `fp32_precision`: torch.compile reads these older settings, and torch raises where only the newer are set.
    torch.set_float32_matmul_precision(config.matmul_precision)
    torch.backends.cudnn.allow_tf32 = config.tf32
    if device.type == "cuda":
        torch._C._accelerator_setAllocatorSettings(f"expandable_segments:{config.expandable_segments}")
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    if config.deterministic:
        if torch.cuda.is_initialized() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ:  # type: ignore[no-untyped-call]
            raise UserError("deterministic=true: an earlier run has set up cuBLAS; give this one a process of its own")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it in deterministic mode
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:
        torch.use_deterministic_algorithms(config.deterministic)  # only on a change: it imports torch._inductor, slowly
    torch.autograd.set_detect_anomaly(config.anomaly_detection)
