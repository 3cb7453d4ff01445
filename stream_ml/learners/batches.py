"""Learners that fit examples in batches, and whose state is numbers: what adapters have in common.

magic + is fitted (1) + rows that wait (4) + layout (32) + numbers + rows + labels + SHA-256 (32)

Where the batch is another than the declared one, 2 is added to the first byte behind the magic, and
the batch (4) follows the layout.
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
_SIZE = struct.Struct("<I")
# Of the first byte.
_FITTED, _REBATCHED = 1, 2
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
        _check_size(batch)
        self.batch, self.missing = batch, float(missing)
        self._features: tuple[str, ...] = ()
        self._classes: tuple[Any, ...] = ()
        # How many make a batch now.
        self._size = batch
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
        self._size = self.batch
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
        if len(self._rows) == self._size:
            self._fit_rows()

    def _fit_rows(self) -> None:
        """Fit what has come for the batch."""
        rows, self._rows = self._rows, []
        labels, self._labels = self._labels, []
        self._fit(rows, labels)
        self._is_fitted = True

    def set_batch(self, size: int) -> None:
        """Fit what waits, and from the next example on so many at once.

        Args:
            size: examples.

        Raises:
            ValueError: they are too few or too many.
        """
        _check_size(size)
        if self._rows:
            self._fit_rows()
        self._size = size

    def dump(self) -> bytes:
        """The numbers of what has been fitted, and the examples that still wait."""
        numbers, layout = write(self._state()) if self._is_fitted else (b"", _UNFITTED)
        is_other = self._size != self.batch
        flags = _FITTED * self._is_fitted | _REBATCHED * is_other
        body = b"".join(
            (
                self.magic,
                _HEAD.pack(flags, len(self._rows), layout),
                _SIZE.pack(self._size) if is_other else b"",
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
        flags, count, layout = _HEAD.unpack(numbers.take(_HEAD.size))
        if flags > _FITTED | _REBATCHED:
            raise ValueError(f"expected whether it is fitted, 0 or 1, given {flags}")
        is_fitted, size = bool(flags & _FITTED), self.batch
        if flags & _REBATCHED:
            (size,) = _SIZE.unpack(numbers.take(_SIZE.size))
            _check_size(size)
        if count >= size:
            raise ValueError(f"expected less than {size} examples that wait, given {count}")
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
        self._is_fitted, self._size = is_fitted, size

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


def _check_size(size: int) -> None:
    if not 1 <= size <= BATCH_MAX:
        raise ValueError(f"batch: expected from 1 to {BATCH_MAX} examples, given {size}")
