"""scikit-learn: estimators that learn by `partial_fit`, and pipelines of them, as lines.

    models={"sgd": ScikitLearn(make_pipeline(StandardScaler(), SGDClassifier("log_loss", ...)))}

The state is numbers (`arrays`): what was fitted, in the places that a fresh estimator of the
declaration has for it after a first fit. There is no pickle, and bytes that do not fit are refused.

scikit-learn takes about half a millisecond for each call, whatever is in it: `batch` collects so
many examples for a fit.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stream_ml.learners.batches import BatchLearner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.models.target import Target

__all__ = ["ScikitLearn"]


class ScikitLearn(BatchLearner):
    """An estimator of scikit-learn that learns by `partial_fit`.

    Args:
        estimator: a classifier or regressor, or a pipeline that ends in one, whose steps each
            have `partial_fit`. It is cloned: nothing that it was fitted to counts. What draws at
            random needs a seed (`random_state=1`).
        batch: so many examples make a fit; what is not yet fitted is part of the state.
        missing: what stands in for a feature that is missing.
    """

    magic: ClassVar[bytes] = b"SMLS1"

    def __init__(self, estimator: Any, *, batch: int = 1, missing: float = 0.0) -> None:
        super().__init__(batch, missing)
        self.estimator = estimator
        self._steps: list[Any] = []

    def _begin(self, target: Target) -> None:
        self._steps = list(_steps(self.estimator))
        self._check(target)

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

    def _predict(self, row: list[float]) -> list[float]:
        with _quick():
            batch = np.array([row])
            *transformers, last = self._steps
            for step in transformers:
                batch = step.transform(batch)
            if self._classes and hasattr(last, "predict_proba"):
                shares: list[float] = last.predict_proba(batch)[0].tolist()
                return shares
            given = float(last.predict(batch)[0])
        if not self._classes:
            return [given]
        return [float(given == number) for number in range(len(self._classes))]

    @property
    def description(self) -> str:
        """The estimator with all its parameters."""
        return f"sklearn({_text(self.estimator)}, batch={self.batch}, missing={self.missing})"

    @property
    def library(self) -> str:
        """The release of scikit-learn, whose attributes are no other's."""
        from sklearn import __version__  # noqa: PLC0415 - an extra

        return f"scikit-learn {__version__}"

    def _fit(self, rows: list[list[float]], labels: list[float]) -> None:
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
        other = copy.copy(self)
        other._steps = list(_steps(self.estimator))  # noqa: SLF001 - it is one of ours
        other._fit(*self._trial())  # noqa: SLF001
        return other._state()  # noqa: SLF001

    def _restore(self, state: list[dict[str, Any]]) -> None:
        for step, attributes in zip(self._steps, state, strict=True):
            vars(step).update(attributes)


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

    Numbers that are none (the logarithm of a class that never came) show in the answer.
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
