"""River's protocol, written by a user: such estimators are lines, by their own classes alone."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from learners import BINARY, REGRESSION, examples
from own_river import Late, Nearest, Node, Share, Stranger
from river import ensemble, preprocessing

from stream_ml.errors import SnapshotRefused
from stream_ml.models.checkpoint import pack, unpack
from stream_ml.models.recipes import Recipe, Target, answer, learn
from stream_ml.models.snapshot import decode, open_snapshot, take

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"a key of ours"
OWN: dict[str, tuple[Any, Target]] = {
    "five lines": (Share(), BINARY),
    "in a pipeline": (preprocessing.StandardScaler() | Share(), BINARY),
    "in an ensemble": (ensemble.BaggingClassifier(Share(), 2, seed=1), BINARY),
    "of nodes": (Nearest(), REGRESSION),
}


def recipe_of(estimator: Any, target: Target) -> Recipe:
    """The estimator as a line is declared."""
    return Recipe("own", estimator, target, tuple("abcde"))


def taught(recipe: Recipe, target: Target, count: int = 80) -> Any:
    """A learner of it that has seen examples."""
    learner = recipe.fresh()
    for features, label in examples(target, count):
        answer(learner, target, features)
        learn(learner, target, features, label)
    return learner


@pytest.mark.parametrize("name", OWN)
def test_it_is_a_line_like_any_other(name: str) -> None:
    """It is taken, written and read back, and goes on as if nothing had been."""
    estimator, target = OWN[name]
    recipe = recipe_of(estimator, target)
    learner = taught(recipe, target)
    golden = [features for features, _ in examples(target, 8, seed=9)]
    snapshot = take(
        learner, recipe, target, version=80, feature_hash="h", key=KEY, golden_features=golden
    )
    copy = open_snapshot(decode(snapshot.encode()), recipe, target, KEY, "h")
    packed = unpack(pack(learner, recipe, KEY), recipe, KEY)

    assert [] == recipe.check(target, "models.own", tuple("abcde"))
    for features, label in examples(target, 30, seed=3):
        expected = answer(learner, target, features)
        assert expected == answer(copy, target, features) == answer(packed, target, features)
        for model in (learner, copy, packed):
            learn(model, target, features, label)


def read(recipe: Recipe, content: Any) -> str:
    """Why a pickle of something is no learner of the recipe."""
    with pytest.raises(SnapshotRefused) as refused:
        recipe.load(pickle.dumps(content))
    return f"{refused.value.reason}: {refused.value}"


class Call:
    """What pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_bytes_name_nothing_but_what_is_declared(tmp_path: Path) -> None:
    """No other class of the user's module, and nothing of Python's, is made by a line's bytes."""
    nearest, share = recipe_of(Nearest(), REGRESSION), recipe_of(Share(), BINARY)
    mark = tmp_path / "mark"

    assert isinstance(nearest.load(pickle.dumps(Node({}, 1.0))), Node)
    assert "class_not_allowed" in read(share, Node({}, 1.0))
    assert "given own_river.Stranger" in read(nearest, Call(Stranger))
    assert 0 == Stranger.made
    for function in (os.mkdir, os.system, subprocess.check_call, eval):
        assert "class_not_allowed" in read(nearest, Call(function, str(mark)))
    assert not mark.exists()


def test_a_declared_class_is_not_changed_by_bytes() -> None:
    """A pickle that sets an attribute on the class is refused, and the class is as before."""
    copy.copy(Share())  # Python notes on the class, once, which slots it has
    before = dict(vars(Share))
    patch = b"\x80\x04cown_river\nShare\nN}(\x8c\x09learn_oneN\x8c\x03newK\x01u\x86b."
    with pytest.raises(SnapshotRefused, match=r"alters own_river\.Share"):
        recipe_of(Share(), BINARY).load(patch)

    assert before == dict(vars(Share))


def test_a_class_that_no_trial_shows_is_refused_by_name() -> None:
    """What an estimator takes up only later stops its line at the snapshot, with the reason."""
    recipe = recipe_of(Late(), BINARY)

    with pytest.raises(SnapshotRefused, match=r"given own_river\.Node"):
        recipe.load(recipe.dump(taught(recipe, BINARY)))
    assert recipe.load(recipe.dump(taught(recipe, BINARY, 40))).all == 40


def test_a_class_that_has_no_name_is_refused_where_it_is_declared() -> None:
    """A class made within a function cannot be found again, and the problem says so."""

    class Local(Share):
        pass

    (problem,) = recipe_of(Local(), BINARY).check(BINARY, "models.own")

    assert "cannot (" in str(problem)
    assert "Local" in str(problem)
