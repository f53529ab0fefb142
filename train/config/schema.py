"""The configuration: types and ranges. After composition, all code reads it through these classes.

The values are in configs/*.yaml, one commented line each; this file says which are allowed. Nothing here imports torch,
so `--help`, shell completion and messages about a wrong configuration appear without delay.
"""

import re
from dataclasses import dataclass
from typing import Any

from profiling.errors import UserError
from profiling.vocabulary import STAGES, STEP_PHASES, Agreement, Estimator, ExpectedMemory, ExpectedTime
from train.config.checks import check, check_choice, check_optional, check_range, check_share, most_per_core
from train.config.options import (
    Activations,
    AllocatorCache,
    Arithmetic,
    Attention,
    Brier,
    Buffers,
    Confusion,
    ConvBias,
    Device,
    EvalContext,
    Execution,
    Freeze,
    Histograms,
    MatmulPrecision,
    MemoryFormat,
    Need,
    OnError,
    OptimizerLoop,
    Parameters,
    Place,
    Precision,
    Preprocess,
    RunningLoss,
    Schedule,
    Source,
    Task,
    Topic,
    ZeroGrad,
)
from train.ranks.options import DDPConfig, Strategy, check_timeout

MAX_SAMPLES = 2**31 - 1  # in a split or a batch: more than any data set of images has
MAX_SEED = 2**63 - 1  # what torch's and NumPy's generators, and all readers of records, accept
MAX_WIDTH, MAX_DEPTH = 2**16, 1000  # of a layer, and in layers: beyond any published network
MAX_IMAGE_SIZE = 4096  # pixels: an image of one channel in float32 is then 64 MiB
MAX_CLASSES = 10_000  # the confusion matrix has classes x classes entries, of 8 bytes
MAX_TRACED_STEPS = 1000  # the profiler keeps about a megabyte a step in memory


@dataclass(frozen=True)
class Augment:
    """Random changes to training images."""

    shift: int
    noise: float

    def __post_init__(self) -> None:
        check_range("augment.shift", self.shift, 0, MAX_IMAGE_SIZE)
        check(self.noise >= 0, "augment.noise", self.noise, "0 or more")


@dataclass(frozen=True)
class Loader:
    """How batches reach the model."""

    source: Source
    workers: int | None
    pin_memory: bool
    non_blocking: bool
    persistent_workers: bool
    prefetch_factor: int

    def __post_init__(self) -> None:
        check_optional("loader.workers", self.workers, 0, most_per_core())
        check_range("loader.prefetch_factor", self.prefetch_factor, 1, 1000)


@dataclass(frozen=True)
class Switches:
    """Closed swaps: each field names one implementation of one thing, nearly all in a table of train/variants.py."""

    eval_context: EvalContext
    running_loss: RunningLoss
    zero_grad: ZeroGrad
    parameters: Parameters
    freeze: Freeze
    preprocess: Preprocess
    arithmetic: Arithmetic
    brier: Brier
    confusion: Confusion
    buffers: Buffers
    random_on: Place
    metrics_on: Place
    memory_format: MemoryFormat
    optimizer: OptimizerLoop
    conv_bias: ConvBias
    attention: Attention
    activations: Activations
    execution: Execution
    allocator_cache: AllocatorCache
    histograms: Histograms


@dataclass(frozen=True)
class ExpectationConfig:
    """What a hypothesis predicts; None is no prediction."""

    time: ExpectedTime | None
    memory: ExpectedMemory | None
    at_least: float | None

    def __post_init__(self) -> None:
        if self.at_least is not None:
            check(self.at_least > 1, "hypothesis.expect.at_least", self.at_least, "null, or a ratio above 1")
            has_direction = self.time in (ExpectedTime.slower, ExpectedTime.faster)
            check(has_direction, "hypothesis.expect.at_least", self.at_least, "null, unless time is slower or faster")


@dataclass(frozen=True)
class HypothesisConfig:
    """A claim about one deviation from the baseline that a measurement can refute."""

    topic: Topic
    claim: str
    because: str
    phase: str
    expect: ExpectationConfig
    estimator: Estimator
    numerics: Agreement
    needs: list[Need]

    def __post_init__(self) -> None:
        check_choice("hypothesis.phase", self.phase, (*STAGES, *STEP_PHASES))


@dataclass(frozen=True)
class DataConfig:
    """A data set: `_target_` is a function that returns a `train.data.DataSet`."""

    _target_: str


@dataclass(frozen=True)
class CustomDataConfig(DataConfig):
    """A function of the user, with its own parameters: see `train.data.described`."""

    params: dict[str, Any]


