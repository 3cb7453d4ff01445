"""Learners that fit examples in batches, and whose state is numbers: what adapters have in common.

magic + is fitted (1) + rows that wait (4) + layout (32) + numbers + rows + labels + SHA-256 (32)
"""

from __future__ import annotations

import hashlib
import struct
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stream_ml.learners.arrays import NumberReader, read, write
from stream_ml.models.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.models.target import Target
    from stream_ml.records import Answer, LabelValue

__all__ = ["BATCH_MAX", "BatchLearner"]

BATCH_MAX = 4_096
_HEAD = struct.Struct("<BI32s")
_DIGEST_BYTES = 32
_UNFITTED = bytes(32)


class BatchLearner(Learner):
    """Collects examples until there is a batch, and fits that.

    Args:
        batch: so many examples make a fit; what is not yet fitted is part of the state.
        missing: what stands in for a feature that is missing.
    """

    # What a state begins with.
    magic: ClassVar[bytes]

    def __init__(self, batch: int, missing: float) -> None:
        if not 1 <= batch <= BATCH_MAX:
            raise ValueError(f"batch: expected from 1 to {BATCH_MAX} examples, given {batch}")
        self.batch, self.missing = batch, float(missing)
        self._features: tuple[str, ...] = ()
        self._classes: tuple[Any, ...] = ()
        self._is_fitted = False
        self._rows: list[list[float]] = []
        self._labels: list[float] = []

    def prepare(self, target: Target, features: Sequence[str]) -> None:
        """Begin untrained.

        Args:
            target: what is predicted.
            features: the columns, in their order.

        Raises:
            ValueError: the learner is not for such a target.
        """
        self._features = tuple(features)
        self._classes = (False, True) if target.kind == "binary" else target.classes
        self._is_fitted, self._rows, self._labels = False, [], []
        self._begin(target)

    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The answer of what has been fitted; None before the first fit.

        Args:
            features: a finite number by name.
        """
        if not self._is_fitted:
            return None
        shares = self._predict(self._row(features))
        if not self._classes:
            return shares[0]
        if self._classes == (False, True):
            return shares[-1]
        return dict(zip(self._classes, shares, strict=True))

    def learn_one(self, features: Mapping[str, float], label: LabelValue) -> None:
        """Learn from one example, or keep it until there are as many as a batch has.

        Args:
            features: a finite number by name.
            label: the truth.
        """
        self._rows.append(self._row(features))
        self._labels.append(float(self._classes.index(label) if self._classes else label))
        if len(self._rows) == self.batch:
            rows, self._rows = self._rows, []
            labels, self._labels = self._labels, []
            self._fit(rows, labels)
            self._is_fitted = True

    def dump(self) -> bytes:
        """The numbers of what has been fitted, and the examples that still wait."""
        numbers, layout = write(self._state()) if self._is_fitted else (b"", _UNFITTED)
        body = b"".join(
            (
                self.magic,
                _HEAD.pack(self._is_fitted, len(self._rows), layout),
                numbers,
                np.array(self._rows, "<f8").tobytes(),
                np.array(self._labels, "<f8").tobytes(),
            )
        )
        return body + hashlib.sha256(body).digest()

    def load(self, data: bytes) -> None:
        """Take up a state, in the places that a fresh learner has for it after a first fit.

        Args:
            data: what `dump` gave.

        Raises:
            ValueError: it is no state of a learner like this one.
        """
        body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if not body.startswith(self.magic) or hashlib.sha256(body).digest() != digest:
            raise ValueError(f"expected a state that begins with {self.magic!r} and is whole")
        numbers = NumberReader(body[len(self.magic) :])
        is_fitted, count, layout = _HEAD.unpack(numbers.take(_HEAD.size))
        if is_fitted > 1:
            raise ValueError(f"expected whether it is fitted, 0 or 1, given {is_fitted}")
        if count >= self.batch:
            raise ValueError(f"expected less than {self.batch} examples that wait, given {count}")
        state = read(self._template(), layout, numbers) if is_fitted else None
        width = len(self._features)
        if numbers.left != 8 * count * (width + 1):
            raise ValueError(f"expected {count} examples of {width} features that wait")
        rows = np.frombuffer(numbers.take(8 * count * width), "<f8").reshape(count, width)
        labels = np.frombuffer(numbers.take(8 * count), "<f8")
        if self._classes and not np.isin(labels, range(len(self._classes))).all():
            raise ValueError("expected labels that are numbers of classes")
        self._rows, self._labels = rows.tolist(), labels.tolist()
        if state is not None:
            self._restore(state)
        self._is_fitted = bool(is_fitted)

    def _row(self, features: Mapping[str, float]) -> list[float]:
        missing = self.missing
        return [features.get(name, missing) for name in self._features]

    def _trial(self) -> tuple[list[list[float]], list[float]]:
        """A batch of zeros and ones, in which every class comes: for a template."""
        count = max(2, len(self._classes), self.batch)
        rows = [[float((n + i) % 2) for i in range(len(self._features))] for n in range(count)]
        return rows, [float(n % (len(self._classes) or 2)) for n in range(count)]

    @abstractmethod
    def _begin(self, target: Target) -> None:
        """Make what learns, untrained."""

    @abstractmethod
    def _predict(self, row: list[float]) -> list[float]:
        """The number; the probability of True, also behind that of False; or one by class."""

    @abstractmethod
    def _fit(self, rows: list[list[float]], labels: list[float]) -> None:
        """Learn from a batch; of classes the labels are the numbers."""

    @abstractmethod
    def _state(self) -> Any:
        """What has been fitted, as `arrays.write` takes it."""

    @abstractmethod
    def _template(self) -> Any:
        """The state of a fresh learner after a first fit; its numbers do not matter."""

    @abstractmethod
    def _restore(self, state: Any) -> None:
        """Take up a state of the template's layout."""
