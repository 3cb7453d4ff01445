"""Recipes: asking and teaching river's estimators, and what is wrong with a declared one."""

from __future__ import annotations

import math
from typing import Any

import pytest
from learners import BINARY, COLOURS, LEARNERS, REGRESSION, examples, recipe, trained
from river import (
    base,
    cluster,
    compose,
    ensemble,
    facto,
    feature_extraction,
    forest,
    linear_model,
    metrics,
    multiclass,
    neighbors,
    preprocessing,
    rules,
    tree,
)

from stream_ml.models.digest import digest
from stream_ml.models.pickles import dumps
from stream_ml.models.recipes import BadAnswer, Recipe, Target, answer, describe, learn


class Says(base.Classifier):
    """A classifier that says what it is told to."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def learn_one(self, x: Any, y: Any) -> None:
        """Learn nothing."""

    def predict_proba_one(self, _: Any) -> Any:
        """Give what it was told to."""
        return self.said

    def predict_one(self, _: Any) -> Any:
        """Give what it was told to."""
        return self.said


class OnlyNames(Says):
    """A classifier without probabilities."""

    def predict_proba_one(self, _: Any) -> Any:
        """Refuse, as river's default does."""
        raise NotImplementedError


@pytest.mark.parametrize(
    ("model", "target", "expected"),
    [
        (Says({}), BINARY, None),
        (Says(None), BINARY, None),
        (Says({False: 1.0}), BINARY, 0.0),
        (Says({False: 0.25, True: 0.75}), BINARY, 0.75),
        (Says({True: 1.0 + 1e-15}), BINARY, 1.0),
        (Says({True: -1e-15}), BINARY, 0.0),
        (Says({}), COLOURS, None),
        (Says({"green": 0.5, "blue": 0.5}), COLOURS, {"green": 0.5, "blue": 0.5}),
        (Says(None), REGRESSION, None),
        (Says(3), REGRESSION, 3.0),
        (OnlyNames(None), BINARY, None),
        (OnlyNames(True), BINARY, 1.0),
        (OnlyNames(False), BINARY, 0.0),
        (OnlyNames("red"), COLOURS, {"red": 1.0}),
    ],
)
def test_answers(model: Any, target: Target, expected: Any) -> None:
    """Whatever tongue an estimator answers in, the answer is one of ours."""
    found = answer(model, target, {"a": 1.0})

    assert expected == found
    assert type(expected) is type(found)


@pytest.mark.parametrize(
    ("said", "target"),
    [
        ({True: math.nan}, BINARY),
        ({True: 1.1}, BINARY),
        ({True: -0.1}, BINARY),
        ({True: "high"}, BINARY),
        (0.5, BINARY),
        (({True: 0.5}, True), BINARY),
        ({"red": math.inf}, COLOURS),
        (math.nan, REGRESSION),
        (math.inf, REGRESSION),
        ("much", REGRESSION),
        (10**400, REGRESSION),
    ],
)
def test_bad_answers(said: Any, target: Target) -> None:
    """What is no answer to the target is refused, never passed on."""
    with pytest.raises(BadAnswer):
        answer(Says(said), target, {"a": 1.0})


@pytest.mark.parametrize("name", LEARNERS)
def test_as_river_alone(name: str) -> None:
    """Asked and taught through here, a learner says what it says in river's own hands."""
    target, estimator = LEARNERS[name]
    ours, alone = recipe(name).fresh(), estimator.clone()
    for features, label in examples(target):
        if target is REGRESSION:
            expected = alone.predict_one(features)
        else:
            expected = alone.predict_proba_one(features) or None
            if expected and target is BINARY:
                expected = expected.get(True, 0.0)
        alone.learn_one(features, label)
        found = answer(ours, target, features)
        learn(ours, target, features, label)

        assert expected == found


@pytest.mark.parametrize("name", LEARNERS)
def test_asking_teaches_nothing(name: str) -> None:
    """A trained learner is the same to the last bit after it was asked, generators included."""
    target, _ = LEARNERS[name]
    model = trained(name)
    before = digest(model, generators=True)
    for features, _ in examples(target, 20, seed=9):
        answer(model, target, features)

    assert before == digest(model, generators=True)


def test_shares_are_in_the_order_of_the_model() -> None:
    """Of equally likely classes a model means the first, and the answer keeps it the first."""
    shares = answer(Says({"blue": 0.5, "red": 0.5}), COLOURS, {"a": 1.0})

    assert isinstance(shares, dict)
    assert [("blue", 0.5), ("red", 0.5)] == list(shares.items())


