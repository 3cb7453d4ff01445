"""An estimator's own labels meet ours: what a declaration accepts learns them, and says them."""

from __future__ import annotations

import inspect
import random
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from river import api, base, ensemble, imblearn, linear_model, multiclass, preprocessing, tree

from stream_ml.models.fast import fast_learner, fast_predictor
from stream_ml.models.recipes import Recipe, Target, answer, learn

if TYPE_CHECKING:
    from collections.abc import Iterator

TWO = Target.multiclass("ham", "spam")
TASKS = [Target.binary(), TWO, Target.multiclass("a", "b", "c")]
LABELS: dict[Target, tuple[Any, ...]] = {
    target: target.classes or (False, True) for target in TASKS
}
assert api, "all of river's classes are loaded with it"


def classes() -> Iterator[type]:
    """Every classifier that river has, wherever."""
    rest = [base.Classifier]
    seen = set()
    while rest:
        found = rest.pop()
        if found in seen:
            continue
        seen.add(found)
        rest += found.__subclasses__()
        if found.__module__.startswith("river.") and not inspect.isabstract(found):
            yield found


def estimators() -> Iterator[Any]:
    """Each of them with the parameters that river tries it with, and a seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in sorted(classes(), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"):
            tried = getattr(kind, "_unit_test_params", lambda: [{}])
            for given in tried():
                seeded = {"seed": 1} if "seed" in inspect.signature(kind).parameters else {}
                try:
                    estimator = kind(**given, **seeded)
                except (TypeError, RuntimeError):
                    continue  # it cannot be made, so nobody declares it
                yield estimator


def lessons(labels: tuple[Any, ...], count: int = 120) -> Iterator[tuple[dict[str, float], Any]]:
    """Features that tell the label, mostly."""
    world = random.Random(1)
    for _ in range(count):
        number = world.randrange(len(labels))
        x = {"x": abs(number + world.gauss(0, 0.5)), "y": float(world.randrange(3))}
        yield x, labels[number]


@pytest.mark.parametrize("target", TASKS, ids=str)
@pytest.mark.parametrize("estimator", list(estimators()), ids=lambda e: type(e).__name__)
def test_what_is_accepted_learns_the_labels_and_says_them(estimator: Any, target: Target) -> None:
    """Every classifier of river is refused for a kind of label, or works with it."""
    recipe = Recipe("line", estimator)
    if recipe.check(target, "$.m"):
        return
    learner = recipe.fresh()
    for features, label in lessons(LABELS[target]):
        said = answer(learner, target, features)
        assert said is None or isinstance(said, float) or set(said) <= set(target.classes)
        learn(learner, target, features, label)


def scaled(model: Any) -> Any:
    """A model behind a scaler, as a pipeline would declare it."""
    return preprocessing.StandardScaler() | model


BINARY_ONLY = {
    "logistic": scaled(linear_model.LogisticRegression()),
    "perceptron": linear_model.Perceptron(),
    "passive-aggressive": linear_model.PAClassifier(),
    "alma": linear_model.ALMAClassifier(),
    "stochastic gradient tree": tree.SGTClassifier(),
    "boosted": ensemble.AdaBoostClassifier(linear_model.LogisticRegression(), 3, seed=1),
    "sampled": imblearn.RandomUnderSampler(
        linear_model.LogisticRegression(), {False: 0.5, True: 0.5}, seed=1
    ),
}


@pytest.mark.parametrize("name", BINARY_ONLY)
def test_two_classes_are_learned_as_true_and_false_are(name: str) -> None:
    """A classifier of True and False is, after labels of two names, what it is after bools."""
    recipe = Recipe("line", BINARY_ONLY[name])
    assert [] == recipe.check(TWO, "$.m")
    named, plain = recipe.fresh(), recipe.fresh()
    for number, (features, label) in enumerate(lessons((False, True))):
        said, expected = answer(named, TWO, features), answer(plain, Target.binary(), features)
        assert expected is None or isinstance(said, dict)
        if isinstance(said, dict):
            assert (expected, 1.0) == (said.get("spam", 0.0), pytest.approx(sum(said.values())))
        # From time to time anew: what teaches quickly is made when something was learned.
        teach = fast_learner(named, TWO) if number % 30 == 9 else None
        (teach or (lambda x, y: learn(named, TWO, x, y)))(features, ("ham", "spam")[label])
        learn(plain, Target.binary(), features, label)

    asked = fast_predictor(named, TWO, [features])
    assert answer(named, TWO, features) == asked(features)


def test_a_sampler_of_other_labels_is_refused() -> None:
    """What is told which labels there are is told those that it will be taught."""
    sampler = imblearn.RandomUnderSampler(
        linear_model.LogisticRegression(), {"ham": 0.5, "spam": 0.5}, seed=1
    )
    [problem] = Recipe("line", sampler).check(TWO, "$.m")

    assert (
        "an estimator that takes 'ham' and 'spam' (or, knowing only two, False and True) for labels"
    ) == problem.expected
    assert problem.actual.endswith("which raised KeyError: False")


@pytest.mark.parametrize("target", [TWO, Target.multiclass("1", "2")], ids=str)
def test_what_has_a_part_that_knows_no_names_is_refused(target: Target) -> None:
    """A part that would raise at a name, or take every name for True, is found when declared."""
    stack = ensemble.StackingClassifier(
        [linear_model.LogisticRegression(), tree.HoeffdingTreeClassifier()],
        meta_classifier=tree.HoeffdingTreeClassifier(),
    )
    [problem] = Recipe("line", stack).check(target, "$.m")

    assert f"parts that each take {target} for a label" == problem.expected
    assert "linear_model.LogisticRegression in ensemble.StackingClassifier" == problem.actual


def test_one_against_the_rest_takes_two_names_as_they_are() -> None:
    """What knows any labels is taught ours by name."""
    learner = Recipe("l", multiclass.OneVsRestClassifier(linear_model.LogisticRegression())).fresh()
    for features, label in lessons(TWO.classes):
        learn(learner, TWO, features, label)

    assert {"ham", "spam"} == set(learner.classifiers)
