"""The values that switches may take. configs/config.yaml describes them; train/variants.py implements them.

Enums of the functional form are one line each: `StrEnum("Task", ["train", "infer"])` has the members `Task.train` and
`Task.infer`, whose values are their names.
"""

from enum import StrEnum

Task = StrEnum("Task", ["train", "infer"])
Topic = StrEnum("Topic", [
    "baseline", "autograd", "batching", "data", "vectorization", "broadcasting", "tensors", "device", "kernels",
    "execution", "ranks",
])  # fmt: skip

# --- where and how a run computes -------------------------------------------------------------------------------------

Device = StrEnum("Device", ["auto", "cpu", "cuda", "mps", "xpu"])
Precision = StrEnum("Precision", ["auto", "fp32", "bf16", "fp16"])
MatmulPrecision = StrEnum("MatmulPrecision", ["high", "highest"])
Schedule = StrEnum("Schedule", ["one_cycle", "cosine", "constant"])
Source = StrEnum("Source", ["auto", "resident", "dataloader"])

# --- switches, in the order of `switches:` in configs/config.yaml; the fast option is first ---------------------------

EvalContext = StrEnum("EvalContext", ["inference_mode", "no_grad", "grad"])
RunningLoss = StrEnum("RunningLoss", ["detached", "attached", "item"])
ZeroGrad = StrEnum("ZeroGrad", ["set_to_none", "fill"])
Parameters = StrEnum("Parameters", ["trainable", "frozen"])
Freeze = StrEnum("Freeze", ["requires_grad", "optimizer_only"])
Preprocess = StrEnum("Preprocess", ["vectorized", "loop"])
Arithmetic = StrEnum("Arithmetic", ["broadcast", "repeat"])
Brier = StrEnum("Brier", ["matched", "all_pairs"])
Confusion = StrEnum("Confusion", ["vectorized", "loop"])
Buffers = StrEnum("Buffers", ["reused", "fresh"])
Place = StrEnum("Place", ["device", "cpu"])
MemoryFormat = StrEnum("MemoryFormat", ["channels_last", "contiguous"])
OptimizerLoop = StrEnum("OptimizerLoop", ["fused", "foreach", "for_loop"])
ConvBias = StrEnum("ConvBias", ["absent", "present"])
Attention = StrEnum("Attention", ["sdpa", "math"])
Activations = StrEnum("Activations", ["stored", "recomputed"])
Execution = StrEnum("Execution", ["eager", "compiled", "cuda_graphs", "data_parallel"])
AllocatorCache = StrEnum("AllocatorCache", ["kept", "emptied"])
Histograms = StrEnum("Histograms", ["never", "every_step"])

# --- what an experiment needs in order to act; train/needs.py checks each ---------------------------------------------

Need = StrEnum("Need", [
    "accelerator", "cuda", "two_devices", "compiler", "bf16", "multicore", "glibc", "attention", "batch_norm",
    "frozen_backbone", "image_files", "dataloader", "ranks", "micro_batches",
])  # fmt: skip
