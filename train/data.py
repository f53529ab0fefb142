"""Data sets: one function for each file in configs/data/, with that file's fields as arguments.

Images are uint8 [N, C, H, W]; batches are normalized with `mean` and `std` on the device (train/preprocess.py). The
split does not depend on the run's seed: runs with different seeds are tested on the same images. scikit-learn and
torchvision are slow to import, so the functions that need them import them.
"""

import tempfile
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from profiling.errors import UserError
from train.config.options import OnError
from train.config.schema import DataConfig
from train.image_files import MAX_PIXELS, SUFFIXES, FileSplit, decodable, unlabeled
from train.targets import call_target, fields_of, import_target, is_function_of

__all__ = [
    "DataSet", "FileSplit", "TensorSplit", "cifar10", "digits", "fashion_mnist", "image_folder", "jpeg_digits", "load",
    "mnist", "synthetic", "unlabeled",
]  # fmt: skip

SPLIT_SEED = 0
STATISTICS_FILES = 256  # at most this many image files are decoded to compute `mean` and `std`
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class TensorSplit(Dataset[tuple[Tensor, Tensor]]):
    """Images in memory; `split[i]` is (uint8 [C, H, W], int64 [])."""

    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


@dataclass(frozen=True)
class DataSet:
    """A training and a test split, with the properties that models and preprocessing need."""

    train: TensorSplit | FileSplit
    test: TensorSplit | FileSplit
    classes: tuple[str, ...]
    channels: int
    image_size: int  # images are square
    mean: tuple[float, ...]  # per channel, over the training split, with pixels scaled to [0, 1]
    std: tuple[float, ...]


def load(data: DataConfig) -> DataSet:
    """Call the function that `data._target_` names with the other fields.

    Raises:
        UserError: there is no such function, or it cannot read its data.
    """
    target, fields = data._target_, fields_of(data)
    named, result = ", ".join(fields), "a train.data.DataSet, or a training and a test split"
    function = import_target(
        target,
        "data._target_",
        lambda imported: is_function_of(imported, *fields),
        f"a function{f' of {named}' if named else ''} that returns {result}",
    )
    loaded = call_target(function, f"data={target}", **fields)
    return loaded if isinstance(loaded, DataSet) else call_target(described, f"data={target}", loaded)


def described(splits: Any) -> DataSet:
    """A training and a test split of the user's, as a data set in memory.

    Args:
        splits: two of these: a pair of tensors, images [N, C, H, W] and integer labels [N]; or a torch Dataset of
            pairs of an image, a tensor [C, H, W] or a picture of Pillow's, and its label. Images are uint8, or floats
            from 0 to 1, and square.

    Raises:
        ValueError: they are something else.
    """
    if not (isinstance(splits, list | tuple) and len(splits) == 2):
        raise ValueError(f"returned a {type(splits).__name__}; needed: a training and a test split")
    pairs = [_tensors(split) for split in splits]
    names = getattr(splits[0], "classes", range(1 + max(int(labels.max()) for _, labels in pairs)))
    return _checked(pairs, tuple(str(name) for name in names))


def _tensors(split: Any) -> tuple[Tensor, Tensor]:
    """The images, uint8, and the labels of one split of the user's, not yet checked."""
    if isinstance(split, Dataset):
        from torchvision.transforms.functional import to_tensor

        samples = [split[i] for i in range(len(split))]  # type: ignore[arg-type]
        images = torch.stack([image if isinstance(image, Tensor) else to_tensor(image) for image, _ in samples])
        labels = torch.as_tensor([int(label) for _, label in samples])
    else:
        images, labels = (torch.as_tensor(part) for part in split)
    if images.is_floating_point():
        if images.min() < 0 or images.max() > 1:
            raise ValueError(f"floating-point images from {images.min():.3g} to {images.max():.3g}; needed: 0 to 1")
        images = (images * 255).round().to(torch.uint8)
    return images, labels.long()


def digits(root: str, image_size: int, test_fraction: float) -> DataSet:
    """scikit-learn's 1,797 handwritten digits, resized; `root` is unused.

    They are the test part of the UCI digits (Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49).
    """
    return _describe(*_digit_splits(image_size, test_fraction), DIGITS)


