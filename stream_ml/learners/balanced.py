"""Rare positives: more weight on them, or fewer of the others, while learning; answers corrected.

Only what is learned is weighted. An answer is a probability among all events: the odds that the
learner has come to are `positives / negatives` times too high, and are divided by that (King and
Zeng 2001, "Logistic regression in rare events data", Political Analysis 9; Elkan 2001, "The
foundations of cost-sensitive learning", IJCAI; Saerens et al. 2002, Neural Computation 14). So
scores, evidence and calibration are of what was served, as for any other line.

Which negatives are passed over is a function of their number and the seed, never of a generator:
a replay passes over the same.
"""

from __future__ import annotations

import inspect
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from river import base, compose

from stream_ml.models.learner import Learner
from stream_ml.schema import is_finite_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.models.target import Target
    from stream_ml.records import Answer, LabelValue

__all__ = ["Balanced", "BalancedLearner"]

_SEED_MAX = 2**31 - 1
WEIGHT_MAX = 1e6
_TWO = 2
_COUNT_BYTES = 8


class Balanced(base.Wrapper, base.Classifier):  # type: ignore[type-arg]
    """A classifier of river that learns from rare positives, and says how rare they are.

    >>> from river import linear_model, preprocessing
    >>> estimator = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    >>> Balanced(estimator, negatives=0.1).odds
    10.0

    Args:
        classifier: of two classes, untrained; True is the rare one (of two named classes the
            second).
        positives: the weight of a positive, from 1 on; where it is more, the classifier's
            `learn_one` must take a weight (`w`).
        negatives: the share of the negatives that is learned from, up to 1.
        seed: of the choice.

    Raises:
        ValueError: one of them is none of these.
    """

    _multiclass = False  # of two named classes it is told which one is the second

    def __init__(
        self, classifier: Any, positives: float = 1.0, negatives: float = 1.0, seed: int = 0
    ) -> None:
        _check(positives, negatives, seed)
        if not isinstance(classifier, base.Classifier):
            given = type(classifier).__name__
            raise ValueError(  # noqa: TRY004 - as all of a learner's refusals
                f"classifier: expected a classifier of river, given {given}; of a "
                "stream_ml.Learner take sml.BalancedLearner"
            )
        if positives != 1 and not _takes_weight(classifier):
            raise ValueError(
                f"positives: expected a classifier whose learn_one takes a weight `w`, given "
                f"{type(_last(classifier)).__name__}; way out: leave out negatives instead, "
                f"negatives={1 / positives:.4g}"
            )
        self.classifier = classifier
        self.positives, self.negatives, self.seed = positives, negatives, seed
        self.n = 0

    @property
    def _wrapped_model(self) -> Any:
        return self.classifier

    @property
    def odds(self) -> float:
        """How many times higher the odds of a positive are among what is learned from."""
        return self.positives / self.negatives

    def learn_one(self, x: Any, y: Any) -> None:
        """Learn from an example, or pass it over.

        Args:
            x: features.
            y: whether it is a positive.
        """
        if y:
            weight = {} if self.positives == 1 else {"w": self.positives}
            self.classifier.learn_one(x, y, **weight)
            return
        self.n += 1
        if _is_chosen(self.n, self.seed, self.negatives):
            self.classifier.learn_one(x, y)

    def predict_proba_one(self, x: Any, **_: Any) -> Any:
        """The probabilities among all events; none before the classifier has any.

        Args:
            x: features.
        """
        learned = self.classifier.predict_proba_one(x)
        if not learned:
            return {}
        share = corrected(learned.get(True, 0.0), self.odds)
        return {False: 1.0 - share, True: share}


