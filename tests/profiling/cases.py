"""The handed cases: small traces that were read wrongly, with the right values in their README."""

from pathlib import Path

import pytest

CASES = Path(__file__).parents[3] / "shared" / "cases"


def case(name: str) -> Path:
    """Path of a case; skips the test where the folder is absent."""
    path = CASES / name
    if not path.exists():
        pytest.skip(f"{CASES} is not here")
    return path
