"""The call tree of two sides, for an icicle chart: phases, and below each the operators that ran in it.

Times are those of a `TraceTotals`: per sample, step or trace. No time is left out: nodes that are too small to be seen
are merged into one node, whose name says how many they are.
"""

from collections import defaultdict

from msgspec import Struct

from profiling.diff.totals import TraceTotals

SMALLEST = 1e-3
"""Nodes below this share of the larger side's time are merged."""
DEEPEST = 40
"""Levels below a phase; nodes below the last one are merged. Both limits keep a tree to some thousand nodes."""
PYTHON = "(python between operators)"


class CallNode(Struct, frozen=True):
    """A phase, whose `parent` is -1, or an operator, whose `parent` is the index of its caller's node.

    `a_us` and `b_us` cover the subtree; the part beyond the children is the operator's self time. A phase is the sum of
    its operators, on any thread and including their waiting for the device, and of the Python between them.
    """

    parent: int
    name: str
    a_us: float
    b_us: float
    difference_us: float


class _MutableNode:
    """A node while the tree is built; `us` has the time of the subtree on both sides."""

    def __init__(self) -> None:
        self.us = [0.0, 0.0]
        self.children: defaultdict[str, _MutableNode] = defaultdict(_MutableNode)

    def size(self) -> int:
        """Count the nodes of the subtree, including this one; a loop, as it may be deeper than the recursion limit."""
        count, pending = 0, [self]
        while pending:
            count += 1
            pending += pending.pop().children.values()
        return count


def call_tree(a: TraceTotals, b: TraceTotals) -> list[CallNode]:
    """Join the call chains of both sides; nodes are in depth-first order, larger siblings first."""
    root = _MutableNode()
    for number, side in enumerate((a, b)):
        for phase, row in side.phases.items():
            root.children[phase]  # creates the node: every phase appears, in the order of the comparison
            if row.python_us:
                _add(root, (phase, PYTHON), row.python_us, number)
        for (phase, chain), self_us in side.chains.items():
            _add(root, (phase, *chain), self_us, number)
    visible_us = SMALLEST * max(root.us)
    nodes: list[CallNode] = []
    for phase, top in root.children.items():
        _flatten(phase, top, -1, 0, visible_us, nodes)
    return nodes


def _add(root: _MutableNode, path: tuple[str, ...], self_us: float, number: int) -> None:
    node = root
    node.us[number] += self_us
    for name in path:
        node = node.children[name]
        node.us[number] += self_us


def _flatten(name: str, node: _MutableNode, parent: int, depth: int, visible_us: float, nodes: list[CallNode]) -> None:
    """Append a node and its subtree."""
    here = len(nodes)
    nodes.append(_node(parent, name, node.us))
    merged, count = [0.0, 0.0], 0
    for child_name, child in sorted(node.children.items(), key=lambda item: -max(item[1].us)):
        if depth < DEEPEST and max(child.us) > visible_us:
            _flatten(child_name, child, here, depth + 1, visible_us, nodes)
        else:
            merged = [sum(pair) for pair in zip(merged, child.us, strict=True)]
            count += child.size()
    if count:
        nodes.append(_node(here, f"({count:,} more)", merged))


def _node(parent: int, name: str, us: list[float]) -> CallNode:
    return CallNode(parent, name, us[0], us[1], us[1] - us[0])
