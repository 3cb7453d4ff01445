"""Answers of every learner that a declaration accepts, for processes to be compared.

`python answers.py straight` teaches each without a pause, `restored` writes each and reads it
back at a point of its own on the way. A line for each: name, target, digest of all that it said.
"""

from __future__ import annotations

import hashlib
import random
import sys
import warnings
from typing import TYPE_CHECKING, Any

import river.api
from river import (
    bandit,
    compose,
    drift,
    dummy,
    ensemble,
    feature_extraction,
    forest,
    linear_model,
    metrics,
    model_selection,
    naive_bayes,
    neighbors,
    preprocessing,
    tree,
)
from test_labels import estimators

from stream_ml.models.digest import digest
from stream_ml.models.fast import fast_learner
from stream_ml.models.pickles import dumps, loads
from stream_ml.models.recipes import Recipe, Target, answer
from tests.torture.declarations import _ROOMS
from tests.torture.recipes import CLASSIFIERS, REGRESSORS

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = tuple(
    "ash birch cedar ebony fir gum hazel ivy juniper kauri larch maple".split()  # noqa: SIM905
)
TASKS = [
    Target.binary(),
    Target.multiclass(*NAMES[:2]),
    Target.multiclass(*NAMES[:5]),
    Target.multiclass(*NAMES),
    Target.regression(),
]
EXAMPLES = 90

Bayes = naive_bayes.GaussianNB
Stump = tree.HoeffdingTreeClassifier


def adaptive() -> Any:
    """A tree that knows its classes as a set."""
    return tree.HoeffdingAdaptiveTreeClassifier(grace_period=10, seed=1)


def nearest(**given: Any) -> Any:
    """A learner by neighbours, which knows its classes as a set."""
    return neighbors.KNNClassifier(engine=neighbors.LazySearch(window_size=25), **given)


def mixed(metric: Any) -> Any:
    """A choice between learners by a metric, which may go through a set of classes."""
    models = [Bayes(), Stump(grace_period=10), nearest()]
    return model_selection.BanditClassifier(models, metric, bandit.UCB(delta=1, burn_in=5, seed=1))


def mondrian() -> Any:
    """A forest that knows its classes as a set."""
    return forest.AMFClassifier(n_estimators=2, seed=1)


# What goes through sets, within what: each of them showed the order of the process.
WITHIN = [
    nearest(),
    nearest(softmax=True),
    nearest(weighted=False, n_neighbors=3),
    mondrian(),
    adaptive(),
    ensemble.BaggingClassifier(nearest(), n_models=2, seed=1),
    ensemble.ADWINBaggingClassifier(adaptive(), n_models=2, seed=1),
    ensemble.AdaBoostClassifier(mondrian(), n_models=2, seed=1),
    ensemble.SRPClassifier(adaptive(), n_models=2, seed=1),
    ensemble.VotingClassifier([nearest(), mondrian(), Stump()]),
    ensemble.VotingClassifier([adaptive(), dummy.NoChangeClassifier()], use_probabilities=True),
    ensemble.StackingClassifier([nearest(), mondrian()], meta_classifier=Bayes()),
    ensemble.StackingClassifier(
        [dummy.NoChangeClassifier(), adaptive()],
        meta_classifier=linear_model.SoftmaxRegression(),
    ),
    drift.DriftRetrainingClassifier(nearest()),
    drift.DriftRetrainingClassifier(adaptive()),
    preprocessing.StandardScaler() | mondrian(),
    *map(
        mixed, [metrics.Accuracy(), metrics.MacroF1(), metrics.WeightedF1(), metrics.CohenKappa()]
    ),
    mixed(metrics.BalancedAccuracy()),
    mixed(metrics.MacroJaccard()),
    mixed(metrics.GeometricMean()),
    *(
        compose.Select(*"abcde") | preprocessing.StandardScaler() | each
        for each in (
            linear_model.SoftmaxRegression(),
            linear_model.LogisticRegression(),
            linear_model.LinearRegression(),
            linear_model.PARegressor(),
        )
    ),
    (compose.Select("a", "d", "e") + compose.Select("b", "c")) | linear_model.LogisticRegression(),
    feature_extraction.RBFSampler(n_components=3, seed=1) | linear_model.LogisticRegression(),
    feature_extraction.PolynomialExtender() | linear_model.SoftmaxRegression(),
    preprocessing.OneHotEncoder() | linear_model.LogisticRegression(),
]


def lines() -> Iterator[Any]:
    """Every estimator that could be a line: river's own, and those that the torture draws."""
    names = {room: getattr(river.api, room) for room in _ROOMS}
    yield from WITHIN
    yield from estimators()
    for recipe in CLASSIFIERS + REGRESSORS:
        yield eval(recipe, names)  # noqa: S307 - our own list


def lessons(target: Target, world: random.Random) -> Iterator[tuple[dict[str, float], Any]]:
    """Features that tell the label, mostly, and now and then are just alike."""
    labels: Any = target.classes or (False, True)
    for _ in range(EXAMPLES):
        # Few classes at first, the others later, in any order.
        number = world.choice([world.randrange(len(labels)), world.randrange(len(labels)) // 2])
        x = {name: float(round(number + world.gauss(0, 1))) for name in "abc"}
        x |= {"d": world.random(), "e": 0.1 * world.randrange(3)}
        yield (
            x,
            0.3 * number + 0.1 * world.random() if target.kind == "regression" else labels[number],
        )


def said(recipe: Recipe, target: Target, pause: int) -> str:
    """A digest of all answers, with their order, and of the learner in the end."""
    learner, told = recipe.fresh(), hashlib.sha256()
    teach = fast_learner(learner, target)
    for number, (features, label) in enumerate(lessons(target, random.Random(target.kind))):
        if number == pause:
            learner = loads(dumps(learner))
            teach = fast_learner(learner, target)
        try:
            told.update(repr(answer(learner, target, features)).encode())
            teach(features, label)
        except Exception as error:  # noqa: BLE001 - which ends the line, in every process alike
            told.update(type(error).__name__.encode())
            break
    return f"{told.hexdigest()[:16]} {digest(learner)}"


def main(pauses: bool) -> None:
    """Print a line for each estimator and each target that it is accepted for."""
    warnings.simplefilter("ignore")
    print("order", *set(NAMES))  # noqa: T201
    for number, estimator in enumerate(lines()):
        for target in TASKS:
            recipe = Recipe("line", estimator)
            if recipe.check(target, "$.m", tuple("abcde")):
                continue
            pause = random.Random(number).randrange(1, EXAMPLES) if pauses else -1
            print(number, type(estimator).__name__, target, said(recipe, target, pause))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1] == "restored")
