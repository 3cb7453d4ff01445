"""The features that one model knows, of all that a pipeline computes.

A model is asked about, and taught, exactly the features that it began with, in their order: what
is declared later beside them changes nothing for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from stream_ml.features.sparse import SparseNames, is_common

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
    # By name, the columns that it stands for; None: it is the name of one.
    _columns: tuple[tuple[str, SparseNames | None], ...] = field(
        init=False, repr=False, compare=False
    )
    _is_sparse: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        columns = tuple(
            (name, SparseNames((name,)) if is_common(name) else None) for name in self.names
        )
        object.__setattr__(self, "_columns", columns)
        is_sparse = any(known is not None for _, known in columns)
        object.__setattr__(self, "_is_sparse", is_sparse)

    def select(self, features: Mapping[str, float]) -> dict[str, float]:
        """What a model of these features is given.

        >>> FeatureView(("a", "c"), "").select({"a": 1.0, "b": 2.0, "c": 3.0})
        {'a': 1.0, 'c': 3.0}

        Args:
            features: as computed, by name; one without a value is missing.
        """
        if self.is_whole:
            return features if isinstance(features, dict) else {**features}
        if self._is_sparse:
            return self._select_sparse(features)
        return {name: features[name] for name in self.names if name in features}

    def _select_sparse(self, features: Mapping[str, float]) -> dict[str, float]:
        selected: dict[str, float] = {}
        # An event has few of these: only they are looked up.
        sparse = [name for name in features if "#" in name]
        for name, known in self._columns:
            if known is not None:
                selected |= {column: features[column] for column in sparse if column in known}
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
