"""Images in files, decoded on access."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from profiling.errors import UserError
from profiling.format import visible

SUFFIXES = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")  # other decoders are less well tested against hostile files, or start programs
MAX_PIXELS = 80_000_000  # as in configs/config.yaml
NAMED = 100  # of the images that are left out; of more, only their number is told

log = logging.getLogger(__name__)

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit, which `read_image` replaces by one that the user can raise


class FileSplit(Dataset[tuple[Tensor, Tensor]]):
    """Image files with labels; `split[i]` reads, decodes and resizes one image: (uint8 [C, size, size], int64 []).

    Height and width are scaled separately: the whole image stays visible, but its aspect ratio may change.
    """

    def __init__(
        self, files: Sequence[Path], labels: Tensor, channels: int, image_size: int, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.files = list(files)
        self.labels = labels  # int64 [N]
        self.channels = channels  # 1 (gray) or 3 (color)
        self.image_size = image_size
        self.max_pixels = max_pixels  # of a file

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return read_image(self.files[index], self.channels, self.image_size, self.max_pixels), self.labels[index]


def read_image(file: Path, channels: int, image_size: int, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode `file` to uint8 [channels, image_size, image_size], upright and resized with antialiasing.

    Of an animation it is the first picture. Uses Pillow: torchvision.io's decoders are deprecated (torchvision 0.29) in
    favor of a package that needs FFmpeg.

    Raises:
        UserError: the file cannot be read, is neither JPEG nor PNG, is damaged, or has more than `max_pixels`.
    """
    shown = visible(str(file))
    try:
        if not file.is_file():  # opening a pipe would wait for its writer
            raise UserError(f"{shown}: {'not a file' if file.exists() else 'cannot be decoded: no such file'}")
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UserError(
                    f"{shown}: has {image.width:,} x {image.height:,} pixels, more than max_pixels={max_pixels:,}; "
                    f"make it smaller, or allow it: max_pixels={image.width * image.height}"
                )
            ImageOps.exif_transpose(image, in_place=True)
            upright: Image.Image = image
            if image.mode.startswith("I"):  # 16 bits: Pillow would clip them at 255; of colors it takes the high byte
                upright = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            resized = upright.convert("L" if channels == 1 else "RGB").resize(
                (image_size, image_size), Image.Resampling.BILINEAR
            )
            pixels = np.array(resized)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{shown}: cannot be decoded: neither a JPEG nor a PNG file; convert or remove it") from error
    except Exception as error:  # damaged files make Pillow raise almost anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{shown}: cannot be decoded: {reason}; replace or remove it") from error
    return torch.from_numpy(pixels).reshape(image_size, image_size, channels).permute(2, 0, 1).contiguous()


def decodable(split: FileSplit) -> list[int]:
    """The numbers of the images that can be decoded; the others are named in lines, and counted."""
    kept: list[int] = []
    for number in range(len(split)):
        try:
            split[number]
            kept.append(number)
        except UserError as error:
            if number - len(kept) < NAMED:
                log.info("note: skipped: %s", error)
    if len(kept) < len(split):
        log.info("note: data.on_error=skip: %d of %d images are left out", len(split) - len(kept), len(split))
    return kept


def unlabeled(folder: Path, channels: int, image_size: int, max_pixels: int = MAX_PIXELS) -> FileSplit:
    """All JPEG and PNG files below `folder`, sorted by path; every label is -1.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"images={folder}: no such folder")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"images={folder}: no {', '.join(SUFFIXES)} file in it")
    return FileSplit(files, torch.full((len(files),), -1), channels, image_size, max_pixels)
