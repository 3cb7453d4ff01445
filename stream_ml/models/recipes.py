"""What a line learns with: one way to ask, to teach, to write and to read back any learner.

A line's learner is an estimator of river, or a `Learner` of anyone's. What reads a line's bytes
is chosen by its recipe, never by the bytes: river's are pickles, read through an allow-list; a
`Learner` reads its own.

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
import hashlib
import inspect
from collections import UserDict, UserList
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from river import base, compose, feature_extraction, multiclass, neighbors, rules

from stream_ml.errors import STOPS, Problem, SnapshotRefused, brief_error
from stream_ml.features.sparse import column_count, expand, trial_names
from stream_ml.models import pickles
from stream_ml.models.digest import digest, digest_and_size
from stream_ml.models.learner import Learner, Model
from stream_ml.models.ordering import order_sets
from stream_ml.models.retrained import Retrained, Trainer, row_width, trial
from stream_ml.models.target import (
    BadAnswer,
    Target,
    TaskKind,
    finite,
    probability,
    valid_answer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_ml.records import Answer, LabelValue

__all__ = [
    "LEARNER_FORMAT",
    "BadAnswer",
    "Recipe",
    "Target",
    "TaskKind",
    "answer",
    "describe",
    "knows_two",
    "learn",
]

# What is told all columns, and mostly makes a row of them, is told no more with hashed ones.
COLUMNS_MAX = 4_096
# As many classes as a classifier of True and False can tell apart.
_TWO = 2
# How many examples an estimator is tried with, whatever the features: only its labels matter.
TRIAL_EXAMPLES = 12
# At one in so many a learner is asked: one that is slow keeps every command waiting.
ASK_EVERY = 4

# What a snapshot calls the bytes that a `Learner` wrote; river's pickles have no name there.
LEARNER_FORMAT = "learner"
# What the digest of such a learner begins with: that of its bytes follows.
_DUMP = "dump:"

order_sets()


_LABEL_TYPES: dict[str, type] = {"binary": bool, "multiclass": str, "regression": float}


def answer(model: Any, target: Target, features: Mapping[str, float]) -> Answer:
    """What the model says about these features; None where it has no answer yet.

    A classifier that gives no probabilities is taken at its word: what it names has 1.

    Args:
        model: a river estimator, a pipeline of them, or a `Learner`.
        target: what is predicted: its kind and its classes.
        features: a finite number by name.

    Raises:
        BadAnswer: it says something that is no answer to the target. Whatever else the estimator
            itself raises comes through.
    """
    features = {**features}  # some of river's parts write into what they are given
    if isinstance(model, Model):
        return valid_answer(model.predict_one(features), target)
    if target.kind == "regression":
        number = model.predict_one(features)
        return None if number is None else finite(number)
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
        return probability(output.get(True, 0.0))
    names = _names(target.classes)
    try:
        # In the model's own order: of equally likely classes it means the first.
        return {names[name]: probability(share) for name, share in output.items()}
    except KeyError as unknown:
        names = _names(target.classes[:_TWO])
        if getattr(model, "_multiclass", False) or not output.keys() <= names.keys():
            raise BadAnswer(f"expected {target}, given {unknown}") from None
    # One that knows but two was declared when there were no more, and those are the first two.
    return {names[name]: probability(share) for name, share in output.items()}


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
        model: a river estimator, a pipeline of them, or a `Learner`.
        target: what is predicted: its kind and its classes.
        features: a finite number by name.
        label: the truth, of the target's type.
    """
    if type(label) is not _LABEL_TYPES[target.kind]:
        raise AssertionError(f"a label of a {target.kind} task cannot be {label!r}")
    if isinstance(model, Learner):
        model.learn_one({**features}, label)
        return
    if isinstance(model, Retrained):
        raise TypeError("a retrained line learns from a window of examples, never from one")
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