class BalancedLearner(Learner):
    """As `Balanced`, of a `Learner` of any library: negatives are left out, nothing is weighted.

    Args:
        learner: untrained.
        negatives: the share of the negatives that is learned from, up to 1.
        seed: of the choice.

    Raises:
        ValueError: one of them is none of these.
    """

    def __init__(self, learner: Learner, negatives: float, seed: int = 0) -> None:
        _check(1.0, negatives, seed)
        if not isinstance(learner, Learner):
            given = type(learner).__name__
            raise ValueError(f"expected a stream_ml.Learner, given {given}: take sml.Balanced")  # noqa: TRY004 - as all of a learner's refusals
        self.learner, self.negatives, self.seed = learner, negatives, seed
        self._n = 0
        self._classes: tuple[str, ...] = ()

    def prepare(self, target: Target, features: Sequence[str]) -> None:
        """Begin untrained.

        Args:
            target: of two classes.
            features: the names of all features.

        Raises:
            ValueError: the target has not two classes.
        """
        if target.kind == "regression" or len(target.classes) not in {0, _TWO}:
            raise ValueError(f"expected a label of two classes, given {target}")
        self._n, self._classes = 0, target.classes
        self.learner.prepare(target, features)

    def predict_one(self, features: Mapping[str, float]) -> Answer:
        """The learner's answer, corrected.

        Args:
            features: a finite number by name.
        """
        return self._corrected(self.learner.predict_one(features))

    def predict_many(self, rows: Sequence[Mapping[str, float]]) -> list[Answer]:
        """The learner's answers to several rows, corrected.

        Args:
            rows: features by name.
        """
        return [self._corrected(answer) for answer in self.learner.predict_many(rows)]

    def _corrected(self, answer: Answer) -> Answer:
        odds = 1.0 / self.negatives
        if isinstance(answer, dict):
            rare = self._classes[1]
            share = corrected(answer.get(rare, 0.0), odds)
            return {self._classes[0]: 1.0 - share, rare: share}
        return None if answer is None else corrected(answer, odds)

    def learn_one(self, features: Mapping[str, float], label: LabelValue) -> None:
        """Learn from an example, or pass it over.

        Args:
            features: a finite number by name.
            label: the truth.
        """
        if label is not True and not (self._classes and label == self._classes[1]):
            self._n += 1
            if not _is_chosen(self._n, self.seed, self.negatives):
                return
        self.learner.learn_one(features, label)

    def set_batch(self, size: int) -> None:
        """Of the learner.

        Args:
            size: examples.
        """
        self.learner.set_batch(size)

    def dump(self) -> bytes:
        """How many negatives came, and what the learner has learned."""
        return self._n.to_bytes(_COUNT_BYTES) + self.learner.dump()

    def load(self, data: bytes) -> None:
        """Take up what `dump` gave.

        Args:
            data: of such a learner.
        """
        if len(data) < _COUNT_BYTES:
            raise ValueError(f"expected {_COUNT_BYTES} bytes or more, given {len(data)}")
        self.learner.load(data[_COUNT_BYTES:])
        self._n = int.from_bytes(data[:_COUNT_BYTES])

    @property
    def description(self) -> str:
        """The parameters, the learner's among them."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"{name}({self.learner.description}, {self.negatives!r}, seed={self.seed})"

    @property
    def library(self) -> str | None:
        """The learner's."""
        return self.learner.library


def corrected(share: float, odds: float) -> float:
    """A probability among all, from one where the odds are so many times higher.

    >>> corrected(0.5, 9.0)
    0.1

    Args:
        share: of positives among what is learned from.
        odds: how many times higher.
    """
    return share / (share + odds * (1.0 - share))


def _is_chosen(number: int, seed: int, share: float) -> bool:
    """Whether the negative of this number is learned from.

    Args:
        number: counted from 1.
        seed: of the choice.
        share: of the negatives.
    """
    if share == 1:
        return True
    digest = blake2b(b"%d %d" % (seed, number), digest_size=_COUNT_BYTES).digest()
    return int.from_bytes(digest) < share * 2.0**64


def _last(classifier: Any) -> Any:
    """The last step of a pipeline of river's; anything else as it is."""
    while isinstance(classifier, compose.Pipeline):
        classifier = [*classifier.steps.values()][-1]
    return classifier


def _takes_weight(classifier: Any) -> bool:
    learn = getattr(_last(classifier), "learn_one", None)
    return callable(learn) and "w" in inspect.signature(learn).parameters


def _check(positives: Any, negatives: Any, seed: Any) -> None:
    if not (is_finite_number(positives) and 1 <= positives <= WEIGHT_MAX):
        raise ValueError(
            f"positives: expected a number from 1 to {WEIGHT_MAX:g}, given {positives!r}"
        )
    if not (is_finite_number(negatives) and 1 / WEIGHT_MAX <= negatives <= 1):
        raise ValueError(f"negatives: expected a share above 0, up to 1, given {negatives!r}")
    if type(seed) is not int or not 0 <= seed <= _SEED_MAX:
        raise ValueError(f"seed: expected a whole number from 0 to {_SEED_MAX}, given {seed!r}")
