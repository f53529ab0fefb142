"""The closed swaps: implementations side by side, the fast one first. `resolve` chooses one of each before the loop.

To add an implementation: write it next to the existing ones, add it to the table here and to its enum in
train/config/options.py, and add a file to configs/experiment/. Tests are parametrized over these tables and files.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from operator import methodcaller
from typing import Any, Generic, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from models.interface import AttentionFunction, has_blocks
from models.vit import attention_math
from profiling.vocabulary import Agreement
from train import health, metrics, preprocess
from train.batches import Batch
from train.config.options import (
    Activations,
    AllocatorCache,
    Arithmetic,
    Attention,
    Brier,
    Buffers,
    Confusion,
    ConvBias,
    EvalContext,
    Execution,
    Freeze,
    MemoryFormat,
    OptimizerLoop,
    Parameters,
    Place,
    Precision,
    Preprocess,
    RunningLoss,
    ZeroGrad,
)
from train.config.schema import Config
from train.data import DataSet

Implementation = TypeVar("Implementation")


@dataclass(frozen=True)
class Table(Generic[Implementation]):
    """The implementations of one switch.

    Attributes:
        switch: the field of `switches` in the configuration.
        options: option -> implementation, the fast one first.
        numerics: how closely the results of two options agree after some steps in float32.
        rtol, atol: tolerances of `close`, for weights and metrics alike.
        reason: why results are not identical.
    """

    switch: str
    options: Mapping[StrEnum, Implementation]
    numerics: Agreement = Agreement.identical
    rtol: float = 0.0
    atol: float = 0.0
    reason: str = ""

    def __getitem__(self, option: StrEnum) -> Implementation:
        return self.options[option]


# --- autograd ---------------------------------------------------------------------------------------------------------

# Classes, not instances: a `no_grad()` object that is entered twice leaves autograd disabled.
EVAL_CONTEXT: Table[Callable[[], AbstractContextManager[Any]]] = Table(
    "eval_context",
    {
        EvalContext.inference_mode: torch.inference_mode,
        EvalContext.no_grad: torch.no_grad,
        EvalContext.grad: torch.enable_grad,
    },
)

RUNNING_LOSS: Table[Callable[[Tensor, Tensor, Tensor], Tensor]] = Table(
    "running_loss",
    {
        RunningLoss.detached: metrics.loss_detached,
        RunningLoss.attached: metrics.loss_attached,
        RunningLoss.item: metrics.loss_item,
    },
)


# Freed, the next backward pass writes the gradients; filled with zeros, it adds to them.
ZERO_GRAD: Table[Callable[[Optimizer], None]] = Table(
    "zero_grad",
    {
        ZeroGrad.set_to_none: methodcaller("zero_grad", set_to_none=True),
        ZeroGrad.fill: methodcaller("zero_grad", set_to_none=False),
    },
)


def no_op(module: nn.Module) -> None:
    """Do not change `module`."""


def freeze_parameters(module: nn.Module) -> None:
    """Exclude all parameters of `module` from autograd."""
    module.requires_grad_(False)


PARAMETERS: Table[Callable[[nn.Module], None]] = Table(
    "parameters",
    {Parameters.trainable: no_op, Parameters.frozen: freeze_parameters},
    numerics=Agreement.different,
    reason="nothing can be trained: the run stops before its first step",
)

FREEZE: Table[Callable[[nn.Module], None]] = Table(
    "freeze", {Freeze.requires_grad: freeze_parameters, Freeze.optimizer_only: no_op}
)


def recompute(model: nn.Module) -> None:
    """Store only the inputs of the model's `blocks`; run each block again in the backward pass.

    https://docs.pytorch.org/docs/stable/checkpoint.html
    """
    for block in model.blocks if has_blocks(model) else model.children():
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


ACTIVATIONS: Table[Callable[[nn.Module], None]] = Table(
    "activations",
    {Activations.stored: no_op, Activations.recomputed: recompute},
    numerics=Agreement.different,
    reason="each batch passes through batch norm twice, and so counts twice in its running statistics",
)

# --- preprocessing ----------------------------------------------------------------------------------------------------

PREPROCESS: Table[preprocess.PreprocessFunction] = Table(
    "preprocess", {Preprocess.vectorized: preprocess.vectorized, Preprocess.loop: preprocess.loop}
)

ARITHMETIC: Table[preprocess.Arrange] = Table(
    "arithmetic", {Arithmetic.broadcast: preprocess.broadcast, Arithmetic.repeat: preprocess.repeat}
)

BUFFERS: Table[type[preprocess.ReusedBuffers] | type[preprocess.FreshBuffers]] = Table(
    "buffers", {Buffers.reused: preprocess.ReusedBuffers, Buffers.fresh: preprocess.FreshBuffers}
)


def on_device(device: torch.device) -> torch.device:
    """Random numbers are drawn on the device that uses them."""
    return device


def on_cpu(device: torch.device) -> torch.device:
    """Random numbers are drawn on the CPU, then copied to the device."""
    return torch.device("cpu")


RANDOM_ON: Table[Callable[[torch.device], torch.device]] = Table(
    "random_on",
    {Place.device: on_device, Place.cpu: on_cpu},
    numerics=Agreement.different,
    reason="an accelerator's random generator gives another sequence; on the CPU both are the same",
)

# --- metrics ----------------------------------------------------------------------------------------------------------

BRIER: Table[Callable[[Tensor, Tensor], Tensor]] = Table(
    "brier",
    {Brier.matched: metrics.brier_matched, Brier.all_pairs: metrics.brier_all_pairs},
    numerics=Agreement.close,
    rtol=1e-6,
    reason="the sums over classes may be taken in another order",
)

CONFUSION: Table[Callable[[Tensor, Tensor, Tensor], None]] = Table(
    "confusion", {Confusion.vectorized: metrics.confusion_vectorized, Confusion.loop: metrics.confusion_loop}
)


def identity(tensor: Tensor) -> Tensor:
    """Metrics are computed on the device of the logits."""
    return tensor


METRICS_ON: Table[Callable[[Tensor], Tensor]] = Table(
    "metrics_on",
    {Place.device: identity, Place.cpu: Tensor.cpu},  # waits for a copy of every batch of logits
    numerics=Agreement.close,
    rtol=1e-5,
    reason="an accelerator adds in another order",
)

# --- kernels ----------------------------------------------------------------------------------------------------------

MEMORY_FORMAT: Table[torch.memory_format] = Table(
    "memory_format",
    {MemoryFormat.channels_last: torch.channels_last, MemoryFormat.contiguous: torch.contiguous_format},
    numerics=Agreement.close,
    rtol=1e-2,
    atol=1e-3,
    reason="another convolution kernel adds in another order",
)

OPTIMIZER_LOOP: Table[dict[str, bool]] = Table(
    "optimizer",
    {
        OptimizerLoop.fused: {"fused": True},
        OptimizerLoop.foreach: {"foreach": True},
        OptimizerLoop.for_loop: {"foreach": False, "fused": False},
    },
    numerics=Agreement.close,
    rtol=1e-2,
    atol=1e-3,
    reason="a fused kernel rounds once where separate operations round several times",
)

CONV_BIAS: Table[bool] = Table(
    "conv_bias",
    {ConvBias.absent: False, ConvBias.present: True},
    numerics=Agreement.different,
    reason="the biases draw from the random sequence that initializes the layers after them",
)

ATTENTION: Table[AttentionFunction] = Table(
    "attention",
    {Attention.sdpa: F.scaled_dot_product_attention, Attention.math: attention_math},
    numerics=Agreement.close,
    rtol=1e-2,
    atol=1e-3,
    reason="the fused kernel computes the softmax block by block",
)


def eager(model: nn.Module) -> nn.Module:
    """Imperative execution: Python runs one operator after the other."""
    return model


def compiled(model: nn.Module, mode: str = "default") -> nn.Module:
    """Declarative execution: the first call compiles a graph of fused operators; parameters are shared with `model`."""
    return cast(nn.Module, torch.compile(model, mode=mode))


EXECUTION: Table[Callable[[nn.Module], nn.Module]] = Table(
    "execution",
    {
        Execution.eager: eager,
        Execution.compiled: compiled,
        # CUDA replays the kernels of a pass as one graph: https://docs.pytorch.org/docs/stable/generated/torch.compile.html
        Execution.cuda_graphs: partial(compiled, mode="reduce-overhead"),
        Execution.data_parallel: nn.DataParallel,  # on all devices of this process; on none it calls the model itself
    },
    numerics=Agreement.close,
    rtol=1e-2,
    atol=1e-3,
    reason="fused operators keep intermediate results in registers and round less often",
)

# --- memory -----------------------------------------------------------------------------------------------------------


def keep_cache() -> None:
    """The accelerator's allocator keeps freed blocks for the next step."""


