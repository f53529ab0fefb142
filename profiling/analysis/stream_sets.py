"""Sets of streams, and which streams a stream waits for, directly or through others."""

from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


class Streams(Struct, frozen=True):
    """A set of `Trace.threads`, one bit each: thousands of sets of thousands of streams are small so."""

    bits: int

    def of_threads(self, count: int) -> NDArray[np.bool_]:
        """Which of the `count` threads of the trace are in the set."""
        octets = np.frombuffer(self.bits.to_bytes(-(-count // 8), "little"), dtype=np.uint8)
        return np.unpackbits(octets, count=count, bitorder="little").astype(bool)


def with_awaited(streams: Iterable[int], reached: Mapping[int, int]) -> Streams:
    """The streams, and those that they wait for; `reached` is the result of `reachable`."""
    bits = 0
    for stream in streams:
        bits |= reached.get(stream, 1 << stream)
    return Streams(bits)


def reachable(waits_for: Mapping[int, Iterable[int]]) -> dict[int, int]:
    """For each stream, the bits of itself and of those that it waits for, directly or through others.

    Streams that wait for each other have the same set. By Kosaraju's algorithm, in proportion to the number of waits.
    """
    waited_by: dict[int, list[int]] = {}
    for stream, others in waits_for.items():
        for other in others:
            waited_by.setdefault(other, []).append(stream)
    reached: dict[int, int] = {}
    for root in reversed(_finished(waited_by)):
        # What can be reached from here, and has no set yet, reaches this stream, too.
        alike, bits, pending = set(), 0, [root]
        while pending:
            stream = pending.pop()
            if stream in reached:
                bits |= reached[stream]
            elif stream not in alike:
                alike.add(stream)
                bits |= 1 << stream
                pending += waits_for.get(stream, ())
        reached |= dict.fromkeys(alike, bits)
    return reached


def _finished(edges: Mapping[int, Iterable[int]]) -> list[int]:
    """The nodes that have edges, or are led to, in the order in which a depth-first search leaves them."""
    known: set[int] = set()
    order: list[int] = []
    for root in edges:
        pending = [(root, iter((root,)))]
        while pending:
            node, rest = pending[-1]
            following = next((other for other in rest if other not in known), None)
            if following is None:
                pending.pop()
                if len(pending):
                    order.append(node)
            else:
                known.add(following)
                pending.append((following, iter(edges.get(following, ()))))
    return order
