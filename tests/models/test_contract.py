"""The contract of learners: ours keep it, and each way of breaking it is told."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own import Counts, Line, Logistic

from stream_ml import Learner, Retrained, Target, Trainer
from stream_ml.contract import LAWS, TRAINER_LAWS, TrainerTrial, Trial, faults, trained_dump
from stream_ml.testing import check_learner
from tests.trainers import Bag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BINARY = Target.binary()
SOUND: list[tuple[Learner, Target]] = [
    (Logistic(), BINARY),
    (Counts(), Target.multiclass("a", "b", "c")),
    (Line(), Target.regression()),
]


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32))
@pytest.mark.parametrize(("learner", "target"), SOUND)
def test_sound_learners_keep_it(learner: Learner, target: Target, seed: int) -> None:
    """A learner that is what it should be has no faults, whatever the examples."""
    check_learner(learner, target, seed=seed, other_process=False)


def test_another_process_makes_the_same_learner() -> None:
    """A sound learner is the same where texts are hashed otherwise, and one that is not is told."""
    check_learner(Logistic(), BINARY)
    with pytest.raises(AssertionError, match="another process, taught the same, writes other"):
        check_learner(Hashed(), BINARY)


class Hashed(Logistic):
    """Adds up in the order of a hash."""

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:
        """Learn more of what has the larger hash."""
        super().learn_one(features, label)
        self.state["hash"] = float(max(map(hash, ("x", "y", "z"))) % 1_000)


class Unseeded(Logistic):
    """Begins at random."""

    def prepare(self, target: Any, features: Sequence[str]) -> None:  # noqa: ARG002 - the protocol's
        """Draw the weights."""
        self.state = {name: random.random() for name in features}


class Rounds(Logistic):
    """Writes less than it has learned."""

    def dump(self) -> bytes:
        """Two digits."""
        return json.dumps({name: round(x, 2) for name, x in self.state.items()}).encode()


class Forgetful(Logistic):
    """Takes up only some of what it wrote."""

    def load(self, data: bytes) -> None:
        """All but the first."""
        super().load(data)
        self.state.pop("a", None)


class Averages(Logistic):
    """Learns from a batch as a whole."""

    def learn_many(self, rows: Sequence[Mapping[str, float]], labels: Sequence[Any]) -> None:
        """Learn the last one only."""
        super().learn_many(rows[-1:], labels[-1:])


class Hasty(Logistic):
    """Answers a batch by its first row."""

    def predict_many(self, rows: Sequence[Mapping[str, float]]) -> list[Any]:
        """The first answer, for all."""
        return [self.predict_one(rows[0])] * len(rows)


class Shared(Logistic):
    """Keeps its weights in the class."""

    weights: dict[str, float] = {}  # noqa: RUF012 - the plant

    def prepare(self, target: Any, features: Any) -> None:  # noqa: ARG002 - the protocol's
        """Take the weights of all."""
        self.state = self.weights
        self.state.clear()


class Asked(Logistic):
    """Counts the questions."""

    def predict_one(self, features: Mapping[str, float]) -> float:
        """Answer, and count."""
        self.state["asked"] = self.state.get("asked", 0.0) + 1.0
        return super().predict_one(features)


class Credulous(Logistic):
    """Takes anything for its state."""

    def load(self, data: bytes) -> None:
        """Take it up, or nothing."""
        try:
            super().load(data)
        except ValueError:
            self.state = {}


class Pickled(Logistic):
    """Writes a pickle."""

    def dump(self) -> bytes:
        """A pickle."""
        return pickle.dumps(sorted(self.state.items()))

    def load(self, data: bytes) -> None:
        """Run it."""
        self.state = dict(pickle.loads(data))


class Silly(Logistic):
    """Gives no probabilities."""

    def predict_one(self, features: Mapping[str, float]) -> float:
        """Answer beyond them."""
        return super().predict_one(features) + 1.0


class Grows(Logistic):
    """Changes its description."""

    def learn_one(self, features: Mapping[str, float], label: Any) -> None:
        """Learn slower and slower."""
        super().learn_one(features, label)
        self.rate *= 0.99

    def dump(self) -> bytes:
        """The weights and the rate."""
        return json.dumps([self.rate, self.state]).encode()

    def load(self, data: bytes) -> None:
        """The weights and the rate."""
        self.rate, self.state = json.loads(data)


BROKEN: list[tuple[Learner, str]] = [
    (Unseeded(), "two untrained ones write other bytes"),
    (Rounds(), "examples learns otherwise from then on"),
    (Forgetful(), "examples writes other bytes than it was read"),
    (Averages(), "`learn_many` of 2 at once learns otherwise"),
    (Hasty(), "`predict_many` of 3 at once answers otherwise"),
    (Shared(), "two that are taught in turns"),
    (Asked(), "one that is asked writes other bytes"),
    (Credulous(), "`load` takes noise for a state"),
    (Pickled(), "`load` runs what a pickle says"),
    (Silly(), "expected a probability"),
    (Grows(), "changes as it learns"),
]


@pytest.mark.parametrize(("learner", "sentence"), BROKEN)
def test_each_way_of_breaking_it_is_told(learner: Learner, sentence: str) -> None:
    """The fault that was planted is among those that are listed, with the learner's name."""
    with pytest.raises(AssertionError) as error:
        check_learner(learner, BINARY, other_process=False)

    assert str(error.value).startswith(f"{type(learner).__name__} does not keep the contract:")
    assert sentence in str(error.value)


