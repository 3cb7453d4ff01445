"""The protocol of learners: what anything must do that competes as a line and is not river's.

A learner is asked, taught, written down and read back. It is a function of its parameters and of
the examples that it was taught, in their order, and of nothing else: no clock, no generator
without a seed, no state outside itself. `stream_ml.testing.check_learner` tries all of that.

What reads a line's bytes is the learner that is *declared* for the line. Nothing in the bytes
chooses it, so that a forged state is at worst a refused one.

>>> class Mean(Learner):
...     "Predicts the mean of all labels so far."
...     def __init__(self) -> None:
...         self.total, self.count = 0.0, 0
...     def predict_one(self, features):
...         return self.total / self.count if self.count else None
...     def learn_one(self, features, label):
...         self.total, self.count = self.total + label, self.count + 1
...     def dump(self):
...         return f"{self.total!r} {self.count}".encode()
...     def load(self, data):
...         total, count = data.split()
...         self.total, self.count = float(total), int(count)
>>> mean = Mean()
>>> mean.learn_one({}, 2.5)
>>> mean.dump()
b'2.5 1'
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from stream_ml.models.target import Target
    from stream_ml.records import Answer, LabelValue

__all__ = ["STATE_BYTES_MAX", "Learner", "Lesson", "Model", "RemoteLearner", "Reply"]

# Four times what an envelope may hold: learners compress two to four times, so no honest one is
# refused here, and a zip bomb is cut off long before it hurts.
STATE_BYTES_MAX = 64 * 1024 * 1024


class Model(ABC):
    """What answers for a line, and can be written down and read back: of any library or of none.

    Each line copies what it is declared with (`copy.deepcopy`), so declare it untrained.
    """

    def prepare(  # noqa: B027 - most learners need not know
        self, target: Target, features: Sequence[str]
    ) -> None:
        """Take note of the question; called once on each new learner, before anything else.

        Args:
            target: what is predicted: its kind (`binary`, `multiclass`, `regression`) and its
                classes.
            features: the names of all declared features, in their order. An example may lack
                some.

        Raises:
            ValueError: the learner is not for such a target.
        """

    @abstractmethod
    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The answer: the probability of True, one per class, or a number; None: no answer yet.

        It changes nothing that an answer, or `dump`, shows.

        Args:
            features: a finite number by name; what is missing is left out.
        """

    def predict_many(self, rows: Sequence[Mapping[str, float]]) -> list[Answer]:
        """The answers to several rows, each the same to the last bit as `predict_one` gives it.

        Args:
            rows: features by name.
        """
        return [self.predict_one(features) for features in rows]

    @abstractmethod
    def dump(self) -> bytes:
        """All that was learned, as bytes: equal learners give equal bytes.

        The parameters need not be among it.
        """

    @abstractmethod
    def load(self, data: bytes) -> None:
        """Take up what `dump` gave; called on a prepared, untrained learner.

        Args:
            data: bytes. Signatures keep strangers' out, and yet expect any: read numbers and
                texts, run nothing.

        Raises:
            ValueError: they are no state of such a learner. Any other error refuses them as well.
        """

    @property
    def description(self) -> str:
        """The parameters as text, equal for learners that start and learn alike.

        It is part of the declaration: where it changes, the line is another one. Here it is what
        the constructor was given, of the attributes of the same names.

        Raises:
            ValueError: a parameter is not kept as an attribute, or is no plain value.
        """
        texts = [
            f"{name}={_text(self, name)}"
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        ]
        return f"{type(self).__module__}.{type(self).__qualname__}({', '.join(texts)})"

    @property
    def library(self) -> str | None:
        """The library, with its release, that alone reads what `dump` gives; None: any does."""
        return None


class Learner(Model):
    """A line's learner that is taught one example after another."""

    @abstractmethod
    def learn_one(self, features: Mapping[str, float], label: LabelValue) -> None:
        """Learn from one example.

        Args:
            features: a finite number by name.
            label: the truth: bool, str (one of the classes) or float, by the target's kind.
        """

    def learn_many(self, rows: Sequence[Mapping[str, float]], labels: Sequence[LabelValue]) -> None:
        """Learn from several examples in their order, to the same end as `learn_one` on each.

        Args:
            rows: features by name.
            labels: as many truths.
        """
        for features, label in zip(rows, labels, strict=True):
            self.learn_one(features, label)

    def set_batch(self, size: int) -> None:
        """Fit what waits for a batch, and from the next example on so many at once.

        For learners that fit several examples at once; `dump` keeps the size, and `load` takes it
        up. It changes no parameter, and so no `description`.

        Args:
            size: examples, from 1 on.

        Raises:
            ValueError: it learns one by one, or fits no so many.
        """
        raise ValueError(
            f"{type(self).__name__} learns from each example as it comes, and has no batches of "
            f"{size}"
        )


class Lesson(NamedTuple):
    """What a remote learner is asked, where `is_asked`, and then taught, where there is a label."""

    features: Mapping[str, float]
    label: LabelValue | None = None
    is_asked: bool = True


class Reply(NamedTuple):
    """What a remote learner says to a lesson: an answer, or what was raised in its place.

    Beside it stand the seconds that answering took, and learning.
    """

    answer: Answer
    error: Exception | None
    answer_s: float
    example_s: float


class RemoteLearner(Learner):
    """A learner that is in another process, where many questions go at once."""

    @abstractmethod
    def lessons(self, lessons: Sequence[Lesson]) -> Generator[Reply, None, None]:
        """The replies to lessons, as they come, each as `predict_one` and `learn_one` give it.

        What learning raises is raised here, in the place of the lesson's reply. Whoever closes the
        generator sooner is told no more, and ends what is being done.

        Args:
            lessons: in their order.
        """


def _text(learner: Model, name: str) -> str:
    """A parameter of the constructor, as text."""
    value = getattr(learner, name, inspect.Parameter.empty)
    if not _is_plain(value):
        given = "none" if value is inspect.Parameter.empty else type(value).__name__
        raise ValueError(
            f"{type(learner).__name__}: expected an attribute {name!r} that is a number, a text, "
            f"or a list or dict of them, given {given}; way out: define `description`"
        )
    return repr(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    return value is None or isinstance(value, bool | int | float | str)
