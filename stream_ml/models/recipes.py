"""What a line learns with, and one way to ask and to teach any of river's estimators.

River's estimators answer in their own tongues: a classifier with a dict keyed by labels, empty
before it has seen any; a regressor with a number. Here every model gives an `Answer`: the
probability of `True`, a probability per class, a number, or None where it has no answer. A
classifier that knows but True and False is taught the second of two classes as True, and what it
says of True and False is said of the two.

Asking teaches nothing: no river estimator of 0.26 learns in `predict_*`. Some *prepare*
themselves on the first features they meet (a scaler enters zeros, an adaptive random forest
plants its trees); they then stand where the first `learn_one` would have put them. What answers
otherwise after other questions (a factorization machine draws the weights of a feature when it
first meets it) is refused at declaration.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections import UserDict, UserList
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from river import base, compose, feature_extraction, multiclass, neighbors, rules

from stream_ml.errors import Problem, SnapshotRefused, StreamMLError
from stream_ml.models import pickles
from stream_ml.models.digest import digest
from stream_ml.models.ordering import order_sets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_ml.records import Answer, LabelValue

__all__ = ["BadAnswer", "Recipe", "Target", "TaskKind", "answer", "describe", "knows_two", "learn"]

# As many classes as a classifier of True and False can tell apart.
_TWO = 2
# How many examples an estimator is tried with, whatever the features: only its labels matter.
TRIAL_EXAMPLES = 12
# A sum of rounded shares may pass 1 by a few of these; more is no rounding.
_ROUNDING = 1e-12

order_sets()


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


_LABEL_TYPES: dict[str, type] = {"binary": bool, "multiclass": str, "regression": float}


def answer(model: Any, target: Target, features: Mapping[str, float]) -> Answer:
    """What the model says about these features; None where it has no answer yet.

    A classifier that gives no probabilities is taken at its word: what it names has 1.

    Args:
        model: a river estimator, or a pipeline of them.
        target: what is predicted: its kind and its classes.
        features: a finite number by name.

    Raises:
        BadAnswer: it says something that is no answer to the target. Whatever else the estimator
            itself raises comes through.
    """
    features = {**features}  # some of river's parts write into what they are given
    if target.kind == "regression":
        number = model.predict_one(features)
        return None if number is None else _finite(number)
    try:
        output = model.predict_proba_one(features)
    except NotImplementedError:
        label = model.predict_one(features)
        output = None if label is None else {label: 1.0}
    if not output:
        return None
    if not isinstance(output, dict):
        raise BadAnswer(f"expected a probability per label, given {type(output).__name__}")
    if target.kind == "binary":
        return _probability(output.get(True, 0.0))
    names = _names(target.classes)
    try:
        # In the model's own order: of equally likely classes it means the first.
        return {names[name]: _probability(share) for name, share in output.items()}
    except KeyError as unknown:
        raise BadAnswer(f"expected {target}, given {unknown}") from None


@lru_cache(maxsize=64)
def _names(classes: tuple[str, ...]) -> dict[Any, str]:
    """What an estimator may call a class: by its name, or one of two by False and True."""
    names: dict[Any, str] = {name: name for name in classes}
    if len(classes) == _TWO:
        names |= dict(zip((False, True), classes, strict=True))
    return names


def learn(model: Any, target: Target, features: Mapping[str, float], label: LabelValue) -> None:
    """Teach the model one example: `learn_one`, exactly as river alone would be called.

    Args:
        model: a river estimator, or a pipeline of them.
        target: what is predicted: its kind and its classes.
        features: a finite number by name.
        label: the truth, of the target's type.
    """
    if type(label) is not _LABEL_TYPES[target.kind]:
        raise AssertionError(f"a label of a {target.kind} task cannot be {label!r}")
    # River's own copy: some of its parts write into what they are given.
    river_label = label == target.classes[1] if knows_two(model, target) else label
    model.learn_one({**features}, river_label)


def knows_two(model: Any, target: Target) -> bool:
    """Whether the model is taught the second of two classes as True, and the first as False.

    Args:
        model: a classifier of river's.
        target: with two classes.
    """
    return len(target.classes) == _TWO and not getattr(model, "_multiclass", False)


def _probability(share: Any) -> float:
    value = _finite(share)
    if 0.0 <= value <= 1.0:
        return value
    if -_ROUNDING <= value <= 1.0 + _ROUNDING:
        return min(max(value, 0.0), 1.0)
    raise BadAnswer(f"expected a probability, given {value!r}")


def _finite(number: Any) -> float:
    try:
        value = float(number)  # numpy's scalars too, which JSON does not know
    except (TypeError, ValueError, OverflowError):
        raise BadAnswer(f"expected a number, given {type(number).__name__}") from None
    if not math.isfinite(value):
        raise BadAnswer(f"expected a finite number, given {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Recipe:
    """A line's name and the untrained estimator that each of its learners starts as.

    The estimator is copied: what happens to the one that was given changes nothing here.
    """

    name: str
    estimator: Any

    def __post_init__(self) -> None:
        if isinstance(self.estimator, base.Base):
            object.__setattr__(self, "estimator", copy.deepcopy(self.estimator))

    def fresh(self) -> Any:
        """An untrained learner of its own, equal to every other fresh one."""
        return copy.deepcopy(self.estimator)

    @property
    def description(self) -> str:
        """The estimator with all its parameters, as text that is equal for equal recipes."""
        return describe(self.estimator)

    def check(self, target: Target, path: str, names: Iterable[str] = ("x", "y")) -> list[Problem]:
        """What is wrong with this recipe for this target; nothing, if the list is empty.

        Args:
            target: what it shall predict.
            path: where it is declared.
            names: of the features that it will see.
        """
        if not isinstance(self.estimator, base.Estimator):
            return [Problem(path, "an estimator of river", _brief(self.estimator))]
        # What has the wrong kind is replaced, not seeded; what cannot be copied is not tried.
        return (
            _misfits(self.estimator, target, path)
            or _irreproducible(self.estimator, path)
            or self._strangers(target, path, names)
        )

    def _strangers(self, target: Target, path: str, names: Iterable[str]) -> list[Problem]:
        """Whether the estimator, and those in it, know the target's labels for their own."""
        learner, names = self.fresh(), tuple(names)
        labels: tuple[Any, ...] = {
            "binary": (False, True),
            "multiclass": target.classes,
            "regression": (0.0, 1.5),
        }[target.kind]
        for number in range(TRIAL_EXAMPLES):
            features = {name: float((number + i) % 3) for i, name in enumerate(names)}
            try:
                answer(learner, target, features)
                learn(learner, target, features, labels[number % len(labels)])
            except Exception as error:  # noqa: BLE001 - an estimator may raise anything
                if not _is_about_labels(error, labels):
                    return []  # what it makes of features shows when there are some
                actual = f"{_brief(self.estimator)}, which raised {type(error).__name__}: {error}"
                return [Problem(path, f"an estimator that takes {_label_names(target)}", actual)]
        return []


