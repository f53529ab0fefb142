"""Which Python frame called which, as rows of the table of frames."""

import numpy as np
from numpy.typing import NDArray

from profiling.trace.groups import by_value

Int32s = NDArray[np.int32]

NO_CALLER, UNKNOWN_CALLER = -1, -2
"""Instead of the row of a caller: a Python frame has none, or the file does not tell it."""


def caller_rows(thread: Int32s, ids: Int32s, caller_ids: Int32s) -> Int32s:
    """Rows of the calling frames, from their ids (-1: none); ids that are not unique on a thread tell nothing."""
    invalid = (ids < 0) | (caller_ids < -1)
    if invalid.any():
        ids, caller_ids = np.maximum(ids, -1), np.maximum(caller_ids, -1)
    if caller_ids.max(initial=-1) < 0:
        return np.full(ids.size, UNKNOWN_CALLER, dtype=np.int32)
    if max(ids.max(), caller_ids.max()) > 8 * ids.size or np.bincount(ids + 1)[1:].max(initial=0) > 1:
        # Threads, or the processes of a merged file, count on their own.
        ids, caller_ids = _renumbered(thread, ids, caller_ids)
    rows = np.arange(ids.size, dtype=np.int32)
    row = np.full(max(ids.max(), caller_ids.max()) + 2, UNKNOWN_CALLER, dtype=np.int32)
    row[ids] = rows
    row[ids[row[ids] != rows]] = UNKNOWN_CALLER
    row[-1] = NO_CALLER
    callers = row[caller_ids]
    if (thread != thread[0]).any():
        callers[(callers >= 0) & (thread[np.maximum(callers, 0)] != thread)] = UNKNOWN_CALLER
    callers[invalid] = UNKNOWN_CALLER
    return callers


def _renumbered(thread: Int32s, ids: Int32s, caller_ids: Int32s) -> tuple[Int32s, Int32s]:
    """Replace ids that are unique on a thread by small ones that are unique in the trace; -1 stays."""
    both = np.concatenate([ids, caller_ids])
    keys = np.concatenate([thread, thread]).astype(np.int64) << 32 | both
    numbers = np.unique(keys, return_inverse=True)[1].astype(np.int32)
    numbers[both < 0] = -1
    return numbers[: ids.size], numbers[ids.size :]


def callers_within(callers: Int32s, part: NDArray[np.intp]) -> Int32s:
    """The callers of all rows, numbered among the rows of the same part; those in another part are unknown."""
    number = np.empty(part.size, dtype=np.int32)
    for _, rows in by_value(part):
        number[rows] = np.arange(rows.size)
    called = np.flatnonzero(callers >= 0)
    caller = callers[called]
    within = callers.copy()
    within[called] = np.where(part[caller] == part[called], number[caller], UNKNOWN_CALLER)
    return within
