"""Images: files of several modes and formats, changed in bytes and in structure, through the code that loads data."""

import importlib
import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from profiling.errors import UserError
from tests.fuzz.case import expect
from tests.fuzz.mutations import changed_bytes
from train.data import image_folder, unlabeled

ALLOWED = ("JPEG", "PNG")
OTHERS = ("GIF", "TIFF", "BMP", "WEBP", "ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000", "EPS", "PDF", "DDS", "MSP")
MODES = ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "PA")
SIDES = (1, 2, 7, 8, 33)
NOT_IMAGES = (
    b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    b"<svg/>", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"%PDF-1.4", b"\x1f\x8b\x08", b"not an image",
)  # fmt: skip
MAX_PIXELS = 2_000_000


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: channels, size, and whether the format is one that must be refused."""

    def __init__(self, folder: Path) -> None:
        importlib.import_module("torchvision.datasets.folder")  # its first import takes longer than a case may

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """A folder of one class with two images, the first of them odd."""
        name = source.choice(("a.jpg", "a.png", "a.JPEG", "a\x1b[31m.png"))
        refused = False
        if source.random() < 0.1:
            content = source.choice(NOT_IMAGES)
        else:
            form = source.choice((*ALLOWED * 4, *OTHERS))
            content = _image(source, form)
            refused = form in OTHERS
            if source.random() < 0.7:
                content = changed_bytes(source, content)
            if source.random() < 0.4 and content.startswith(b"\x89PNG"):
                content = _changed_chunks(source, content)
        files = {f"images/0/{name}": content, "images/0/b.png": _image(random.Random(0), "PNG")}
        return [source.choice((1, 3)), source.choice((8, 28)), refused], files

    def run(self, steps: Any, folder: Path) -> None:
        """Load the folder for inference, and as a data set: images of the promised form, or one line."""
        channels, size, refused = steps
        for load in (
            lambda: unlabeled(folder / "images", channels, size, MAX_PIXELS),
            lambda: image_folder(str(folder / "images"), size, 0.5, channels, MAX_PIXELS).train,
        ):
            try:
                split = load()
                images = [split[index][0] for index in range(len(split))]
            except UserError as error:
                expect("\n" not in str(error) and str(error).isprintable(), f"not one line: {error!r}")
                continue
            for image in images:
                expect(image.shape == (channels, size, size) and image.dtype == torch.uint8, f"{image.shape}")
            expect(not refused or len(images) == 1, "another format was decoded")


def _image(source: random.Random, form: str) -> bytes:
    """A small image of noise."""
    width, height = source.choice(SIDES), source.choice(SIDES)
    pixels = np.frombuffer(source.randbytes(width * height * 3), dtype=np.uint8).reshape(height, width, 3)
    image = Image.fromarray(pixels).convert(source.choice(("L", "RGB")))
    try:
        image = image.convert(source.choice(MODES))
        options: dict[str, Any] = {"progressive": source.random() < 0.3} if form == "JPEG" else {}
        if form in ALLOWED and source.random() < 0.3:
            exif = Image.Exif()
            exif[0x0112] = source.randrange(10)  # the orientation; valid from 1 to 8
            options["exif"] = exif
        content = io.BytesIO()
        image.save(content, form, **options)
    except (ValueError, OSError):  # this format does not have that mode
        content = io.BytesIO()
        image.convert("RGB").save(content, form if form in ALLOWED else "GIF")
    return content.getvalue()


def _changed_chunks(source: random.Random, content: bytes) -> bytes:
    """A PNG with one chunk changed, repeated, moved or removed, and right checksums."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length]])
        at += 12 + length
    if not chunks:
        return content
    number = source.randrange(len(chunks))
    kind = source.randrange(6)
    if kind == 0:
        chunks[number][1] = changed_bytes(source, chunks[number][1])
    elif kind == 1:
        del chunks[number]
    elif kind == 2:
        chunks.insert(source.randrange(len(chunks)), chunks[number])
    elif kind == 3:  # width, height, depth and color of the header
        sides = [source.choice((0, 1, 8, 1000, 40_000, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
        header = struct.pack(">IIBB", *sides, source.choice((1, 8, 16, 3)), source.choice((0, 2, 3, 4, 6, 7)))
        chunks[0][1] = header + chunks[0][1][10:]
    elif kind == 4:
        packed = zlib.compress(bytes(source.choice((0, 10_000_000))))
        chunks.insert(1, [source.choice((b"zTXt", b"iCCP", b"IDAT", b"iTXt")), b"x\0\0" + packed])
    else:
        chunks.insert(1, [source.choice((b"acTL", b"fcTL", b"fdAT", b"eXIf", b"tRNS", b"PLTE")), source.randbytes(26)])
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return content[:8] + b"".join(parts)