def test_no_law_is_idle() -> None:
    """Every law finds a fault in one of the learners that break it."""
    trials = [Trial(learner, BINARY) for learner, _ in BROKEN]

    def finds(law: Any, trial: Trial) -> bool:
        try:
            return bool(list(law(trial)))
        except Exception:  # noqa: BLE001 - what raises is told as well
            return False

    assert [] == [law.__name__ for law in LAWS if not any(finds(law, t) for t in trials)]
    assert [] == faults(Trial(Logistic(), BINARY))


# --- trainers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [target for _, target in SOUND])
def test_a_sound_trainer_keeps_it(target: Target) -> None:
    """A trainer is tried as learners are, alone and within the line that it is declared for."""
    check_learner(Bag(), target, other_process=False)
    check_learner(Retrained(Bag(), "30d", every="1d"), target, other_process=False)


def test_another_process_is_given_the_same_training() -> None:
    """A trainer is trained there on the examples that it is trained on here."""
    trial = TrainerTrial(Bag(), BINARY, seed=3)
    arguments = (trial.target, trial.recipe.features, trial.seed)

    there = trained_dump(Retrained(Bag(), "30d"), *arguments, is_complete=False)

    assert trial.recipe.dump(trial.trained()) == there


class Lucky(Bag):
    """Draws without a seed."""

    def fit(self, rows: Any, labels: Any, seed: int) -> None:
        """Draw a number as well."""
        super().fit(rows, labels, seed)
        self.state["drawn"] = random.random()


class Halved(Bag):
    """Takes up only some of what it wrote."""

    def load(self, data: bytes) -> None:
        """Another mean."""
        super().load(data)
        self.state["mean"] /= 2


class First(Bag):
    """Answers all as the first."""

    def predict_many(self, rows: Sequence[Mapping[str, float]]) -> list[Any]:
        """The first answer, for all."""
        return [self.predict_one(rows[0])] * len(rows)


class Common(Bag):
    """Keeps its model in the class."""

    common: dict[str, Any] = {}  # noqa: RUF012 - the plant

    def fit(self, rows: Any, labels: Any, seed: int) -> None:
        """Overwrite that of all."""
        super().fit(rows, labels, seed)
        self.common.update(self.state)

    def dump(self) -> bytes:
        """That of all."""
        return json.dumps(self.common, sort_keys=True).encode()


class Counting(Bag):
    """Counts the questions."""

    def predict_one(self, features: Mapping[str, float]) -> Any:
        """Answer, and count."""
        self.state["asked"] = self.state.get("asked", 0) + 1
        return super().predict_one(features)


class Lenient(Bag):
    """Takes anything for its model."""

    def load(self, data: bytes) -> None:
        """Take it up, or a half."""
        try:
            super().load(data)
        except ValueError:
            self.state = {"mean": 0.5}


class Drifting(Bag):
    """Changes its description."""

    def fit(self, rows: Any, labels: Any, seed: int) -> None:
        """Train, with less of a slope the next time."""
        super().fit(rows, labels, seed)
        self.slope *= 0.99


BROKEN_TRAINERS: list[tuple[Trainer, str]] = [
    (Lucky(), "two that were taught the same write other bytes"),
    (Halved(), "one that is read back writes other bytes"),
    (First(), "`predict_many` answers otherwise"),
    (Common(), "one is not what it is alone when another is trained"),
    (Counting(), "one that is asked writes other bytes"),
    (Lenient(), "`load` takes noise for a state"),
    (Drifting(), "changes as it learns"),
]


@pytest.mark.parametrize(("trainer", "sentence"), BROKEN_TRAINERS)
def test_each_way_in_which_a_trainer_breaks_it_is_told(trainer: Trainer, sentence: str) -> None:
    """The fault that was planted is among those that are listed, with the trainer's name."""
    with pytest.raises(AssertionError) as error:
        check_learner(trainer, BINARY, other_process=False)

    assert str(error.value).startswith(f"{type(trainer).__name__} does not keep the contract:")
    assert sentence in str(error.value)


def test_no_law_of_trainers_is_idle() -> None:
    """Every law finds a fault in one of the trainers that break it."""
    trials = [TrainerTrial(trainer, BINARY) for trainer, _ in BROKEN_TRAINERS]

    assert [] == [law.__name__ for law in TRAINER_LAWS if not any(list(law(t)) for t in trials)]
    assert [] == faults(TrainerTrial(Bag(), BINARY))


# --- scripts ----------------------------------------------------------------------------------


def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path: Path) -> None:
    """The other process runs the script as well, which would call this again there."""
    script = tmp_path / "script.py"
    script.write_text(
        "from own import Logistic\n"
        "from stream_ml import Target\n"
        "from stream_ml.testing import check_learner\n"
        "check_learner(Logistic(), Target.binary())\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, str(script)], env=environ, capture_output=True, text=True, check=False
    )

    last = ran.stderr.strip().splitlines()[-1]
    assert 1 == ran.returncode
    assert 'a script has to call this under `if __name__ == "__main__":`' in last, ran.stderr