def _is_about_labels(error: Exception, labels: tuple[Any, ...]) -> bool:
    if isinstance(error, KeyError):
        return bool(error.args) and error.args[0] in (*labels, False, True)
    unknown = isinstance(error, BadAnswer) and "expected one of" in str(error)
    return unknown or isinstance(error, TypeError | AttributeError)


def _label_names(target: Target) -> str:
    """The labels that estimators are taught, as a message names them."""
    if len(target.classes) == _TWO:
        first, second = target.classes
        return f"{first!r} and {second!r} (or, knowing only two, False and True) for labels"
    return {"binary": "False and True", "regression": "numbers"}.get(
        target.kind, ", ".join(map(repr, target.classes))
    ) + " for labels"


def _misfits(estimator: Any, target: Target, path: str) -> list[Problem]:
    base_class = base.Regressor if target.kind == "regression" else base.Classifier
    if not isinstance(estimator, base_class):
        kind = "regressor" if target.kind == "regression" else "classifier"
        return [Problem(path, f"a {kind}, for a {target.kind} label", _brief(estimator))]
    is_multiclass = len(target.classes) > _TWO
    if is_multiclass and not getattr(estimator, "_multiclass", False):
        expected = "a classifier of more than two classes, such as multiclass.OneVsRestClassifier"
        return [Problem(path, expected, _brief(estimator))]
    if target.classes and not knows_two(estimator, target):
        # Taught names, some that know but True and False would raise, and some take all for True.
        for part in _parts(estimator, skip_own_labels=True):
            if isinstance(part, base.Classifier) and not getattr(part, "_multiclass", False):
                expected = f"parts that each take {target} for a label"
                return [Problem(path, expected, f"{_brief(part)} in {_brief(estimator)}")]
    return []


def _irreproducible(estimator: Any, path: str) -> list[Problem]:
    try:
        pickles.loads(pickles.dumps(estimator))
    except SnapshotRefused as refused:
        return [Problem(path, "an estimator that a snapshot can hold", str(refused))]
    problems = []
    for kind, expected in _OF_THE_PROCESS.items():
        if any(isinstance(part, kind) and not _stays_small(part) for part in _parts(estimator)):
            problems.append(Problem(path, expected, _class_name(kind)))
    if problems:
        return problems  # without what is replaced, the rest may be right
    if digest(estimator) != digest(estimator.clone()):
        problems.append(Problem(path, "an estimator that has learned nothing", "a trained one"))
    first, second = estimator.clone(), estimator.clone()
    if digest(first, generators=True) != digest(second, generators=True):
        seedless = {type(p).__name__ for p in _parts(estimator) if getattr(p, "seed", 0) is None}
        actual = f"none for {', '.join(sorted(seedless))}"
        problems.append(Problem(path, "a seed, so that a replay gives the same model", actual))
    elif _answers(first, _QUESTIONS) != _answers(second, _QUESTIONS[::-1])[::-1]:
        expected = "an estimator that answers alike, whatever it was asked before"
        problems.append(Problem(path, expected, _brief(estimator)))
    return problems


