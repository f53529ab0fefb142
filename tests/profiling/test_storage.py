"""Files are written whole or not at all; JSON is read as what its version says."""

import errno
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from profiling.storage import atomic_write, decode_json, read_json, walk_folders, write_json


class Old(Struct):
    size: int


class New(Struct):
    width: int
    schema_version: int = 2


class Measured(Struct):
    seconds: float


KINDS = {1: Old, 2: New}


def test_a_write_shows_the_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_write(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise OSError("full")
    assert path.read_text() == "old"
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")  # as written: of which file, it does not say
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_decoded_as_the_kind_of_its_version():
    assert decode_json(b'{"schema_version": 1, "size": 3}', KINDS, "a thing") == Old(3)
    assert decode_json(b'{"width": 3}', KINDS, "a thing") == New(3), "without a version it is the newest"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema_version": 7}', "schema version 7, this program reads 1 and 2"),
        (b'{"schema_version": 2, "width": "x"}', "not a thing: Expected `int`"),
        (b"[1", "not a thing: "),
        (b"\xff", "not a thing: "),
        (b"[" * 100_000, "not a thing: "),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line_with_its_file(tmp_path, content, message):
    path = tmp_path / "thing.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_json(path, KINDS, "a thing")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_was_written_is_read(tmp_path):
    assert read_json(write_json(New(5), tmp_path / "thing.json"), KINDS, "a thing") == New(5)


@given(st.floats())
def test_what_is_written_can_be_read_or_nothing_is_written(tmp_path_factory, number):
    path = tmp_path_factory.mktemp("written") / "thing.json"
    if math.isfinite(number):
        assert read_json(write_json(Measured(number), path), {1: Measured}, "a thing") == Measured(number)
    else:
        with pytest.raises(ValueError, match=f"{path}: this record could not be read back"):
            write_json(Measured(number), path)
        assert list(path.parent.iterdir()) == []


def test_a_walk_leaves_out_hidden_folders_and_links(tmp_path):
    for name in ("a/b", ".git", "linked"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "b" / "file").touch()
    walked = {folder.relative_to(tmp_path).as_posix(): names for folder, names in walk_folders(tmp_path)}
    assert walked == {".": set(), "a": set(), "a/b": {"file"}, "linked": set()}
