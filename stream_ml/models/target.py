"""The target of a pipeline's predictions, and the answers that are valid for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stream_ml.errors import StreamMLError

if TYPE_CHECKING:
    from stream_ml.records import Answer

__all__ = ["BadAnswer", "Target", "TaskKind", "finite", "probability", "valid_answer"]

# A sum of rounded shares may pass 1 by a few of these; more is no rounding.
_ROUNDING = 1e-12


class BadAnswer(StreamMLError):  # noqa: N818 - names what was given, as `BadRecord`
    """Raised when what a model says is no answer: not finite, no probability, of another type."""


TaskKind = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be predicted: whether, which of `classes`, or how much."""

    kind: TaskKind
    classes: tuple[str, ...] = ()

    @classmethod
    def binary(cls) -> Target:
        """Whether something is so; labels are bool."""
        return cls("binary")

    @classmethod
    def multiclass(cls, *classes: str) -> Target:
        """Which of these it is; labels are str."""
        return cls("multiclass", classes)

    @classmethod
    def regression(cls) -> Target:
        """How much it is; labels are float."""
        return cls("regression")

    def __str__(self) -> str:
        return f"one of {', '.join(self.classes)}" if self.classes else self.kind


def probability(share: Any) -> float:
    """A share as a probability: rounding past 0 or 1 is taken off.

    Args:
        share: what a model gave.

    Raises:
        BadAnswer: it is none.
    """
    value = finite(share)
    if 0.0 <= value <= 1.0:
        return value
    if -_ROUNDING <= value <= 1.0 + _ROUNDING:
        return min(max(value, 0.0), 1.0)
    raise BadAnswer(f"expected a probability, given {value!r}")


def finite(number: Any) -> float:
    """A number as a float of Python's: numpy's scalars too, which JSON does not know.

    Args:
        number: what a model gave.

    Raises:
        BadAnswer: it is not finite, or no number.
    """
    try:
        value = float(number)
    except (TypeError, ValueError, OverflowError):
        raise BadAnswer(f"expected a number, given {type(number).__name__}") from None
    if not math.isfinite(value):
        raise BadAnswer(f"expected a finite number, given {value!r}")
    return value


def valid_answer(given: Any, target: Target) -> Answer:
    """An answer as records hold it: None, a number, or a probability by class.

    Args:
        given: what a `Learner` said.
        target: of the pipeline.

    Raises:
        BadAnswer: it is no answer to the target.
    """
    if given is None:
        return None
    if isinstance(given, str | bytes):
        raise BadAnswer(f"expected an answer for {target}, given {type(given).__name__}")
    if target.kind == "regression":
        return finite(given)
    if target.kind == "binary":
        return probability(given)
    if not isinstance(given, dict):
        raise BadAnswer(f"expected a probability per class, given {type(given).__name__}")
    for name in given:
        if name not in target.classes:
            raise BadAnswer(f"expected {target}, given {name!r}")
    return {name: probability(share) for name, share in given.items()}
