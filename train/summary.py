"""The layers of a model, as a Markdown table."""

import math
from collections import Counter

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *rest: object, **options: object) -> int:
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])  # two matrix products


# PyTorch 2.14 counts the FLOPs of CUDA's fused attention kernels, but not of the CPU's.
MISSING_FLOPS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}


def summarize(model: nn.Module, images: Tensor) -> str:
    """A Markdown table of the model's layers, run on float images [1, C, H, W] that are on the model's device.

    A module has a row if it has no children, or has parameters or FLOPs of its own, so the rows add up to the totals; a
    shared parameter counts where it appears first. FLOPs are those of one forward pass as counted by
    `torch.utils.flop_counter.FlopCounterMode`: two for each multiply-add of a matrix product, a convolution or
    attention, none for other operators. The model runs once, in evaluation mode, and has its own mode again.
    """
    shapes = dict.fromkeys(model.modules(), "not run")

    def record_shape(module: nn.Module, inputs: object, output: object) -> None:
        shapes[module] = str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__

    hooks = [module.register_forward_hook(record_shape) for module in shapes]
    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=MISSING_FLOPS) as counter:
        model.eval()(images)
    model.train(was_training)
    for hook in hooks:
        hook.remove()

    flops = Counter({path: sum(operators.values()) for path, operators in counter.get_flop_counts().items()})
    parameters: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        parameters[owner] += parameter.numel()
        trainable[owner] += parameter.numel() if parameter.requires_grad else 0

    class_name = type(model).__name__
    lines = ["| layer | type | output | parameters | trainable | FLOPs |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for path, module in model.named_modules():
        scope = f"{class_name}.{path}" if path else class_name  # FlopCounterMode's name for it
        children = [name for name, _ in module.named_children()]
        own_flops = flops[scope] - sum(flops[f"{scope}.{child}"] for child in children)
        if parameters[path] or own_flops or not children:
            lines.append(
                f"| {path or '(model)'} | {type(module).__name__} | {shapes[module]} "
                f"| {parameters[path]:,} | {trainable[path]:,} | {own_flops:,} |"
            )
    lines.append(
        f"| **total** | {class_name} | {shapes[model]} "
        f"| {parameters.total():,} | {trainable.total():,} | {counter.get_total_flops():,} |"
    )
    return "\n".join(lines)
