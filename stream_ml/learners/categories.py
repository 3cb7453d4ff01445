"""Steps of river's pipelines for hashed columns: a running mean of the label, and a scaler.

A mean of the label by category can only be a part of a *learner*. There it is a function of the
examples that the learner was taught, in their order, and goes with its snapshots: an event is
answered with the means as of the snapshot that answers, whose labels were all known, and a replay
has the same ones. Beside the windows, where labels and events meet in an order that no log has, it
would be neither.

While it learns, an example is looked up before its own label is taken in (river's pipelines do so
with every supervised step), so that what follows never learns from a mean that knows the answer.
"""

from __future__ import annotations

from typing import Any

from river import base, preprocessing

from stream_ml.features.sparse import is_sparse

__all__ = ["DenseScaler", "TargetMean"]

# What a hashed column has where it is there.
_SIGNS = (1.0, -1.0)
_EMPTY: tuple[int, dict[str, float]] = (0, {})


# River takes for a step of a pipeline what is a `Transformer`, and its supervised ones are none.
class TargetMean(base.SupervisedTransformer, base.Transformer):
    """Puts the mean of the label by category in the place of a feature's hashed columns.

    >>> mean = TargetMean("merchant", smoothing=1.0, prior=0.5)
    >>> mean.transform_one({"merchant#17": 1.0})
    {'target_mean(merchant)': 0.5}
    >>> mean.learn_one({"merchant#17": 1.0}, True)
    >>> mean.transform_one({"merchant#17": 1.0})
    {'target_mean(merchant)': 0.75}

    Of a label with more than two classes it is the share of each class that has come, a number
    each. Its state is as many cells as categories came, at most two for each column.

    Args:
        feature: the name of a hashed feature: `hashed("merchant", 1024)` is `merchant`.
        smoothing: as how many examples of a category the prior counts.
        prior: the mean of a category that has not come yet; None: that of all examples so far.
    """

    def __init__(self, feature: str, smoothing: float = 20.0, prior: float | None = None) -> None:
        if type(feature) is not str:
            raise ValueError(f"feature: expected the name of a hashed feature, given {feature!r}")
        if not smoothing > 0:
            raise ValueError(f"smoothing: expected a number above 0, given {smoothing!r}")
        self.feature, self.smoothing, self.prior = feature, smoothing, prior
        # By class of the label, "" where it is no text: the sum over all examples, and their count.
        self.totals: dict[str, float] = {}
        self.n = 0
        # The same by column and sign.
        self.cells: dict[str, tuple[int, dict[str, float]]] = {}

    def _cell(self, x: Any) -> tuple[str, list[str]]:
        """The category of an example, and the columns that tell it."""
        prefix = f"{self.feature}#"
        columns = [name for name in x if name.startswith(prefix) and is_sparse(name)]
        # What collides in a column with another sign is told apart.
        return " ".join(
            f"{'-' if x[name] < 0 else '+'}{name[len(prefix) :]}" for name in columns
        ), columns

    def learn_one(self, x: Any, y: Any = None) -> None:
        """Take a label in.

        Args:
            x: features.
            y: a flag, a number, or the name of a class.
        """
        name, amount = (y, 1.0) if isinstance(y, str) else ("", float(y))
        self.n += 1
        self.totals[name] = self.totals.get(name, 0.0) + amount
        category, columns = self._cell(x)
        if columns:
            n, sums = self.cells.get(category, _EMPTY)
            self.cells[category] = (n + 1, {**sums, name: sums.get(name, 0.0) + amount})

    def transform_one(self, x: Any) -> Any:
        """The features, with the mean in the place of the columns.

        Args:
            x: features.
        """
        category, columns = self._cell(x)
        n, sums = self.cells.get(category, _EMPTY)
        known = {name: value for name, value in x.items() if name not in columns}
        for label in sorted(self.totals) or ([] if self.prior is None else [""]):
            prior = self.totals[label] / self.n if self.prior is None else self.prior
            name = f"target_mean({self.feature})"
            smoothed = (sums.get(label, 0.0) + self.smoothing * prior) / (n + self.smoothing)
            known[f"{name}={label}" if label else name] = smoothed
        return known


class DenseScaler(preprocessing.StandardScaler):
    """River's `StandardScaler`, which lets hashed columns through as they are.

    A column that is there only where it is 1 has no variance: scaled, it would be 0. Hashed is what
    is called like one and has been 1 or -1 alone: a number of yours that is called `room#5`, or a
    category that is (`slot=#1`), is scaled from its first other value on.

    >>> scaler = DenseScaler()
    >>> for x in ({"amount": 1.0}, {"amount": 3.0, "merchant#17": -1.0}):
    ...     scaler.learn_one(x)
    >>> scaler.transform_one({"amount": 3.0, "merchant#17": -1.0})
    {'amount': 1.0, 'merchant#17': -1.0}
    """

    def __init__(self) -> None:
        super().__init__()
        # The columns that are called like hashed ones, and are none; a table keeps their order.
        self.lookalikes: dict[str, bool] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a pickled state; one of before there were lookalikes has none."""
        self.__dict__.update(state)
        self.__dict__.setdefault("lookalikes", {})

    def _is_hashed(self, name: str, value: float) -> bool:
        return value in _SIGNS and is_sparse(name) and name not in self.lookalikes

    def learn_one(self, x: Any) -> None:
        """Take in the columns that are no hashed ones.

        Args:
            x: features.
        """
        for name, value in x.items():
            if value not in _SIGNS and is_sparse(name):
                self.lookalikes[name] = True
        dense = {name: value for name, value in x.items() if not self._is_hashed(name, value)}
        super().learn_one(dense)  # type: ignore[no-untyped-call]  # river's

    def transform_one(self, x: Any) -> Any:
        """The features, scaled but for hashed ones, which come last.

        Args:
            x: features.
        """
        dense = {name: value for name, value in x.items() if not self._is_hashed(name, value)}
        scaled: Any = super().transform_one(dense)  # type: ignore[no-untyped-call]  # river's
        return scaled | {name: value for name, value in x.items() if name not in dense}
