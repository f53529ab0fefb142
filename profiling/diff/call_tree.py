"""The call tree of two sides, for an icicle chart: phases, and below each the operators that ran in it.

Times are those of a `TraceTotals`: per sample, step or trace. No time is left out: nodes that are too small to be seen
are merged into one node, whose name says how many they are.
"""

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
    """A node while the tree is built; `us` has the time of the subtree on both sides, `nodes` counts its nodes."""

    def __init__(self) -> None:
        self.us = [0.0, 0.0]
        self.nodes = 1
        self.children: dict[str, _MutableNode] = {}


class _MutableTree:
    """The nodes while the tree is built; at first each has only its own time."""

    def __init__(self) -> None:
        self.root = _MutableNode()
        self._pairs: list[tuple[_MutableNode, _MutableNode]] = []  # a parent and its child; parents are added first

    def child(self, parent: _MutableNode, name: str) -> _MutableNode:
        """Return a child; a new one is added."""
        if name not in parent.children:
            parent.children[name] = _MutableNode()
            self._pairs.append((parent, parent.children[name]))
        return parent.children[name]

    def add_up(self) -> None:
        """Add the times and numbers of the children to those of their parents."""
        for parent, child in reversed(self._pairs):
            parent.us = [above + below for above, below in zip(parent.us, child.us, strict=True)]
            parent.nodes += child.nodes


def call_tree(a: TraceTotals, b: TraceTotals) -> list[CallNode]:
    """Join the call chains of both sides; nodes are in depth-first order, larger siblings first."""
    tree = _MutableTree()
    for number, side in enumerate((a, b)):
        for phase, row in side.phases.items():
            top = tree.child(tree.root, phase)  # every phase appears, in the order of the comparison
            if row.python_us:
                tree.child(top, PYTHON).us[number] += row.python_us
        _add_chains(tree, side, number)
    tree.add_up()
    visible_us = SMALLEST * max(tree.root.us)
    nodes: list[CallNode] = []
    for phase, top in tree.root.children.items():
        _flatten(phase, top, -1, 0, visible_us, nodes)
    return nodes


def _add_chains(tree: _MutableTree, side: TraceTotals, number: int) -> None:
    """Add the self times of one side; a loop, as chains may be longer than the recursion limit."""
    known: dict[tuple[str, int], _MutableNode] = {}
    for (phase, chain), self_us in side.chain_us.items():
        missing = []
        while chain >= 0 and (phase, chain) not in known:
            missing.append(chain)
            chain = side.chains.links[chain][0]
        node = known[phase, chain] if chain >= 0 else tree.child(tree.root, phase)
        for below in reversed(missing):
            node = known[phase, below] = tree.child(node, side.chains.links[below][1])
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
            count += child.nodes
    if count:
        nodes.append(_node(here, f"({count:,} more)", merged))


def _node(parent: int, name: str, us: list[float]) -> CallNode:
    return CallNode(parent, name, us[0], us[1], us[1] - us[0])
