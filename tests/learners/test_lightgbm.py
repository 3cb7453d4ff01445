"""LightGBM as a retrained line: its own answers to the last bit, from numbers that nobody runs."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stream_ml as sml
from stream_ml.errors import DeclarationError
from stream_ml.learners.lightgbm import LightGBM, parse_model
from stream_ml.models.recipes import Recipe, answer
from stream_ml.models.retrained import TrainingJob
from stream_ml.shell.processes.trainings import ProcessTrainings
from stream_ml.shell.views.reproduce import reproduce, sample
from stream_ml.testing import CRASH, Driver, check_learner
from tests.hostile_bytes import ran
from tests.simulation import world

NAMES = tuple("abcde")
TARGETS = {
    "binary": sml.Target.binary(),
    "two": sml.Target.multiclass("low", "high"),
    "three": sml.Target.multiclass("low", "mid", "high"),
    "numbers": sml.Target.regression(),
}
OBJECTIVES = {"binary": "binary", "two": "binary", "three": "multiclass", "numbers": "regression"}
EXTRA = {"num_leaves": 15, "feature_fraction": 0.8, "bagging_fraction": 0.7, "bagging_freq": 1}


def window(kind: str, count: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Rows with gaps in some columns, and labels that follow from them."""
    rand = np.random.default_rng(1)
    rows = rand.normal(size=(count, len(NAMES)))
    rows[:, 3] = np.round(rows[:, 3])
    score = rows[:, 0] + 0.5 * rows[:, 3] + rand.normal(size=count)
    rows[:, :3][rand.random((count, 3)) < 0.1] = np.nan
    if kind == "numbers":
        return rows, score
    return rows, np.digitize(score, [0.0] if kind != "three" else [-1.0, 1.0]).astype(float)


def trained(kind: str, rounds: int = 20, seed: int = 5, **parameters: Any) -> LightGBM:
    """A model of such a window."""
    trainer = LightGBM(rounds, **parameters)
    trainer.prepare(TARGETS[kind], NAMES)
    trainer.fit(*window(kind), seed)
    return trainer


@pytest.mark.parametrize("kind", TARGETS)
def test_it_answers_as_lightgbm_does(kind: str) -> None:
    """Every answer is LightGBM's own to the last bit, also where features are missing."""
    trainer, rows = trained(kind, **EXTRA), window(kind)[0][:200]
    # Gaps also where there were none in training.
    rows[np.random.default_rng(2).random(rows.shape) < 0.2] = np.nan
    parameters = {
        **EXTRA,
        "objective": OBJECTIVES[kind],
        "num_class": 3 if kind == "three" else 1,
        "seed": 5,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(*window(kind)), 20)
    actual = []
    for row in rows:
        features = {name: x for name, x in zip(NAMES, row.tolist(), strict=True) if not np.isnan(x)}
        said: Any = trainer.predict_one(features)
        if kind == "three":
            said = list(said.values())
        actual.append(said["high"] if kind == "two" else said)

    assert booster.predict(rows).tolist() == actual


def test_equal_windows_and_seeds_give_equal_bytes() -> None:
    """A training is a function of the window and the seed, here and in a process of its own."""
    rows, labels = window("binary", 300)
    learner = sml.Retrained(LightGBM(5, **EXTRA), 100, seed=5)
    learner.prepare(TARGETS["binary"], NAMES)
    cells = np.column_stack([np.zeros(300), labels, rows])
    job = TrainingJob("line", learner, 300, cells.tobytes())
    processes = ProcessTrainings()
    processes.begin(job)
    seeds = {trained("binary", 5, seed, **EXTRA).dump() for seed in (1, 1, 2)}

    assert job.run() == processes.end("line")
    assert 2 == len(seeds)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("count", [1, 2, 30])
def test_thin_windows_give_answers(kind: str, count: int) -> None:
    """One example, one class, a feature that is always missing: there is a valid answer."""
    rows, labels = window(kind, count)
    rows[:, 0] = np.nan
    trainer = LightGBM(5)
    trainer.prepare(TARGETS[kind], NAMES)
    trainer.fit(rows, np.full(count, labels[0]), 1)
    recipe = Recipe("line", sml.Retrained(LightGBM(5), 10), TARGETS[kind], NAMES)

    assert answer(recipe.load(trainer.dump()), TARGETS[kind], {"b": 1.0}) is not None


@pytest.mark.parametrize("kind", TARGETS)
def test_it_keeps_the_contract(kind: str) -> None:
    """Equal trainings are equal, models are read back as they were, foreign bytes are refused."""
    trainer = LightGBM(5, num_leaves=4, min_data_in_leaf=5)
    check_learner(trainer, TARGETS[kind], features=NAMES, other_process=False)


def test_only_what_means_the_same_may_be_set() -> None:
    """Parameters that would change what the trees mean are refused; so is what nobody knows."""
    for wrong in ("boosting", "num_threads", "linear_tree", "zero_as_missing", "leaves"):
        with pytest.raises(ValueError, match=f"given {wrong}"):
            LightGBM(5, **{wrong: 1})
    with pytest.raises(ValueError, match="given poisson"):
        LightGBM(5, objective="poisson")


