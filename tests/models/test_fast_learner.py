"""Teaching: what it leaves of a learner is what river leaves, to the last bit of its state."""

from __future__ import annotations

import copy
import math
import random
from functools import partial
from typing import Any

import pytest
from hypothesis import example as explicit
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import BINARY, COLOURS, LEARNERS, REGRESSION, examples, recipe
from river import compose, linear_model, optim, preprocessing, tree

from stream_ml.models import fast, pickles
from stream_ml.models.digest import digest
from stream_ml.models.fast import fast_learner
from stream_ml.models.recipes import Target, answer, learn

scale = preprocessing.StandardScaler
logistic = linear_model.LogisticRegression
hoeffding = partial(tree.HoeffdingTreeClassifier, grace_period=30, delta=0.1, tau=0.3)

# What has a quicker form, with every parameter that the form reads.
QUICK: dict[str, tuple[Target, Any]] = {
    "sgd": (BINARY, logistic()),
    "scaled sgd": (BINARY, scale() | logistic(optim.SGD(optim.schedulers.InverseScaling(0.1)))),
    "adagrad": (BINARY, logistic(optim.AdaGrad(0.1, eps=1e-3))),
    "scaled adagrad": (
        BINARY,
        scale() | logistic(optim.AdaGrad(optim.schedulers.InverseScaling(0.5)), intercept_lr=0.2),
    ),
    "clipped": (BINARY, scale() | logistic(clip_gradient=0.1, intercept_init=2)),
    "weighed": (BINARY, scale() | logistic(loss=optim.losses.Log(weight_pos=5))),
    "hinge": (BINARY, scale() | logistic(optim.AdaGrad(), optim.losses.Hinge())),
    "drawn": (BINARY, scale() | logistic(initializer=optim.initializers.Normal(seed=1))),
    "linear": (REGRESSION, scale() | linear_model.LinearRegression()),
    "tree": (BINARY, hoeffding()),
    "shallow tree": (BINARY, hoeffding(max_depth=1, memory_estimate_period=50)),
    "scaled tree": (BINARY, scale() | hoeffding(split_criterion="gini")),
    "colour tree": (COLOURS, hoeffding(remove_poor_attrs=True, merit_preprune=False)),
    "nominal tree": (BINARY, hoeffding(nominal_attributes=["int 1", "bool 2"])),
    "bounded tree": (BINARY, hoeffding(max_size=0.05, memory_estimate_period=40)),
}
# What has none: something in it is not what the forms know.
PLAIN: dict[str, tuple[Target, Any]] = {
    "l1": (BINARY, logistic(l1=0.01)),
    "l2": (BINARY, logistic(l2=0.01)),
    "adam": (BINARY, logistic(optim.Adam())),
    "perceptron": (BINARY, linear_model.Perceptron()),
    "window": (BINARY, scale(window_size=10) | logistic()),
    "no deviations": (BINARY, scale(with_std=False) | logistic()),
    "another scaler": (BINARY, preprocessing.MinMaxScaler() | logistic()),
    "two steps before": (BINARY, compose.Select("a") | scale() | logistic()),
    "adaptive tree": (BINARY, tree.HoeffdingAdaptiveTreeClassifier(grace_period=30, seed=1)),
}
LABELS: dict[str, Any] = {
    "binary": lambda score: score > 0,
    "multiclass": lambda score: "red" if score > 1 else "green" if score > -1 else "blue",
    "regression": lambda score: score,
}


def draw(rand: random.Random, kind: str) -> Any:
    """A value of a feature of this kind."""
    return {
        "gauss": lambda: rand.gauss(0, 1),
        "offset": lambda: 1e9 + rand.gauss(0, 1),
        "constant": lambda: 0.1,
        "signed zero": lambda: rand.choice([0.0, -0.0]),
        "huge": lambda: rand.choice([-1, 1]) * 10.0 ** rand.uniform(-300, 200),
        "leap": lambda: 1e153 if rand.random() < 0.02 else rand.gauss(0, 1e-3),
        "int": lambda: rand.randrange(24),
        "bool": lambda: rand.random() < 0.5,
        "rarely": lambda: float(rand.random() < 0.02),
    }[kind]()


KINDS = ("gauss", "offset", "constant", "signed zero", "huge", "leap", "int", "bool", "rarely")


class World:
    """Examples of a truth of its own, with features that are missing, or new, now and then."""

    def __init__(self, seed: int, kinds: list[str], target: Target, missing: float) -> None:
        self.rand = random.Random(seed)
        self.kinds = {f"{kind} {n}": kind for n, kind in enumerate(kinds)}
        self.target = target
        self.missing = missing

    def example(self) -> tuple[dict[str, Any], Any]:
        """Features, in any order where some are missing, and the label."""
        x = {name: draw(self.rand, kind) for name, kind in self.kinds.items()}
        if self.rand.random() < self.missing:
            x = {name: x[name] for name in self.rand.sample(list(x), self.rand.randint(0, len(x)))}
        near = sum(value for value in x.values() if abs(value) < 10)
        return x, LABELS[self.target.kind](near + self.rand.gauss(0, 1))


def attempt(act: Any, *given: Any) -> Any:
    """What comes of it: what is returned, or what is raised."""
    try:
        return act(*given)
    except Exception as error:  # noqa: BLE001 - whatever river raises
        return repr(error)


