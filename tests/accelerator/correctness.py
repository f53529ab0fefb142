"""Point 1: everything runs on the device, and computes there what it computes on a CPU."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from profiling import run_record
from profiling.errors import NotApplicableError
from tests.accelerator.context import Context, Pieces, command, scratch
from tests.train import test_experiments, test_variants
from tests.train.test_variants import COMMON, MODELS, PAIRS
from train.config.options import Need
from train.run import train
from train.variants import TABLES

LEAST_ACCURACY = 0.97
CLOSE_RTOL, CLOSE_ATOL = 1e-2, 1e-3  # as the tables of kernels declare: another kernel adds in another order
# The bits of a switch can only be compared where those of the device are the same in every run, and float32 is float32.
SAME_BITS = ("deterministic=true", "cudnn_benchmark=false", "tf32=false", "matmul_precision=highest")
NO_DROPOUT = {  # each device has a random sequence of its own
    "cnn": ("model=cnn", "model.width=8", "model.dropout=0"),
    "mlp": ("model=mlp", "model.dropout=0"),
    "vit": ("model=vit", "model.dim=16", "model.depth=1", "model.heads=2", "model.dropout=0"),
    "resnet18": ("model=resnet18",),
}
DEVICES = {Need.accelerator, Need.cuda, Need.two_devices, Need.ranks}
SLOW = ("compile_on", "cuda_graphs_on", "execution=compiled", "execution=cuda_graphs")


def pieces(context: Context) -> Pieces:
    """Those that compile come first where several processes share the pieces, so that each gets one; else last."""
    pairs = [*PAIRS, ("random_on", "cpu")] if context.is_accelerator else PAIRS
    if context.device == "cuda":
        pairs = [*pairs, ("execution", "cuda_graphs")]
    found: Pieces = {"learns": partial(learns, context)}
    found |= {f"runs/{file.stem}": partial(runs, context, file) for file in test_experiments.FILES}
    found |= {f"parity/{switch}={option}": partial(parity, context, switch, option) for switch, option in pairs}
    found |= {f"as_on_cpu/{model}": partial(as_on_cpu, context, model) for model in NO_DROPOUT}
    return dict(sorted(found.items(), key=lambda piece: piece[0].endswith(SLOW) != context.is_accelerator))


def learns(context: Context) -> dict[str, Any]:
    """The default run, from images to files."""
    folder = scratch()
    train(context.configure(), {}, folder)
    left = run_record.read(folder)
    assert left.results["accuracy"] >= LEAST_ACCURACY, left.results
    return {**left.results, "environment": left.environment.versions, "device": left.environment.device_name}


def runs(context: Context, file: Path) -> dict[str, Any]:
    """One experiment, composed and shrunk, through training, evaluation, inference, traces and record."""
    folder = scratch()
    config = context.configure(f"+experiment={file.stem}")
    test_experiments.test_runs(file, context.configure, command, folder)
    if not (folder / run_record.FILE_NAME).exists():  # it raised what it was expected to raise
        if DEVICES & set(config.hypothesis.needs):
            raise NotApplicableError(f"needs {', '.join(config.hypothesis.needs)}")
        return {"raised": "as expected"}
    return {"device": run_record.read(folder).environment.device}


def parity(context: Context, switch: str, option: str) -> dict[str, Any]:
    """An option against the fast one of its table, at the numerics that the table declares."""
    if (switch, option) == ("execution", "data_parallel") and torch.cuda.device_count() > 1:
        raise NotApplicableError("each replica has batch statistics of its own")
    table, model = TABLES[switch], MODELS.get(switch, ("model.width=4",))
    common = (*COMMON, *model, *(SAME_BITS if context.is_accelerator else ()))
    fast = test_variants.outcome(context.configure(*common))
    slow = test_variants.outcome(context.configure(*common, f"switches.{switch}={option}"))
    test_variants.assert_agree(table, fast, slow)
    return {"numerics": table.numerics, "largest_difference": difference(fast, slow)}


def as_on_cpu(context: Context, model: str) -> dict[str, Any]:
    """Weights, metrics and probabilities after some steps, from the same random numbers: the device's and the CPU's."""
    common = (*COMMON, "epochs=1", *NO_DROPOUT[model], "switches.random_on=cpu", *SAME_BITS)
    ours = test_variants.outcome(context.configure(*common))
    cpus = test_variants.outcome(context.configure(*common, "device=cpu"))
    for name, value in ours.items():
        torch.testing.assert_close(value.cpu(), cpus[name], rtol=CLOSE_RTOL, atol=CLOSE_ATOL)
    return {"largest_difference": difference(ours, cpus)}


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest absolute difference of what both have."""
    both = ((value.cpu().double(), other[name].cpu().double()) for name, value in one.items() if name in other)
    return max(float((ours - theirs).abs().max()) for ours, theirs in both if ours.shape == theirs.shape)
