"""scikit-learn: estimators that learn by `partial_fit`, and pipelines of them, as lines.

    models={"sgd": ScikitLearn(make_pipeline(StandardScaler(), SGDClassifier("log_loss", ...)))}

The state is numbers (`arrays`): what was fitted, in the places that a fresh estimator of the
declaration has for it after a first fit. There is no pickle, and bytes that do not fit are refused.

    "SMLS1" + is fitted (1) + rows in the buffer (4) + layout (32) + numbers + buffer + SHA-256 (32)

scikit-learn takes about half a millisecond for each call, whatever is in it: `batch` collects so
many examples for a fit.
"""

from __future__ import annotations

import copy
import hashlib
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ml.learners.arrays import NumberReader, read, write
from stream_ml.models.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_ml.models.target import Target
    from stream_ml.records import Answer, LabelValue

__all__ = ["BATCH_MAX", "ScikitLearn"]

BATCH_MAX = 4_096
_MAGIC = b"SMLS1"
_HEAD = struct.Struct("<BI32s")
_DIGEST_BYTES = 32
_UNFITTED = bytes(32)


class ScikitLearn(Learner):
    """An estimator of scikit-learn that learns by `partial_fit`.

    Args:
        estimator: a classifier or regressor, or a pipeline that ends in one, whose steps each
            have `partial_fit`. It is cloned: nothing that it was fitted to counts. What draws at
            random needs a seed (`random_state=1`).
        batch: so many examples make a fit; what is not yet fitted is part of the state.
        missing: what stands in for a feature that is missing.
    """

    def __init__(self, estimator: Any, *, batch: int = 1, missing: float = 0.0) -> None:
        if not 1 <= batch <= BATCH_MAX:
            raise ValueError(f"batch: expected from 1 to {BATCH_MAX} examples, given {batch}")
        self.estimator, self.batch, self.missing = estimator, batch, float(missing)
        self._features: tuple[str, ...] = ()
        self._classes: tuple[Any, ...] = ()
        self._steps: list[Any] = []
        self._is_fitted = False
        self._rows: list[list[float]] = []
        self._labels: list[float] = []

    def prepare(self, target: Target, features: Sequence[str]) -> None:
        """Clone the estimator for the target.

        Args:
            target: what is predicted.
            features: the columns, in their order.

        Raises:
            ValueError: it is not for such a target, has no `partial_fit`, or no seed.
        """
        self._features = tuple(features)
        self._classes = (False, True) if target.kind == "binary" else target.classes
        self._steps = list(_steps(self.estimator))
        self._check(target)
        self._is_fitted = False
        self._rows, self._labels = [], []

    def _check(self, target: Target) -> None:
        from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415 - an extra

        *transformers, last = self._steps
        is_fit = is_regressor(last) if target.kind == "regression" else is_classifier(last)
        if not is_fit:
            kind = "regressor" if target.kind == "regression" else "classifier"
            raise ValueError(f"expected a {kind} for {target}, given {type(last).__name__}")
        for step in self._steps:
            name = type(step).__name__
            if not hasattr(step, "partial_fit"):
                raise ValueError(f"expected steps that have partial_fit, given {name}")
            for parameter, value in step.get_params(deep=True).items():
                if parameter.rpartition("__")[2] == "random_state" and value is None:
                    raise ValueError(f"{name}: expected a seed, given {parameter}=None")
        for step in transformers:
            if not hasattr(step, "transform"):
                raise ValueError(f"expected steps that transform, given {type(step).__name__}")

    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The answer of what has been fitted; None before the first fit.

        Args:
            features: a finite number by name.
        """
        if not self._is_fitted:
            return None
        with _quick():
            row = np.array([self._row(features)])
            *transformers, last = self._steps
            for step in transformers:
                row = step.transform(row)
            if not self._classes:
                return float(last.predict(row)[0])
            if not hasattr(last, "predict_proba"):
                number = int(last.predict(row)[0])
                shares = [float(number == n) for n in range(len(self._classes))]
            else:
                shares = last.predict_proba(row)[0].tolist()
        if self._classes == (False, True):
            return float(shares[1])
        return dict(zip(self._classes, shares, strict=True))

    def learn_one(self, features: Mapping[str, float], label: LabelValue) -> None:
        """Learn from one example, or keep it until there are as many as a batch has.

        Args:
            features: a finite number by name.
            label: the truth.
        """
        self._rows.append(self._row(features))
        self._labels.append(self._classes.index(label) if self._classes else float(label))
        if len(self._rows) == self.batch:
            self._fit(self._rows, self._labels)
            self._rows, self._labels = [], []

    def dump(self) -> bytes:
        """The numbers of what has been fitted, and the examples that still wait."""
        numbers, layout = write(self._state()) if self._is_fitted else (b"", _UNFITTED)
        body = b"".join(
            (
                _MAGIC,
                _HEAD.pack(self._is_fitted, len(self._rows), layout),
                numbers,
                np.array(self._rows, "<f8").tobytes(),
                np.array(self._labels, "<f8").tobytes(),
            )
        )
        return body + hashlib.sha256(body).digest()

    def load(self, data: bytes) -> None:
        """Take up a state, in the places that a fresh estimator has for it.

        Args:
            data: what `dump` gave.

        Raises:
            ValueError: it is no state of an estimator like this one.
        """
        body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
            raise ValueError("expected the state of an estimator of scikit-learn")
        numbers = NumberReader(body[len(_MAGIC) :])
        is_fitted, count, layout = _HEAD.unpack(numbers.take(_HEAD.size))
        if is_fitted > 1:
            raise ValueError(f"expected whether it is fitted, 0 or 1, given {is_fitted}")
        if count >= self.batch:
            raise ValueError(f"expected less than {self.batch} examples that wait, given {count}")
        steps = read(self._template(), layout, numbers) if is_fitted else None
        width = len(self._features)
        if numbers.left != 8 * count * (width + 1):
            raise ValueError(f"expected {count} examples of {width} features that wait")
        rows = np.frombuffer(numbers.take(8 * count * width), "<f8").reshape(count, width)
        labels = np.frombuffer(numbers.take(8 * count), "<f8")
        if self._classes and not np.isin(labels, range(len(self._classes))).all():
            raise ValueError("expected labels that are numbers of classes")
        self._rows, self._labels = rows.tolist(), labels.tolist()
        if steps is not None:
            for step, attributes in zip(self._steps, steps, strict=True):
                vars(step).update(attributes)
        self._is_fitted = bool(is_fitted)

    @property
    def description(self) -> str:
        """The estimator with all its parameters."""
        return f"sklearn({_text(self.estimator)}, batch={self.batch}, missing={self.missing})"

    @property
    def library(self) -> str:
        """The release of scikit-learn, whose attributes are no other's."""
        from sklearn import __version__  # noqa: PLC0415 - an extra

        return f"scikit-learn {__version__}"

    def _row(self, features: Mapping[str, float]) -> list[float]:
        missing = self.missing
        return [features.get(name, missing) for name in self._features]

    def _fit(self, rows: list[list[float]], labels: Sequence[float]) -> None:
        batch = np.array(rows)
        with _quick():
            *transformers, last = self._steps
            for step in transformers:
                step.partial_fit(batch)
                batch = step.transform(batch)
            if self._classes:
                truths = np.array(labels, dtype=np.int64)
                last.partial_fit(batch, truths, classes=np.arange(len(self._classes)))
            else:
                last.partial_fit(batch, np.array(labels))
        for step in self._steps:
            # A list of all losses so far, of which the last alone is ever read.
            curve = vars(step).get("loss_curve_")
            if curve:
                del curve[:-1]
        self._is_fitted = True

    def _state(self) -> list[dict[str, Any]]:
        """What has been fitted, by step: the attributes that are no parameters."""
        return [
            {
                name: value
                for name, value in sorted(vars(step).items())
                if name not in step.get_params(deep=False)
            }
            for step in self._steps
        ]

    def _template(self) -> list[dict[str, Any]]:
        """The state of an equal learner after a first fit of zeros and ones."""
        other = copy.copy(self)
        other._steps = list(_steps(self.estimator))  # noqa: SLF001 - it is one of ours
        count = max(2, len(self._classes), self.batch)
        rows = [[float((n + i) % 2) for i in range(len(self._features))] for n in range(count)]
        other._fit(rows, [n % (len(self._classes) or 2) for n in range(count)])  # noqa: SLF001
        return other._state()  # noqa: SLF001


