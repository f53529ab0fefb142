"""Images for TensorBoard, drawn with Pillow: confusion matrices and predictions.

Pillow's built-in font has little more than ASCII; other characters in the name of a class appear as boxes.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int64]

BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (200, 30, 30), (8, 48, 107)

# Lengths in pixels.
FONT_SIZE = 14
GAP = 8
MATRIX = 800  # largest side of a confusion matrix, unless its cells would be smaller than SMALLEST_CELL
LARGEST_CELL, SMALLEST_CELL = 44, 4
LONGEST_LABEL = 120
TILE = 112  # side of a drawn sample: four times the side of MNIST's images
COLUMNS = 8  # samples per row


def confusion_image(counts: Integers, classes: Sequence[str]) -> Pixels:
    """Draw a confusion matrix, int64 [C, C] of counts with the true classes as rows, as uint8 [H, W, 3].

    A cell shows its count unless that is 0; its color is its share of the row, from 0 (white) to 1 (blue). With too
    many classes, cells are too small for numbers and labels, which are then omitted.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # [C, C]
    cell = max(SMALLEST_CELL, min(LARGEST_CELL, MATRIX // len(classes)))
    side = cell * len(classes)
    legible = cell > FONT_SIZE
    row_labels = [_text(name, LONGEST_LABEL) for name in classes] if legible else []
    labels_fit = all(label.width <= cell for label in row_labels)
    column_labels = row_labels if labels_fit else [label.transpose(Image.Transpose.ROTATE_90) for label in row_labels]
    column_title, row_title = _text("predicted"), _text("true").transpose(Image.Transpose.ROTATE_90)

    left = row_title.width + max((label.width for label in row_labels), default=0) + 3 * GAP
    top = column_title.height + max((label.height for label in column_labels), default=0) + 3 * GAP
    picture = Image.new("RGB", (left + side + GAP, top + side + GAP), WHITE)
    picture.paste(column_title, (left + (side - column_title.width) // 2, GAP))
    picture.paste(row_title, (GAP, top + (side - row_title.height) // 2))
    colors = np.array(WHITE) + shares[..., np.newaxis] * (np.array(BLUE) - np.array(WHITE))
    cells = Image.fromarray(colors.round().astype(np.uint8))
    picture.paste(cells.resize((side, side), Image.Resampling.NEAREST), (left, top))
    for number, (row_label, column_label) in enumerate(zip(row_labels, column_labels, strict=True)):
        middle = number * cell + cell // 2
        picture.paste(row_label, (left - GAP - row_label.width, top + middle - row_label.height // 2))
        picture.paste(column_label, (left + middle - column_label.width // 2, top - GAP - column_label.height))

    draw = ImageDraw.Draw(picture)
    for (row, column), count in np.ndenumerate(counts) if legible else ():
        if count and _font().getlength(str(count)) < cell:
            center = (left + column * cell + cell // 2, top + row * cell + cell // 2)
            draw.text(center, str(count), WHITE if shares[row, column] > 0.5 else BLACK, _font(), anchor="mm")
    return np.array(picture)


def predictions_image(images: Pixels, labels: Integers, predicted: Integers, classes: Sequence[str]) -> Pixels:
    """Draw samples, uint8 [N, C, H, W] with int64 [N] labels and predictions, in rows of eight as uint8 [H', W', 3].

    The prediction and the label are below each sample; wrong predictions have a frame. Only the first channel of an
    image is drawn if it has neither one nor three.
    """
    lines = 2 * (FONT_SIZE + 4)
    width, height = TILE + 2 * GAP, TILE + lines + 2 * GAP
    rows = -(-len(images) // COLUMNS)
    picture = Image.new("RGB", (min(len(images), COLUMNS) * width, rows * height), WHITE)
    draw = ImageDraw.Draw(picture)
    samples = zip(images, labels.tolist(), predicted.tolist(), strict=True)
    for number, (image, label, prediction) in enumerate(samples):
        row, column = divmod(number, COLUMNS)
        x, y = column * width + GAP, row * height + GAP
        pixels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
        sample = Image.fromarray(np.moveaxis(pixels, 0, -1).copy())
        picture.paste(sample.resize((TILE, TILE), Image.Resampling.NEAREST), (x, y))
        picture.paste(_text(f"pred {classes[prediction]}", TILE), (x, y + TILE))
        picture.paste(_text(f"true {classes[label]}", TILE), (x, y + TILE + lines // 2))
        if prediction != label:
            draw.rectangle((x - GAP // 2, y - GAP // 2, x + TILE + GAP // 2, y + TILE + lines), outline=RED, width=3)
    return np.array(picture)


def _text(text: str, max_width: int = LONGEST_LABEL) -> Image.Image:
    """Draw `text` in black on white, truncated to at most `max_width` pixels."""
    shown = text
    while _font().getlength(shown) > max_width:
        text = text[:-1]
        shown = f"{text}…"
    image = Image.new("RGB", (int(_font().getlength(shown)) + 1, FONT_SIZE + 4), WHITE)
    ImageDraw.Draw(image).text((0, 0), shown, BLACK, _font())
    return image


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)
