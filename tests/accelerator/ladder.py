"""Point 3: the noise floor, then the switches that matter on a device, each a short A/B of the project's own."""

import shutil
from functools import partial
from typing import Any

import yaml

from profiling.errors import NotApplicableError
from profiling.verdict.record import COMPARISON_FILE, ComparisonRecord, read_comparison
from profiling.vocabulary import Verdict
from tests.accelerator.context import Context, Pieces, command, scratch
from tests.accelerator.workload import chosen
from tests.conftest import ROOT
from train.config import compose

BUDGET_S, BUDGET_CPU_S = 4.0, 1.0
EXPERIMENTS = (  # the most telling first; `baseline` is the A/A
    "baseline", "amp_off", "sync_every_step", "channels_last_off", "compile_on", "cuda_graphs_on", "logits_to_cpu",
    "optimizer_for_loop", "pin_memory_off", "non_blocking_off", "cpu_tensor_creation", "vectorized_off", "nograd_off",
    "activation_checkpointing_on", "cudnn_benchmark_off", "tf32_off", "batch_size_small", "inference_batch_1",
    "metrics_loop", "device_cpu", "empty_cache_every_step", "matmul_precision_highest", "memory_pool_expandable",
    "data_parallel",
)  # fmt: skip
NEEDS = {"pin_memory_off": ["loader.source=dataloader"], "non_blocking_off": ["loader.source=dataloader"]}
SMALL = ("device_cpu",)  # the small default run: a CPU would take minutes for the workload


def pieces(context: Context) -> Pieces:
    return {name: partial(compare, context, name) for name in EXPERIMENTS}


def compare(context: Context, experiment: str) -> dict[str, Any]:
    """`python -m train.ab` on the workload; the record and the report's figures are kept, the traces are not."""
    overrides = [*NEEDS.get(experiment, []), *([] if experiment in SMALL else chosen(context)), *context.overrides]
    changed = compose.flat(yaml.safe_load((ROOT / f"configs/experiment/{experiment}.yaml").read_text()))
    overrides = [text for text in overrides if text.partition("=")[0] not in changed]  # the baseline keeps its own
    output = scratch()
    budget_s = BUDGET_S if context.is_accelerator else BUDGET_CPU_S
    done = command(
        "train.ab", f"+experiment={experiment}", *overrides, f"ab.budget_s={budget_s}",
        f"output={output}",
    )  # fmt: skip
    files = list(output.rglob(COMPARISON_FILE))
    if done.returncode or not files:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    record = read_comparison(files[0])
    kept = context.out / "ladder" / experiment
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copy(files[0], kept)
    if record.comparison.verdict is Verdict.not_applicable:
        raise NotApplicableError(record.comparison.reason or "")
    return figures(record, overrides)


def figures(record: ComparisonRecord, overrides: list[str]) -> dict[str, Any]:
    comparison = record.comparison
    found: dict[str, Any] = {"verdict": comparison.verdict, "outcome": comparison.outcome, "overrides": overrides}
    found |= {"seconds": record.seconds, "phase": comparison.hypothesis.phase, "reason": comparison.reason}
    effect = comparison.declared_effect
    if effect is not None:
        found |= {
            "ratio": effect.ratio,
            "ratio_low": effect.ratio_low,
            "ratio_high": effect.ratio_high,
            "floor_ratio": effect.floor_ratio,
            "launches": effect.launches,
            "baseline_us_per_sample": effect.baseline_s_per_sample * 1e6,
        }
    if comparison.memory is not None:
        found["peak_bytes"] = [comparison.memory.baseline_bytes, comparison.memory.variant_bytes]
    return found
