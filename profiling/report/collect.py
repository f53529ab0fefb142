"""Finding comparisons on disk."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from profiling import comparison
from profiling.compare import correct_ladder
from profiling.comparison import ComparisonRecord


def collect(paths: Iterable[Path]) -> list[tuple[Path, ComparisonRecord]]:
    """Read the comparisons at `paths`, each with its folder, oldest first.

    A path is a `comparison.json`, its folder, or a folder with many below it. All of them count, also several of one
    experiment: they are repetitions, or were measured with another model. Together they are one family: a verdict that
    does not survive Holm's correction over all of them is not called.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: as `comparison.read`.
    """
    files = {file.resolve(): file for path in paths for file in _files(path)}
    return judged((file.parent, comparison.read(file)) for file in files.values())


def judged(read: Iterable[tuple[Path, ComparisonRecord]]) -> list[tuple[Path, ComparisonRecord]]:
    """Hold comparisons, each with its folder, to one joint error rate; oldest first."""
    found = sorted(read, key=lambda pair: (pair[1].started, pair[1].comparison.experiment))
    corrected = correct_ladder([record.comparison for _, record in found])
    return [
        (folder, msgspec.structs.replace(record, comparison=comparison))
        for (folder, record), comparison in zip(found, corrected, strict=True)
    ]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    files = sorted(path.rglob(comparison.FILE_NAME))
    if not files:
        raise FileNotFoundError(f"{path}: no {comparison.FILE_NAME} in this folder; `python -m train.ab` writes them")
    return files
