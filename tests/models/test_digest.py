"""The canonical digest: equal learners have equal digests, others have others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from learners import LEARNERS, REGRESSION, examples, recipe, trained
from river import forest, naive_bayes

from stream_ml.errors import SnapshotRefused
from stream_ml.models.digest import digest, digest_and_size
from stream_ml.models.pickles import dumps, loads
from stream_ml.models.recipes import answer, learn

if TYPE_CHECKING:
    from collections.abc import Callable

# As the release before this scheme computed them.
FORMER = {
    "logistic": "95c8fd02909e00bce5120f17410a23b78a435cd4243c6a3906427e1f1d7005f4",
    "tree": "ecf4c077f3f4b186b7474b835fea0eaf73120ce7e1db80f8a85f3291befcb9b4",
    "mondrian": "2fe829c9beac87c91bcd9272f725131c8bde22a7a9f8d45d7c203e4d0a58825d",
}


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


def test_a_digest_costs_about_what_a_pickle_costs() -> None:
    """Also of nodes that know their parents, where writing out all that is shared took 30 times."""
    model = forest.AMFRegressor(4, seed=1)
    for features, label in examples(REGRESSION, 600):
        model.learn_one(features, label)

    def seconds(work: Callable[[Any], object]) -> float:
        spent = []
        for _ in range(3):
            before = time.process_time()
            work(model)
            spent.append(time.process_time() - before)
        return min(spent)

    assert seconds(digest) < 8 * seconds(dumps)


def test_what_is_nested_too_deep_is_refused_and_stops_nothing() -> None:
    """As where it is pickled: a refusal with a reason, never Python's own error."""
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]

    for like in ("graph:", ""):
        with pytest.raises(SnapshotRefused, match="nested too deep"):
            digest(deep, like=like)


@pytest.mark.parametrize("name", ["logistic", "tree", "mondrian"])
def test_former_digests_stay_what_they_were(name: str) -> None:
    """A snapshot of before has a digest without a scheme, and is checked by it."""
    assert FORMER[name] == digest(trained(name, 40), like=FORMER[name])
    assert digest(trained(name, 40)).startswith("graph:")


def test_shared_parts_count() -> None:
    """Two parts that are one are not two that are equal."""
    part = {"a": 1}

    assert digest([part, part]) != digest([part, dict(part)])
    assert digest([("a", 1), ("a", 1)]) == digest([(pair := ("a", 1)), pair])


@pytest.mark.parametrize("name", ["tree", "forest", "bayes"])
def test_equal_learners_measure_alike_whatever_their_pickles_do(name: str) -> None:
    """A learner read back from its pickle is as large as the one that was written."""
    learner = trained(name)
    again = loads(dumps(learner))

    assert (
        digest_and_size(learner) == digest_and_size(again) == digest_and_size(loads(dumps(again)))
    )
    assert digest(learner) == digest_and_size(learner)[0]
