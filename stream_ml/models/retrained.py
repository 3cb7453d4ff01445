"""Lines that are trained anew from recorded examples, beside those that learn one by one.

A `Trainer` makes a model of a window of examples at once: a forest, boosted trees, a regression.
`Retrained` declares a line of it: which window, how often, by which seed. Its model is trained on
the examples up to one refresh instant and published at a later one, so that training holds nobody
up; both instants are functions of the log (`stages.retraining`).

Training is a function of the window and the seed: the same examples give the same bytes.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ml.errors import Problem, SnapshotRefused
from stream_ml.features.durations import parse_duration
from stream_ml.features.sparse import is_sparse
from stream_ml.models.learner import STATE_BYTES_MAX, Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_ml.models.target import Target
    from stream_ml.records import Answer, LabelValue

__all__ = [
    "CELLS_MAX",
    "Retrained",
    "Trainer",
    "TrainingJob",
    "encode_row",
    "fit",
    "row_width",
    "trial",
]

# A window holds no more numbers than this (32 MB), however long it is declared.
CELLS_MAX = 4_000_000
# Of each example in a window, before its features: the watermark at which it came, its label.
HEAD_CELLS = 2
_SEED_MAX = 2**31 - 1


class Trainer(Model):
    """What trains a model on a window of examples at once.

    Give a class of yours `fit`, `predict_one`, `dump` and `load`; parameters are attributes named
    as the constructor names them. Whatever it draws at random, it draws by the seed.
    """

    target: Target
    features: tuple[str, ...]

    def prepare(self, target: Target, features: Sequence[str]) -> None:
        """Keep the target as `target`, and the features' names as `features`.

        Args:
            target: what is predicted.
            features: the names of all declared features, in their order.

        Raises:
            ValueError: the trainer is not for such a target.
        """
        self.target, self.features = target, tuple(features)

    @abstractmethod
    def fit(self, rows: np.ndarray, labels: np.ndarray, seed: int) -> None:
        """Train on a window; called on a prepared, untrained trainer, which then answers.

        Args:
            rows: float64, examples by features in the order of `features`; NaN: missing. The
                oldest comes first.
            labels: float64, one for each example: of a number the number itself; of a class its
                place among the target's `classes`; of a bool 0 or 1.
            seed: draws whatever is drawn at random.
        """

    def row(self, features: Mapping[str, float]) -> list[float]:
        """The features in the order of `fit`; NaN: missing.

        Args:
            features: a finite number by name.
        """
        absent = _absent(self.features)
        return [features.get(name, x) for name, x in zip(self.features, absent, strict=True)]


class Retrained(Model):
    """A line whose model is trained anew, again and again, on a window of recorded examples.

    Until its first model is published it has no answer.

    Args:
        trainer: untrained.
        window: the examples that it is trained on: of so much event time, such as `"30d"`
            (by the watermark at which each came), or so many.
        every: how often: after so much event time, such as `"1d"`, or so many examples, and always
            at a refresh instant; None: at each. Its model is published at the next one.
        seed: of every training.
    """

    def __init__(
        self,
        trainer: Trainer,
        window: str | int,
        *,
        every: str | int | None = None,
        seed: int = 0,
    ) -> None:
        self.trainer, self.window, self.every, self.seed = trainer, window, every, seed
        self._model: Trainer | None = None
        self._data = b""

    def prepare(self, target: Target, features: Sequence[str]) -> None:
        """Prepare the trainer.

        Args:
            target: what is predicted.
            features: the names of all declared features, in their order.
        """
        self.trainer.prepare(target, features)

    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The answer of the newest model; None: none is published yet.

        Args:
            features: a finite number by name.
        """
        return None if self._model is None else self._model.predict_one(features)

    def predict_many(self, rows: Sequence[Mapping[str, float]]) -> list[Answer]:
        """The answers of the newest model.

        Args:
            rows: features by name.
        """
        return [None] * len(rows) if self._model is None else self._model.predict_many(rows)

    def dump(self) -> bytes:
        """The newest model, as its trainer wrote it; nothing where there is none."""
        return self._data

    def load(self, data: bytes) -> None:
        """Take up what `dump` gave.

        Args:
            data: bytes.
        """
        if data:
            model = copy.deepcopy(self.trainer)
            model.load(data)
            self._model, self._data = model, data

    @property
    def description(self) -> str:
        """The trainer and how it is used, as text."""
        every = "" if self.every is None else f", every={self.every!r}"
        arguments = f"{self.trainer.description}, {self.window!r}{every}, seed={self.seed!r}"
        return f"stream_ml.Retrained({arguments})"

    @property
    def library(self) -> str | None:
        """The library and release that alone reads the model's bytes; None: any does."""
        return self.trainer.library

    @property
    def window_ms(self) -> int | None:
        """The length of the window in milliseconds of event time; None: it counts examples."""
        return None if isinstance(self.window, int) else parse_duration(self.window)

    @property
    def every_ms(self) -> int | None:
        """The cadence in milliseconds of event time; None: it is none of time."""
        return parse_duration(self.every) if isinstance(self.every, str) else None

    def problems(self, path: str, width: int) -> list[Problem]:
        """What is wrong with its arguments.

        Args:
            path: where it is declared.
            width: the cells of an example.
        """
        found = []
        if not isinstance(self.trainer, Trainer):
            found.append(Problem(f"{path}.trainer", "a stream_ml.Trainer", repr(self.trainer)[:80]))
        most = CELLS_MAX // width
        lengths = {"window": self.window, **({} if self.every is None else {"every": self.every})}
        for name, length in lengths.items():
            if not _is_length(length, most):
                expected = f'a duration such as "30d", or from 1 to {most:,} examples'
                found.append(Problem(f"{path}.{name}", expected, repr(length)[:80]))
        if not (type(self.seed) is int and 0 <= self.seed <= _SEED_MAX):
            found.append(Problem(f"{path}.seed", f"from 0 to {_SEED_MAX}", repr(self.seed)[:80]))
        return found


