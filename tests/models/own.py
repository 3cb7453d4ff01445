"""Learners as a user writes them, for the tests: of `Learner`, each in a few lines."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from stream_ml import Learner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml import Target

__all__ = ["Counts", "Line", "Logistic"]


class _Json(Learner):
    """Keeps what it has learned in `state`, which JSON holds."""

    state: Any

    def dump(self) -> bytes:
        return json.dumps(self.state, sort_keys=True).encode()

    def load(self, data: bytes) -> None:
        """Take it up."""
        state = json.loads(data)
        if type(state) is not type(self.state):
            raise ValueError(f"expected {type(self.state).__name__}")
        self.state = state


class Logistic(_Json):
    """A logistic regression by gradient descent."""

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = rate
        self.state: dict[str, float] = {}

    def predict_one(self, features: Mapping[str, float]) -> float:
        """The answer."""
        score = sum(self.state.get(name, 0.0) * value for name, value in features.items())
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:
        """One example."""
        step = self.rate * (label - self.predict_one(features))
        for name, value in features.items():
            self.state[name] = self.state.get(name, 0.0) + step * value


class Counts(_Json):
    """The shares of the classes so far."""

    def __init__(self) -> None:
        self.state: dict[str, int] = {}

    def prepare(self, target: Target, features: Sequence[str]) -> None:  # noqa: ARG002 - the protocol's
        """Learn the classes."""
        if not target.classes:
            raise ValueError(f"expected classes, given a {target} target")
        self.state = dict.fromkeys(target.classes, 0)

    def predict_one(self, features: Mapping[str, float]) -> dict[str, float] | None:  # noqa: ARG002
        """The answer."""
        total = sum(self.state.values())
        return {name: n / total for name, n in self.state.items()} if total else None

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:  # noqa: ARG002
        """One example."""
        self.state[label] += 1


class Line(_Json):
    """A running mean of the labels."""

    def __init__(self) -> None:
        self.state = [0.0, 0]

    def predict_one(self, features: Mapping[str, float]) -> float | None:  # noqa: ARG002
        """The answer."""
        return self.state[0] / self.state[1] if self.state[1] else None

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:  # noqa: ARG002
        """One example."""
        self.state = [self.state[0] + label, self.state[1] + 1]
