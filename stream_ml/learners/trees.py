"""Ensembles of decision trees as plain numbers: read with every check, asked without a library.

A node sends an example to the left where its feature's value is at most the threshold; a missing
value goes where the node says. Children are numbers of nodes, or of leaves, as their complement
(-1: leaf 0). A child's number is greater than its parent's, so that no walk is endless.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.models.retrained import Trainer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Tree", "TreeTrainer", "dump_trees", "load_trees", "scores"]

_FORMAT = "trees/1"


class Tree(NamedTuple):
    """One tree: of each node the feature, the threshold, the children, where gaps go; the leaves.

    A tree without nodes is its one leaf.
    """

    feature: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    gaps_left: list[bool]
    leaf: list[float]


def dump_trees(trees: Sequence[Tree]) -> bytes:
    """Trees as bytes; equal ones give equal bytes.

    Args:
        trees: in the order in which they are added up.
    """
    return orjson.dumps([_FORMAT, [tree._asdict() for tree in trees]])


def load_trees(data: bytes, width: int) -> list[Tree]:
    """The trees that were dumped.

    Args:
        data: any bytes.
        width: how many features there are.

    Raises:
        ValueError: they are no trees, or ask for a feature that is not there.
    """
    members = orjson.loads(data)
    if not (isinstance(members, list) and len(members) == 2 and members[0] == _FORMAT):  # noqa: PLR2004 - a pair
        raise ValueError(f"expected {_FORMAT}")
    return [_tree(each, width) for each in _list(members[1], dict)]


def _tree(members: dict[str, Any], width: int) -> Tree:
    if members.keys() != set(Tree._fields):
        raise ValueError(f"expected a tree of {', '.join(Tree._fields)}")
    tree = Tree(
        _list(members["feature"], int),
        _list(members["threshold"], float),
        _list(members["left"], int),
        _list(members["right"], int),
        _list(members["gaps_left"], bool),
        _list(members["leaf"], float),
    )
    count = len(tree.feature)
    if {len(numbers) for numbers in tree[:5]} != {count} or len(tree.leaf) != count + 1:
        raise ValueError("expected as many thresholds and children as nodes, and a leaf more")
    if not all(0 <= feature < width for feature in tree.feature):
        raise ValueError(f"expected features below {width}")
    for children in (tree.left, tree.right):
        for node, child in enumerate(children):
            if not (node < child < count or -count - 1 <= child < 0):
                raise ValueError(f"expected a child behind node {node} or a leaf, given {child}")
    if not all(map(math.isfinite, [*tree.threshold, *tree.leaf])):
        raise ValueError("expected finite numbers")
    return tree


def _list(value: Any, kind: type) -> list[Any]:
    if type(value) is not list or not all(type(each) is kind for each in value):
        raise ValueError(f"expected a list of {kind.__name__}")
    return value


def scores(trees: Sequence[Tree], row: Sequence[float], outputs: int) -> list[float]:
    """The sums of the leaves that an example comes to; tree i counts for output i % outputs.

    Args:
        trees: in their order, in which is added up.
        row: of the features; NaN: missing.
        outputs: how many sums.
    """
    sums = [0.0] * outputs
    for number, (feature, threshold, left, right, gaps_left, leaf) in enumerate(trees):
        node = 0 if feature else -1
        while node >= 0:
            value = row[feature[node]]
            # Only a gap does not equal itself.
            if value <= threshold[node] or (value != value and gaps_left[node]):  # noqa: PLR0124
                node = left[node]
            else:
                node = right[node]
        sums[number % outputs] += leaf[~node]
    return sums


class TreeTrainer(Trainer):
    """A trainer whose model is trees, so many for each of its outputs."""

    _trees: Sequence[Tree] = ()
    _outputs = 1

    def dump(self) -> bytes:
        """The trees, as numbers."""
        return dump_trees(self._trees)

    def load(self, data: bytes) -> None:
        """Take up trees.

        Args:
            data: what `dump` gave.

        Raises:
            ValueError: they are none.
        """
        trees = load_trees(data, len(self.features))
        if not trees or len(trees) % self._outputs:
            raise ValueError(f"expected trees for {self._outputs} outputs, given {len(trees)}")
        self._trees = trees
