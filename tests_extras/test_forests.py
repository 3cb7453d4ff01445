"""Forests of scikit-learn as retrained lines; run by `make test`, with the extras."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.learners.forests import Forest
from stream_ml.models.recipes import Recipe, answer
from stream_ml.shell.views.reproduce import reproduce, sample
from stream_ml.testing import CRASH, Driver, check_learner
from tests.hostile_bytes import ran
from tests.simulation import world

NAMES = tuple("abcde")
BINARY, REGRESSION = sml.Target.binary(), sml.Target.regression()
COLOURS = sml.Target.multiclass("red", "green", "blue")
SMALL: Any = {"n_estimators": 7, "min_samples_leaf": 3}
SOUND: list[tuple[Any, sml.Target]] = [
    (DecisionTreeClassifier(max_depth=4), BINARY),
    (ExtraTreeClassifier(max_depth=4), COLOURS),
    (RandomForestClassifier(**SMALL), BINARY),
    (RandomForestClassifier(**SMALL), COLOURS),
    (ExtraTreesClassifier(**SMALL), BINARY),
    (DecisionTreeRegressor(max_leaf_nodes=9), REGRESSION),
    (RandomForestRegressor(**SMALL), REGRESSION),
    (ExtraTreesRegressor(**SMALL), REGRESSION),
]


def window(target: sml.Target, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Rows with gaps, and labels that follow from them."""
    rand = np.random.default_rng(1)
    rows = rand.normal(size=(count, len(NAMES)))
    score = rows[:, 0] + rows[:, 1] + rand.normal(size=count)
    rows[:, :3][rand.random((count, 3)) < 0.1] = np.nan
    if target.kind == "regression":
        return rows, score
    return rows, np.digitize(score, [0.0] if target.kind == "binary" else [-1.0, 1.0]) * 1.0


@pytest.mark.parametrize(("estimator", "target"), SOUND)
def test_it_answers_as_scikit_learn_does(estimator: Any, target: sml.Target) -> None:
    """Every answer is scikit-learn's own to the last bit, where features are missing, too."""
    trainer = Forest(estimator)
    trainer.prepare(target, NAMES)
    rows, labels = window(target)
    trainer.fit(rows, labels, 5)
    fitted = estimator.set_params(random_state=5).fit(rows, labels)
    rows = rows[:100]
    rows[np.random.default_rng(2).random(rows.shape) < 0.2] = np.nan
    said: list[Any] = [
        trainer.predict_one({n: x for n, x in zip(NAMES, row, strict=True) if not np.isnan(x)})
        for row in rows.tolist()
    ]
    if target.kind == "regression":
        expected = fitted.predict(rows).tolist()
    elif target.kind == "binary":
        expected = fitted.predict_proba(rows)[:, 1].tolist()
    else:
        expected = fitted.predict_proba(rows).tolist()
        said = [list(each.values()) for each in said]

    assert expected == said


@pytest.mark.parametrize(("estimator", "target"), SOUND)
@pytest.mark.parametrize("count", [1, 2])
def test_thin_windows_give_answers(estimator: Any, target: sml.Target, count: int) -> None:
    """One example and one class are enough for a valid answer, which is read back."""
    trainer = Forest(estimator)
    trainer.prepare(target, NAMES)
    trainer.fit(*window(target, count), 1)
    recipe = Recipe("line", sml.Retrained(Forest(estimator), 10), target, NAMES)

    assert answer(recipe.load(trainer.dump()), target, {"b": 1.0}) is not None


@pytest.mark.parametrize(("estimator", "target"), SOUND)
def test_it_keeps_the_contract(estimator: Any, target: sml.Target) -> None:
    """Equal trainings are equal, models are read back as they were, foreign bytes are refused."""
    check_learner(Forest(estimator), target, features=NAMES, other_process=False)


def test_a_tree_that_asks_for_gaps_alone_is_read_back() -> None:
    """Where only a missing feature tells, scikit-learn's thresholds are infinite."""
    rows = np.random.default_rng(1).normal(size=(200, len(NAMES)))
    rows[::3, 0] = np.nan
    trainer = Forest(DecisionTreeClassifier(max_depth=2))
    trainer.prepare(BINARY, NAMES)
    trainer.fit(rows, np.isnan(rows[:, 0]) * 1.0, 1)
    copy = Forest(DecisionTreeClassifier(max_depth=2))
    copy.prepare(BINARY, NAMES)
    copy.load(trainer.dump())

    assert (1.0, 0.0, 0.0) == (
        copy.predict_one({"b": 0.5}),
        copy.predict_one({"a": 1e30}),
        copy.predict_one({"a": -1e30}),
    )


def test_others_are_refused() -> None:
    """What cannot be written as trees, or is for another target, is refused where declared."""
    with pytest.raises(ValueError, match="given GradientBoostingClassifier"):
        Forest(GradientBoostingClassifier())
    regressor = sml.Retrained(Forest(RandomForestRegressor()), 100)
    with pytest.raises(DeclarationError, match="expected a classifier for binary"):
        replace(world.pipeline, models={**world.pipeline.models, "forest": regressor})


def test_it_serves_and_survives_crashes() -> None:
    """As a line it serves when it is promoted, every answer can be made again, deaths or not."""
    line = sml.Retrained(Forest(RandomForestClassifier(5, max_depth=4)), 100, seed=3)
    declared = replace(world.pipeline, models={**world.pipeline.models, "forest": line})
    events, labels = world.stream(3, 300)
    found = []
    for crashes in (0, 6):
        with Driver(declared, seed=crashes or None) as driver:
            driver.publish("labels", labels)
            driver.feed([*events[:200], *[CRASH] * crashes])
            driver.command("promote", model="forest", expect="logistic")
            driver.feed([*events[200:], *[CRASH] * crashes])
            found.append(driver.read("predictions"))
            done = reproduce(driver.log, declared, b"testing", sample(driver.log, 50, seed=1))
            assert (0.0, []) == (done.worst, done.different)

    assert "forest" == found[0][-1]["model"].split("@")[0]
    assert found[0] == found[1]


HOSTILE = """
import numpy as np

import stream_ml as sml
from stream_ml.models.recipes import Recipe
from sklearn.ensemble import RandomForestClassifier
from stream_ml.learners.forests import Forest

learner = sml.Retrained(Forest(RandomForestClassifier(5, max_leaf_nodes=9)), 100)
recipe = Recipe("line", learner, sml.Target.binary(), ("a", "b"))
trainer = recipe.fresh().trainer
rows = np.random.default_rng(1).normal(size=(100, 2))
trainer.fit(rows, (rows[:, 0] > 0).astype(float), 1)
genuine = trainer.dump()
"""


def test_hostile_bytes_run_nothing() -> None:
    """No import, no compilation and no call, by the word of the interpreter of a new process."""
    assert ("[]", "") == ran(HOSTILE)
