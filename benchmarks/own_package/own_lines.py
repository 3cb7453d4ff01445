"""A user's learner in a package of the user's own, which `benchmarks.learners` installs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from stream_ml import Learner

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OwnLogistic"]


class OwnLogistic(Learner):
    """A logistic regression on features that are scaled by what came before (AdaGrad)."""

    def __init__(self, rate: float = 0.05) -> None:
        self.rate = rate
        # By feature: weight, sum of squared steps, count, mean, sum of squared deviations.
        self.state: dict[str, list[float]] = {}

    def predict_one(self, features: Mapping[str, float]) -> float:
        """The probability of True."""
        score = 0.0
        for name, value in [("", 1.0), *features.items()]:
            known = self.state.get(name)
            if known is not None:
                score += known[0] * _scaled(value, known)
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score))))

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:
        """One step."""
        error = self.predict_one(features) - label
        for name, value in [("", 1.0), *features.items()]:
            known = self.state.setdefault(name, [0.0, 1e-8, 0.0, 0.0, 0.0])
            step = error * _scaled(value, known)
            known[1] += step * step
            known[0] -= self.rate * step / math.sqrt(known[1])
            known[2] += 1.0
            deviation = value - known[3]
            known[3] += deviation / known[2]
            known[4] += deviation * (value - known[3])

    def dump(self) -> bytes:
        """JSON."""
        return json.dumps(self.state, sort_keys=True).encode()

    def load(self, data: bytes) -> None:
        """Take it up."""
        self.state = {
            str(name): [float(number) for number in numbers]
            for name, numbers in json.loads(data).items()
        }


def _scaled(value: float, known: list[float]) -> float:
    """The value as it lies among those that came before; 1 for what never varied."""
    spread = math.sqrt(known[4] / known[2]) if known[2] else 0.0
    return (value - known[3]) / spread if spread else 1.0