def _steps(estimator: Any) -> Iterator[Any]:
    """The steps of an estimator, each a clone of its own."""
    from sklearn.base import clone  # noqa: PLC0415 - an extra
    from sklearn.pipeline import Pipeline  # noqa: PLC0415

    if not isinstance(estimator, Pipeline):
        yield clone(estimator)
        return
    for _, step in estimator.steps:
        if step not in {None, "passthrough"}:
            yield from _steps(step)


@contextmanager
def _quick() -> Iterator[None]:
    """Spare what scikit-learn checks at each call: features are finite, parameters were tried.

    NumberReader that are none (the logarithm of a class that never came) show in the answer.
    """
    from sklearn import config_context  # noqa: PLC0415 - an extra

    unchecked = config_context(assume_finite=True, skip_parameter_validation=True)
    with unchecked, np.errstate(all="ignore"):
        yield


def _text(value: Any) -> str:
    """An estimator, or a parameter of one, as canonical text."""
    if hasattr(value, "get_params"):
        parameters = sorted(value.get_params(deep=False).items())
        texts = ", ".join(f"{name}={_text(each)}" for name, each in parameters)
        return f"{type(value).__name__}({texts})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {_text(each)}' for name, each in value.items())}}}"
    if isinstance(value, np.ndarray | np.generic):
        return repr(value.tolist())
    if isinstance(value, type) or callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)
