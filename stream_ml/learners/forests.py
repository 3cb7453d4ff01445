"""Trees and forests of scikit-learn, for a line that is retrained; needs the extra `sklearn`.

scikit-learn trains; what it has grown is taken out of its arrays into plain numbers
(`learners.trees`), which are what is written down and asked. So no bytes of a log ever reach
scikit-learn, and its release matters to training only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ml.learners.trees import Tree, TreeTrainer, scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.models.target import Target
    from stream_ml.records import Answer

__all__ = ["Forest"]

# By the module within `sklearn` that they are of.
_CLASSIFIERS = {
    "DecisionTreeClassifier": "tree",
    "ExtraTreeClassifier": "tree",
    "ExtraTreesClassifier": "ensemble",
    "RandomForestClassifier": "ensemble",
}
_REGRESSORS = {name.replace("Classifier", "Regressor"): room for name, room in _CLASSIFIERS.items()}


class Forest(TreeTrainer):
    """A tree or a forest of scikit-learn.

    Args:
        estimator: `DecisionTree...`, `ExtraTree...`, `ExtraTrees...` or `RandomForest...`, each as
            classifier or regressor. It is cloned, its `random_state` is the seed of each training.
            Bound it (`max_leaf_nodes`, `min_samples_leaf`), or it grows with the window.

    Raises:
        ValueError: it is none of these.
    """

    def __init__(self, estimator: Any) -> None:
        kind = type(estimator)
        room = (_CLASSIFIERS | _REGRESSORS).get(kind.__name__)
        if room is None or not kind.__module__.startswith(f"sklearn.{room}."):
            expected = ", ".join(sorted(_CLASSIFIERS | _REGRESSORS))
            raise ValueError(f"Forest: expected one of {expected}, given {kind.__qualname__}")
        self.estimator = estimator
        self._is_classifier = kind.__name__ in _CLASSIFIERS

    def prepare(self, target: Target, features: Sequence[str]) -> None:
        """Keep the target and the features' names.

        Args:
            target: what is predicted.
            features: the names of all declared features, in their order.

        Raises:
            ValueError: the estimator is not for such a target.
        """
        if self._is_classifier == (target.kind == "regression"):
            kind = "regressor" if target.kind == "regression" else "classifier"
            raise ValueError(f"Forest: expected a {kind} for {target}, given {self.estimator}")
        super().prepare(target, features)
        self._outputs = max(1, len(target.classes)) if target.kind == "multiclass" else 1

    def fit(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Grow.

        Args:
            rows: float64, examples by features; NaN: missing.
            labels: numbers.
            seed: of samples, features and thresholds.
        """
        from sklearn.base import clone  # noqa: PLC0415 - an extra

        fitted = clone(self.estimator).set_params(random_state=seed).fit(rows, labels)
        # Classes that did not come in the window have no column, and a share of 0.
        columns: list[int | None] = [0]
        if self._is_classifier:
            known = [int(label) for label in fitted.classes_]
            wanted = [1] if self.target.kind == "binary" else range(self._outputs)
            columns = [known.index(label) if label in known else None for label in wanted]
        members = getattr(fitted, "estimators_", [fitted])
        self._trees = [tree for each in members for tree in _converted(each.tree_, columns)]

    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The answer, as scikit-learn's own: the mean of the trees'.

        Args:
            features: a finite number by name.
        """
        # It compares what it is asked about as float32.
        row = np.array(self.row(features), np.float32).tolist()
        count = len(self._trees) // self._outputs
        means = [total / count for total in scores(self._trees, row, self._outputs)]
        if self.target.kind == "multiclass":
            return dict(zip(self.target.classes, means, strict=True))
        return means[0]

    @property
    def description(self) -> str:
        """The estimator and its parameters, as text."""
        parameters = sorted(self.estimator.get_params(deep=False).items())
        texts = [f"{name}={value!r}" for name, value in parameters if name != "random_state"]
        return f"stream_ml.Forest({type(self.estimator).__name__}({', '.join(texts)}))"


def _converted(grown: Any, columns: Sequence[int | None]) -> list[Tree]:
    """A tree of scikit-learn's arrays as one tree for each column of its leaves' values."""
    left, right = grown.children_left.tolist(), grown.children_right.tolist()
    nodes = [node for node, child in enumerate(left) if child >= 0]
    leaves = [node for node, child in enumerate(left) if child < 0]
    # Both in the order of before, in which children come behind their parents.
    numbers = {node: number for number, node in enumerate(nodes)}
    numbers |= {node: ~number for number, node in enumerate(leaves)}
    values = grown.value[:, 0, :]
    # An infinite threshold only parts gaps from all numbers, and is none that JSON can hold.
    largest = np.finfo(np.float64).max
    shared = (
        grown.feature[nodes].tolist(),
        np.clip(grown.threshold[nodes], -largest, largest).tolist(),
        [numbers[left[node]] for node in nodes],
        [numbers[right[node]] for node in nodes],
        [bool(each) for each in grown.missing_go_to_left[nodes]],
    )
    return [
        Tree(*shared, [0.0] * len(leaves) if column is None else values[leaves, column].tolist())
        for column in columns
    ]