@dataclass(frozen=True, slots=True)
class Recipe:
    """A line's name and the untrained estimator that each of its learners starts as.

    The estimator is copied: what happens to the one that was given changes nothing here.

    Args:
        name: of the line.
        estimator: of river, or a `Learner`.
        target: what it predicts; a `Learner` is told before anything else.
        features: the names of all features, likewise.
        classes: of the user's own, that the estimator is made of, before and after a trial.
    """

    name: str
    estimator: Any
    target: Target | None = None
    features: tuple[str, ...] = ()
    classes: pickles.Classes = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.estimator, base.Base | Model):
            object.__setattr__(self, "estimator", copy.deepcopy(self.estimator))
        if isinstance(self.estimator, base.Base):
            # One that cannot be written down is refused where it is checked.
            with suppress(SnapshotRefused):
                self.classes.update(pickles.classes_in(self.estimator))
            if self.classes:
                self.classes.update(self._classes_of_trial())

    def _classes_of_trial(self) -> pickles.Classes:
        """The classes that an estimator of a user's own takes up as it learns."""
        if self.target is None:
            return {}
        learner = self.fresh()
        try:
            for features, label in _trial(self.target, self.features):
                answer(learner, self.target, features)
                learn(learner, self.target, features, label)
            return pickles.classes_in(learner)
        except STOPS:
            raise
        except BaseException:  # noqa: BLE001 - a user's code may raise anything; `check` tells
            return {}

    def fresh(self) -> Any:
        """An untrained learner of its own, equal to every other fresh one."""
        learner = copy.deepcopy(self.estimator)
        if isinstance(learner, Model) and self.target is not None:
            learner.prepare(self.target, expand(self.features))
        return learner

    @property
    def description(self) -> str:
        """The estimator with all its parameters, as text that is equal for equal recipes."""
        if isinstance(self.estimator, Model):
            return self.estimator.description
        return describe(self.estimator)

    @property
    def format(self) -> str | None:
        """What reads the learner's bytes; None: river's pickles."""
        return LEARNER_FORMAT if isinstance(self.estimator, Model) else None

    @property
    def library(self) -> str | None:
        """The library and release that alone reads a `Learner`'s bytes, if there is one."""
        return self.estimator.library if isinstance(self.estimator, Model) else None

    @property
    def has_fixed_classes(self) -> bool:
        """Whether its learners know but the classes of the target that they were prepared for.

        River's meet a class when an example of it comes, or know but two in the first place.
        """
        is_classifier = self.target is not None and bool(self.target.classes)
        return is_classifier and isinstance(self.estimator, Model)

    def dump(self, learner: Any) -> bytes:
        """A learner of this recipe as bytes, uncompressed.

        Args:
            learner: live; it goes on unchanged.

        Raises:
            SnapshotRefused: `class_not_allowed`, where it cannot be written; `too_large`.
        """
        if not isinstance(self.estimator, Model):
            return pickles.dumps(learner)
        with pickles.contain_errors(
            "class_not_allowed",
            f"expected {_brief(learner)}.dump() to give its state, given {{}}",
            learner,
        ):
            data = learner.dump()
            if type(data) is not bytes:
                raise TypeError(f"{type(data).__name__} is not bytes")
        if len(data) > pickles.PICKLE_BYTES_MAX:
            raise SnapshotRefused(
                "too_large",
                f"expected at most {pickles.PICKLE_BYTES_MAX} bytes of state, given "
                f"{_brief(learner)} with {len(data)}; bound it",
            )
        return data

    def load(self, data: bytes) -> Any:
        """A learner of this recipe, read back; the recipe says what reads it.

        Args:
            data: what `dump` gave.

        Raises:
            SnapshotRefused: `class_not_allowed` or `malformed`; `unreadable`, where a `Learner`
                takes its own bytes for foreign ones.
        """
        if not isinstance(self.estimator, Model):
            return pickles.loads(data, self.classes)
        with pickles.contain_errors(
            "unreadable", f"expected the state of {_brief(self.estimator)}, given bytes: {{}}"
        ):
            learner = self.fresh()
            learner.load(data)
        return learner

    def identity(self, learner: Any, data: bytes) -> tuple[str, int]:
        """The digest of a learner, and how many bytes it was taken of.

        Args:
            learner: of this recipe.
            data: what `dump` gave of it.

        Raises:
            SnapshotRefused: `class_not_allowed` or `too_large`, where it has none.
        """
        if not isinstance(self.estimator, Model):
            return digest_and_size(learner)
        return _DUMP + hashlib.sha256(data).hexdigest(), len(data)

    def digest(self, learner: Any, data: bytes, like: str) -> str:
        """The digest of a learner that was read back, by the scheme of another digest.

        Args:
            learner: of this recipe.
            data: that it was read from.
            like: a digest, whose scheme is taken.

        Raises:
            SnapshotRefused: as `identity`.
        """
        if not isinstance(self.estimator, Model):
            return digest(learner, like=like)
        return self.identity(learner, data)[0]

    def set_batch(self, learner: Any, size: int) -> None:
        """Have a learner fit what waits for a batch, and so many at once from the next example on.

        Args:
            learner: of this recipe.
            size: examples.

        Raises:
            SnapshotRefused: `batch`: it has no batches, or none of that size, or fitting failed.
        """
        with pickles.contain_errors("batch", f"the line {self.name!r}: {{}}"):
            if isinstance(learner, Learner):
                learner.set_batch(size)
                return
        kind = "what is trained anew on a window has no batches"
        if not isinstance(learner, Model):
            kind = "river's learn from each example as it comes, and have no batches"
        raise SnapshotRefused("batch", f"the line {self.name!r}: {kind}")

    def check(self, target: Target, path: str, names: Iterable[str] = ("x", "y")) -> list[Problem]:
        """What is wrong with this recipe for this target; nothing, if the list is empty.

        Args:
            target: what it shall predict.
            path: where it is declared.
            names: of the features that it will see.
        """
        prepared = replace(self, target=target, features=tuple(names))
        count = column_count(prepared.features)
        if isinstance(self.estimator, Model) and count > max(COLUMNS_MAX, len(prepared.features)):
            expected = (
                f"an estimator of river, which learns from columns that are mostly absent, or at "
                f"most {COLUMNS_MAX:,} columns of features: choose a lesser `width`"
            )
            return [Problem(path, expected, f"{_brief(self.estimator)}, and {count:,} columns")]
        if isinstance(self.estimator, Retrained):
            problems = self.estimator.problems(path, row_width(expand(prepared.features)))
            return problems or _trainer_problems(prepared, target, path)
        if isinstance(self.estimator, Trainer):
            name = type(self.estimator).__name__
            expected = f"sml.Retrained({name}(...), window=...)"
            return [Problem(path, expected, "the trainer alone")]
        if isinstance(self.estimator, Model):
            return _learner_problems(prepared, target, path)
        if not isinstance(self.estimator, base.Estimator):
            return [
                Problem(
                    path,
                    "an estimator of river, a stream_ml.Learner or a stream_ml.Retrained",
                    _brief(self.estimator),
                )
            ]
        # What has the wrong kind is replaced, not seeded; what cannot be copied is not tried.
        return (
            _misfits(self.estimator, target, path)
            or _irreproducible(prepared, path)
            or prepared._strangers(target, path)  # noqa: SLF001 - it is one of ours
        )

    def _strangers(self, target: Target, path: str) -> list[Problem]:
        """Whether the estimator, and those in it, know the target's labels for their own."""
        learner, labels = self.fresh(), _labels(target)
        for features, label in _trial(target, self.features):
            try:
                answer(learner, target, features)
                learn(learner, target, features, label)
            except Exception as error:  # noqa: BLE001 - an estimator may raise anything
                if not _is_about_labels(error, labels):
                    return []  # what it makes of features shows when there are some
                actual = f"{_brief(self.estimator)}, which raised {type(error).__name__}: {error}"
                return [Problem(path, f"an estimator that takes {_label_names(target)}", actual)]
        return []


