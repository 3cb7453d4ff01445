"""Learners and seeded examples that the tests of `stream_ml.models` share."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

from river import (
    compose,
    drift,
    dummy,
    ensemble,
    feature_selection,
    forest,
    imblearn,
    linear_model,
    multiclass,
    naive_bayes,
    neighbors,
    optim,
    preprocessing,
    rules,
    stats,
    tree,
)

from stream_ml.models.digest import digest
from stream_ml.models.recipes import Recipe, Target, answer, learn

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARY = Target.binary()
COLOURS = Target.multiclass("red", "green", "blue")
REGRESSION = Target.regression()

scale = preprocessing.StandardScaler

# name -> (target, estimator): every way in which river keeps state that we know to differ.
LEARNERS: dict[str, tuple[Target, Any]] = {
    "logistic": (BINARY, scale() | linear_model.LogisticRegression()),
    "adagrad": (BINARY, scale() | linear_model.LogisticRegression(optim.AdaGrad(0.02))),
    "passive_aggressive": (BINARY, linear_model.PAClassifier()),
    "alma": (BINARY, linear_model.ALMAClassifier()),
    "tree": (BINARY, tree.HoeffdingTreeClassifier(grace_period=30, delta=0.1)),
    "adaptive_tree": (BINARY, tree.HoeffdingAdaptiveTreeClassifier(grace_period=30, seed=1)),
    "gradient_tree": (BINARY, tree.SGTClassifier(grace_period=50)),
    "forest": (BINARY, forest.ARFClassifier(3, seed=1)),
    "mondrian": (BINARY, forest.AMFClassifier(2, seed=1)),
    "bayes": (BINARY, naive_bayes.GaussianNB()),
    "bagging": (BINARY, ensemble.LeveragingBaggingClassifier(linear_model.Perceptron(), 2, seed=1)),
    "boosting": (BINARY, ensemble.AdaBoostClassifier(naive_bayes.GaussianNB(), 2, seed=1)),
    "patches": (BINARY, ensemble.SRPClassifier(n_models=2, seed=1)),
    "drift": (BINARY, drift.DriftRetrainingClassifier(naive_bayes.GaussianNB())),
    "sampler": (
        BINARY,
        imblearn.RandomUnderSampler(linear_model.Perceptron(), {True: 0.5, False: 0.5}, seed=1),
    ),
    "neighbours": (BINARY, neighbors.KNNClassifier(engine=neighbors.SWINN(maxlen=60, seed=1))),
    "prior": (BINARY, dummy.PriorClassifier()),
    "selected": (
        BINARY,
        (compose.Select("a", "b", "c") + (compose.Discard("a") | preprocessing.RobustScaler()))
        | feature_selection.SelectKBest(stats.PearsonCorr(), k=4)
        | linear_model.LogisticRegression(),
    ),
    "softmax": (COLOURS, scale() | linear_model.SoftmaxRegression()),
    "one_vs_rest": (COLOURS, multiclass.OneVsRestClassifier(linear_model.LogisticRegression())),
    "colour_tree": (COLOURS, tree.HoeffdingTreeClassifier(grace_period=30, delta=0.1)),
    "linear": (REGRESSION, scale() | linear_model.LinearRegression()),
    "scaled_target": (
        REGRESSION,
        preprocessing.TargetStandardScaler(linear_model.LinearRegression()),
    ),
    "regression_tree": (REGRESSION, tree.HoeffdingTreeRegressor(grace_period=50)),
    "regression_forest": (REGRESSION, forest.ARFRegressor(2, seed=1)),
    "rules": (REGRESSION, rules.AMRules(n_min=50)),
}

FEATURES = ("a", "b", "c", "d", "e")


def examples(
    target: Target, count: int = 240, seed: int = 7
) -> Iterator[tuple[dict[str, float], Any]]:
    """Features and labels that a learner can learn something from; names are fresh strings."""
    rnd = random.Random(seed)
    for _ in range(count):
        features = {"".join(name): rnd.gauss(0, 1) for name in FEATURES}
        score = features["a"] - 2 * features["b"] * (features["c"] > 0) + rnd.gauss(0, 0.3)
        label: Any = score
        if target is BINARY:
            label = score > 0
        elif target is COLOURS:
            label = "red" if score > 1 else "green" if score > -1 else "blue"
        yield features, label


def recipe(name: str) -> Recipe:
    """The learner of that name, as a recipe."""
    return Recipe(name, LEARNERS[name][1])


def trained(name: str, count: int = 240) -> Any:
    """A learner that was asked about, and then taught, so many examples."""
    target = LEARNERS[name][0]
    model = recipe(name).fresh()
    for features, label in examples(target, count):
        answer(model, target, features)
        learn(model, target, features, label)
    return model


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name} {digest(trained(name))}\n" for name in LEARNERS))