def test_what_goes_through_sets_of_texts_has_them_sorted() -> None:
    """A confusion matrix lists its classes, and a selection gives its features, in one order."""
    matrix = metrics.ConfusionMatrix()
    for name in ("red", "green", "blue", "amber", "cyan"):
        matrix.update(name, "red")
    chosen = compose.Select("a", "b", "c", "d").transform_one(dict.fromkeys("dbeac", 0.5))

    assert ["amber", "blue", "cyan", "green", "red"] == matrix.classes
    assert ["d", "b", "a", "c"] == list(chosen)
    with pytest.raises(KeyError, match="f"):
        compose.Select("a", "f").transform_one({"a": 1.0})


@pytest.mark.parametrize("name", LEARNERS)
def test_asking_leaves_features_alone(name: str) -> None:
    """Neither asking nor teaching alters the features that were given."""
    target, _ = LEARNERS[name]
    model = recipe(name).fresh()
    for features, label in examples(target, 60):
        before = dict(features)
        answer(model, target, features)
        learn(model, target, features, label)

        assert before == features


def test_labels_of_another_task() -> None:
    """A label of another task is a mistake of ours, and stops the process."""
    with pytest.raises(AssertionError, match="binary task cannot be 1"):
        learn(recipe("logistic").fresh(), BINARY, {"a": 1.0}, 1)


def test_an_estimator_of_several_labels_is_refused() -> None:
    """It would fail at the first example, for it is taught one number at a time."""
    (problem,) = Recipe("line", tree.ISOUPTreeRegressor()).check(Target("regression"), "models.m")

    assert problem.expected == "an estimator of one label at a time"