def _is_length(length: Any, most: int) -> bool:
    if type(length) is int:
        return 1 <= length <= most
    try:
        return type(length) is str and parse_duration(length) > 0
    except ValueError:
        return False


@lru_cache(maxsize=64)
def _absent(features: tuple[str, ...]) -> tuple[float, ...]:
    """What stands in a row for each feature that an example has not: of many columns, 0."""
    known = frozenset(features)

    def is_hashed(name: str) -> bool:
        # A name may look like a column's by chance; but hashed features have two at least.
        prefix = name.rpartition("#")[0]
        return is_sparse(name) and f"{prefix}#0" in known and f"{prefix}#1" in known

    return tuple(0.0 if is_hashed(name) else np.nan for name in features)


def row_width(features: Sequence[str]) -> int:
    """How many numbers an example takes in a window."""
    return HEAD_CELLS + len(features)


def encode_row(
    watermark_ms: int,
    label: LabelValue,
    values: Mapping[str, float],
    target: Target,
    features: Sequence[str],
) -> list[float]:
    """An example as numbers: the watermark, the label, the features.

    Args:
        watermark_ms: at which it came.
        label: the truth, of the target's type.
        values: of the features; what is missing becomes NaN.
        target: the question.
        features: all names, in their order.
    """
    number = target.classes.index(label) if isinstance(label, str) else float(label)
    absent = _absent(tuple(features))
    return [
        float(watermark_ms),
        float(number),
        *(values.get(name, x) for name, x in zip(features, absent, strict=True)),
    ]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training to be done: a pure function of what is in it.

    Attributes:
        line: whose it is.
        learner: the line's, prepared; what it was trained to before is not looked at.
        n: the number of the newest example that came before it.
        rows: the window, as `encode_row` wrote it: float64, little-endian.
    """

    line: str
    learner: Retrained
    n: int
    rows: bytes = field(repr=False)

    def run(self) -> bytes:
        """The model that it gives, as its trainer writes it.

        Raises:
            SnapshotRefused: `too_large`, or `class_not_allowed`, where it writes no bytes.
                Whatever the trainer itself raises comes through.
        """
        trainer = copy.deepcopy(self.learner.trainer)
        cells = np.frombuffer(self.rows, "<f8").reshape(-1, row_width(trainer.features))
        _fit(trainer, cells, self.learner.seed)
        data = trainer.dump()
        if type(data) is not bytes or not data:
            given = "none" if data == b"" else type(data).__name__
            raise SnapshotRefused("class_not_allowed", f"expected a model as bytes, given {given}")
        if len(data) > STATE_BYTES_MAX:
            raise SnapshotRefused(
                "too_large",
                f"expected a model of at most {STATE_BYTES_MAX} bytes, given {len(data)}",
            )
        return data


def fit(
    trainer: Trainer,
    target: Target,
    examples: Iterable[tuple[Mapping[str, float], LabelValue]],
    seed: int,
) -> None:
    """Train a trainer on a window, as a training does.

    Args:
        trainer: prepared and untrained.
        target: the question.
        examples: features and labels, the oldest first.
        seed: draws whatever is drawn at random; it may be larger than a declared one.
    """
    rows = [
        encode_row(0, label, features, target, trainer.features) for features, label in examples
    ]
    _fit(trainer, np.array(rows, np.float64), seed % (_SEED_MAX + 1))


def _fit(trainer: Trainer, cells: np.ndarray, seed: int) -> None:
    """Train on rows as `encode_row` makes them, of which the trainer gets copies of its own."""
    rows, labels = cells[:, HEAD_CELLS:], cells[:, 1]
    trainer.fit(np.array(rows, np.float64), np.array(labels, np.float64), seed)


def trial(
    learner: Retrained, target: Target, examples: Iterable[tuple[Mapping[str, float], LabelValue]]
) -> bytes:
    """The model that a training on these examples gives.

    Args:
        learner: prepared.
        target: the question.
        examples: features and labels.
    """
    names = learner.trainer.features
    cells = [
        cell
        for number, (features, label) in enumerate(examples)
        for cell in encode_row(number, label, features, target, names)
    ]
    return TrainingJob("trial", learner, 0, np.array(cells, "<f8").tobytes()).run()