def jpeg_digits(root: str, image_size: int, test_fraction: float) -> DataSet:
    """The digits as JPEG files, one folder for each class: `<root>/<size>px_<fraction>/train/3/0007.jpg`.

    They are written on first use, into a temporary folder that is renamed when complete. If two processes write at the
    same time, both use the files of the first to finish.

    Raises:
        UserError: the files cannot be written, or were removed.
    """
    folder = Path(root) / f"{image_size}px_{test_fraction}"
    if not folder.is_dir():
        try:
            _write_jpegs(folder, *_digit_splits(image_size, test_fraction))
        except OSError as error:
            raise UserError(f"data.root={root}: the digits cannot be written there: {error}") from error
    train, test = (FileSplit(*_labeled_files(folder / split, DIGITS), 1, image_size) for split in ("train", "test"))
    if not (train.files and test.files):
        raise UserError(f"data.root={root}: {folder} has lost its images; delete it, and it is written again")
    return _describe(train, test, DIGITS)


def mnist(root: str, download: bool) -> DataSet:
    """MNIST (LeCun et al. 1998), 28 x 28, gray.

    Raises:
        UserError: its files are not in `root` and cannot be downloaded.
    """
    from torchvision.datasets import MNIST

    return _torchvision("mnist", MNIST, root, "MNIST/raw", download)


def fashion_mnist(root: str, download: bool) -> DataSet:
    """Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747), 28 x 28, gray.

    Raises:
        UserError: its files are not in `root` and cannot be downloaded.
    """
    from torchvision.datasets import FashionMNIST

    return _torchvision("fashion_mnist", FashionMNIST, root, "FashionMNIST/raw", download)


def cifar10(root: str, download: bool) -> DataSet:
    """CIFAR-10 (Krizhevsky 2009), 32 x 32, color.

    Raises:
        UserError: its files are not in `root` and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10

    return _torchvision("cifar10", CIFAR10, root, CIFAR10.base_folder, download)


def image_folder(
    root: str,
    image_size: int,
    test_fraction: float,
    channels: int,
    max_pixels: int = MAX_PIXELS,
    on_error: OnError = OnError["raise"],
) -> DataSet:
    """Your own images in the layout of torchvision.datasets.ImageFolder: `<root>/<class>/**/<any name>.jpg|jpeg|png`.

    Raises:
        UserError: `root` does not exist, has no class folders, or has a class with fewer than two images, of those that
            can be decoded if `on_error` is skip.
    """
    from torchvision.datasets.folder import find_classes

    if not Path(root).is_dir():
        raise UserError(f"data.root={root}: no such folder")
    try:
        classes, _ = find_classes(root)
    except FileNotFoundError as error:
        raise UserError(f"data.root={root}: no folders in it; there must be one for each class") from error
    files, labels = _labeled_files(Path(root), classes)
    if on_error is OnError.skip:
        kept = decodable(FileSplit(files, labels, channels, image_size, max_pixels))
        files, labels = [files[i] for i in kept], labels[kept]
    for name, count in zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True):
        if count < 2:
            raise UserError(
                f"data.root={root}: the class {name} has {count} of the 2 images it needs, one to train on and "
                f"one to test on (files ending in {', '.join(SUFFIXES)})"
            )
    train, test = (
        FileSplit([files[i] for i in indices], labels[indices], channels, image_size, max_pixels)
        for indices in stratified_split(labels, test_fraction)
    )
    return _describe(train, test, tuple(classes))


def synthetic(
    root: str, train_samples: int, test_samples: int, channels: int, image_size: int, classes: int
) -> DataSet:
    """Random images with random labels; `root` is unused."""
    generator = torch.Generator().manual_seed(0)
    train, test = (
        TensorSplit(
            torch.randint(256, (samples, channels, image_size, image_size), dtype=torch.uint8, generator=generator),
            torch.randint(classes, (samples,), generator=generator),
        )
        for samples in (train_samples, test_samples)
    )
    return _describe(train, test, tuple(str(label) for label in range(classes)))


def stratified_split(labels: Tensor, test_fraction: float) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the test split, ascending; `labels` is int64 [N].

    The test split has `test_fraction` of each class: at least one sample, and never all of a class of two or more.
    The result does not depend on NumPy's version, because the stream of RandomState is frozen.
    """
    random = np.random.RandomState(SPLIT_SEED)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(len(members) * test_fraction), 1), len(members) - 1)
        held_out[random.permutation(members)[:count]] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))


