"""The toy with learners that its user wrote, in a few lines each."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from cli_toy import toy
from river import base, linear_model

import stream_ml as sml


class Logistic(sml.Learner):
    """A logistic regression by gradient descent."""

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = rate
        self.weights: dict[str, float] = {}

    def predict_one(self, features: Any) -> float:
        """The probability of True."""
        score = sum(self.weights.get(name, 0.0) * value for name, value in features.items())
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))

    def learn_one(self, features: Any, label: Any) -> None:
        """A step down the gradient."""
        step = self.rate * (label - self.predict_one(features))
        for name, value in features.items():
            self.weights[name] = self.weights.get(name, 0.0) + step * value

    def dump(self) -> bytes:
        """The weights."""
        return json.dumps(self.weights, sort_keys=True).encode()

    def load(self, data: bytes) -> None:
        """The weights."""
        self.weights = {str(name): float(weight) for name, weight in json.loads(data).items()}


class Share(base.Classifier):
    """The share of True so far."""

    def __init__(self) -> None:
        self.yes, self.all = 0, 0

    def predict_proba_one(self, x: Any) -> Any:  # noqa: ARG002 - river's protocol
        """The share."""
        return {True: self.yes / self.all} if self.all else {}

    def learn_one(self, x: Any, y: Any) -> None:  # noqa: ARG002 - river's protocol
        """Count."""
        self.yes, self.all = self.yes + y, self.all + 1


own = replace(
    toy,
    champion="plain",
    models={"plain": linear_model.LogisticRegression(), "own": Logistic(), "share": Share()},
    promotion=sml.Promotion(refresh=200, mode="manual"),
)
OWN_TOY = f"{__name__}:own"