def _labels(target: Target) -> tuple[Any, ...]:
    labels: dict[str, tuple[Any, ...]] = {
        "binary": (False, True),
        "multiclass": target.classes,
        "regression": (0.0, 1.5),
    }
    return labels[target.kind]


def _trial(target: Target, names: tuple[str, ...]) -> list[tuple[dict[str, float], LabelValue]]:
    """Examples of made-up numbers, in which every label comes, up to twelve of them."""
    labels, names = _labels(target), trial_names(names)
    return [
        (
            {name: float((number + i) % 3) for i, name in enumerate(names)},
            labels[number % len(labels)],
        )
        for number in range(TRIAL_EXAMPLES)
    ]


def _learner_problems(recipe: Recipe, target: Target, path: str) -> list[Problem]:
    """What is wrong with a `Learner`: it is tried, written down and read back."""
    name, examples = _brief(recipe.estimator), _trial(target, recipe.features)
    try:
        first, second = recipe.fresh(), recipe.fresh()
        for number, (features, label) in enumerate(examples):
            for learner in (first, second):
                if not number % ASK_EVERY:
                    answer(learner, target, features)
                learn(learner, target, features, label)
        texts = (recipe.description, recipe.library)
        data, other_data = recipe.dump(first), recipe.dump(second)
        copy_of_first = recipe.load(data)
        questions = [features for features, _ in examples[::ASK_EVERY]]
        answers = [answer(first, target, features) for features in questions]
        new_answers = [answer(copy_of_first, target, features) for features in questions]
        data_after_answers = recipe.dump(first)
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything
        return [Problem(path, f"a learner for {target}", f"{name}, which raised {_cause(error)}")]
    if [type(text) for text in texts] not in ([str, str], [str, type(None)]):
        return [Problem(path, "a learner whose `description` and `library` are texts", name)]
    if data != other_data:
        expected = "a learner that two equal histories leave with equal bytes (give it a seed)"
        return [Problem(path, expected, name)]
    if data_after_answers != data:
        return [Problem(path, "a learner that `predict_one` does not change", name)]
    if recipe.dump(copy_of_first) != data or answers != new_answers:
        return [Problem(path, "a learner that is what it was when it is read back", name)]
    return []


