"""Boosted trees of LightGBM, for a line that is retrained; needs the extra `lightgbm`.

LightGBM trains; what it has made is read from its model text into plain numbers
(`learners.trees`), which are what is written down and asked. So no bytes of a log ever reach
LightGBM, and its release matters to training only.

Trained by one thread with `deterministic`, equal windows give equal trees on one kind of machine;
another release of LightGBM, or another processor, may add up otherwise and split elsewhere.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from stream_ml.learners.trees import Tree, TreeTrainer, scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from stream_ml.models.target import Target
    from stream_ml.records import Answer

__all__ = ["LightGBM"]

# Parameters that change how trees grow, and not what the text of a model means.
PARAMETERS = frozenset(
    {
        "bagging_fraction",
        "bagging_freq",
        "extra_trees",
        "feature_fraction",
        "feature_fraction_bynode",
        "is_unbalance",
        "lambda_l1",
        "lambda_l2",
        "learning_rate",
        "max_bin",
        "max_depth",
        "max_delta_step",
        "min_data_in_bin",
        "min_data_in_leaf",
        "min_gain_to_split",
        "min_sum_hessian_in_leaf",
        "num_leaves",
        "path_smooth",
        "scale_pos_weight",
    }
)
_OBJECTIVES = {"binary": "binary", "multiclass": "multiclass"}
# Those whose sum of leaves is the answer itself.
REGRESSIONS = ("regression", "regression_l1", "huber", "fair")
# Bits of `decision_type` in a model's text.
_CATEGORICAL, _DEFAULT_LEFT, _MISSING_ZERO, _MISSING_NAN = 1, 2, 4, 8


class LightGBM(TreeTrainer):
    """Boosted trees.

    Args:
        rounds: how many; of several classes, so many for each.
        objective: of numbers: `regression` (squares), `regression_l1`, `huber` or `fair`.
        parameters: LightGBM's own, of those that say how trees grow.

    Raises:
        ValueError: a parameter is none of them.
    """

    def __init__(
        self, rounds: int = 100, *, objective: str = "regression", **parameters: float
    ) -> None:
        unknown = sorted(parameters.keys() - PARAMETERS)
        if unknown:
            raise ValueError(
                f"LightGBM: expected parameters of {', '.join(sorted(PARAMETERS))}, given "
                f"{', '.join(unknown)}"
            )
        if objective not in REGRESSIONS:
            expected = ", ".join(REGRESSIONS)
            raise ValueError(f"LightGBM: objective: expected one of {expected}, given {objective}")
        self.rounds, self.objective, self.parameters = rounds, objective, parameters

    def prepare(self, target: Target, features: Sequence[str]) -> None:
        """Keep the target and the features' names.

        Args:
            target: what is predicted.
            features: the names of all declared features, in their order.
        """
        super().prepare(target, features)
        # Of two named classes the second is predicted, as of False and True.
        self._outputs = len(target.classes) if len(target.classes) > 2 else 1  # noqa: PLR2004

    def fit(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Boost.

        Args:
            rows: float64, examples by features; NaN: missing.
            labels: numbers.
            seed: of samples of rows and features.
        """
        lightgbm = _library()
        objective = self.objective
        if self.target.kind != "regression":
            objective = _OBJECTIVES["multiclass" if self._outputs > 1 else "binary"]
        parameters = {
            **self.parameters,
            "objective": objective,
            "num_class": self._outputs,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(rows, labels, free_raw_data=True)
        booster = lightgbm.train(parameters, data, num_boost_round=self.rounds)
        self._trees = parse_model(booster.model_to_string())

    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The answer, as LightGBM's own.

        Args:
            features: a finite number by name.
        """
        sums = scores(self._trees, self.row(features), self._outputs)
        if self.target.kind == "regression":
            return sums[0]
        if self._outputs > 1:
            return dict(zip(self.target.classes, _softmax(sums), strict=True))
        # Past this `exp` is no float any more, and the share is 0 already.
        share = 0.0 if sums[0] < -_EXP_MAX else 1.0 / (1.0 + math.exp(-sums[0]))
        if self.target.kind == "binary":
            return share
        first, second = self.target.classes
        return {first: 1.0 - share, second: share}

    @property
    def description(self) -> str:
        """The parameters, as text."""
        parameters = "".join(f", {k}={v!r}" for k, v in sorted(self.parameters.items()))
        return f"stream_ml.LightGBM({self.rounds!r}, objective={self.objective!r}{parameters})"


_EXP_MAX = 700.0


def _library() -> Any:
    try:
        import lightgbm  # noqa: PLC0415 - loaded where it trains, and nowhere else
    except ImportError:
        raise ImportError(
            "LightGBM: expected the package lightgbm, given none; way out: "
            "pip install 'stream_ml[lightgbm]'"
        ) from None
    return lightgbm


def _softmax(sums: Sequence[float]) -> list[float]:
    top = max(sums)
    shares = [math.exp(each - top) for each in sums]
    # In LightGBM's order, one after another: `sum` of Python's newer releases is more exact.
    total = 0.0
    for share in shares:
        total += share
    return [share / total for share in shares]


def parse_model(text: str) -> list[Tree]:
    """The trees of a model's text.

    Args:
        text: as LightGBM writes it (`v4`).

    Raises:
        ValueError: it holds something that these trees cannot say.
    """
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    if "\nversion=v4" not in head or "\naverage_output" in head:
        raise ValueError("expected a model text of version v4, of boosted trees")
    return [_tree(dict(line.partition("=")[::2] for line in block.split("\n"))) for block in blocks]


def _tree(members: dict[str, str]) -> Tree:
    def numbers(name: str) -> list[str]:
        return members.get(name, "").split()

    if members.get("num_cat") != "0" or members.get("is_linear", "0") != "0":
        raise ValueError("expected trees of numbers, with a constant in each leaf")
    leaf = [float(value) for value in numbers("leaf_value")]
    if members["num_leaves"] == "1":
        return Tree([], [], [], [], [], leaf)
    # An infinite one only parts gaps from all numbers.
    threshold = [min(float(value), sys.float_info.max) for value in numbers("threshold")]
    kinds = [int(value) for value in numbers("decision_type")]
    if any(kind & (_CATEGORICAL | _MISSING_ZERO) for kind in kinds):
        raise ValueError("expected splits of numbers, where only what is missing is missing")
    return Tree(
        [int(value) for value in numbers("split_feature")],
        threshold,
        [int(value) for value in numbers("left_child")],
        [int(value) for value in numbers("right_child")],
        # Where no value was missing in training, a gap counts as 0.
        [
            bool(kind & _DEFAULT_LEFT) if kind & _MISSING_NAN else bound >= 0.0
            for kind, bound in zip(kinds, threshold, strict=True)
        ],
        leaf,
    )