@dataclass(frozen=True)
class EmbeddedDataConfig(DataConfig):
    """A data set that needs no network."""

    root: str
    image_size: int
    test_fraction: float

    def __post_init__(self) -> None:
        check(8 <= self.image_size <= 512, "data.image_size", self.image_size, "8 to 512 pixels")
        check(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "above 0 and below 1")


@dataclass(frozen=True)
class DownloadDataConfig(DataConfig):
    """A data set of torchvision, downloaded once into `root`."""

    root: str
    download: bool


@dataclass(frozen=True)
class FolderDataConfig(DataConfig):
    """A folder with one subfolder of images per class."""

    root: str
    image_size: int
    test_fraction: float
    channels: int
    max_pixels: int
    on_error: OnError = OnError["raise"]  # checkpoints of before have none

    def __post_init__(self) -> None:
        check(8 <= self.image_size <= 1024, "data.image_size", self.image_size, "8 to 1024 pixels")
        check(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "above 0 and below 1")
        check(self.channels in (1, 3), "data.channels", self.channels, "1 (gray) or 3 (color)")
        check(self.max_pixels >= 1, "data.max_pixels", self.max_pixels, "1 or more")


@dataclass(frozen=True)
class SyntheticDataConfig(DataConfig):
    """Random images; shape and number are free."""

    root: str
    train_samples: int
    test_samples: int
    channels: int
    image_size: int
    classes: int

    def __post_init__(self) -> None:
        check_range("data.train_samples", self.train_samples, 1, MAX_SAMPLES)
        check_range("data.test_samples", self.test_samples, 1, MAX_SAMPLES)
        check_range("data.channels", self.channels, 1, MAX_WIDTH)
        check_range("data.image_size", self.image_size, 1, MAX_IMAGE_SIZE)
        check_range("data.classes", self.classes, 2, MAX_CLASSES)


@dataclass(frozen=True)
class ModelConfig:
    """A model: `_target_` is a `models.interface.ModelClass`, built with these fields."""

    _target_: str


@dataclass(frozen=True)
class MLPConfig(ModelConfig):
    """models.mlp.MLP."""

    width: int
    depth: int
    dropout: float

    def __post_init__(self) -> None:
        check_range("model.width", self.width, 1, MAX_WIDTH)
        check_range("model.depth", self.depth, 1, MAX_DEPTH)
        check_share("model.dropout", self.dropout)


@dataclass(frozen=True)
class CNNConfig(ModelConfig):
    """models.cnn.CNN."""

    width: int
    dropout: float

    def __post_init__(self) -> None:
        check_range("model.width", self.width, 1, MAX_WIDTH)
        check_share("model.dropout", self.dropout)


@dataclass(frozen=True)
class ResNet18Config(ModelConfig):
    """models.resnet.ResNet18."""

    weights: str | None
    freeze_backbone: bool

    def __post_init__(self) -> None:
        if self.weights is not None:
            check_choice("model.weights", self.weights, ("DEFAULT", "IMAGENET1K_V1"))


@dataclass(frozen=True)
class ViTConfig(ModelConfig):
    """models.vit.ViT."""

    patch: int
    dim: int
    depth: int
    heads: int
    dropout: float

    def __post_init__(self) -> None:
        check_range("model.patch", self.patch, 1, MAX_IMAGE_SIZE)
        check_range("model.dim", self.dim, 1, MAX_WIDTH)
        check_range("model.depth", self.depth, 1, MAX_DEPTH)
        check_range("model.heads", self.heads, 1, MAX_WIDTH)
        check(self.dim % self.heads == 0, "model.dim", self.dim, f"a multiple of model.heads={self.heads}")
        check_share("model.dropout", self.dropout)


@dataclass(frozen=True)
class CustomModelConfig(ModelConfig):
    """A class of the user, with its own parameters."""

    params: dict[str, Any]


