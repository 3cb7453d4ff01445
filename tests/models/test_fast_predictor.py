"""Compiled models: what they answer is what river answers, to the last bit."""

from __future__ import annotations

import copy
import math
import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learners import BINARY, LEARNERS, REGRESSION, examples, trained
from river import compose, linear_model, optim, preprocessing

from stream_ml.models.digest import digest
from stream_ml.models.fast import fast_live_predictor, fast_predictor
from stream_ml.models.recipes import BadAnswer, Target, answer, learn

NAMES = "abcdef"
MODELS: dict[str, tuple[Target, Any]] = {
    "logistic": (BINARY, linear_model.LogisticRegression),
    "linear": (REGRESSION, linear_model.LinearRegression),
}
SCALERS: dict[str, Any] = {
    "with deviations": preprocessing.StandardScaler,
    "without deviations": lambda: preprocessing.StandardScaler(with_std=False),
    "not at all": lambda: None,
}
# Offsets that a textbook variance does not survive, and spreads down to none at all.
offsets = st.sampled_from([0.0, 1.0, -1e3, 1e9, -1e12])
spreads = st.sampled_from([0.0, 1e-9, 1.0, 1e3, 1e9])
shapes = st.dictionaries(st.sampled_from(NAMES), st.tuples(offsets, spreads), min_size=1)


def learned(
    kind: str, scaler: Any, shapes: dict[str, tuple[float, float]], rand: random.Random, count: int
) -> Any:
    """A linear model after `count` examples, in each of which some features are missing."""
    target, make = MODELS[kind]
    optimizer = rand.choice([optim.SGD(0.01), optim.AdaGrad(0.1), optim.Adam(0.01)])
    model = make(optimizer, l2=rand.choice([0.0, 0.01]), intercept_lr=rand.choice([0.0, 0.1]))
    if scaler is not None:
        model = scaler | model
    for _ in range(count):
        label = rand.random() < 0.4 if target is BINARY else rand.gauss(0, 10)
        learn(model, target, asked(shapes, rand), label)
    return model


def asked(shapes: dict[str, tuple[float, float]], rand: random.Random) -> dict[str, float]:
    """Features in any order, some of them missing."""
    names = rand.sample(list(shapes), rand.randint(0, len(shapes)))
    return {name: shapes[name][0] + rand.gauss(0, 1) * shapes[name][1] for name in names}


def outcome(ask: Any, features: dict[str, float]) -> Any:
    """What is said, or that what is said is no answer."""
    try:
        return ask(features)
    except BadAnswer:
        return "no answer"


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("scaled", SCALERS)
@given(
    known=shapes,
    new=st.dictionaries(st.sampled_from("xyz"), st.tuples(offsets, spreads)),
    seed=st.integers(0, 2**32),
    count=st.integers(0, 40),
)
def test_linear_models_answer_as_river_does_to_the_last_bit(
    kind: str,
    scaled: str,
    known: dict[str, tuple[float, float]],
    new: dict[str, tuple[float, float]],
    seed: int,
    count: int,
) -> None:
    """Whatever was learned, and whatever is asked: missing features, unseen ones, any scale."""
    rand = random.Random(seed)
    scaler = SCALERS[scaled]()
    model = learned(kind, scaler, known, rand, count)
    target, _ = MODELS[kind]
    ask = fast_predictor(model, target)
    for _ in range(5):
        features = asked({**known, **new}, rand)
        assert outcome(partial(answer, model, target), features) == outcome(ask, features)


@pytest.mark.parametrize("scaled", SCALERS)
@given(known=shapes, seed=st.integers(0, 2**32), count=st.integers(0, 40))
def test_a_live_linear_model_answers_as_river_does_after_each_example(
    scaled: str, known: dict[str, tuple[float, float]], seed: int, count: int
) -> None:
    """One form for as long as it learns; and asking it leaves what river's asking leaves."""
    rand = random.Random(seed)
    model = learned("logistic", SCALERS[scaled](), known, rand, 1)
    twin = copy.deepcopy(model)
    ask = fast_live_predictor(model, BINARY)
    for _ in range(count):
        features, label = asked(known, rand), rand.random() < 0.4
        assert outcome(partial(answer, twin, BINARY), features) == outcome(ask, features)
        for each in (model, twin):
            learn(each, BINARY, features, label)
    assert digest(twin) == digest(model)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_live_learner_answers_as_before(name: str) -> None:
    """What has no quicker form is asked as it is, while it learns too."""
    target, _ = LEARNERS[name]
    model = trained(name)
    ask = fast_live_predictor(model, target)
    for features, label in examples(target, 20):
        assert answer(model, target, features) == ask(features)
        learn(model, target, features, label)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_answers_as_before(name: str) -> None:
    """What has no quicker form is asked as it is."""
    target, _ = LEARNERS[name]
    model = trained(name)
    golden = [features for features, _ in examples(target, 20)]
    ask = fast_predictor(model, target, golden)
    assert [answer(model, target, x) for x in golden] == [ask(x) for x in golden]


@pytest.mark.parametrize(
    "model",
    [
        linear_model.LogisticRegression(loss=optim.losses.Hinge()),
        preprocessing.StandardScaler(window_size=10) | linear_model.LogisticRegression(),
        preprocessing.MinMaxScaler() | linear_model.LogisticRegression(),
        compose.Select("a") | preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    ],
)
def test_an_unusual_linear_model_is_asked_as_it_is(model: Any) -> None:
    """Another loss, another scaler or another step before it: river answers itself."""
    assert isinstance(fast_predictor(model, BINARY), partial)


@pytest.mark.parametrize("kind", MODELS)
def test_a_usual_linear_model_takes_the_quicker_form(kind: str) -> None:
    """Lest the tests above compare river with itself."""
    target, make = MODELS[kind]
    for model in (make(), preprocessing.StandardScaler() | make()):
        assert not isinstance(fast_predictor(model, target), partial)


def test_a_form_that_disagrees_on_golden_features_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A river whose arithmetic changed would be noticed when the snapshot is loaded."""
    model = learned("logistic", None, {"a": (0.0, 1.0)}, random.Random(1), 50)
    monkeypatch.setattr(
        linear_model.LogisticRegression, "predict_proba_one", lambda *_: {True: 0.25}
    )
    assert isinstance(fast_predictor(model, BINARY, [{"a": 1.0}]), partial)


def test_a_model_that_diverged_is_rivers_to_answer_for() -> None:
    """Weights that are no numbers any more, and answers that are none, come out as from river."""
    model = linear_model.LinearRegression(optim.SGD(1e300), clip_gradient=math.inf)
    for x in (1.0, -2.0, 3.0):
        learn(model, REGRESSION, {"a": x * 1e10}, x)
    ask = fast_predictor(model, REGRESSION)
    with pytest.raises(BadAnswer):
        ask({"a": 1e300})
