"""Rows by the id that they have: of their thread, stream or rank. Many ids take hardly longer than few."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW_IDS = 16
"""Comparing a column with each of so many ids takes less time than sorting it."""


def distinct(ids: NDArray[Any]) -> NDArray[np.intp]:
    """List the ids that occur, sorted; faster than `numpy.unique` if the ids are small."""
    return np.flatnonzero(np.bincount(ids))


def by_value(ids: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each id that occurs, in order, and the places where it does, in order; ids are small and not negative."""
    numbers = distinct(ids)
    if numbers.size <= _FEW_IDS:
        yield from ((number, np.flatnonzero(ids == number)) for number in numbers.tolist())
    else:
        order = np.argsort(ids, kind="stable")
        yield from zip(numbers.tolist(), np.split(order, np.cumsum(np.bincount(ids)[numbers])[:-1]), strict=True)
