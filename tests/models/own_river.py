"""Estimators of river as a user writes them, in a module of the user's own."""

from __future__ import annotations

from typing import Any

from river import base

__all__ = ["Late", "Nearest", "Node", "Share", "Stranger"]


class Share(base.Classifier):
    """Five lines: the share of True so far."""

    def __init__(self) -> None:
        self.yes, self.all = 0, 0

    def predict_proba_one(self, x: Any) -> Any:  # noqa: ARG002 - river's protocol
        """The share."""
        return {True: self.yes / self.all} if self.all else {}

    def learn_one(self, x: Any, y: Any) -> None:  # noqa: ARG002 - river's protocol
        """Count."""
        self.yes, self.all = self.yes + y, self.all + 1


class Node:
    """What `Nearest` keeps of an example."""

    def __init__(self, x: dict[str, float], y: float) -> None:
        self.x, self.y = x, y


class Nearest(base.Regressor):
    """The label of the nearest of the last few examples, kept in nodes."""

    def __init__(self, size: int = 5) -> None:
        self.size = size
        self.nodes: list[Node] = []

    def predict_one(self, x: Any) -> float:
        """The nearest one's label."""

        def distance(node: Node) -> float:
            return sum((value - node.x.get(name, 0.0)) ** 2 for name, value in x.items())

        return min(self.nodes, key=distance).y if self.nodes else 0.0

    def learn_one(self, x: Any, y: Any) -> None:
        """Keep it."""
        self.nodes = [*self.nodes, Node(x, y)][-self.size :]


class Late(Share):
    """Takes up a class of its own only after fifty examples."""

    node: Node | None = None

    def learn_one(self, x: Any, y: Any) -> None:
        """Count, and keep the fiftieth."""
        super().learn_one(x, y)
        if self.all == 50:
            self.node = Node(x, y)


class Stranger:
    """A class of the same module, of which no estimator is made."""

    made = 0

    def __init__(self) -> None:
        Stranger.made += 1
