"""What old releases of PyTorch write differently: annotations called operators, and threads with two spellings."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from profiling.trace.columns import LEGACY_PROCESS, Columns, Kind
from profiling.trace.groups import distinct

_TORCH_ANNOTATIONS = ("ProfilerStep#", "enumerate(DataLoader)#", "Optimizer.step#", "Optimizer.zero_grad#")
_OLD_OPERATOR = "Operator"
"""The category of operators and annotations in PyTorch 1.8 and 1.9."""
_IS_OPERATOR = re.compile(r"::|\wBackward\d*$|^(?:detach_?|record_param_comms)$").search
"""Names of operators (`aten::mm`, `mine::op`) and of autograd's functions; few operators have no namespace."""


def annotations_among_operators(
    columns: Columns, name: NDArray[np.int32], kind: NDArray[np.int8], shapes: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Find the annotations among events whose category is that of operators, given the columns of all spans.

    PyTorch 1.8, 1.9 and the legacy profiler do not tell them apart. Always annotations are those of PyTorch itself.
    In a trace without any category of annotations, if it is of these releases or has annotations of PyTorch among its
    operators, so are all names that are neither `namespace::operator` nor a function of autograd, and that never have
    inputs. Names say nothing if none has a namespace, as before PyTorch 1.6.
    """
    names = list(columns.names)
    own = _mask(names, [number for number, text in enumerate(names) if text.startswith(_TORCH_ANNOTATIONS)])
    operators = kind == Kind.OPERATOR
    found: NDArray[np.bool_] = operators & own[name] if own.any() else np.zeros(kind.size, dtype=bool)
    legacy = any(pid == LEGACY_PROCESS for pid, _ in columns.threads)
    if not (legacy or _OLD_OPERATOR in columns.counts or found.any()) or (kind == Kind.ANNOTATION).any():
        return found
    used = distinct(name[operators])
    if not any("::" in names[number] for number in used):
        return found
    with_inputs = np.array([shape.strip(b"[] \n") not in (b"", b"null") for shape in columns.shapes], dtype=bool)
    takes_inputs = _mask(names, name[operators & with_inputs[shapes]])
    is_annotation = _mask(names, [n for n in used if not _IS_OPERATOR(names[n])]) & ~takes_inputs
    found |= operators & is_annotation[name]
    return found


def one_spelling(
    threads: Sequence[tuple[int | str, int | str]],
) -> tuple[list[tuple[int | str, int | str]], NDArray[np.int32]]:
    """Join threads that differ only by `"7"` instead of `7`, as PyTorch 1.8 writes both.

    Returns the threads, and for each of the given ones its index among them.
    """
    first: dict[tuple[str, str], int] = {}
    joined: list[tuple[int | str, int | str]] = []
    for pid, tid in threads:
        if first.setdefault((str(pid), str(tid)), len(joined)) == len(joined):
            joined.append((pid, tid))
    return joined, np.array([first[str(pid), str(tid)] for pid, tid in threads], dtype=np.int32)


def _mask(names: Sequence[str], numbers: NDArray[np.int32] | list[int]) -> NDArray[np.bool_]:
    mask = np.zeros(len(names), dtype=bool)
    mask[numbers] = True
    return mask
