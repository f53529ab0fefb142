"""The values that switches may take. train/variants.py holds what each of them does."""

from enum import StrEnum

TOPICS = ("autograd", "batching", "data", "vectorization", "broadcasting", "tensors", "device", "kernels", "execution")
PHASES = ("load", "transfer", "preprocess", "forward", "loss", "backward", "optimizer", "metrics")
STAGES = ("train", "evaluate", "infer")


class Task(StrEnum):
    """What a run does."""

    train = "train"
    infer = "infer"


class Device(StrEnum):
    """Where the model runs; `auto` is the accelerator if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"
    xpu = "xpu"


class Precision(StrEnum):
    """Data type of autocast; `auto` is bf16 only where the hardware has bf16 arithmetic."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Schedule(StrEnum):
    """Learning rate over the run."""

    one_cycle = "one_cycle"
    cosine = "cosine"
    constant = "constant"


class Source(StrEnum):
    """How batches are made."""

    auto = "auto"
    resident = "resident"
    dataloader = "dataloader"


class EvalContext(StrEnum):
    """What evaluation and inference do about autograd."""

    inference_mode = "inference_mode"
    no_grad = "no_grad"
    grad = "grad"


class RunningLoss(StrEnum):
    """How the reported loss is accumulated."""

    detached = "detached"
    attached = "attached"
    item = "item"


class ZeroGrad(StrEnum):
    """How gradients are cleared."""

    set_to_none = "set_to_none"
    fill = "fill"


class Parameters(StrEnum):
    """Whether anything can be trained."""

    trainable = "trainable"
    frozen = "frozen"


class Freeze(StrEnum):
    """How a frozen backbone is frozen."""

    requires_grad = "requires_grad"
    optimizer_only = "optimizer_only"


class Preprocess(StrEnum):
    """Normalization and augmentation of a batch."""

    vectorized = "vectorized"
    loop = "loop"


class Arithmetic(StrEnum):
    """Operands of different shape."""

    broadcast = "broadcast"
    repeat = "repeat"


class Brier(StrEnum):
    """The per-sample Brier score."""

    matched = "matched"
    all_pairs = "all_pairs"


class Confusion(StrEnum):
    """The confusion matrix."""

    vectorized = "vectorized"
    loop = "loop"


class Buffers(StrEnum):
    """Large temporaries."""

    reused = "reused"
    fresh = "fresh"


class Place(StrEnum):
    """Where a tensor is made or used."""

    device = "device"
    cpu = "cpu"


class MemoryFormat(StrEnum):
    """Layout of images and convolution weights."""

    channels_last = "channels_last"
    contiguous = "contiguous"


class OptimizerLoop(StrEnum):
    """How the optimizer walks the parameters."""

    fused = "fused"
    foreach = "foreach"
    for_loop = "for_loop"


class ConvBias(StrEnum):
    """Bias of a convolution that batch norm follows."""

    absent = "absent"
    present = "present"


class Attention(StrEnum):
    """Scaled dot-product attention."""

    sdpa = "sdpa"
    math = "math"


class Activations(StrEnum):
    """What the backward pass finds of the forward pass."""

    stored = "stored"
    recomputed = "recomputed"


class Execution(StrEnum):
    """Imperative execution, or a compiled graph."""

    eager = "eager"
    compiled = "compiled"


class Histograms(StrEnum):
    """Histograms of every parameter."""

    never = "never"
    every_step = "every_step"


class Time(StrEnum):
    """What a hypothesis expects of time; `fails` expects the run to stop with an error."""

    slower = "slower"
    faster = "faster"
    same = "same"
    fails = "fails"


class Memory(StrEnum):
    """What a hypothesis expects of peak memory."""

    more = "more"
    less = "less"
    same = "same"


class Numerics(StrEnum):
    """How results compare with the baseline's."""

    identical = "identical"
    close = "close"
    different = "different"


class Need(StrEnum):
    """What an experiment needs in order to act; train/needs.py checks each."""

    accelerator = "accelerator"
    cuda = "cuda"
    compiler = "compiler"
    bf16 = "bf16"
    multicore = "multicore"
    glibc = "glibc"
    attention = "attention"
    batch_norm = "batch_norm"
    frozen_backbone = "frozen_backbone"
    image_files = "image_files"
    dataloader = "dataloader"
