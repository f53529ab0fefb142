"""Checkpoints: what inference needs, written whole or not at all, read without executing anything."""

import dataclasses
import io
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from profiling.errors import UserError
from profiling.storage import atomic_write
from train.config.schema import Config

FILE_NAME = "checkpoint.pt"
FORMAT = 2
RENAMED_IN_FORMAT_2 = {".attend.": ".attn.", ".think.": ".mlp."}  # parts of the names of weights, in models.vit


@dataclass(frozen=True)
class Checkpoint:
    """A trained model.

    Attributes:
        model: `_target_` and the fields it was built with.
        weights: its state dict.
        classes, channels, image_size, mean, std: of the data set it was trained on, as in train.data.DataSet.
    """

    model: dict[str, Any]
    weights: dict[str, Tensor]
    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def save(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write `checkpoint.pt` into `folder`."""
    path = folder / FILE_NAME
    content = io.BytesIO()  # torch's own writer reports a full disk as an internal error
    torch.save({"format": FORMAT, **vars(checkpoint)}, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint file, or that of a run's folder.

    Raises:
        UserError: it is missing, cut short, or not a checkpoint of this program.
    """
    if path.is_dir():
        path = path / FILE_NAME
    if not path.exists():
        raise UserError(f"checkpoint={path}: no such file; a finished run leaves {FILE_NAME} in its folder under runs/")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise UserError(f"checkpoint={path}: cut short, or not a checkpoint: {reason}") from error
    version = content.pop("format", None) if isinstance(content, dict) else None
    if version not in (1, FORMAT):
        raise UserError(f"checkpoint={path}: not a checkpoint of this program (format {FORMAT})")
    saved = Checkpoint(**content)
    return saved if version == FORMAT else _from_format_1(saved)


def _from_format_1(saved: Checkpoint) -> Checkpoint:
    def renamed(name: str) -> str:
        for old, new in RENAMED_IN_FORMAT_2.items():
            name = name.replace(old, new)
        return name

    return dataclasses.replace(saved, weights={renamed(name): tensor for name, tensor in saved.weights.items()})


def restore(module: nn.Module, checkpoint: Checkpoint, config: Config) -> None:
    """Put the weights into `module`, which was built as `config` says.

    Raises:
        UserError: they belong to another model.
    """
    target = checkpoint.model["_target_"]
    if target != config.model._target_:
        raise UserError(
            f"checkpoint={config.checkpoint}: of another model: it holds {target}, and model._target_="
            f"{config.model._target_}; give the model=... that it was trained with"
        )
    try:
        module.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        mismatch = str(error).strip().splitlines()[1].strip()
        raise UserError(f"checkpoint={config.checkpoint}: of a model of another shape: {mismatch}") from error
