"""What a model is made of, as a table."""

import copy
import math
from collections import Counter

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *rest: object, **options: object) -> int:
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])  # two matrix products


# PyTorch 2.14 counts the fused attention kernels of CUDA but not the CPU's.
MISSING_FLOPS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def summarize(model: nn.Module, images: Tensor) -> str:
    """A Markdown table of the model's layers, run on float images [1, C, H, W] that are on the model's device.

    There is a row for every module that contains no other, or has parameters or arithmetic of its own, so the rows add
    up to the totals; a shared parameter counts where it appears first. FLOPs are those of one forward pass as
    `torch.utils.flop_counter.FlopCounterMode` counts them: two for each multiply-add of a matrix product, a convolution
    or attention, none for other operators. A copy of the model runs, in evaluation mode; the model stays as it is.
    """
    twin = copy.deepcopy(model).eval()
    shapes = dict.fromkeys(twin.modules(), "not run")

    def note_shape(module: nn.Module, inputs: object, output: object) -> None:
        shapes[module] = str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__

    for module in twin.modules():
        module.register_forward_hook(note_shape)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=MISSING_FLOPS) as counter:
        twin(images)

    flops = Counter({path: sum(operators.values()) for path, operators in counter.get_flop_counts().items()})
    parameters: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    for name, parameter in twin.named_parameters():
        owner = name.rpartition(".")[0]
        parameters[owner] += parameter.numel()
        trainable[owner] += parameter.numel() if parameter.requires_grad else 0

    kind = type(twin).__name__
    lines = [
        "| layer | type | output | parameters | trainable | FLOPs |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for path, module in twin.named_modules():
        scope = f"{kind}.{path}" if path else kind  # FlopCounterMode's name for it
        children = [name for name, _ in module.named_children()]
        own_flops = flops[scope] - sum(flops[f"{scope}.{child}"] for child in children)
        if parameters[path] or own_flops or not children:
            lines.append(
                f"| {path or '(model)'} | {type(module).__name__} | {shapes[module]} "
                f"| {parameters[path]:,} | {trainable[path]:,} | {own_flops:,} |"
            )
    lines.append(
        f"| **total** | {kind} | {shapes[twin]} "
        f"| {parameters.total():,} | {trainable.total():,} | {counter.get_total_flops():,} |"
    )
    return "\n".join(lines)
