"""The features that one model knows, of all that a pipeline computes.

A model is asked about, and taught, exactly the features that it began with, in their order: what
is declared later beside them changes nothing for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from stream_ml.features.sparse import SparseNames, is_common, name_set, sparse_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FeatureView"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Some features, or all of them.

    Attributes:
        names: of the numbers, in order.
        hash: SHA-256 of what is computed, as `FeatureSet.hash`; snapshots name it.
        is_whole: whether these are all that is computed, so that nothing is left out.
    """

    names: tuple[str, ...]
    hash: str
    is_whole: bool = False
    _known: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", name_set(self.names))

    def select(self, features: Mapping[str, float]) -> dict[str, float]:
        """What a model of these features is given.

        >>> FeatureView(("a", "c"), "").select({"a": 1.0, "b": 2.0, "c": 3.0})
        {'a': 1.0, 'c': 3.0}

        Args:
            features: as computed, by name; one without a value is missing.
        """
        if self.is_whole:
            return features if isinstance(features, dict) else {**features}
        if isinstance(self._known, SparseNames):
            return self._select_sparse(features)
        return {name: features[name] for name in self.names if name in features}

    def _select_sparse(self, features: Mapping[str, float]) -> dict[str, float]:
        selected: dict[str, float] = {}
        for name in self.names:
            if is_common(name):
                selected |= sparse_columns(features, name)
            elif name in features:
                selected[name] = features[name]
        return selected

    def narrow(
        self, predict: Callable[[Mapping[str, float]], T]
    ) -> Callable[[Mapping[str, float]], T]:
        """Predicts as `predict`, from all features that are computed.

        Args:
            predict: of a model that knows these alone.
        """
        if self.is_whole:
            return predict
        return lambda features: predict(self.select(features))