def test_a_text_that_these_trees_cannot_say_is_refused() -> None:
    """Random forests, categories and zeros that are missing mean something else."""
    rows, labels = window("binary")
    forest = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}
    rows[:, 3] = abs(rows[:, 3])
    labels = (rows[:, 3] == 1.0).astype(float)
    cases: list[tuple[dict[str, Any], list[int]]] = [
        (forest, []),
        ({"zero_as_missing": True}, []),
        ({}, [3]),
    ]
    for wrong, categories in cases:
        parameters = {"objective": "binary", "verbosity": -1, "num_threads": 1, **wrong}
        data = lightgbm.Dataset(rows, labels, categorical_feature=categories)
        booster = lightgbm.train(parameters, data, 3)
        with pytest.raises(ValueError, match="expected"):
            parse_model(booster.model_to_string())


# --- hostile bytes ----------------------------------------------------------------------------

GOOD = trained("binary", 3, num_leaves=4).dump()
MADE_UP = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    st.floats(),
    st.just([]),
    st.text(max_size=3),
    st.lists(st.integers(-5, 5), max_size=4),
)


def outcome(data: bytes) -> Any:
    """What becomes of bytes: the answer of the model that they are, or that they are refused."""
    trainer = LightGBM(3)
    trainer.prepare(TARGETS["binary"], NAMES)
    try:
        trainer.load(data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return "refused"
    return trainer.predict_one({"a": 1.0})


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_foreign_bytes_are_refused_or_are_numbers(data: st.DataObject) -> None:
    """Whatever is changed in a model's bytes: they are refused, or give an answer at once."""
    members = orjson.loads(GOOD)
    tree = members[1][data.draw(st.integers(0, len(members[1]) - 1))]
    name = data.draw(st.sampled_from([*tree, "other"]))
    if isinstance(tree.get(name), list) and tree[name] and data.draw(st.booleans()):
        tree[name][data.draw(st.integers(0, len(tree[name]) - 1))] = data.draw(MADE_UP)
    else:
        tree[name] = data.draw(MADE_UP)
    changed = orjson.dumps(members)
    said = outcome(changed)

    assert said == "refused" or 0.0 <= said <= 1.0


def test_cut_and_flipped_bytes_do_no_harm() -> None:
    """Bytes that end too soon are refused; those with a flipped bit are, or answer."""
    rand = random.Random(1)

    assert {"refused"} == {outcome(GOOD[:end]) for end in range(0, len(GOOD), 7)}
    for _ in range(300):
        flipped = bytearray(GOOD)
        flipped[rand.randrange(len(GOOD))] ^= 1 << rand.randrange(8)
        said = outcome(bytes(flipped))
        assert said == "refused" or 0.0 <= said <= 1.0


# --- as a line --------------------------------------------------------------------------------


def test_it_is_promoted_serves_and_survives_crashes() -> None:
    """As a line it serves when it is promoted, every answer can be made again, deaths or not."""
    line = sml.Retrained(LightGBM(5, num_leaves=4, min_data_in_leaf=5), 100)
    declared = replace(world.pipeline, models={**world.pipeline.models, "boost": line})
    events, labels = world.stream(3, 400)
    found = []
    for crashes in (0, 10):
        with Driver(declared, seed=crashes or None) as driver:
            driver.publish("labels", labels)
            driver.feed([*events[:250], *[CRASH] * crashes])
            driver.command("promote", model="boost", expect="logistic")
            driver.feed([*events[250:], *[CRASH] * crashes])
            found.append(driver.read("predictions"))
            done = reproduce(driver.log, declared, b"testing", sample(driver.log, 50, seed=1))
            assert (0.0, []) == (done.worst, done.different)

    assert "boost" == found[0][-1]["model"].split("@")[0]
    assert found[0] == found[1]


def test_without_the_library_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where LightGBM is not installed, a declaration says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "lightgbm", None)
    models = {**world.pipeline.models, "boost": sml.Retrained(LightGBM(5), 100)}
    with pytest.raises(DeclarationError) as refused:
        replace(world.pipeline, models=models)

    assert "pip install 'stream_ml[lightgbm]'" in str(refused.value)


HOSTILE = """
import numpy as np

import stream_ml as sml
from stream_ml.models.recipes import Recipe
from stream_ml.learners.lightgbm import LightGBM

learner = sml.Retrained(LightGBM(5, num_leaves=4, min_data_in_leaf=5), 100)
recipe = Recipe("line", learner, sml.Target.binary(), ("a", "b"))
trainer = recipe.fresh().trainer
rows = np.random.default_rng(1).normal(size=(100, 2))
trainer.fit(rows, (rows[:, 0] > 0).astype(float), 1)
genuine = trainer.dump()
"""


def test_hostile_bytes_run_nothing() -> None:
    """No import, no compilation and no call, by the word of the interpreter of a new process."""
    assert ("[]", "") == ran(HOSTILE)
