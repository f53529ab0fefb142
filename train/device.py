"""Where a run works: the device, the precision, and the settings that hold for the whole process."""

import os

import torch

from train.config import Config
from train.errors import UserError
from train.options import Device, Precision

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


def set_process(config: Config) -> None:
    """Apply what holds for the whole process; every setting is set each time, since a sweep runs in one process."""
    torch.set_num_threads(config.threads or DEFAULT_THREADS)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if config.tf32 else "ieee"
    torch.backends.cudnn.conv.fp32_precision = "tf32" if config.tf32 else "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses deterministic mode without it
    torch.use_deterministic_algorithms(config.deterministic)
    torch.autograd.set_detect_anomaly(config.anomaly_detection)