ALLOCATOR_CACHE: Table[Callable[[], None]] = Table(
    "allocator_cache", {AllocatorCache.kept: keep_cache, AllocatorCache.emptied: torch.accelerator.empty_cache}
)

TABLES: Mapping[str, Table[Any]] = {
    table.switch: table for table in list(globals().values()) if isinstance(table, Table)
}
"""Field of `switches` -> its table."""


# --- the recipe -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """The chosen implementations: one callable for each operation of the loop that has several."""

    transfer: Callable[[Batch], Batch]
    preprocess_train: Callable[[Tensor], Tensor]
    preprocess_eval: Callable[[Tensor], Tensor]
    micro_batches: Callable[[Tensor, Tensor], Iterable[Batch]]
    autocast: Callable[[], AbstractContextManager[Any]]
    loss: Callable[[Tensor, Tensor, int], Tensor]
    backward: Callable[[Tensor], None]
    update: Callable[[Optimizer], None]
    check_finite: health.Check
    to_metrics: Callable[[Tensor], Tensor]
    running_loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    confusion: Callable[[Tensor, Tensor, Tensor], None]
    brier: Callable[[Tensor, Tensor], Tensor]
    eval_context: Callable[[], AbstractContextManager[Any]]


def random_generator(config: Config, device: torch.device) -> torch.Generator:
    """The random generator of augmentation, on the device where its numbers are drawn."""
    return torch.Generator(RANDOM_ON[config.switches.random_on](device)).manual_seed(config.seed)


