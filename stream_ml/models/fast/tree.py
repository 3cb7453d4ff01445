"""Hoeffding trees: an example that changes only numbers in a leaf is counted here.

Rare things, such as the split of a leaf, are river's.
"""

# ruff: noqa: SLF001 - learning as river does changes what river keeps to itself

from __future__ import annotations

import math
from math import exp, inf, log, nan
from typing import TYPE_CHECKING, Any

from river import tree
from river.tree.nodes.branch import NumericBinaryBranch
from river.tree.nodes.htc_nodes import LeafNaiveBayesAdaptive
from river.tree.splitter import GaussianSplitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.records import LabelValue

    Learner = Callable[[dict[str, float], LabelValue], None]
    # Where a leaf of a tree counts a feature: variance and mean, and the extremes by label.
    Rows = list[tuple[Any, Any, dict[Any, float], dict[Any, float]]]
    # What a feature's density is computed from: mean, -2 variance, half the variance's log.
    Densities = list[tuple[float, float, float]]

__all__ = ["tree_learner"]

HALF_LOG_TAU = 0.5 * log(math.tau)


def tree_learner(model: Any) -> Learner | None:
    """Teaches a Hoeffding tree; None where `model` is anything else."""
    return _learner(model) if type(model) is tree.HoeffdingTreeClassifier else None


def _learner(model: Any) -> Learner:
    tables: dict[int, _Table] = {}

    def teach(features: dict[str, float], label: LabelValue) -> None:
        leaf = model._root
        while type(leaf) is NumericBinaryBranch and leaf.feature in features:
            leaf = leaf.children[0 if features[leaf.feature] <= leaf.threshold else 1]
        table = tables.get(id(leaf))
        if table is None:
            table = tables[id(leaf)] = _Table(leaf, len(features))
        rows = table.rows.get(label)
        values = table.values_of(features)
        if rows and values and _is_routine(model, leaf, rows, values, label):
            model._train_weight_seen_by_model += 1.0
            _teach_leaf(leaf, table, values, label)
        else:
            tables.clear()  # river may split leaves, or count what was not counted yet
            model.learn_one(features, label)

    return teach


class _Table:
    """Where a leaf counts, per label and feature; nothing, if it counts in any other way.

    Finding what is counted costs as much as counting: attributes of what was pickled are slow. So
    what densities are computed from is kept beside it, and follows what is counted: of the labels
    only the one that is taught has others afterwards.

    Args:
        leaf: of the tree.
        n: how many features an example has.
    """

    __slots__ = ("densities", "names", "rows")

    def __init__(self, leaf: Any, n: int) -> None:
        self.names: list[str] = []
        self.rows: dict[LabelValue, Rows] = {}
        self.densities: dict[LabelValue, Densities] = {}
        if type(leaf) is not LeafNaiveBayesAdaptive or not leaf.splitters:
            return
        # Where columns come and go, as hashed ones do, a leaf counts more than an example has, and
        # to look through all of them each time would cost many times what river does.
        if len(leaf.splitters) != n:
            return
        if set(map(type, leaf.splitters.values())) != {GaussianSplitter}:
            return
        self.names = list(leaf.splitters)
        self.rows = {label: [] for label in leaf.stats}
        self.densities = {label: [] for label in leaf.stats}
        for splitter in leaf.splitters.values():
            least, greatest = splitter._min_per_class, splitter._max_per_class
            by_label = splitter._att_dist_per_class
            for label, rows in self.rows.items():
                density = _NO_DENSITY
                if label in by_label:
                    var = by_label[label]._var
                    rows.append((var, var.mean, least, greatest))
                    density = _density(var.mean.n, var.mean._mean, var._S)
                self.densities[label].append(density)

    def values_of(self, features: dict[str, float]) -> list[float] | None:
        """The features in the order in which they are counted; None if they are others."""
        if [*features] == self.names:
            return [*features.values()]
        if features.keys() == set(self.names):
            return [features[name] for name in self.names]
        return None


# Of what was counted too little, or never varied: no number comes out, whatever the value.
_NO_DENSITY = (nan, -1.0, inf)


def _density(n: float, mean: float, squares: float) -> tuple[float, float, float]:
    if n > 1.0:
        variance = squares / (n - 1.0)
        if variance > 0.0:
            return mean, -2.0 * variance, 0.5 * log(variance)
    return _NO_DENSITY


def _is_routine(model: Any, leaf: Any, rows: Rows, values: list[float], label: Any) -> bool:
    """Whether an example changes only numbers in a leaf: no split is due, nothing is met first."""
    return (
        len(rows) == len(values)
        and leaf.stats[label] > 0
        and leaf.depth < model.max_depth
        # Short of the next attempt to split by one more, lest rounding matter.
        and 0 < sum(leaf.stats.values()) < leaf._last_split_attempt_at + model.grace_period - 2
        and (model._train_weight_seen_by_model + 1.0) % model.memory_estimate_period != 0
    )


def _teach_leaf(leaf: Any, table: _Table, values: list[float], label: LabelValue) -> None:
    stats, densities = leaf.stats, table.densities
    weight = sum(stats.values())
    scale = 1 / weight
    shares = {name: count * scale for name, count in stats.items()}
    votes = {
        name: _vote(densities[name], values, count / weight) if count > 0 else 0.0
        for name, count in stats.items()
    }
    best = max(votes.values())
    total = best + log(sum([exp(vote - best) for vote in votes.values()]))
    # Not the votes themselves: rounding makes ties, and in a tie the first one wins.
    odds = {name: exp(vote - total) for name, vote in votes.items()}
    if max(shares, key=shares.__getitem__) == label:
        leaf._mc_correct_weight += 1.0
    if max(odds, key=odds.__getitem__) == label:
        leaf._nb_correct_weight += 1.0
    stats[label] += 1.0
    densities[label] = _count(table.rows[label], values, label)


def _count(rows: Rows, values: list[float], label: LabelValue) -> Densities:
    """Count an example of a label, feature by feature; the label's densities from then on."""
    densities = []
    for x, (var, mean, least, greatest) in zip(values, rows, strict=True):
        if x < least[label]:
            least[label] = x
        elif x > greatest[label]:
            greatest[label] = x
        n, mu = mean.n + 1.0, mean._mean
        new = mu + 1.0 / n * (x - mu)
        squares = var._S + (x - mu) * (x - new)
        mean.n, mean._mean, var._S = n, new, squares
        densities.append(_density(n, new, squares))
    return densities


def _vote(densities: Densities, values: list[float], share: float) -> float:
    """The log of how likely these features are together with a label that has this share."""
    vote = log(share)
    for x, (mu, scale, half_log) in zip(values, densities, strict=True):
        density = (x - mu) ** 2 / scale - HALF_LOG_TAU - half_log
        if density > -inf:
            vote += density
    return vote
