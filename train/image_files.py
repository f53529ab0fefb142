"""Images in files, decoded on access."""

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
    """Image files with labels; `split[i]` reads, decodes and resizes one image: (uint8 [C, size, size], int64 []).

    Height and width are scaled separately: the whole image stays visible, but its aspect ratio may change.
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

    Uses Pillow: torchvision.io's decoders are deprecated (torchvision 0.29) in favor of a package that needs FFmpeg.

    Raises:
        UserError: the file cannot be read, is not an image, is damaged, or has more than 8 bits a channel.
    """
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would clip these pixels at 255
                raise UserError(f"{file}: has {image.mode} pixels; convert it to 8 bits a channel")
            opaque = image.convert("RGBA") if image.has_transparency_data else image  # avoids a warning about palettes
            upright = ImageOps.exif_transpose(opaque).convert("L" if channels == 1 else "RGB")
            pixels = np.array(upright.resize((image_size, image_size), Image.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises any of these
        raise UserError(f"{file}: cannot be decoded: {error}") from error
    return torch.from_numpy(pixels).reshape(image_size, image_size, channels).permute(2, 0, 1).contiguous()


def unlabeled(folder: Path, channels: int, image_size: int) -> FileSplit:
    """All JPEG and PNG files below `folder`, sorted by path; every label is -1.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"images={folder}: no such folder")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"images={folder}: no {', '.join(SUFFIXES)} file in it")
    return FileSplit(files, torch.full((len(files),), -1), channels, image_size)
