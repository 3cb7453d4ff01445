"""A learner that fits in batches, of numbers alone, for the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stream_ml.learners.batches import BatchLearner

if TYPE_CHECKING:
    from stream_ml import Target

__all__ = ["Steps"]


class Steps(BatchLearner):
    """A logistic regression that makes one step of gradient descent a batch.

    Args:
        batch: so many examples make a step.
        missing: what stands in for a feature that is missing.
    """

    magic: ClassVar[bytes] = b"steps 1 "

    def __init__(self, batch: int = 8, missing: float = 0.0) -> None:
        super().__init__(batch, missing)
        self._weights = np.zeros(0)

    def _begin(self, target: Target) -> None:  # noqa: ARG002 - it is for True and False alone
        self._weights = np.zeros(len(self._features) + 1)

    def _shares(self, rows: Any) -> Any:
        scores = np.clip(np.asarray(rows) @ self._weights[1:] + self._weights[0], -30.0, 30.0)
        return 1 / (1 + np.exp(-scores))

    def _predict(self, row: list[float]) -> list[float]:
        return [float(self._shares([row])[0])]

    def _fit(self, rows: list[list[float]], labels: list[float]) -> None:
        errors = np.asarray(labels) - self._shares(rows)
        step = np.concatenate([[errors.mean()], np.asarray(rows).T @ errors / len(rows)])
        self._weights = self._weights + 0.1 * step

    def _state(self) -> Any:
        return {"weights": self._weights}

    def _template(self) -> Any:
        return {"weights": np.zeros(len(self._features) + 1)}

    def _restore(self, state: Any) -> None:
        self._weights = state["weights"]