class TestRecipe:
    """What a line starts as."""

    @pytest.mark.parametrize("name", LEARNERS)
    def test_fresh(self, name: str) -> None:
        """Fresh learners are equal, generators included, and share nothing."""
        target, _ = LEARNERS[name]
        declared = recipe(name)
        one, other = declared.fresh(), declared.fresh()
        before = digest(other, generators=True)

        assert digest(one, generators=True) == before
        for features, label in examples(target, 60):
            learn(one, target, features, label)
        assert digest(other, generators=True) == before

    def test_frozen(self) -> None:
        """What happens to the estimator that was given changes nothing in the recipe."""
        estimator = linear_model.LogisticRegression()
        recipe = Recipe("line", estimator)
        estimator.learn_one({"a": 1.0}, True)

        assert digest(linear_model.LogisticRegression()) == digest(recipe.fresh())

    @pytest.mark.parametrize("name", sorted(LEARNERS.keys() - {"rules"}))
    def test_check_of_a_good_one(self, name: str) -> None:
        """Nothing is wrong with a learner that fits its target."""
        assert recipe(name).check(LEARNERS[name][0], "$.champion") == []

    @pytest.mark.parametrize(
        ("estimator", "target", "message"),
        [
            (
                None,
                BINARY,
                ("$.m: expected an estimator of river, a stream_ml.Learner or a "
                "stream_ml.Retrained, given None"),
            ),
            (
                linear_model.PAClassifier,
                BINARY,
                ("$.m: expected an estimator of river, a stream_ml.Learner or a "
                "stream_ml.Retrained, given the class linear_model.PAClassifier"),
            ),
            (
                tree.HoeffdingTreeRegressor,
                REGRESSION,
                ("$.m: expected an estimator of river, a stream_ml.Learner or a "
                "stream_ml.Retrained, given the class tree.HoeffdingTreeRegressor"),
            ),
            (
                multiclass.OneVsRestClassifier(linear_model.Perceptron()),
                REGRESSION,
                ("$.m: expected a regressor, for a regression label, "
                "given multiclass.OneVsRestClassifier"),
            ),
            (
                preprocessing.StandardScaler(),
                BINARY,
                ("$.m: expected a classifier, for a binary label, "
                "given preprocessing.StandardScaler"),
            ),
            (
                cluster.KMeans(seed=1),
                BINARY,
                ("$.m: expected a classifier, for a binary label, "
                "given cluster.KMeans"),
            ),
            (
                linear_model.Perceptron(),
                COLOURS,
                ("$.m: expected a classifier of more than two classes, such as "
                "multiclass.OneVsRestClassifier, "
                "given linear_model.Perceptron"),
            ),
            (
                forest.ARFClassifier(3),
                BINARY,
                ("$.m: expected a seed, so that a replay gives the same model, "
                "given none for ARFClassifier"),
            ),
            (
                ensemble.BaggingClassifier(linear_model.Perceptron()),
                BINARY,
                ("$.m: expected a seed, so that a replay gives the same model, "
                "given none for BaggingClassifier"),
            ),
            (
                neighbors.KNNClassifier(engine=neighbors.SWINN(maxlen=50)),
                BINARY,
                "$.m: expected a seed, so that a replay gives the same model, given none for SWINN",
            ),
            (
                neighbors.KNNClassifier(),
                BINARY,
                ("$.m: expected neighbors.LazySearch, or a SWINN whose maxlen is less than its "
                "warm_up and which therefore makes no graph, given neighbors.SWINN"),
            ),
            (
                feature_extraction.RandomTreesEmbedding(seed=1) | linear_model.Perceptron(),
                BINARY,
                ("$.m: expected feature_extraction.RBFSampler, which can be written and read "
                "back, given feature_extraction.RandomTreesEmbedding"),
            ),
            (
                multiclass.OneVsOneClassifier(linear_model.Perceptron()),
                COLOURS,
                ("$.m: expected multiclass.OneVsRestClassifier, which learns the same in every "
                "process, given multiclass.OneVsOneClassifier"),
            ),
            (
                preprocessing.StandardScaler() | rules.AMRules(),
                REGRESSION,
                ("$.m: expected tree.HoeffdingTreeRegressor, which learns the same in every "
                "process, given rules.AMRules"),
            ),
            *(
                (
                    estimator,
                    BINARY if "Classifier" in type(estimator).__name__ else REGRESSION,
                    ("$.m: expected an estimator that answers alike, whatever it was asked "
                    f"before, given facto.{type(estimator).__name__}"),
                )
                for estimator in (
                    facto.FMClassifier(seed=1),
                    facto.FFMClassifier(seed=1),
                    facto.FwFMRegressor(seed=1),
                    facto.HOFMRegressor(seed=1),
                )
            ),
        ],
        ids=lambda value: type(value).__name__,
    )  # fmt: skip
    def test_check(self, estimator: Any, target: Target, message: str) -> None:
        """Each mistake in a declared learner is told with what was expected and what given."""
        assert [message] == list(map(str, Recipe("line", estimator).check(target, "$.m")))

    def test_check_of_a_trained_one(self) -> None:
        """A learner that has learned before is told apart from an untrained one."""
        estimator = linear_model.LogisticRegression()
        estimator.learn_one({"a": 1.0}, True)
        (problem,) = Recipe("line", estimator).check(BINARY, "$.m")

        assert problem.expected == "an estimator that has learned nothing"

    def test_check_of_a_function(self) -> None:
        """A learner that no snapshot can hold is found when it is declared."""
        estimator = compose.FuncTransformer(lambda x: x) | linear_model.LogisticRegression()
        (problem,) = Recipe("line", estimator).check(BINARY, "$.m")

        assert problem.expected == "an estimator that a snapshot can hold"
        assert "a function of your own" in problem.actual

    def test_check_of_a_class_of_ones_own(self) -> None:
        """An estimator written by the user is taken, by its name and parameters."""
        recipe = Recipe("line", Says({}))

        assert [] == recipe.check(BINARY, "$.m")
        assert "test_recipes.Says(said={})" == recipe.description

    def test_description(self) -> None:
        """A recipe is described by all its parameters, equal for equal recipes."""
        one = preprocessing.StandardScaler() | linear_model.Perceptron(l2=0.1)
        other = preprocessing.StandardScaler() | linear_model.Perceptron(l2=0.2)

        assert Recipe("line", one).description == (
            "preprocessing.StandardScaler(with_std=True, window_size=None) | "
            "linear_model.Perceptron(l2=0.1, clip_gradient=1000000000000.0, "
            "initializer=optim.Zeros())"
        )
        assert describe(one) != describe(other)

    @pytest.mark.parametrize("name", LEARNERS)
    def test_description_is_canonical(self, name: str) -> None:
        """A description is the same of a copy, and holds no address."""
        found = recipe(name).description

        assert found == describe(LEARNERS[name][1].clone())
        assert " at 0x" not in found

    def test_pickle_size_of_bayes(self) -> None:
        """No generator of river's is written per feature: a Gaussian takes bytes, not kilobytes."""
        assert len(dumps(trained("bayes"))) < 2_000
