"""The canonical digest: equal learners have equal digests, others have others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from learners import LEARNERS, examples, recipe, trained
from river import naive_bayes

from stream_ml.models.digest import digest
from stream_ml.models.pickles import dumps, loads
from stream_ml.models.recipes import answer, learn


@pytest.mark.parametrize("name", LEARNERS)
class TestEqualLearners:
    """What one learner may differ in from its equal, and yet have the same digest."""

    def test_replay(self, name: str) -> None:
        """Learning the same examples again gives the same digest."""
        assert digest(trained(name)) == digest(trained(name))

    def test_resume(self, name: str) -> None:
        """Being written and read back on the way leaves no trace in the digest."""
        task, _ = LEARNERS[name]
        model = recipe(name).fresh()
        for number, (features, label) in enumerate(examples(task)):
            if number in {1, 120}:
                model = loads(dumps(model))
            answer(model, task, features)
            learn(model, task, features, label)

        assert digest(trained(name)) == digest(model)

    def test_more_examples(self, name: str) -> None:
        """More examples give another digest."""
        assert digest(trained(name, 40)) != digest(trained(name, 240))


def test_hash_seeds() -> None:
    """Processes with other hash seeds give the same digests, sets of strings included."""
    script = Path(__file__).with_name("learners.py")
    runs = [
        subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-W", "ignore", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert runs[0] == runs[1]
    assert len(LEARNERS) == len(runs[0].splitlines())
    assert f"tree {digest(trained('tree'))}" in runs[0].splitlines()


def test_sets_count() -> None:
    """Sets count by their members, not by their order."""
    words = [f"word {number}" for number in range(50)]
    shuffled = random.Random(3).sample(words, 50)

    assert digest({"s": set(words)}) == digest({"s": set(shuffled)})
    assert digest({"s": set(words)}) != digest({"s": set(words[1:])})
    assert digest({"s": frozenset(words)}) == digest({"s": frozenset(shuffled)})


def test_strings_that_are_one_object() -> None:
    """Which equal strings happen to be one object does not count."""
    one = b"name".decode()
    other = b"name".decode()
    assert one is not other

    assert digest([one, one]) == digest([one, other])


def test_cycles() -> None:
    """A part that contains itself has a digest, which tells what it contains."""
    one: dict[str, object] = {"a": 1}
    same: dict[str, object] = {"a": 1}
    other: dict[str, object] = {"a": 2}
    for part in (one, same, other):
        part["self"] = [part]

    assert digest(one) == digest(same)
    assert digest(one) != digest(other)


def test_generators() -> None:
    """Generators count only where asked for, and those of distributions never."""
    assert digest({"r": random.Random(1)}) == digest({"r": random.Random(2)})
    assert digest({"r": random.Random(1)}, generators=True) != digest(
        {"r": random.Random(2)}, generators=True
    )
    one, other = naive_bayes.GaussianNB(), naive_bayes.GaussianNB()
    for features, label in [({"a": 1.0}, True), ({"a": 2.0}, False)]:
        one.learn_one(features, label)
        other.learn_one(features, label)

    assert digest(one, generators=True) == digest(other, generators=True)