@dataclass(frozen=True)
class OptimizerConfig:
    """Fields that every optimizer has."""

    _target_: str
    lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        check(self.lr > 0, "optimizer.lr", self.lr, "above 0")
        check(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")


@dataclass(frozen=True)
class CustomOptimizerConfig(OptimizerConfig):
    """Any other class, with its own parameters."""

    params: dict[str, Any]


@dataclass(frozen=True)
class AdamWConfig(OptimizerConfig):
    """torch.optim.AdamW."""

    betas: tuple[float, float]

    def __post_init__(self) -> None:
        super().__post_init__()
        for beta in self.betas:
            check(0 <= beta < 1, "optimizer.betas", list(self.betas), "two numbers, each 0 to below 1")


@dataclass(frozen=True)
class SGDConfig(OptimizerConfig):
    """torch.optim.SGD."""

    momentum: float
    nesterov: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("optimizer.momentum", self.momentum)
        check(self.momentum > 0 or not self.nesterov, "optimizer.nesterov", self.nesterov, "false while momentum is 0")


@dataclass(frozen=True)
class Profiler:
    """torch.profiler windows over steps of training, evaluation and inference; `active: 0` disables tracing."""

    wait: int
    warmup: int
    active: int
    record_shapes: bool
    profile_memory: bool
    with_stack: bool
    with_flops: bool

    def __post_init__(self) -> None:
        check(self.wait >= 0, "profiler.wait", self.wait, "0 or more steps")
        check_range("profiler.warmup", self.warmup, 0, MAX_TRACED_STEPS)
        check_range("profiler.active", self.active, 0, MAX_TRACED_STEPS)


@dataclass(frozen=True)
class ABConfig:
    """The measurement of an experiment against the baseline."""

    budget_s: float | None
    max_s: float | None
    allow_many: bool
    gate: str | None

    def __post_init__(self) -> None:
        for key, seconds in (("ab.budget_s", self.budget_s), ("ab.max_s", self.max_s)):
            check(seconds is None or seconds > 0, key, seconds, "null, or above 0 seconds")


@dataclass(frozen=True)
class Config:
    """The complete configuration of one run; configs/config.yaml documents each field."""

    name: str
    task: Task
    output: str
    checkpoint: str | None
    checkpoint_every: str | None
    resume: str | None
    images: str | None
    max_pixels: int
    seed: int
    device: Device
    precision: Precision
    threads: int | None
    ranks: int | None
    strategy: Strategy
    rank_timeout_s: float
    keep_heap: bool
    tf32: bool
    matmul_precision: MatmulPrecision
    expandable_segments: bool
    cudnn_benchmark: bool
    deterministic: bool
    anomaly_detection: bool
    epochs: int
    batch_size: int | None
    micro_batches: int
    schedule: Schedule
    label_smoothing: float
    clip_norm: float | None
    augment: Augment
    eval_batch_size: int
    infer_batch_size: int
    loader: Loader
    switches: Switches
    ddp: DDPConfig
    hypothesis: HypothesisConfig
    data: Any  # a DataConfig; Any, because a field of the base type rejects fields of subclasses
    model: Any  # a ModelConfig
    optimizer: Any  # an OptimizerConfig
    profiler: Profiler
    ab: ABConfig

    def __post_init__(self) -> None:
        check(bool(self.name.strip()) and "/" not in self.name, "name", repr(self.name), "a name without slashes")
        check(bool(self.output.strip()), "output", repr(self.output), "a folder")
        check_range("seed", self.seed, 0, MAX_SEED)
        check_optional("threads", self.threads, 1, most_per_core())
        check_optional("ranks", self.ranks, 1, most_per_core())
        check_timeout(self.rank_timeout_s)
        every = self.checkpoint_every
        is_interval = every is None or re.fullmatch(r"[1-9]\d{0,8}s?", every) is not None
        check(is_interval, "checkpoint_every", every, "null, steps (500) or seconds (60s)")
        check(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        check_optional("batch_size", self.batch_size, 1, MAX_SAMPLES)
        check_range("micro_batches", self.micro_batches, 1, MAX_SAMPLES)
        size = MAX_SAMPLES if self.batch_size is None else self.batch_size
        check(self.micro_batches <= size, "micro_batches", self.micro_batches, f"at most batch_size={size}")
        check_range("eval_batch_size", self.eval_batch_size, 1, MAX_SAMPLES)
        check_range("infer_batch_size", self.infer_batch_size, 1, MAX_SAMPLES)
        check_share("label_smoothing", self.label_smoothing)
        check(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "null, or above 0")
        check(self.max_pixels >= 1, "max_pixels", self.max_pixels, "1 or more")
        check(
            self.task is Task.train or self.checkpoint is not None,
            "checkpoint",
            None,
            "a checkpoint or the folder of the run that wrote it, with task=infer",
        )
        check(
            self.task is Task.infer or (self.checkpoint is None and self.images is None),
            "task",
            self.task,
            "infer, where checkpoint or images is given",
        )
        for key, kind in (("data", DataConfig), ("model", ModelConfig), ("optimizer", OptimizerConfig)):
            if not isinstance(getattr(self, key), kind):
                raise UserError(
                    f"{key}: the option has no schema, so its keys cannot be checked; begin its file with "
                    f"`defaults: [/schema/{key}/<option>@_here_]`, as its neighbors do"
                )
