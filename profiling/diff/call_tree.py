"""The call tree of two sides, as an icicle chart draws it: phases, and below each the operators that ran in it.

Times are those of a `TraceTotals`: per sample, step or trace. Nothing is left out: nodes that are too small to be seen
are folded into one node beside their larger siblings, whose name tells how many they are.
"""

from collections import defaultdict

from msgspec import Struct

from profiling.diff.totals import TraceTotals

SMALLEST = 1e-3
"""Nodes below this part of the larger side's time are folded."""
DEEPEST = 40
"""Levels below a phase; what is called from the last one is folded. With SMALLEST this keeps a tree to thousands."""
PYTHON = "(python between operators)"


class CallNode(Struct, frozen=True):
    """A phase, where `parent` is -1, or an operator; `parent` is the position of what called it.

    `a_us` and `b_us` cover the subtree; what they exceed the children by is the operator's own. A phase is the sum of
    its operators, on any thread and with their waiting for the device, and of the Python between them.
    """

    parent: int
    name: str
    a_us: float
    b_us: float
    difference_us: float


class _GrowingNode:
    """A node that is still growing."""

    def __init__(self) -> None:
        self.us = [0.0, 0.0]
        self.children: defaultdict[str, _GrowingNode] = defaultdict(_GrowingNode)

    def size(self) -> int:
        """Count the nodes of the subtree, this one included; it may be deep."""
        count, pending = 0, [self]
        while pending:
            count += 1
            pending += pending.pop().children.values()
        return count


def call_tree(a: TraceTotals, b: TraceTotals) -> list[CallNode]:
    """Join the call chains of both sides: nodes in depth-first order, the larger of siblings first."""
    root = _GrowingNode()
    for number, side in enumerate((a, b)):
        for phase, row in side.phases.items():
            root.children[phase]  # every phase has its place, in the order of the comparison
            if row.python_us:
                _add(root, (phase, PYTHON), row.python_us, number)
        for (phase, chain), self_us in side.chains.items():
            _add(root, (phase, *chain), self_us, number)
    visible_us = SMALLEST * max(root.us)
    nodes: list[CallNode] = []
    for phase, top in root.children.items():
        _flatten(phase, top, -1, 0, visible_us, nodes)
    return nodes


def _add(root: _GrowingNode, path: tuple[str, ...], self_us: float, number: int) -> None:
    node = root
    node.us[number] += self_us
    for name in path:
        node = node.children[name]
        node.us[number] += self_us


def _flatten(name: str, node: _GrowingNode, parent: int, depth: int, visible_us: float, nodes: list[CallNode]) -> None:
    """Append a node and what is below it."""
    here = len(nodes)
    nodes.append(_node(parent, name, node.us))
    folded, count = [0.0, 0.0], 0
    for child_name, child in sorted(node.children.items(), key=lambda item: -max(item[1].us)):
        if depth < DEEPEST and max(child.us) > visible_us:
            _flatten(child_name, child, here, depth + 1, visible_us, nodes)
        else:
            folded = [sum(pair) for pair in zip(folded, child.us, strict=True)]
            count += child.size()
    if count:
        nodes.append(_node(here, f"({count:,} more)", folded))


def _node(parent: int, name: str, us: list[float]) -> CallNode:
    return CallNode(parent, name, us[0], us[1], us[1] - us[0])
