"""Points 4 and 5: the pipeline against the plain loop, peak memory, and the floating-point operations it achieves."""

import statistics
import time
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from profiling.capture import TimedCapture
from tests.accelerator.context import Context, Pieces
from tests.accelerator.evidence import synchronize
from tests.accelerator.workload import chosen, endless
from tests.bench.contenders import by_hand, ours, plain
from train import session
from train.config.options import Precision

EPOCHS, EPOCHS_CPU = 8, 3  # of each contender, in turns
WARMUP_EPOCHS = 2
TIMED_STEPS = 20
GEMM_SIZE, GEMM_REPEATS = 8192, 20  # products of square matrices, the measured roof
GEMM_SIZE_CPU = 1024


def pieces(context: Context) -> Pieces:
    return {"plain_loop": partial(plain_loop, context), "memory_and_flops": partial(memory_and_flops, context)}


def plain_loop(context: Context) -> dict[str, Any]:
    """Images a second of the default training: ours, the plain loop, and one function with all that ours has."""
    epochs = EPOCHS if context.is_accelerator else EPOCHS_CPU
    parts = session.prepare(context.configure("keep_heap=false", f"epochs={epochs}"))
    contenders = {"ours": ours(parts), "plain": plain(parts), "by_hand": by_hand(parts)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for epoch in range(epochs):
        for name in [*contenders][:: 1 if epoch % 2 else -1]:
            torch.manual_seed(epoch)
            seconds[name].append(contenders[name].epoch())
    fastest = {name: min(epoch_s[WARMUP_EPOCHS:]) for name, epoch_s in seconds.items()}
    samples = len(parts.data.train)
    return {
        "samples_per_s": {name: samples / epoch_s for name, epoch_s in fastest.items()},
        "ours_over_plain": fastest["plain"] / fastest["ours"],
        "ours_over_by_hand": fastest["by_hand"] / fastest["ours"],
    }


def memory_and_flops(context: Context) -> dict[str, Any]:
    """Peak memory of training, FLOP/s of a step, and their share of what a large matrix product reaches here."""
    parts = session.prepare(context.configure(*chosen(context)))
    session.warm_up(parts)
    images, _ = next(iter(parts.train_batches))
    with FlopCounterMode(display=False) as counter:
        parts.module(parts.recipe.preprocess_train(images.to(parts.device))).sum().backward()
    parts.optimizer.zero_grad()
    with TimedCapture(parts.device) as capture:
        parts.fit(endless(parts.train_batches, TIMED_STEPS), capture)
    timed = capture.timings()
    full = [s for samples, s in zip(timed.samples, timed.step_s, strict=True) if samples == len(images)]
    achieved = counter.get_total_flops() / statistics.median(full)
    roof = gemm_flop_per_s(parts.device, torch.bfloat16 if parts.precision is Precision.bf16 else torch.float32)
    return {
        "peak_accelerator_bytes": capture.memory.accelerator_bytes,
        "peak_resident_bytes": capture.memory.resident_bytes,
        "batch": len(images),
        "flop_per_step": counter.get_total_flops(),
        "step_s": statistics.median(full),
        "achieved_flop_per_s": achieved,
        "gemm_flop_per_s": roof,
        "share_of_gemm": achieved / roof,
        "precision": parts.precision.value,
    }


def gemm_flop_per_s(device: torch.device, dtype: torch.dtype) -> float:
    size = GEMM_SIZE if device.type != "cpu" else GEMM_SIZE_CPU
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        one @ other
    synchronize(device)
    start = time.perf_counter()
    for _ in range(GEMM_REPEATS):
        one @ other
    synchronize(device)
    return 2 * size**3 * GEMM_REPEATS / (time.perf_counter() - start)
