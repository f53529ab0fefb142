import errno
import gzip
import hashlib
import inspect
import pickle
import random
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

import configs
from profiling.errors import UserError
from tests.fuzz.mutations import CASES, changed_bytes
from train import data
from train.config.schema import DownloadDataConfig, EmbeddedDataConfig
from train.data import TensorSplit, mean_std, stratified_split
from train.image_files import FileSplit

DIGITS_8X8_SHA256 = "617b4fe6e84afdb82030a5760d61ccecaac16cfbeb405b1e8f21fa20eaaa5c71"


def write_idx(file: Path, values: Tensor) -> None:
    """MNIST's format: magic number 0x0000 08 <dimensions>, sizes in big-endian 32 bits, bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = np.array([0x0800 + values.dim(), *values.shape], dtype=">i4").tobytes()
    file.write_bytes(header + values.to(torch.uint8).numpy().tobytes())


def write_mnist(folder: Path, digits: data.DataSet) -> None:
    for prefix, split in (("train", digits.train), ("t10k", digits.test)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", split.images[:100, 0])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", split.labels[:100])


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Batches of 4 random images, as pickles; their checksums replace those of the real archive."""
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    images = torch.randint(256, (24, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) % 10

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    checksums = [
        [name, write(name, {"data": images[i : i + 4].flatten(1).numpy(), "labels": labels[i : i + 4].tolist()})]
        for name, i in zip(names, range(0, 24, 4), strict=True)
    ]
    meta = write("batches.meta", {"label_names": [f"class {number}" for number in range(10)]})
    monkeypatch.setattr(CIFAR10, "train_list", checksums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", checksums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    return images, labels


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_all_there_once_with_a_fifth_of_each_class_held_out(digits: data.DataSet) -> None:
    assert (digits.channels, digits.image_size, digits.classes) == (1, 28, tuple("0123456789"))
    assert digits.train.images.shape == (1438, 1, 28, 28)
    assert digits.test.images.shape == (359, 1, 28, 28)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64
    held_out, kept = digits.test.labels.bincount(), digits.train.labels.bincount()
    assert ((held_out / (held_out + kept) - 0.2).abs() < 0.003).all()

    small = data.digits("unused", image_size=8, test_fraction=0.2)
    original = load_digits()
    ours = torch.cat([small.train.images, small.test.images]).flatten(1).float() * 16 / 255
    labels = torch.cat([small.train.labels, small.test.labels])
    found = sorted((label, *image) for label, image in zip(labels.tolist(), ours.round().tolist(), strict=True))
    assert found == sorted(zip(original.target, *original.data.T, strict=True))


def test_the_held_out_digits_are_the_same_for_ever_whatever_the_seed() -> None:
    torch.manual_seed(1234)
    np.random.seed(1234)
    split = data.digits("unused", image_size=8, test_fraction=0.2).test  # 8 x 8: no arithmetic on the pixels
    content = split.images.numpy().tobytes() + split.labels.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest() == DIGITS_8X8_SHA256


def test_digits_feed_a_data_loader(digits: data.DataSet) -> None:
    images, labels = next(iter(DataLoader(digits.train, batch_size=16)))
    assert torch.equal(images, digits.train.images[:16])
    assert torch.equal(labels, digits.train.labels[:16])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.floats(0.01, 0.99))
def test_a_split_takes_its_share_of_each_class_and_something_of_each(labels: list[int], fraction: float) -> None:
    every = torch.tensor(labels)
    train, test = stratified_split(every, fraction)
    assert sorted(train.tolist() + test.tolist()) == list(range(len(labels)))
    for label in set(labels):
        count, held_out = labels.count(label), int((every[test] == label).sum())
        assert abs(held_out - fraction * count) <= 1
        if count >= 2:
            assert 0 < held_out < count


def test_mean_and_deviation_make_channels_standard() -> None:
    torch.manual_seed(0)
    channels = [torch.randint(low, high, (3000, 1, 4, 4)) for low, high in ((0, 256), (100, 110), (200, 256))]
    images = torch.cat(channels, dim=1).to(torch.uint8)  # more than one block of images
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in mean_std(images))
    standard = (images / 255 - mean) / std
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(standard.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)


