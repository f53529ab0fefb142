"""Inference alone: a checkpoint applied to a data set or to a folder of images."""

import csv
import dataclasses
import reprlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from profiling.capture import TimedCapture
from profiling.errors import UserError
from profiling.storage import atomic_write
from profiling.terminal.runs import latency_line
from profiling.terminal.streams import standard_output
from profiling.terminal.tables import PlainConsole
from train import checkpoint, health, loop, session, variants
from train.as_trained import as_trained
from train.batches import make_batches
from train.checkpoint import Checkpoint
from train.config import cli
from train.config.schema import Config, CustomModelConfig, ResNet18Config
from train.data import DataSet, FileSplit, TensorSplit, load, unlabeled
from train.device import choose_device, choose_precision, set_process

FILE_NAME = "predictions.csv"


def infer(config: Config, given: Mapping[str, Any], folder: Path) -> None:
    """Write `predictions.csv` into `folder`, one row per image in order, and print throughput and latency.

    The model and the data are those of the checkpoint, where the user `given`, as train.config.changes.given tells,
    names no others.

    Raises:
        UserError: the checkpoint, the data set or the images are missing or do not match the configuration.
    """
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    set_process(config, device)
    assert config.checkpoint is not None  # Config requires it for task=infer
    path = checkpoint.find(Path(config.checkpoint), Path(config.output))
    saved = checkpoint.load(path)
    config = as_trained(config, given, saved, path)
    data = inputs(config, saved, path)
    module = rebuild(config, data, saved, path)
    module = module.to(device, memory_format=variants.MEMORY_FORMAT[config.switches.memory_format])  # type: ignore[call-overload]
    model = variants.EXECUTION[config.switches.execution](module)
    recipe = variants.resolve(config, precision, device, data, variants.random_generator(config, device))
    batches = make_batches(data.test, config.loader, device, config.infer_batch_size)
    with TimedCapture(device) as capture:
        start = time.perf_counter()
        probabilities = loop.infer(model, batches, recipe, capture).cpu()
        seconds = time.perf_counter() - start
    health.check_pass(module, f"checkpoint={path}: a probability of inference", probabilities)
    predictions = write_predictions(names(data.test), probabilities, data.classes, folder)
    console = PlainConsole(soft_wrap=True)
    with standard_output(cli.fail, f"all images are classified: {predictions}"):
        console.print(f"checkpoint: {path}, of {describe(config.model)}")
        console.print(f"images: {config.images or describe(config.data)}")
        console.print(f"{len(probabilities)} images in {seconds:.2f} s: {len(probabilities) / seconds:,.0f} samples/s")
        console.print(latency_line(capture.timings()))
        console.print(f"predictions: {predictions}")


def rebuild(config: Config, data: DataSet, saved: Checkpoint, path: Path) -> nn.Module:
    """The trained model, on the CPU.

    Raises:
        UserError: it cannot be built, or its weights are not those of the checkpoint.
    """
    model = config.model
    if isinstance(model, ResNet18Config):
        model = dataclasses.replace(model, weights=None)  # those that training began with: no need to download them
    # A wrong field of the file may ask for terabytes: on the meta device, that costs nothing. Only a class of the
    # user's may have tensors that are not in its state dict.
    device = torch.device("cpu" if isinstance(model, CustomModelConfig) else "meta")
    try:
        with device:
            module = session.build_model(dataclasses.replace(config, model=model), data)
    except (UserError, RuntimeError, OverflowError) as error:
        raise checkpoint.refused(path, f"model: {str(error).strip().splitlines()[0]}") from error
    checkpoint.restore(module, saved, path)
    return module


def inputs(config: Config, saved: Checkpoint, path: Path) -> DataSet:
    """The images to classify, as the test split of a data set with the checkpoint's classes and normalization.

    Raises:
        UserError: their shape or classes differ from those that the model was trained on.
    """
    if config.images is not None:
        files = unlabeled(Path(config.images), saved.channels, saved.image_size, config.max_pixels)
        return DataSet(files, files, saved.classes, saved.channels, saved.image_size, saved.mean, saved.std)
    data = load(config.data)
    trained_on = (saved.channels, saved.image_size, saved.classes)
    given = (data.channels, data.image_size, data.classes)
    if given != trained_on:
        raise UserError(
            f"checkpoint={path}: trained on images of {saved.channels} x {saved.image_size}^2 and "
            f"{len(saved.classes)} classes; this data set has {data.channels} x {data.image_size}^2 and "
            f"{len(data.classes)}; give the data it was trained on, or a folder as images=..."
        )
    return dataclasses.replace(data, mean=saved.mean, std=saved.std)


def describe(option: Any) -> str:
    """An option of a group in one line: `models.mlp.MLP width=256 depth=2`."""
    fields = {field.name: getattr(option, field.name) for field in dataclasses.fields(option)}
    return " ".join([fields.pop("_target_"), *(f"{name}={reprlib.repr(value)}" for name, value in fields.items())])


def names(split: TensorSplit | FileSplit) -> Sequence[str]:
    """The name of each row: the path of the file, or the index in the split."""
    if isinstance(split, FileSplit):
        return [str(file) for file in split.files]
    return [str(index) for index in range(len(split))]


def write_predictions(image_names: Sequence[str], probabilities: Tensor, classes: Sequence[str], folder: Path) -> Path:
    """Write the most likely class of each image and its probability; `probabilities` is float [N, classes]."""
    path = folder / FILE_NAME
    highest, indices = torch.max(probabilities, dim=1)
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("image", "label", "probability"))
        for name, index, probability in zip(image_names, indices.tolist(), highest.tolist(), strict=True):
            writer.writerow((name, classes[index], f"{probability:.4f}"))
    return path
