"""Hoeffding trees: an example that changes only numbers in a leaf is counted here.

Rare things, such as the split of a leaf, are river's.
"""

# ruff: noqa: SLF001 - learning as river does changes what river keeps to itself

from __future__ import annotations

import math
from math import exp, inf, log
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
    Rows = list[tuple[str, Any, Any, dict[Any, float], dict[Any, float]]]
    Table = dict[LabelValue, Rows]

__all__ = ["tree_learner"]

HALF_LOG_TAU = 0.5 * log(math.tau)


def tree_learner(model: Any) -> Learner | None:
    """Teaches a Hoeffding tree; None where `model` is anything else."""
    return _learner(model) if type(model) is tree.HoeffdingTreeClassifier else None


def _learner(model: Any) -> Learner:
    tables: dict[int, Table] = {}

    def teach(features: dict[str, float], label: LabelValue) -> None:
        leaf = model._root
        while type(leaf) is NumericBinaryBranch and leaf.feature in features:
            leaf = leaf.children[0 if features[leaf.feature] <= leaf.threshold else 1]
        table = tables.get(id(leaf))
        if table is None:
            table = tables[id(leaf)] = _table(leaf)
        if label in table and _is_routine(model, leaf, table[label], features, label):
            model._train_weight_seen_by_model += 1.0
            _teach_leaf(leaf, table, features, label)
        else:
            tables.clear()  # river may split leaves, or count what was not counted yet
            model.learn_one(features, label)

    return teach


def _table(leaf: Any) -> Table:
    """Where a leaf counts, per label and feature; nothing, if it counts in any other way.

    Finding what is counted costs as much as counting: attributes of what was pickled are slow.
    """
    if type(leaf) is not LeafNaiveBayesAdaptive or not leaf.splitters:
        return {}
    if set(map(type, leaf.splitters.values())) != {GaussianSplitter}:
        return {}
    table: Table = {label: [] for label in leaf.stats}
    for name, splitter in leaf.splitters.items():
        least, most = splitter._min_per_class, splitter._max_per_class
        for label, gaussian in splitter._att_dist_per_class.items():
            table[label].append((name, gaussian._var, gaussian._var.mean, least, most))
    return table


def _is_routine(model: Any, leaf: Any, rows: Rows, features: dict[str, float], label: Any) -> bool:
    """Whether an example changes only numbers in a leaf: no split is due, nothing is met first."""
    return (
        len(rows) == len(features)
        and features.keys() == leaf.splitters.keys()
        and leaf.stats[label] > 0
        and leaf.depth < model.max_depth
        # Short of the next attempt to split by one more, lest rounding matter.
        and 0 < sum(leaf.stats.values()) < leaf._last_split_attempt_at + model.grace_period - 2
        and (model._train_weight_seen_by_model + 1.0) % model.memory_estimate_period != 0
    )


def _teach_leaf(leaf: Any, table: Table, features: dict[str, float], label: LabelValue) -> None:
    stats = leaf.stats
    weight = sum(stats.values())
    scale = 1 / weight
    shares = {name: seen * scale for name, seen in stats.items()}
    votes = {
        name: _vote(table[name], features, seen / weight) if seen > 0 else 0.0
        for name, seen in stats.items()
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
    for name, var, mean, least, most in table[label]:
        x, mu = features[name], mean._mean
        if x < least[label]:
            least[label] = x
        elif x > most[label]:
            most[label] = x
        n = mean.n = mean.n + 1.0
        new = mean._mean = mu + 1.0 / n * (x - mu)
        var._S += (x - mu) * (x - new)


def _vote(rows: Rows, features: dict[str, float], share: float) -> float:
    """The log of how likely these features are together with a label that has this share."""
    vote = log(share)
    for name, var, mean, _, _ in rows:
        n = mean.n
        if n > 1.0:
            variance = var._S / (n - 1.0)
            if variance > 0.0:
                off = features[name] - mean._mean
                density = off**2 / (-2.0 * variance) - HALF_LOG_TAU - 0.5 * log(variance)
                if density > -inf:
                    vote += density
    return vote
