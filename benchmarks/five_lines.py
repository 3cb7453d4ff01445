"""Five lines of five kinds on the flights, for `benchmarks.learners`.

River, scikit-learn, PyTorch, LightGBM that is retrained daily, and a class of a user's own, whose
package (`benchmarks/own_package`) has to be installed. Models are replaced by command alone.
"""

from __future__ import annotations

import dataclasses
import importlib
from functools import partial
from typing import Any

import torch
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import stream_ml as sml
from stream_ml.examples.flights import flights
from stream_ml.learners.lightgbm import LightGBM
from stream_ml.learners.sklearn import ScikitLearn
from stream_ml.learners.torch import Torch

__all__ = ["Scaler", "five", "network"]


class Scaler(torch.nn.Module):  # type: ignore[misc]  # of what has no types here
    """Scales by running means and variances: a batch of one hour says little of the others."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("square", torch.ones(inputs))
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, rows: Any) -> Any:
        """The rows, scaled.

        Args:
            rows: of numbers.
        """
        if self.training:
            self.steps += 1
            share = 1 / torch.clamp(self.steps, max=1_000.0)
            self.mean += share * (rows.mean(dim=0) - self.mean)
            self.square += share * ((rows - self.mean).square().mean(dim=0) - self.square)
        return (rows - self.mean) / (self.square + 1e-6).sqrt()


def network(inputs: int, outputs: int) -> Any:
    """A hidden layer of 16."""
    return torch.nn.Sequential(
        Scaler(inputs),
        torch.nn.Linear(inputs, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, outputs),
    )


_linear = SGDClassifier(loss="log_loss", random_state=1, learning_rate="constant", eta0=0.003)
_boosted = LightGBM(100, num_leaves=15, learning_rate=0.05, min_data_in_leaf=100)

five = dataclasses.replace(
    flights,
    champion="river",
    models={
        "river": flights.models["adagrad"],
        "scikit_learn": ScikitLearn(make_pipeline(StandardScaler(), _linear), batch=50),
        "pytorch": Torch(network, partial(torch.optim.Adam, lr=0.001), batch=32, seed=1),
        "lightgbm": sml.Retrained(_boosted, "30d", every="1d"),
        "own": importlib.import_module("own_lines").OwnLogistic(0.02),
    },
    promotion=dataclasses.replace(flights.promotion, mode="manual", slots=5),
    keep=1_000,
)