def test_a_constant_channel_can_be_divided_by_its_deviation() -> None:
    assert mean_std(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)) == ((1.0,), (1 / 255,))


# --- digits as JPEG files ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jpeg_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which two processes wrote the digits at once, let go when both have imported everything."""
    root = tmp_path_factory.mktemp("cache") / "jpeg_digits"
    go = root.parent / "go"
    code = (
        "import sys, time, pathlib, sklearn.datasets, torchvision\n"
        "from train.data import jpeg_digits\n"
        "print('ready', flush=True)\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.001)\n"
        f"print(len(jpeg_digits({str(root)!r}, 28, 0.2).train))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        for _ in range(2)
    ]
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    go.touch()
    assert [writer.communicate()[0] for writer in writers] == ["1438\n"] * 2
    return root


def test_two_processes_that_write_at_once_leave_one_whole_copy(jpeg_root: Path) -> None:
    assert [path.name for path in jpeg_root.iterdir()] == ["28px_0.2"], "nothing temporary is left"
    assert len(list(jpeg_root.rglob("*.jpg"))) == 1797


def test_jpeg_digits_are_the_digits_as_real_jpeg_files(jpeg_root: Path, digits: data.DataSet) -> None:
    before = {file: file.stat().st_mtime_ns for file in jpeg_root.rglob("*")}
    files = data.jpeg_digits(str(jpeg_root), 28, 0.2)
    assert {file: file.stat().st_mtime_ns for file in jpeg_root.rglob("*")} == before, "written once"
    assert (files.classes, files.channels, files.image_size) == (digits.classes, 1, 28)
    for split, original in ((files.train, digits.train), (files.test, digits.test)):
        assert isinstance(split, FileSplit)
        order = torch.tensor([int(file.stem) for file in split.files])
        assert sorted(order.tolist()) == list(range(len(original)))
        assert torch.equal(split.labels, original.labels[order])
        decoded = torch.stack([split[i][0] for i in range(len(split))])
        error = (decoded.int() - original.images[order].int()).abs()
        assert error.float().mean() < 2  # gray levels of 256, at quality 95
        assert error.max() < 40
    with Image.open(files.train.files[0]) as image:
        assert image.format == "JPEG"
    torch.testing.assert_close(files.mean + files.std, digits.mean + digits.std, rtol=0, atol=0.02)


def test_another_size_or_fraction_gets_files_of_its_own(jpeg_root: Path) -> None:
    smaller = data.jpeg_digits(str(jpeg_root), 8, 0.5)
    assert smaller.image_size == 8
    assert len(smaller.train) == pytest.approx(1797 / 2, abs=10)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = Image.Image.save, []

    def save_100(self: Image.Image, file: Path, **options: Any) -> None:
        if len(saved) == 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(file)
        save(self, file, **options)

    monkeypatch.setattr(Image.Image, "save", save_100)
    root = tmp_path / "cache"
    with pytest.raises(UserError, match=rf"^data\.root={root}: the digits cannot be written there: .*No space left"):
        data.jpeg_digits(str(root), 8, 0.2)
    assert len(saved) == 100
    assert list(root.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^data\.root=.*file: the digits cannot be written there"):
        data.jpeg_digits(str(tmp_path / "file"), 8, 0.2)


# --- torchvision's data sets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "folder", "third"),
    [(data.mnist, "MNIST", "2 - two"), (data.fashion_mnist, "FashionMNIST", "Pullover")],
)
def test_idx_files_become_tensors(load: Any, folder: str, third: str, tmp_path: Path, digits: data.DataSet) -> None:
    write_mnist(tmp_path / folder / "raw", digits)
    read = load(root=str(tmp_path), download=False)
    for split, original in ((read.train, digits.train), (read.test, digits.test)):
        assert isinstance(split, TensorSplit)
        assert torch.equal(split.images, original.images[:100])
        assert torch.equal(split.labels, original.labels[:100])
    assert (read.channels, read.image_size, len(read.classes), read.classes[2]) == (1, 28, 10, third)
    assert read.mean == mean_std(digits.train.images[:100])[0]


