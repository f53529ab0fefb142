"""The parts of a run, built from its configuration before the first step."""

import copy
import inspect
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from models.interface import CONSTRUCTOR_PARAMETERS, CONSTRUCTOR_SWITCHES, ModelClass, has_backbone
from profiling.capture import Capture, NullCapture, ProfilerWindow, TracedCapture
from profiling.errors import UserError
from profiling.heap import reserve_heap
from profiling.run_record import TraceFile
from profiling.vocabulary import STAGES
from train import loop, needs, variants
from train.batches import Batch, Batches, make_batches
from train.config.options import Parameters, Precision, Schedule
from train.config.schema import Config
from train.data import DataSet
from train.device import choose_device, choose_precision, set_process
from train.ranks.alone import ALONE, RankGroup, facts_of
from train.ranks.order import order_of, whole
from train.targets import call_target, fields_of, import_target, is_class, is_function_of, named_parameters

WARMUP_SHARE = 0.3  # of the steps of a one-cycle schedule: the learning rate rises
START_FACTOR = 0.04  # of the peak learning rate: the first step of a one-cycle schedule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """The parts of a run.

    Attributes:
        module: the model as built; checkpoints contain its state.
        model: the model as called: `module` itself, or its compiled form.
        generators: all random generators of the run, except torch's default one.
    """

    config: Config
    device: torch.device
    precision: Precision
    data: DataSet
    module: nn.Module
    model: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    recipe: variants.Recipe
    train_batches: Batches
    test_batches: Batches
    infer_batches: Batches
    generators: tuple[torch.Generator, ...]
    group: RankGroup

    def new_metrics(self) -> loop.EpochMetrics:
        """Metrics of zeros, for one pass."""
        return loop.new_metrics(self.recipe, self.device, len(self.data.classes))

    def fit(
        self,
        batches: Batches,
        capture: Capture,
        after_step: Callable[[loop.EpochMetrics], None] = lambda metrics: None,
        new_metrics: Callable[[], loop.EpochMetrics] | None = None,
    ) -> loop.EpochMetrics:
        """Train for one pass over `batches`; see `train.loop.fit`."""
        new = new_metrics or self.new_metrics
        return self.group.total(
            loop.fit(self.model, self.optimizer, self.schedule, batches, self.recipe, capture, new, after_step)
        )

    def evaluate(self, batches: Batches, capture: Capture) -> loop.EpochMetrics:
        """Metrics of the model over one pass over `batches`."""
        self.group.same_buffers(self.module)
        return self.group.total(loop.evaluate(self.model, batches, self.recipe, capture, self.new_metrics))

    def infer(self, batches: Batches, capture: Capture) -> Tensor:
        """Class probabilities float32 [N, classes] of one pass over `batches`."""
        return loop.infer(self.model, batches, self.recipe, capture)


def prepare(config: Config, group: RankGroup = ALONE) -> Session:
    """Build all parts of a run, for one process of `group`. The initial weights of one model depend on the seed alone.

    Raises:
        UserError: the machine, the data set or the model does not match the configuration.
        NotApplicableError: a need of the experiment is not met.
    """
    device = group.device(choose_device(config.device))
    precision = choose_precision(config.precision, device)
    set_process(config, device)
    data = group.load(config.data)
    group.agree("the data", facts_of(data))
    shift = config.augment.shift
    if shift >= data.image_size:
        raise UserError(f"augment.shift={shift}: out of range; allowed: 0 to {data.image_size - 1} pixels")
    torch.manual_seed(config.seed)
    module = build_model(config, data)
    needs.check(needs.ExperimentContext(config, device, data, module))
    module = module.to(device=device, memory_format=variants.MEMORY_FORMAT[config.switches.memory_format])  # type: ignore[call-overload]
    check_model(module, data, device, config.model._target_)
    trained = freeze_and_select(module, config)
    order = torch.Generator().manual_seed(config.seed)
    augmentation = variants.random_generator(config, device)
    group.own_random(augmentation)
    batches = partial(make_batches, loader=config.loader, device=device, share=group.share)
    model, recipe, train_batches, test_batches = group.parallel(
        variants.EXECUTION[config.switches.execution](module),
        variants.resolve(config, precision, device, data, augmentation),
        batches(data.train, batch_size=config.batch_size or len(data.train), generator=order),
        batches(data.test, batch_size=config.eval_batch_size),
    )
    optimizer = build_optimizer(trained, config)  # of the parts of parameters, where ranks divide them
    return Session(
        config=config,
        device=device,
        precision=precision,
        data=data,
        module=module,
        model=model,
        optimizer=optimizer,
        schedule=LambdaLR(optimizer, partial(lr_factor, config.schedule, config.epochs * len(train_batches))),
        recipe=recipe,
        train_batches=train_batches,
        test_batches=test_batches,
        infer_batches=batches(data.test, batch_size=config.infer_batch_size, share=whole),
        generators=(order, augmentation),
        group=group,
    )


def build_model(config: Config, data: DataSet) -> nn.Module:
    """Build the class that `model._target_` names; pass the switches that are parameters of its constructor.

    Raises:
        UserError: there is no such class, or it rejects its arguments.
    """
    target = config.model._target_
    model_class: ModelClass = import_target(
        target,
        "model._target_",
        lambda imported: is_class(imported, nn.Module) or is_function_of(imported),
        "a subclass of torch.nn.Module, or a function that returns one",
    )
    fields, named = fields_of(config.model), named_parameters(model_class)
    for name in named.keys() & set(CONSTRUCTOR_SWITCHES):
        fields[name] = variants.TABLES[name][getattr(config.switches, name)]
    sizes = (data.channels, data.image_size, len(data.classes))
    for name, value in zip(CONSTRUCTOR_PARAMETERS, sizes, strict=True):
        if name in named:
            if name in fields:
                raise UserError(f"model.params.{name}: not free, the data decides it: {value}")
            fields[name] = value
    model = call_target(model_class, f"model={target}", **fields)
    if not isinstance(model, nn.Module):
        raise UserError(f"model._target_={target}: not an nn.Module")
    variants.ACTIVATIONS[config.switches.activations](model)
    if any(map(nn.parameter.is_lazy, model.parameters())):  # their shapes come from the first forward pass
        check_model(model, data, torch.device("cpu"), target)
    return model


def check_model(module: nn.Module, data: DataSet, device: torch.device, target: str) -> None:
    """Classify two empty images in both modes: what a class of the user's does not fit is known before training.

    Raises:
        UserError: the model does not take images of this shape, or does not return one logit for each class.
    """
    shape, classes = (2, data.channels, data.image_size, data.image_size), len(data.classes)
    with torch.no_grad(), torch.random.fork_rng([]):
        images = torch.zeros(shape, device=device)
        # Training is tried on a copy: statistics change. Lazy modules cannot be copied before their first call.
        for mode in (module.eval, lambda: copy.deepcopy(module).train()):
            logits = call_target(mode(), f"model={target}: does not fit this data, images {list(shape)}", images)
            if not isinstance(logits, Tensor) or logits.shape != (2, classes):
                got = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                raise UserError(f"model={target}: returned {got} for 2 images; this data needs logits [2, {classes}]")
    module.train()


def freeze_and_select(module: nn.Module, config: Config) -> nn.Module:
    """Freeze parameters as the switches say; return the module that the optimizer updates.

    Raises:
        UserError: no parameter of that module requires grad.
    """
    variants.PARAMETERS[config.switches.parameters](module)
    trained = module
    if has_backbone(module) and module.freeze_backbone:
        variants.FREEZE[config.switches.freeze](module.backbone)
        trained = module.head
    if not any(parameter.requires_grad for parameter in trained.parameters()):
        key = "switches.parameters" if config.switches.parameters is Parameters.frozen else "model"
        value = config.switches.parameters if key == "switches.parameters" else config.model._target_
        raise UserError(
            f"no parameter requires grad, so there is nothing to train: {key}={value}"
            + ("; set it to trainable" if key == "switches.parameters" else " has none")
        )
    return trained


def build_optimizer(trained: nn.Module, config: Config) -> Optimizer:
    """The class that `optimizer._target_` names, over the parameters of `trained` that require grad.

    Fields of the YAML file and switches that the class has no parameter for are left out, with a note; what the user
    writes into `optimizer.params` never is.

    Raises:
        UserError: there is no such class, it rejects its arguments, or the loop cannot drive it.
    """
    target = config.optimizer._target_
    optimizer_class = import_target(
        target,
        "optimizer._target_",
        lambda imported: is_class(imported, Optimizer),
        "a subclass of torch.optim.Optimizer",
    )
    if inspect.signature(optimizer_class.step).parameters["closure"].default is inspect.Parameter.empty:  # type: ignore[attr-defined]
        raise UserError(f"optimizer={target}: its step needs a closure, which the training loop does not pass")
    if optimizer_class is torch.optim.SparseAdam:
        raise UserError(f"optimizer={target}: takes sparse gradients only, and those of image models are dense")
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    fields = fields_of(config.optimizer) | variants.OPTIMIZER_LOOP[config.switches.optimizer]
    own = getattr(config.optimizer, "params", {})
    left_out = [name for name in fields if name not in {*own, *named_parameters(optimizer_class)}]
    if left_out:
        log.info("note: optimizer=%s has no %s; left out", target, ", ".join(left_out))
    fields = {name: value for name, value in fields.items() if name not in left_out}
    optimizer: Optimizer = call_target(optimizer_class, f"optimizer={target}", parameters, **fields)
    return optimizer


def lr_factor(schedule: Schedule, steps: int, step: int) -> float:
    """Learning rate at `step` of `steps`, as a factor of the peak.

    `one_cycle` rises linearly over WARMUP_SHARE of the steps, then falls as a cosine (Smith and Topin 2018,
    https://arxiv.org/abs/1708.07120, without the momentum cycle); `cosine` only falls (Loshchilov and Hutter 2017,
    https://arxiv.org/abs/1608.03983).
    """
    if schedule is Schedule.constant:
        return 1.0
    progress = min(step / steps, 1.0)
    if schedule is Schedule.one_cycle:
        if progress < WARMUP_SHARE:
            return START_FACTOR + (1 - START_FACTOR) * progress / WARMUP_SHARE
        progress = (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE)
    return 0.5 * (1 + math.cos(math.pi * progress))


def warm_up(session: Session) -> float:
    """Run each kind of step on each batch size that will occur, then restore all state bit for bit.

    Work that happens once (compilation, choice of algorithms, first allocations) is thus outside all timed steps.

    Returns:
        The duration in seconds.
    """
    start = time.perf_counter()
    saved_module = copy.deepcopy(session.module.state_dict())
    saved_schedule = session.schedule.state_dict()
    saved_random = [generator.get_state() for generator in session.generators]
    accelerators = [] if session.device.type == "cpu" else [torch.accelerator.current_device_index()]
    with torch.random.fork_rng(accelerators, device_type=session.device.type):
        session.fit(_batch_of_each_size(session.train_batches), NullCapture())
        session.evaluate(_batch_of_each_size(session.test_batches), NullCapture())
        session.infer(_batch_of_each_size(session.infer_batches), NullCapture())
    session.module.load_state_dict(saved_module)
    session.optimizer.state.clear()
    session.schedule.load_state_dict(saved_schedule)
    for group, rate in zip(session.optimizer.param_groups, session.schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    for generator, state in zip(session.generators, saved_random, strict=True):
        generator.set_state(state)
    return time.perf_counter() - start


def _batch_of_each_size(batches: Batches) -> list[Batch]:
    """The first batch and, if the last batch of a pass is smaller, a slice of that size."""
    images, labels = next(iter(batches))
    return [(images[:size], labels[:size]) for size in order_of(batches).sizes()]


def trace(
    session: Session, folder: Path, after_step: Callable[[loop.EpochMetrics], None]
) -> Iterator[tuple[str, TraceFile]]:
    """Trace one window of each stage into `folder`; yield stage and file, nothing if `profiler.active` is 0.

    Traced steps are no timings. To be called last, because the traced training steps change the model.
    """
    profiler = session.config.profiler
    if profiler.active == 0:
        return
    options = {
        name: getattr(profiler, name) for name in ("record_shapes", "profile_memory", "with_stack", "with_flops")
    }
    window = ProfilerWindow(folder, profiler.wait, profiler.warmup, profiler.active, options)
    passes: dict[str, tuple[Batches, Callable[[Any, Capture], object]]] = {
        "train": (session.train_batches, partial(session.fit, after_step=after_step)),
        "evaluate": (session.test_batches, session.evaluate),
        "infer": (session.infer_batches, session.infer),
    }
    reserve_heap()
    for stage in STAGES:
        batches, run = passes[stage]
        with TracedCapture(stage, session.device, window) as capture:
            run(islice(chain.from_iterable(repeat(batches)), window.steps), capture)
        yield stage, capture.trace()