def _trainer_problems(recipe: Recipe, target: Target, path: str) -> list[Problem]:
    """What is wrong with a trainer: it is tried, its model written down and read back."""
    name, examples = _brief(recipe.estimator.trainer), _trial(target, recipe.features)
    try:
        data, other_data = (trial(recipe.fresh(), target, examples) for _ in range(2))
        model = recipe.load(data)
        questions = [features for features, _ in examples[::ASK_EVERY]]
        answers = [answer(model, target, features) for features in questions]
        other_model = recipe.load(model.dump())
        new_answers = [answer(other_model, target, features) for features in questions]
        texts = (recipe.description, recipe.library)
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything
        return [Problem(path, f"a trainer for {target}", f"{name}, which raised {_cause(error)}")]
    if [type(text) for text in texts] not in ([str, str], [str, type(None)]):
        return [Problem(path, "a trainer whose `description` and `library` are texts", name)]
    if data != other_data:
        expected = "a trainer that makes equal bytes of equal examples and seeds"
        return [Problem(path, expected, name)]
    if answers != new_answers:
        return [Problem(path, "a trainer whose model is what it was when it is read back", name)]
    return []


# The extra that brings a package which a learner of ours imports where it works.
_EXTRAS = {"onnxruntime": "onnx", "sklearn": "sklearn", "torch": "torch"}


def _cause(error: Exception) -> str:
    """An error in brief; of a package that is not installed, with the way out."""
    package = error.name if isinstance(error, ModuleNotFoundError) else None
    extra = _EXTRAS.get(package or "")
    way_out = "" if extra is None else f"; way out: pip install 'stream_ml[{extra}]'"
    return f"{brief_error(error)}{way_out}"


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
    if isinstance(estimator, base.MultiTargetRegressor | base.MultiLabelClassifier):
        return [Problem(path, "an estimator of one label at a time", _brief(estimator))]
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


def _irreproducible(recipe: Recipe, path: str) -> list[Problem]:
    estimator = recipe.estimator
    try:
        recipe.load(recipe.dump(estimator))
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
    if isinstance(value, base.Base | Model):
        return _class_name(type(value))
    return f"the class {_class_name(value)}" if isinstance(value, type) else repr(value)[:80]