def test_cifar_batches_become_tensors_with_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = write_cifar10(tmp_path, monkeypatch)
    read = data.cifar10(root=str(tmp_path), download=False)
    assert torch.equal(torch.cat([read.train.images, read.test.images]), images)
    assert torch.equal(torch.cat([read.train.labels, read.test.labels]), labels)
    assert read.train.images.is_contiguous()
    assert (len(read.train), len(read.test), read.channels, read.image_size) == (20, 4, 3, 32)
    assert read.classes[3] == "class 3"


def test_mnist_is_downloaded_unpacked_and_then_read_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: data.DataSet
) -> None:
    mirror = tmp_path / "mirror"
    write_mnist(mirror, digits)
    resources = []
    for file in sorted(mirror.iterdir()):
        packed = mirror / f"{file.name}.gz"
        packed.write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
        resources.append((packed.name, hashlib.md5(packed.read_bytes()).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=mirror)) as server:
        Thread(target=server.serve_forever).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        downloaded = data.mnist(root=str(tmp_path / "data"), download=True)
        server.shutdown()
    assert torch.equal(downloaded.train.images, digits.train.images[:100])
    again = data.mnist(root=str(tmp_path / "data"), download=False)
    assert torch.equal(again.test.labels, downloaded.test.labels)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")],
)
@pytest.mark.parametrize("download", [True, False])
def test_absent_files_give_one_line_that_says_what_to_do(
    name: str, folder: str, download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = (tmp_path / "nowhere").as_uri()  # a download that fails without a network
    monkeypatch.setattr(MNIST, "mirrors", [f"{nowhere}/"])
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{nowhere}/"])
    monkeypatch.setattr(CIFAR10, "url", nowhere)
    with pytest.raises(UserError) as caught:
        getattr(data, name)(root=str(tmp_path / "data"), download=download)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"data={name}: no intact files in {tmp_path / 'data' / folder}, and ")
    assert ("downloading failed" if download else "data.download=false") in line
    assert f"`python -m train data={name} data.root={tmp_path / 'data'} data.download=true`" in line
    assert "data=digits, which needs no network" in line


@pytest.mark.parametrize("size", [0, 3, 16, 1000])
def test_a_truncated_idx_file_is_a_user_error(size: int, tmp_path: Path, digits: data.DataSet) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", digits)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=r"no intact files in .*MNIST/raw, .*delete that folder"):
        data.mnist(root=str(tmp_path), download=False)


def test_no_damage_to_idx_files_is_more_than_one_line(tmp_path: Path, digits: data.DataSet) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw, digits)
    whole = {file: file.read_bytes() for file in raw.iterdir()}
    chance = random.Random(0)
    for _ in range(CASES):
        file = chance.choice(list(whole))
        header = changed_bytes(chance, whole[file][:16])  # magic number and sizes
        file.write_bytes(header + whole[file][16:] if chance.random() < 0.7 else changed_bytes(chance, whole[file]))
        try:
            read = data.mnist(root=str(tmp_path), download=False)
        except UserError as error:
            message = str(error)
            assert message.startswith(f"data=mnist: no intact files in {raw}, ") and "\n" not in message
        else:
            assert read.train.labels.max() < len(read.classes)
            assert len(read.train.images) == len(read.train.labels)
        file.write_bytes(whole[file])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("train-labels-idx1-ubyte", torch.full((100,), 10), "labels from 10 to 10 for 10 classes"),
        ("train-labels-idx1-ubyte", torch.zeros(99), r"\[99\] labels of torch.int64 for 100 images"),
        ("train-images-idx3-ubyte", torch.zeros(100, 28, 27), r"images of torch.uint8 \[100, 1, 28, 27\]"),
        ("train-images-idx3-ubyte", torch.zeros(100, 27, 27), "training and test images differ in size"),
    ],
)
def test_idx_files_that_do_not_fit_together_are_a_user_error(
    name: str, values: Tensor, message: str, tmp_path: Path, digits: data.DataSet
) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", digits)
    write_idx(tmp_path / "MNIST" / "raw" / name, values)
    with pytest.raises(UserError, match=rf"no intact files in .*{message}"):
        data.mnist(root=str(tmp_path), download=False)


