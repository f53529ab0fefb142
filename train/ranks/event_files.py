"""Event files that end too early, or too late: cut after a whole record, or where a saved state has them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PATTERN = "events.out.tfevents.*"


@contextmanager
def whole_records(folder: Path) -> Iterator[None]:
    """If the block cannot write, cut each event file in `folder` after its last whole record; remove an empty one."""
    try:
        yield
    except OSError as error:
        for file in folder.glob(PATTERN):
            error.filename = error.filename or str(file)
            length = _whole_bytes(file.read_bytes())
            if length:
                os.truncate(file, length)
            else:
                file.unlink()
        raise


def _whole_bytes(content: bytes) -> int:
    """Length of the whole records (TFRecord): 8 bytes of length, 4 of checksum, the data, 4 of checksum."""
    end = following = 0
    while following <= len(content):
        end = following
        following += 16 + int.from_bytes(content[end : end + 8], "little")
    return end


def cut(folder: Path, lengths: Mapping[str, int]) -> None:
    """Cut the event files in `folder` to `lengths`, name -> bytes; remove those that have none."""
    for file in folder.glob(PATTERN):
        if file.name in lengths:
            os.truncate(file, min(lengths[file.name], file.stat().st_size))
        else:
            file.unlink()