def mean_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 [N, C, H, W], scaled to [0, 1].

    Sums over chunks of images, so the whole split never exists as floats. The deviation is at least one gray level,
    so that dividing by it is safe for a constant channel.
    """
    totals = torch.zeros(2, images.shape[1], dtype=torch.float64)  # of the values and of their squares
    for chunk in torch.split(images, 1024):
        values = chunk.double() / 255
        totals += torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
    mean, mean_square = totals / (images.numel() / images.shape[1])
    std = (mean_square - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def _describe(train: TensorSplit | FileSplit, test: TensorSplit | FileSplit, classes: tuple[str, ...]) -> DataSet:
    if isinstance(train, TensorSplit):
        images = train.images
    else:  # evenly spaced files, because files are sorted by class
        indices = torch.linspace(0, len(train) - 1, min(len(train), STATISTICS_FILES)).long().tolist()
        images = torch.stack([train[i][0] for i in indices])
    mean, std = mean_std(images)
    return DataSet(train, test, classes, images.shape[1], images.shape[3], mean, std)


def _digit_splits(image_size: int, test_fraction: float) -> tuple[TensorSplit, TensorSplit]:
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)  # float 0..16 [1797, 64], int [1797]
    small = torch.from_numpy(np.rint(pixels * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
    images = F.interpolate(small, size=(image_size, image_size), mode="bilinear", antialias=True)
    labels = torch.as_tensor(targets, dtype=torch.int64)
    train, test = stratified_split(labels, test_fraction)
    return TensorSplit(images[train], labels[train]), TensorSplit(images[test], labels[test])


def _write_jpegs(folder: Path, train: TensorSplit, test: TensorSplit) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing_") as temporary:
        complete = Path(temporary) / folder.name
        for name, split in (("train", train), ("test", test)):
            for label in DIGITS:
                (complete / name / label).mkdir(parents=True)
            for number, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
                Image.fromarray(image[0].numpy()).save(complete / name / str(label) / f"{number:04}.jpg", quality=95)
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has written it
                raise


def _labeled_files(folder: Path, classes: tuple[str, ...] | list[str]) -> tuple[list[Path], Tensor]:
    """Image files below the class folders in `folder`, sorted by class and path, and their labels, int64 [N]."""
    from torchvision.datasets.folder import make_dataset

    numbers = {name: number for number, name in enumerate(classes)}
    samples = make_dataset(folder, numbers, extensions=SUFFIXES, allow_empty=True)
    return [Path(file) for file, _ in samples], torch.tensor([label for _, label in samples], dtype=torch.int64)


def _torchvision(name: str, dataset_class: Any, root: str, folder: str, download: bool) -> DataSet:
    """A data set of torchvision, completely in memory; `folder` is the location of its files below `root`."""
    try:
        loaded = [dataset_class(root, train=train, download=download) for train in (True, False)]
        pairs = [(_channels_first(split.data), torch.as_tensor(split.targets)) for split in loaded]
        return _checked(pairs, tuple(loaded[0].classes))
    except Exception as error:  # damaged files make its parsers raise almost anything
        where = Path(root).resolve() / folder
        reason = "downloading failed" if download else "data.download=false"
        cause = (str(error).strip() or "unknown format").splitlines()[-1]
        command = f"python -m train data={name} data.root={root} data.download=true"
        raise UserError(
            f"data={name}: no intact files in {where}, and {reason} ({cause}); delete that folder if it exists and run "
            f"`{command}` with network access, or take data=digits, which needs no network"
        ) from error


def _checked(pairs: Sequence[tuple[Tensor, Tensor]], classes: tuple[str, ...]) -> DataSet:
    """The training and the test split of torchvision or of the user, as a data set.

    Raises:
        ValueError: they are not square images of bytes with one label each, or a label is of no class.
    """
    train, test = (_checked_split(images, labels, classes) for images, labels in pairs)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError("training and test images differ in size")
    return _describe(train, test, classes)


def _checked_split(images: Tensor, labels: Tensor, classes: Sized) -> TensorSplit:
    if images.dtype is not torch.uint8 or images.dim() != 4 or images.shape[2] != images.shape[3] or 0 in images.shape:
        raise ValueError(f"images of {images.dtype} {list(images.shape)}")
    if labels.dtype is not torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"{list(labels.shape)} labels of {labels.dtype} for {len(images)} images")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {len(classes)} classes")
    return TensorSplit(images, labels)


def _channels_first(data: Any) -> Tensor:
    """Convert torchvision's two layouts, [N, H, W] tensors and [N, H, W, C] arrays, to [N, C, H, W]."""
    images = torch.as_tensor(data)
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