@pytest.mark.parametrize("kind", range(8, 15))
def test_idx_files_of_other_types_are_a_user_error(kind: int, tmp_path: Path, digits: data.DataSet) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", digits)
    file = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    content = file.read_bytes()
    file.write_bytes(content[:2] + bytes([kind]) + content[3:])
    if kind == 8:  # bytes, as MNIST has
        assert (
            data.mnist(root=str(tmp_path), download=False).train.labels.tolist() == digits.train.labels[:100].tolist()
        )
    else:
        with pytest.raises(UserError, match=r"^data=mnist: no intact files in "):
            data.mnist(root=str(tmp_path), download=False)


def test_a_hostile_pickle_among_the_batches_of_cifar_is_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], "")):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"^data=cifar10: no intact files in "):
        data.cifar10(root=str(tmp_path), download=False)
    assert not (tmp_path / "executed").exists()


def test_jpeg_digits_without_images_are_a_user_error(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in range(10):
            (tmp_path / "28px_0.2" / split / str(label)).mkdir(parents=True)
    with pytest.raises(UserError, match=r"28px_0\.2 has lost its images; delete it, and it is written again$"):
        data.jpeg_digits(str(tmp_path), 28, 0.2)


def test_a_cifar_batch_that_fails_its_checksum_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    (tmp_path / CIFAR10.base_folder / "data_batch_3").write_bytes(b"other content")
    with pytest.raises(UserError, match=r"^data=cifar10: no intact files in .*corrupted"):
        data.cifar10(root=str(tmp_path), download=False)


# --- synthetic, and the choice by configuration -----------------------------------------------------------------------


def test_synthetic_images_have_the_shape_that_is_asked_for_and_never_change() -> None:
    fields = {"train_samples": 40, "test_samples": 10, "channels": 5, "image_size": 9, "classes": 3}
    first, second = data.synthetic("unused", **fields), data.synthetic("unused", **fields)
    assert (first.train.images.shape, first.test.images.shape) == ((40, 5, 9, 9), (10, 5, 9, 9))
    assert first.train.labels.unique().tolist() == [0, 1, 2]
    assert first.classes == ("0", "1", "2")
    assert len(first.mean) == len(first.std) == 5
    assert torch.equal(first.test.images, second.test.images)
    assert torch.equal(first.train.labels, second.train.labels)


@pytest.mark.parametrize("file", sorted((Path(configs.__file__).parent / "data").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_option_names_a_function_that_takes_its_fields(file: Path) -> None:
    option = yaml.safe_load(file.read_text())
    if file.stem == "custom":  # it names a function of the user's: tests/train/test_own_classes.py
        assert option["_target_"] == "???"
        return
    assert option.pop("_target_") == f"train.data.{file.stem}"
    del option["defaults"]
    assert set(option) == set(inspect.signature(getattr(data, file.stem)).parameters)


def test_the_configuration_chooses_the_data_set() -> None:
    loaded = data.load(EmbeddedDataConfig(_target_="train.data.digits", root="unused", image_size=8, test_fraction=0.5))
    assert loaded.image_size == 8
    assert len(loaded.test) == pytest.approx(1797 / 2, abs=10)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("train.data.mnits", "data._target_=train.data.mnits: train.data has no mnits; did you mean 'mnist'?"),
        ("train.dta.mnist", "data._target_=train.dta.mnist: cannot be imported: No module named 'train.dta'"),
        ("mnist", "data._target_=mnist: cannot be imported: Empty module name"),
        (
            "train.data.SPLIT_SEED",
            "data._target_=train.data.SPLIT_SEED: neither a class nor a function",
        ),
    ],
)
def test_a_wrong_target_is_a_user_error_with_the_nearest_name(target: str, line: str) -> None:
    option = DownloadDataConfig(_target_=target, root="data", download=False)
    with pytest.raises(UserError) as caught:
        data.load(option)
    assert str(caught.value).startswith(line)
