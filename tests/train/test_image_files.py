"""Images from files: folders as data sets, and how one file is decoded."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from profiling.errors import UserError
from tests.conftest import composed
from tests.fuzz.mutations import CASES, changed_bytes
from tests.odd_files import ODD_FILES
from train import data
from train.config.compose import to_config
from train.data import mean_std
from train.image_files import MAX_PIXELS, FileSplit, read_image, unlabeled


def write_class_folders(root: Path, digits: data.DataSet, per_class: int = 5) -> None:
    """`per_class` digits for each of three classes, in every kind of file that is accepted."""
    for label, name in enumerate(("zero", "one", "two")):
        for number, index in enumerate((digits.train.labels == label).nonzero().squeeze(1)[:per_class].tolist()):
            file = root / name / "deeper" / f"{number}{('.jpg', '.png', '.JPEG')[number % 3]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.train.images[index, 0].numpy()).convert("RGB").save(file)
    (root / "zero" / "notes.txt").write_text("not an image")


def test_class_folders_are_read_as_torchvision_reads_them(tmp_path: Path, digits: data.DataSet) -> None:
    write_class_folders(tmp_path, digits)
    folder = data.image_folder(root=str(tmp_path), image_size=20, test_fraction=0.4, channels=3)
    reference = ImageFolder(tmp_path)
    assert list(folder.classes) == reference.classes == ["one", "two", "zero"]
    found = [
        (str(file), label)
        for split in (folder.train, folder.test)
        for file, label in zip(split.files, split.labels.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(reference.samples)
    assert folder.train.labels.bincount().tolist() == [3, 3, 3]
    assert folder.test.labels.bincount().tolist() == [2, 2, 2]
    images, labels = next(iter(DataLoader(folder.test, batch_size=6)))
    assert (images.shape, images.dtype, labels.dtype) == ((6, 3, 20, 20), torch.uint8, torch.int64)


def test_statistics_of_files_come_from_the_decoded_training_images(tmp_path: Path, digits: data.DataSet) -> None:
    write_class_folders(tmp_path, digits)
    folder = data.image_folder(root=str(tmp_path), image_size=28, test_fraction=0.4, channels=3)
    assert (folder.mean, folder.std) == mean_std(torch.stack([folder.train[i][0] for i in range(9)]))


def test_a_folder_that_is_no_data_set_is_a_user_error(tmp_path: Path, digits: data.DataSet) -> None:
    def load(root: Path) -> data.DataSet:
        return data.image_folder(root=str(root), image_size=28, test_fraction=0.2, channels=1)

    with pytest.raises(UserError, match=r"^data\.root=.*/absent: no such folder$"):
        load(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no folders in it; there must be one for each class$"):
        load(tmp_path)
    write_class_folders(tmp_path, digits, per_class=2)
    load(tmp_path)
    (tmp_path / "one" / "deeper" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"the class one has 1 of the 2 images it needs"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the class empty has 0 of the 2 images it needs"):
        load(tmp_path)


@pytest.mark.parametrize("size", [9, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_a_decoded_file_agrees_with_pytorchs_antialiasing(size: int, channels: int, tmp_path: Path) -> None:
    waves = np.sin(np.arange(24)[:, None, None] * np.arange(1, 4) / 3 + np.arange(31)[None, :, None] / 5)  # [24, 31, 3]
    pixels = np.rint(127.5 + 127.5 * waves).astype(np.uint8)
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(tmp_path / "wave.png")
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None, :channels].float()
    expected = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True)[0]
    read = read_image(tmp_path / "wave.png", channels, size)
    assert read.is_contiguous()
    torch.testing.assert_close(read.float(), expected, rtol=0, atol=1.5)  # Pillow rounds after each of two passes


def test_files_of_any_color_become_the_channels_that_are_asked_for(tmp_path: Path) -> None:
    half_transparent_red = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    for mode in ("RGBA", "RGB", "P"):
        half_transparent_red.convert(mode).save(tmp_path / f"{mode}.png")
        assert read_image(tmp_path / f"{mode}.png", 3, 2)[:, 0, 0].tolist() == [255, 0, 0]
        assert read_image(tmp_path / f"{mode}.png", 1, 2)[:, 0, 0].tolist() == [76]  # luma of red, ITU-R 601
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png", 3, 2)[:, 0, 0].tolist() == [255, 255, 255]


def test_a_photograph_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[:, :4] = 255  # bright on the left
    rotated = Image.Exif()
    rotated[0x0112] = 6  # orientation: to be shown turned clockwise
    Image.fromarray(pixels).save(tmp_path / "sideways.jpg", exif=rotated, quality=95)
    upright = read_image(tmp_path / "sideways.jpg", 1, 8)[0].float()
    assert upright[:4].mean() > 240
    assert upright[4:].mean() < 15


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gray_image_of_16_bits_has_the_high_ones(tmp_path: Path, channels: int) -> None:
    """As Pillow reads 16-bit colors, and libpng any image of 16 bits (png_set_strip_16)."""
    wide = PIXELS.astype(np.uint16)[..., 0] << 8 | 0xFF
    orientation = Image.Exif()
    orientation[0x0112] = 3
    for name, pixels in (("deep.png", wide), ("flat.png", PIXELS[..., 0])):
        Image.fromarray(pixels).save(tmp_path / name, exif=orientation)
    deep, flat = (read_image(tmp_path / name, channels, 8) for name in ("deep.png", "flat.png"))
    assert torch.equal(deep, flat)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("damage", ["absent", "empty", "text", "half", "no data"])
def test_a_broken_image_is_a_user_error_that_names_the_file(suffix: str, damage: str, tmp_path: Path) -> None:
    file = tmp_path / f"picture.{suffix}"
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    damaged = {"empty": b"", "text": b"hello", "half": whole[: len(whole) // 2], "no data": whole[:60]}
    if damage == "absent":
        file.unlink()
    else:
        file.write_bytes(damaged[damage])
    split = FileSplit([file], torch.zeros(1, dtype=torch.int64), channels=3, image_size=8)
    with pytest.raises(UserError, match=rf"^{file}: cannot be decoded: ") as caught:
        split[0]
    assert "\n" not in str(caught.value)


def test_a_malformed_png_is_a_user_error_too(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    comment = PngInfo()
    comment.add_text("comment", "x" * 2**21, zip=True)  # unpacks to more than Pillow allows
    Image.new("L", (8, 8)).save(file, pnginfo=comment)
    with pytest.raises(UserError, match=rf"^{file}: cannot be decoded: .*too large"):
        read_image(file, 1, 8)
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (8, 8), dtype=np.uint8)).save(file)
    before, after = file.read_bytes().split(b"IDAT")
    file.write_bytes(before[:-4] + (8).to_bytes(4, "big") + b"IDAT" + after)  # the wrong size of the chunk
    with pytest.raises(UserError, match=rf"^{file}: cannot be decoded: broken PNG file"):
        read_image(file, 1, 8)


def test_images_without_labels_are_every_image_below_a_folder_in_order(tmp_path: Path) -> None:
    for name in ("z.png", "a.JPG", "deeper/c.jpeg", "notes.txt", "d.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (5, 5), 7).save(tmp_path / name, format="PNG" if name.endswith(("png", "txt")) else None)
    split = unlabeled(tmp_path, channels=1, image_size=6)
    assert [str(file.relative_to(tmp_path)) for file in split.files] == ["a.JPG", "deeper/c.jpeg", "z.png"]
    image, label = split[2]
    assert image.tolist() == [[[7] * 6] * 6]
    assert label == -1


def test_a_folder_without_images_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^images=.*/absent: no such folder$"):
        unlabeled(tmp_path / "absent", channels=1, image_size=8)
    with pytest.raises(UserError, match=r"^images=.*: no \.jpg, \.jpeg, \.png file in it$"):
        unlabeled(tmp_path, channels=1, image_size=8)


# --- other formats, large files, damage -------------------------------------------------------------------------------

PIXELS = np.random.RandomState(0).randint(0, 256, (24, 20, 4), dtype=np.uint8)


def encoded(mode: str, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(PIXELS).convert("RGB" if mode == "CMYK" else "RGBA").convert(mode).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg"])
@pytest.mark.parametrize("kind", ["GIF", "TIFF", "EPS", "BMP", "WEBP", "PPM", "ICO", "JPEG2000"])
def test_only_jpeg_and_png_are_decoded_whatever_the_name_says(kind: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(encoded("RGB", kind))
    with pytest.raises(UserError, match=rf"^{file}: cannot be decoded: neither a JPEG nor a PNG file; convert or"):
        read_image(file, 3, 8)


def test_a_png_may_be_called_jpg(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(encoded("RGB", "PNG"))
    assert read_image(tmp_path / "picture.jpg", 3, 8).shape == (3, 8, 8)


def test_a_large_image_is_refused_before_it_is_decoded_and_the_limit_can_be_raised(
    tmp_path: Path,
) -> None:
    for label in ("a", "b"):
        for number in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("L", (40, 30), 100 * number).save(tmp_path / label / f"{number}.png")
    header = zlib.compress(b"")  # a file that says 13,000 x 13,000 pixels, and has none
    size = struct.pack(">II5B", 13_000, 13_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", header), (b"IEND", b""))
    large = tmp_path / "b" / "0.png"
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    message = r"has 13,000 x 13,000 pixels, more than max_pixels=80,000,000; .* allow it: max_pixels=169000000$"
    with pytest.raises(UserError, match=message):
        read_image(large, 3, 8)
    Image.new("L", (40, 30)).save(large)
    load = ("data=image_folder", f"data.root={tmp_path}", "data.image_size=8")
    with pytest.raises(UserError, match=r"40 x 30 pixels, more than max_pixels=1,199; .* allow it: max_pixels=1200"):
        data.load(to_config(composed(*load, "max_pixels=1199")).data)
    assert data.load(to_config(composed(*load, "max_pixels=1200")).data).image_size == 8
    assert data.load(to_config(composed(*load, "max_pixels=9", "data.max_pixels=1200")).data).image_size == 8
    with pytest.raises(UserError, match=r"more than max_pixels=1,199"):
        unlabeled(tmp_path, 3, 8, max_pixels=1199)[0]
    assert to_config(composed()).max_pixels == MAX_PIXELS


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_raised_limit_is_not_overruled_by_pillows_own(tmp_path: Path) -> None:
    Image.new("1", (14_000, 13_000)).save(tmp_path / "large.png")  # 182 megapixels: Pillow refuses above 179
    assert read_image(tmp_path / "large.png", 1, 2, max_pixels=200_000_000).tolist() == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_jpeg_and_png_is_read_or_refused_by_name(channels: int, tmp_path: Path) -> None:
    kinds = [encoded(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    kinds += [encoded(mode, "JPEG") for mode in ("L", "RGB", "CMYK")]
    kinds += [encoded("RGB", "JPEG", progressive=True), encoded("P", "PNG", transparency=bytes([0, 128, 255]))]
    for content in kinds:
        (tmp_path / "picture.png").write_bytes(content)
        assert read_image(tmp_path / "picture.png", channels, 8).shape == (channels, 8, 8)


def test_cmyk_keeps_its_colors(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK").save(tmp_path / "red.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "red.jpg", 3, 2)[:, 0, 0].tolist()
    assert red > 180
    assert max(green, blue) < 60


def test_of_an_animation_the_first_picture_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (50, 150, 250)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "moving.png", 1, 2).tolist() == [[[50, 50], [50, 50]]]


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_is_named_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    ODD_FILES[kind](tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png: .*(not a file|no such file)$"):
        read_image(tmp_path / "pipe.png", 1, 8)


def test_a_name_with_control_characters_is_shown_escaped(tmp_path: Path) -> None:
    file = tmp_path / "a\nb\x1b[31m.png"
    file.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"/a\\nb\\x1b\[31m\.png: cannot be decoded"):
        read_image(file, 1, 8)


def test_no_damage_to_an_image_is_more_than_one_line(tmp_path: Path) -> None:
    orientation = Image.Exif()
    orientation[0x0112] = 6
    orientation[0x010E] = "a description"
    comment = PngInfo()
    comment.add_text("a", "b" * 50, zip=True)
    moving = encoded("RGBA", "PNG", save_all=True, append_images=[Image.fromarray(PIXELS).rotate(90)])
    whole = [
        encoded("RGB", "JPEG", exif=orientation), encoded("CMYK", "JPEG"), encoded("L", "JPEG", progressive=True),
        encoded("RGBA", "PNG", exif=orientation), encoded("P", "PNG"), encoded("LA", "PNG", pnginfo=comment), moving,
    ]  # fmt: skip
    chance = random.Random(0)
    file = tmp_path / "picture.png"
    for _ in range(CASES):
        content = chance.choice(whole)
        if content[1:4] == b"PNG" and chance.random() < 0.7:
            content = with_damaged_chunk(content, chance)
        else:
            content = changed_bytes(chance, content)
        file.write_bytes(content)
        try:
            assert read_image(file, chance.choice((1, 3)), 8).shape[1:] == (8, 8)
        except UserError as error:
            message = str(error)
            assert message.startswith(f"{file}: ") and "\n" not in message


def with_damaged_chunk(content: bytes, chance: random.Random) -> bytes:
    """A PNG file with one chunk damaged, removed, doubled or renamed, and right checksums."""
    chunks, position = [], 8
    while position < len(content):
        (size,) = struct.unpack(">I", content[position : position + 4])
        chunks.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + size]))
        position += 12 + size
    index = chance.randrange(len(chunks))
    kind, body = chunks[index]
    names = (b"tRNS", b"PLTE", b"gAMA", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"zTXt", b"iTXt", b"IDAT")
    chunks[index : index + 1] = chance.choice(
        [
            [(kind, changed_bytes(chance, body) if body else b"x")],
            [],
            [(kind, body), (kind, body)],
            [(chance.choice(names), body)],
            [(kind, body), (chance.choice(names), chance.randbytes(chance.randrange(40)))],
        ]
    )
    return content[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_image_that_is_none_is_told_or_left_out_counted_and_named(on_error, configure, tmp_path, caplog):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(tmp_path / label / f"{number}.png")
    (tmp_path / "a" / "bad.png").write_bytes(b"no image")
    config = configure("data=image_folder", f"data.root={tmp_path}", "data.image_size=8", f"data.on_error={on_error}")
    if on_error == "raise":
        with pytest.raises(UserError, match=r"a/bad.png: cannot be decoded: neither a JPEG nor a PNG file"):
            data.load(config.data)
        return
    with caplog.at_level("INFO"):
        loaded = data.load(config.data)
    assert len(loaded.train) + len(loaded.test) == 8
    assert "a/bad.png: cannot be decoded" in caplog.text
    assert "data.on_error=skip: 1 of 9 images are left out" in caplog.text
