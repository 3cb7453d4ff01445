"""River's parts that go through a set of texts go through it in one order, in every process.

The order of a set of texts is the process's own (`PYTHONHASHSEED`), and may be another one after
a set was written and read back. A few parts of river show it: they answer in that order, and add
up numbers in it, so that ties and the last bit of an answer depend on it, and so does what an
ensemble around them learns. A replay could then never be exact.

Here those methods, and no others, are given their texts sorted, as river's Hoeffding trees have
them. It is done to river's classes, not to ours that derive from them: an ensemble makes its
members anew (`clone`), and a snapshot is read back, by river's names. Labels that are no texts,
numbers and truth values, are left in the order that river has them in.

Sources, river 0.26.1: `neighbors/knn_classifier.py`, `forest/aggregated_mondrian_forest.py`,
`tree/hoeffding_adaptive_tree_classifier.py`, `dummy.py`, `metrics/confusion.py`,
`compose/select.py`. What cannot be mended like this is refused (`recipes`).
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from river import compose, dummy, forest, metrics, neighbors, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["order_sets"]

# The classes of river that answer in the order of a set of labels, and where they keep it.
_LABELS: dict[type, str] = {
    dummy.NoChangeClassifier: "classes",
    forest.AMFClassifier: "_classes",
    neighbors.KNNClassifier: "classes",
    tree.HoeffdingAdaptiveTreeClassifier: "classes",
}
_MARK = "_stream_ml_ordered"


def order_sets() -> None:
    """Give river's parts their sets of texts in order; a second call changes nothing."""
    for kind, attribute in _LABELS.items():
        _replace(
            kind, "predict_proba_one", lambda method, name=attribute: _sort_labels(method, name)
        )
    _replace(compose.Select, "transform_one", _selecting)
    matrix: Any = metrics.ConfusionMatrix
    classes = matrix.classes.fget
    if not hasattr(classes, _MARK):
        matrix.classes = property(
            _mark_replacement(classes, lambda counts: _in_order(classes(counts)))
        )


def _replace(kind: type, name: str, make: Callable[..., Callable[..., Any]]) -> None:
    method = getattr(kind, name)
    if not hasattr(method, _MARK):
        setattr(kind, name, _mark_replacement(method, make(method)))


def _mark_replacement(
    method: Callable[..., Any], replacement: Callable[..., Any]
) -> Callable[..., Any]:
    replacement = wraps(method)(replacement)
    setattr(replacement, _MARK, True)
    return replacement


def _in_order(members: Collection[Any]) -> Collection[Any]:
    """Texts sorted; anything else as it is."""
    return sorted(members) if all(type(member) is str for member in members) else members


def _sort_labels(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The method, called on an estimator whose labels lie in order, and all else as it is."""

    def call(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        view = object.__new__(type(estimator))
        view.__dict__ = {**vars(estimator), name: _in_order(getattr(estimator, name))}
        return method(view, *args, **kwargs)

    return call


def _selecting(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, whose features come in the order in which they were given."""

    def call(select: Any, x: dict[Any, Any]) -> dict[Any, Any]:
        features = method(select, x)
        return {name: value for name, value in x.items() if name in features}

    return call
