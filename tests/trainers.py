"""Trainers as a user writes them, for the tests."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ml import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml import Target

__all__ = ["Bag", "Failing", "Forgetful", "Idle", "Nasty", "window_digest"]


def window_digest(rows: Any, labels: Any) -> str:
    """The window that a training was given, as text."""
    data = np.ascontiguousarray(rows, "<f8").tobytes() + np.asarray(labels, "<f8").tobytes()
    return hashlib.sha256(data).hexdigest()


class Bag(Trainer):
    """The mean label of a sample of the window, moved a little by the first feature."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope
        self.state: dict[str, Any] = {}

    def fit(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Draw, and take the mean."""
        drawn = np.random.default_rng(seed).integers(0, len(labels), len(labels))
        mean = float(np.mean(labels[drawn]))
        self.state = {"mean": mean, "rows": len(rows), "window": window_digest(rows, labels)}

    def predict_one(self, features: Mapping[str, float]) -> Any:
        """The answer."""
        (first, *_) = self.row(features)
        mean = self.state["mean"] + self.slope * (0.0 if np.isnan(first) else min(first, 1.0))
        if self.target.kind == "regression":
            return mean
        if self.target.kind == "binary":
            return max(0.0, min(1.0, mean))
        return dict.fromkeys(self.target.classes, 1 / len(self.target.classes))

    def dump(self) -> bytes:
        """JSON."""
        return json.dumps(self.state, sort_keys=True).encode()

    def load(self, data: bytes) -> None:
        """Take it up."""
        state = json.loads(data)
        if type(state) is not dict or type(state.get("mean")) is not float:
            raise ValueError("expected a mean")
        self.state = state


class Failing(Bag):
    """Cannot train on more than so many examples."""

    def __init__(self, most: int = 50) -> None:
        super().__init__()
        self.most = most

    def fit(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Raise, where there are many."""
        if len(rows) > self.most:
            raise ArithmeticError(f"{len(rows)} are too many")
        super().fit(rows, labels, seed)


class Forgetful(Bag):
    """Draws by no seed."""

    def fit(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:  # noqa: ARG002 - planted
        """Draw anew each time."""
        super().fit(rows, labels, int(np.random.default_rng().integers(2**31)))
        self.state["drawn"] = float(np.random.default_rng().random())


class Idle(Bag):
    """Is for numbers only, and for nothing that is missing."""

    def prepare(self, target: Target, features: Any) -> None:
        """Refuse classes."""
        if target.kind != "regression":
            raise ValueError("expected a number for a label")
        super().prepare(target, features)

    def fit(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Refuse gaps."""
        if np.isnan(rows).any():
            raise ValueError("expected no gaps")
        super().fit(rows, labels, seed)


class Nasty(Bag):
    """Does whatever its name says, in the midst of training."""

    def __init__(self, deed: str) -> None:
        super().__init__()
        self.deed = deed

    def fit(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Do it."""
        # Not where it is declared.
        match self.deed if len(rows) > 15 else "":
            case "hang":
                while True:
                    pass
            case "hoard":
                self.state["hoard"] = float(np.empty(2**30)[0])
            case "exit":
                os._exit(3)
            case "raise":
                raise ArithmeticError("no")
            case "quit":
                sys.exit(4)
            case "print":
                os.write(1, b"training\n")
        super().fit(rows, labels, seed)
