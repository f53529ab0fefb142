"""Images in files, decoded when they are asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from profiling.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")


class FileSplit(Dataset[tuple[Tensor, Tensor]]):
    """Image files with labels; `split[i]` reads, decodes and resizes one: (uint8 [C, size, size], int64 []).

    Sides are scaled separately, so the whole image stays in sight and its proportions may not.
    """

    def __init__(self, files: Sequence[Path], labels: Tensor, channels: int, image_size: int) -> None:
        self.files = list(files)
        self.labels = labels  # int64 [N]
        self.channels = channels  # 1 (gray) or 3 (color)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return read_image(self.files[index], self.channels, self.image_size), self.labels[index]


def read_image(file: Path, channels: int, image_size: int) -> Tensor:
    """Decode `file` to uint8 [channels, image_size, image_size], upright and resized with antialiasing.

    Pillow decodes, since torchvision.io's decoders are deprecated (torchvision 0.29) in favor of a package with FFmpeg.

    Raises:
        UserError: the file cannot be read, is not an image, is damaged, or has more than 8 bits a channel.
    """
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would cut such pixels off at 255
                raise UserError(f"{file}: has {image.mode} pixels; convert it to 8 bits a channel")
            opaque = image.convert("RGBA") if image.has_transparency_data else image  # else Pillow warns of palettes
            upright = ImageOps.exif_transpose(opaque).convert("L" if channels == 1 else "RGB")
            pixels = np.array(upright.resize((image_size, image_size), Image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of them
        raise UserError(f"{file}: cannot be decoded: {error}") from error
    return torch.from_numpy(pixels).reshape(image_size, image_size, channels).permute(2, 0, 1).contiguous()


def unlabeled(folder: Path, channels: int, image_size: int) -> FileSplit:
    """Every JPEG and PNG file below `folder`, sorted by path; labels are -1.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"images={folder}: no such folder")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"images={folder}: no {', '.join(SUFFIXES)} file in it")
    return FileSplit(files, torch.full((len(files),), -1), channels, image_size)
