"""What the record of a run says of its windows, and their names."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from profiling import run_record
from profiling.run_record import RunRecord


def read_record(path: Path) -> tuple[RunRecord | None, str]:
    """Return the record beside the traces at `path`, or why it cannot be used: empty where there is none."""
    try:
        return run_record.read(path if path.is_dir() else path.parent), ""
    except FileNotFoundError:
        return None, ""
    except ValueError as error:
        return None, str(error)


def stages_of(record: RunRecord | None) -> dict[str, str]:
    """Return the stage of each trace file of a run."""
    found = record.stages.items() if record else ()
    return {stage.trace.path: name for name, stage in found if stage.trace is not None}


def window_names(files: Sequence[str], stages: Mapping[str, str]) -> list[str]:
    """Name the windows of a run: by stage, or by file without the words with which all files begin.

    Ranks can then be told apart in a narrow column.
    """
    shared = _shared_words(files)
    end = re.compile(r"(\.pt)?(\.trace)?\.json(\.gz|\.zst|\.zip)?$")
    return [stages.get(file) or end.sub("", file[shared:]) for file in files]


def _shared_words(files: Sequence[str]) -> int:
    """Return the length of the common start in whole words: 9 for cuda_ddp_rank-0 and cuda_ddp_rank-1."""
    if len(files) < 2:
        return 0
    length = next((i for i, letters in enumerate(zip(*files, strict=False)) if len(set(letters)) > 1), None)
    return 0 if length is None else max(files[0].rfind("_", 0, length), files[0].rfind(".", 0, length)) + 1
