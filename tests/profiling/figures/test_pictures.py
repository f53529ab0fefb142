from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from profiling.figures import pictures
from profiling.figures.pictures import BLUE, GAP, LARGEST_CELL, RED, TILE, WHITE

DIGITS = tuple("0123456789")


def confusion_image(matrix: Tensor, classes: Sequence[str]) -> Tensor:
    """A drawn matrix as a tensor uint8 [3, H, W]."""
    return torch.from_numpy(pictures.confusion_image(matrix.numpy(), classes)).permute(2, 0, 1)


def predictions_image(images: Tensor, labels: Tensor, predicted: Tensor, classes: Sequence[str]) -> Tensor:
    """Drawn samples as a tensor uint8 [3, H, W]."""
    drawn = pictures.predictions_image(images.numpy(), labels.numpy(), predicted.numpy(), classes)
    return torch.from_numpy(drawn).permute(2, 0, 1)


def has(picture: Tensor, color: tuple[int, int, int]) -> Tensor:
    """Where a picture [3, H, W] has exactly that color: bool [H, W]."""
    return (picture == torch.tensor(color).view(3, 1, 1)).all(dim=0)


def cells(picture: Tensor, classes: int, cell: int = LARGEST_CELL) -> Tensor:
    """The cells of a drawn matrix, which ends GAP before the lower right corner: [C, C, 3, cell, cell]."""
    side = classes * cell
    matrix = picture[:, -GAP - side : -GAP, -GAP - side : -GAP]
    return matrix.unflatten(2, (classes, cell)).unflatten(1, (classes, cell)).permute(1, 3, 0, 2, 4)


def test_cells_are_colored_by_their_share_of_the_row_and_rows_are_true_classes() -> None:
    matrix = torch.diag(torch.arange(1, 11))  # every row whole on the diagonal, whatever its count
    matrix[2] = 0
    matrix[2, 7] = 4  # all of class 2 mistaken for 7
    matrix[5] = 0  # a class without samples
    corners = cells(confusion_image(matrix, DIGITS), 10)[..., 0, 0]
    blue = (corners == torch.tensor(BLUE)).all(dim=-1)
    white = (corners == torch.tensor(WHITE)).all(dim=-1)
    assert torch.equal(blue, matrix > 0)
    assert torch.equal(white, matrix == 0)


def test_half_a_row_has_the_middle_color() -> None:
    corners = cells(confusion_image(torch.tensor([[3, 3], [0, 1]]), ("no", "yes")), 2)[..., 0, 0]
    middle = [round((white + blue) / 2) for white, blue in zip(WHITE, BLUE, strict=True)]
    assert corners[0].tolist() == [middle] * 2


def test_every_count_but_zero_is_written_into_its_cell() -> None:
    matrix = torch.tensor([[12, 0], [7, 12]])
    drawn = cells(confusion_image(matrix, ("a", "b")), 2)
    ink = (drawn != drawn[..., :1, :1]).any(dim=2)  # [2, 2, cell, cell]
    assert torch.equal(ink.flatten(2).any(dim=-1), matrix > 0)
    assert torch.equal(ink[0, 0], ink[1, 1])
    assert not torch.equal(ink[0, 0], ink[1, 0])


def test_labels_name_rows_and_columns() -> None:
    matrix = torch.eye(3, dtype=torch.int64)
    plain = confusion_image(matrix, ("a", "b", "c"))
    other = confusion_image(matrix, ("a", "d", "c"))
    assert plain.shape == other.shape
    rows, columns = (plain != other).any(dim=0).nonzero(as_tuple=True)
    top, left = (size - GAP - 3 * LARGEST_CELL for size in plain.shape[1:])
    beside, above = columns < left, rows < top
    assert (beside ^ above).all(), "nothing but labels differs"
    assert ((rows[beside] - top) // LARGEST_CELL == 1).all(), "the label of row 1 stands beside it"
    assert ((columns[above] - left) // LARGEST_CELL == 1).all()


def test_long_labels_are_cut_and_turned_so_that_they_do_not_overlap() -> None:
    names = ("a very long name of a class that would fill the picture, and more",) * 4
    picture = confusion_image(torch.eye(4, dtype=torch.int64), names)
    assert picture.shape[2] < 2 * 4 * LARGEST_CELL
    left = picture.shape[2] - GAP - 4 * LARGEST_CELL
    top = picture.shape[1] - GAP - 4 * LARGEST_CELL
    borders = [left + LARGEST_CELL * number for number in range(1, 4)]
    title = 3 * GAP  # "predicted" stands above
    assert has(picture[:, title:top, borders], WHITE).all()


@pytest.mark.parametrize(("classes", "side"), [(2, 200), (40, 1000), (300, 1300)])
def test_any_number_of_classes_gives_a_picture_of_reasonable_size(classes: int, side: int) -> None:
    names = [f"class {number}" for number in range(classes)]
    picture = confusion_image(torch.full((classes, classes), 123456), names)
    assert picture.dtype == torch.uint8
    assert picture.shape[0] == 3
    assert max(picture.shape) <= side


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_samples_are_shown_eight_in_a_row_enlarged(channels: int) -> None:
    images = torch.randint(256, (11, channels, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(11) % 10
    picture = predictions_image(images, labels, labels, DIGITS)
    height, width = picture.shape[1] // 2, picture.shape[2] // 8
    last = picture[:, height + GAP : height + GAP + TILE, 2 * width + GAP : 2 * width + GAP + TILE]  # the 11th
    expected = images[10] if channels == 3 else images[10, :1].expand(3, -1, -1)
    assert torch.equal(last[:, 2::4, 2::4], expected)
    assert has(picture[:, height:, 3 * width :], WHITE).all()


def test_a_frame_is_drawn_around_wrong_predictions_alone() -> None:
    images = torch.zeros(6, 1, 28, 28, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 3, 4, 5])
    predicted = torch.tensor([0, 1, 7, 3, 4, 0])
    picture = predictions_image(images, labels, predicted, DIGITS)
    framed = [has(tile, RED).any().item() for tile in picture.chunk(6, dim=2)]
    assert framed == [False, False, True, False, False, True]


def test_captions_tell_what_was_predicted_and_what_is_true() -> None:
    def captions(label: int, guess: int) -> tuple[Tensor, Tensor]:
        picture = predictions_image(
            torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.tensor([label]), torch.tensor([guess]), DIGITS
        )
        text = picture[:, GAP + TILE : -GAP - 1, GAP : -GAP - 1]
        upper, lower = text[:, : text.shape[1] // 2], text[:, text.shape[1] // 2 :]
        return upper, lower

    (pred_7, true_2), (pred_7_again, true_3), (pred_8, true_2_again) = captions(2, 7), captions(3, 7), captions(2, 8)
    assert torch.equal(pred_7, pred_7_again)
    assert torch.equal(true_2, true_2_again)
    assert not torch.equal(pred_7, pred_8)
    assert not torch.equal(true_2, true_3)


def test_a_long_class_name_stays_within_its_sample() -> None:
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    picture = predictions_image(images, torch.zeros(2).long(), torch.zeros(2).long(), ["an endless name " * 9])
    middle = picture.shape[2] // 2
    assert has(picture[:, :, middle - GAP + 1 : middle + GAP], WHITE).all()
    assert np.asarray(has(picture[:, GAP + TILE :, :middle], WHITE)).mean() > 0.5