def unpickled(learner: Any) -> Any:
    """The learner as after a restart."""
    return pickles.loads(pickles.dumps(learner))


# What happens to learners between two batches. To both of them: a tree that estimates its size
# looks at what its memory holds, which pickling changes.
HAPPENINGS = (unpickled, copy.deepcopy, lambda learner: learner)


@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    missing=st.sampled_from([0.0, 0.02, 0.5]),
)
@explicit(seed=1, kinds=["gauss", "int", "gauss"], missing=0.0)
@explicit(seed=2, kinds=["constant", "gauss", "bool", "rarely"], missing=0.02)
@explicit(seed=3, kinds=["gauss", "leap"], missing=0.0)
def test_what_is_left_is_what_river_leaves(
    name: str, seed: int, kinds: list[str], missing: float
) -> None:
    """Whatever is learned, in batches between which learners are copied, pickled and asked."""
    target, estimator = QUICK[name]
    world = World(seed, kinds, target, missing)
    rivers, ours = copy.deepcopy(estimator), copy.deepcopy(estimator)
    for _ in range(6):
        teach = fast_learner(ours, target)
        for _ in range(world.rand.randrange(120)):
            features, label = world.example()
            expected = attempt(learn, rivers, target, dict(features), label)
            assert expected == attempt(teach, features, label)
            if expected is not None:
                return  # a learner that failed learns no more
        assert digest(rivers) == digest(ours)
        asked = [world.example()[0] for _ in range(3)]
        assert [attempt(answer, rivers, target, x) for x in asked] == [
            attempt(answer, ours, target, x) for x in asked
        ]
        happens = world.rand.choice(HAPPENINGS)
        rivers, ours = happens(rivers), happens(ours)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_learns_as_before(name: str) -> None:
    """What has no quicker form is taught as it is."""
    target, _ = LEARNERS[name]
    rivers, ours = recipe(name).fresh(), recipe(name).fresh()
    for model in (rivers, ours):
        random.seed(1)  # some learners draw from the generator that all share
        teach = fast_learner(ours, target) if model is ours else partial(learn, rivers, target)
        for features, label in examples(target, 60):
            teach(features, label)
    assert digest(rivers) == digest(ours)


def met(estimator: Any, target: Target, count: int = 1) -> Any:
    """A copy that has learned so many examples."""
    learner = copy.deepcopy(estimator)
    for features, label in examples(target, count):
        learn(learner, target, features, label)
    return learner


@pytest.mark.parametrize("name", QUICK)
def test_a_usual_learner_is_taught_in_the_quicker_form(name: str) -> None:
    """Lest the test above compare river with itself."""
    target, estimator = QUICK[name]
    assert not isinstance(fast_learner(met(estimator, target), target), partial)


@pytest.mark.parametrize("name", PLAIN)
def test_an_unusual_learner_is_taught_as_it_is(name: str) -> None:
    """Another penalty, optimizer, scaler, step or subclass: river learns itself."""
    target, estimator = PLAIN[name]
    assert isinstance(fast_learner(met(estimator, target), target), partial)


def test_another_river_learns_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release of river may reckon otherwise, and its learners must be its own."""
    monkeypatch.setattr(fast, "RIVER_VERSION", "0.26.99")
    assert isinstance(fast_learner(logistic(), BINARY), partial)


@pytest.mark.parametrize("label", [False, True])
def test_in_a_tie_that_rounding_makes_the_same_one_wins(label: bool) -> None:
    """Weights that differ by their last bit are equal shares, and of these the first wins."""
    rivers = met(hoeffding(), BINARY, 20)
    rivers._root.stats = {False: 7.5, True: math.nextafter(7.5, 8.0)}
    ours = copy.deepcopy(rivers)
    features = dict.fromkeys(rivers._root.splitters, 0.0)
    learn(rivers, BINARY, features, label)
    fast_learner(ours, BINARY)(features, label)
    assert digest(rivers) == digest(ours)


def test_a_tree_seldom_needs_river(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for what is met first, and where a split may be due."""
    learner = met(tree.HoeffdingTreeClassifier(delta=0.1), BINARY)
    teach = fast_learner(learner, BINARY)
    taught = []
    plainly = tree.HoeffdingTreeClassifier.learn_one

    def counted(self: Any, x: Any, y: Any) -> None:
        taught.append(y)
        plainly(self, x, y)

    monkeypatch.setattr(tree.HoeffdingTreeClassifier, "learn_one", counted)
    for features, label in examples(BINARY, 3_000):
        teach(features, label)
    assert learner.n_leaves > 2
    assert len(taught) < 150


def test_columns_that_come_and_go_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hundreds of hashed columns that a tree has met, an example costs its own alone."""
    rivers = hoeffding(grace_period=1_000)
    ours = copy.deepcopy(rivers)
    teach = fast_learner(ours, BINARY)
    densities = []
    plainly = fast.tree._density

    def counted(*count: float) -> tuple[float, float, float]:
        densities.append(count)
        return plainly(*count)

    monkeypatch.setattr(fast.tree, "_density", counted)
    for n, (features, label) in enumerate(examples(BINARY, 300)):
        row = {**features, f"merchant#{n * 7 % 200}": 1.0}
        learn(rivers, BINARY, dict(row), label)
        teach(row, label)

    assert digest(rivers) == digest(ours)
    assert len(densities) < 300