def resolve(
    config: Config, precision: Precision, device: torch.device, data: DataSet, random: torch.Generator
) -> Recipe:
    """Choose one implementation for each switch. `precision` must be resolved: not `auto`."""
    switches = config.switches
    channels = (data.channels, 1, 1)
    make_spec = partial(
        preprocess.PreprocessSpec,
        mean=torch.tensor(data.mean, device=device).mul(255).view(channels),
        deviation=torch.tensor(data.std, device=device).mul(255).view(channels),
        arrange=ARITHMETIC[switches.arithmetic],
        layout=MEMORY_FORMAT[switches.memory_format],
        random=random,
    )
    preprocess_batch = PREPROCESS[switches.preprocess]
    new_buffers = BUFFERS[switches.buffers]
    # In float16 the loss is scaled up, because small gradients would become zero; else the scaler changes nothing.
    scaler = torch.amp.GradScaler(device.type, enabled=precision is Precision.fp16)
    return Recipe(
        transfer=partial(_transfer, device=device, non_blocking=config.loader.non_blocking),
        # Two sets of buffers: autograd cannot save a tensor that was created in inference mode.
        preprocess_train=partial(preprocess_batch, spec=make_spec(augment=config.augment, buffers=new_buffers())),
        preprocess_eval=partial(preprocess_batch, spec=make_spec(augment=None, buffers=new_buffers())),
        micro_batches=_whole_batch
        if config.micro_batches == 1
        else partial(_micro_batches, parts=config.micro_batches),
        autocast=_autocast(precision, device),
        loss=partial(_loss, label_smoothing=config.label_smoothing),
        backward=lambda loss: torch.autograd.backward(scaler.scale(loss)),
        update=partial(
            _update,
            zero_grad=ZERO_GRAD[switches.zero_grad],
            clip_norm=config.clip_norm,
            scaler=scaler,
            after=ALLOCATOR_CACHE[switches.allocator_cache],
        ),
        check_finite=health.check_for(device),
        to_metrics=METRICS_ON[switches.metrics_on],
        running_loss=RUNNING_LOSS[switches.running_loss],
        confusion=CONFUSION[switches.confusion],
        brier=BRIER[switches.brier],
        eval_context=EVAL_CONTEXT[switches.eval_context],
    )


def _transfer(batch: Batch, device: torch.device, non_blocking: bool) -> Batch:
    images, labels = batch
    return images.to(device, non_blocking=non_blocking), labels.to(device, non_blocking=non_blocking)


def _whole_batch(images: Tensor, labels: Tensor) -> list[Batch]:
    return [(images, labels)]


def _micro_batches(images: Tensor, labels: Tensor, parts: int) -> list[Batch]:
    return list(zip(images.chunk(parts), labels.chunk(parts), strict=True))


def _autocast(precision: Precision, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    if precision is Precision.fp32:
        return nullcontext
    dtype = {Precision.bf16: torch.bfloat16, Precision.fp16: torch.float16}[precision]
    return partial(torch.autocast, device.type, dtype)


def _loss(logits: Tensor, labels: Tensor, batch_size: int, label_smoothing: float) -> Tensor:
    """Cross-entropy: sum over these samples / size of the whole batch, so the losses of micro-batches add up."""
    return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing) / batch_size


def _update(
    optimizer: Optimizer,
    zero_grad: Callable[[Optimizer], None],
    clip_norm: float | None,
    scaler: torch.amp.GradScaler,
    after: Callable[[], None],
) -> None:
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    scaler.step(optimizer)
    scaler.update()
    zero_grad(optimizer)
    after()