# What is not the same in another process, and what to take instead.
_OF_THE_PROCESS: dict[type, str] = {
    # It pairs labels in the order of a set of str.
    multiclass.OneVsOneClassifier: (
        "multiclass.OneVsRestClassifier, which learns the same in every process"
    ),
    # It names its rules by where they lie in memory, and may take a new one for an old one.
    rules.AMRules: "tree.HoeffdingTreeRegressor, which learns the same in every process",
    # It knows its leaves by where they lie in memory.
    feature_extraction.RandomTreesEmbedding: (
        "feature_extraction.RBFSampler, which can be written and read back"
    ),
    # Its graph draws at each question, and shares a list of loose points with every other graph.
    neighbors.SWINN: (
        "neighbors.LazySearch, or a SWINN whose maxlen is less than its warm_up and which "
        "therefore makes no graph"
    ),
}
_QUESTIONS = ({"a": 1.0, "b": 2.0}, {"c": 1.0, "d": 3.0})


def _stays_small(part: Any) -> bool:
    """Whether it never holds as much as it takes to become what is refused."""
    return isinstance(part, neighbors.SWINN) and part.maxlen < part.warm_up


def _answers(model: Any, questions: Iterable[dict[str, float]]) -> list[str]:
    """What it says, as text: of what is not a number no two are equal."""
    answers = []
    for features in questions:
        predict = getattr(model, "predict_proba_one", model.predict_one)
        try:
            answers.append(repr(predict(dict(features))))
        except Exception as error:  # noqa: BLE001 - an estimator may raise anything
            answers.append(type(error).__name__)
    return answers


def _parts(owner: Any, *, skip_own_labels: bool = False) -> Iterator[Any]:
    """The river objects that an estimator is made of, itself the first.

    Args:
        owner: the estimator, or what it holds.
        skip_own_labels: leave out those in what teaches them labels of its own (one against the
            rest).
    """
    if isinstance(owner, base.Base):
        yield owner
        if skip_own_labels and isinstance(owner, _OWN_LABELS):
            return
        owner = vars(owner)
    if isinstance(owner, dict | UserDict):
        owner = list(owner.values())
    if isinstance(owner, list | tuple | UserList):
        for part in owner:
            yield from _parts(part, skip_own_labels=skip_own_labels)


_OWN_LABELS = (
    multiclass.OneVsRestClassifier,
    multiclass.OneVsOneClassifier,
    multiclass.OutputCodeClassifier,
)


def describe(part: Any) -> str:
    """An estimator, or a parameter of one, as canonical text.

    >>> from river import naive_bayes, preprocessing
    >>> describe(preprocessing.StandardScaler() | naive_bayes.GaussianNB())
    'preprocessing.StandardScaler(with_std=True, window_size=None) | naive_bayes.GaussianNB()'
    """
    if isinstance(part, compose.Pipeline):
        return " | ".join(map(describe, part.steps.values()))
    if isinstance(part, compose.TransformerUnion):
        return f"({' + '.join(map(describe, part.transformers.values()))})"
    if isinstance(part, list | tuple | set | frozenset | dict):
        return _describe_all(part)
    if part is None or isinstance(part, bool | int | float | str):
        return repr(part)
    if isinstance(part, type) or inspect.isroutine(part):
        return f"{part.__module__}.{part.__qualname__}"
    return f"{_class_name(type(part))}({', '.join(_parameters(part))})"


def _describe_all(parts: Any) -> str:
    if isinstance(parts, dict):
        return f"{{{', '.join(f'{describe(k)}: {describe(v)}' for k, v in parts.items())}}}"
    texts = [describe(part) for part in parts]
    if isinstance(parts, set | frozenset):
        return f"{{{', '.join(sorted(texts))}}}"
    return f"[{', '.join(texts)}]"


def _parameters(part: Any) -> list[str]:
    """What the part was made with, in the order of its constructor."""
    texts: list[str] = []
    for name, parameter in inspect.signature(type(part)).parameters.items():
        # Some of river's parameters are properties (a tree's `leaf_prediction`).
        value = getattr(part, name, parameter.empty)
        if inspect.ismethod(value):
            value = parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            values = list(map(describe, value)) if isinstance(value, list | tuple | set) else []
            texts += sorted(values) if isinstance(value, set) else values
        elif value is not parameter.empty:
            texts.append(f"{name}={describe(value)}")
    return texts


def _class_name(cls: type) -> str:
    """`preprocessing.StandardScaler`: the name that river's users write."""
    package, _, tail = cls.__module__.partition(".")
    module = tail.split(".")[0] if package == "river" else cls.__module__
    return f"{module}.{cls.__qualname__}"


def _brief(value: Any) -> str:
    """What was given, without its parameters."""
    if isinstance(value, compose.Pipeline):
        return " | ".join(map(_brief, value.steps.values()))
    if isinstance(value, base.Base):
        return _class_name(type(value))
    return f"the class {_class_name(value)}" if isinstance(value, type) else repr(value)[:80]
