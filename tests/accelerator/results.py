"""What each piece has shown: one JSON file a piece, written whole or not at all, so that a second start can go on."""

import json
from pathlib import Path
from typing import Any, NamedTuple

PASSED, NOT_APPLICABLE, FAILED, CUT = "passed", "not applicable", "failed", "cut"
FINAL = (PASSED, NOT_APPLICABLE)
"""A second start leaves these alone; what failed or was cut is asked again."""


class Result(NamedTuple):
    """The answer of one piece.

    Attributes:
        name: group and piece, such as `ladder/amp_off`.
        status: PASSED, NOT_APPLICABLE, FAILED or CUT.
        seconds: what it took.
        found: figures by name, units in the names.
        error: why it did not pass; empty if it did.
    """

    name: str
    status: str
    seconds: float
    found: dict[str, Any]
    error: str = ""


def path_of(out: Path, name: str) -> Path:
    return out / "results" / f"{name.replace('/', '.')}.json"


def write(out: Path, result: Result) -> None:
    path = path_of(out, result.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result._asdict(), indent=1))
    partial.replace(path)


def read(out: Path, name: str) -> Result | None:
    path = path_of(out, name)
    return Result(**json.loads(path.read_text())) if path.exists() else None


def read_all(out: Path) -> dict[str, Result]:
    """Name -> result, by the time of writing."""
    files = sorted((out / "results").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    results = (Result(**json.loads(path.read_text())) for path in files)
    return {result.name: result for result in results}


def forget_what_did_not_pass(out: Path) -> None:
    for result in read_all(out).values():
        if result.status not in FINAL:
            path_of(out, result.name).unlink()
