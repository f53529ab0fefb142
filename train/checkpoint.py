"""Checkpoints: what inference needs. Writing is atomic; reading executes no code from the file."""

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
RENAMED_IN_FORMAT_2 = {".attend.": ".attn.", ".think.": ".mlp."}  # parts of parameter names of models.vit


@dataclass(frozen=True)
class Checkpoint:
    """A trained model.

    Attributes:
        model: configuration that the model was built from: `_target_` and its fields.
        weights: state dict of the model.
        classes, channels, image_size, mean, std: fields of the train.data.DataSet that the model was trained on.
    """

    model: dict[str, Any]
    weights: dict[str, Tensor]
    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def save(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write `checkpoint.pt` into `folder` and return its path."""
    path = folder / FILE_NAME
    content = io.BytesIO()  # not to the file: torch.save reports a full disk as an internal error
    torch.save({"format": FORMAT, **vars(checkpoint)}, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, given its file or the folder of its run; its tensors are on the CPU.

    Raises:
        UserError: the file is missing, truncated, or not a checkpoint of this program.
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
    checkpoint = Checkpoint(**content)
    return checkpoint if version == FORMAT else _from_format_1(checkpoint)


def _from_format_1(checkpoint: Checkpoint) -> Checkpoint:
    def renamed(name: str) -> str:
        for old, new in RENAMED_IN_FORMAT_2.items():
            name = name.replace(old, new)
        return name

    weights = {renamed(name): tensor for name, tensor in checkpoint.weights.items()}
    return dataclasses.replace(checkpoint, weights=weights)


def restore(module: nn.Module, checkpoint: Checkpoint, config: Config) -> None:
    """Load the weights of `checkpoint` into `module`, which was built from `config.model`.

    Raises:
        UserError: the checkpoint belongs to another model class, or to a model of another shape.
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
