"""What a challenger loses on a slice: found where it is sure, and not where it may be chance."""

from __future__ import annotations

import random

import orjson
import pytest

from stream_ml.evaluation.slices import LEARNED, PAIRS_MIN, SliceLosses, SliceNames

HOUR = 3_600_000


def losses(seed: int, blocks: int, pairs: int, excess: float, stop: int = -1) -> SliceLosses:
    """Pairs of a slice, the challenger's loss larger by some share on the mean; noise is large."""
    rand = random.Random(seed)
    found = SliceLosses(0.1, HOUR, 1, 0)
    for block in range(blocks):
        for n in range(pairs):
            own = rand.choice((0.04, 0.64))
            loss = own * (1 + excess) + rand.gauss(0, 0.2)
            found.add(block * HOUR + n, ["abroad"], loss, own)
        found.close((block + 1) * HOUR)
        if block == stop:
            state = orjson.loads(orjson.dumps(found.dump()))
            found = SliceLosses(0.1, HOUR, 1, 0)
            found.load(state)
    return found


def kinds(blocks: int, pairs: int, excess: float, seeds: int = 200) -> list[str]:
    """What is said, over many seeds."""
    doubts = (losses(seed, blocks, pairs, excess).doubt() for seed in range(seeds))
    return ["" if doubt is None else doubt.kind for doubt in doubts]


def test_a_slice_that_is_as_good_is_seldom_rejected_and_one_that_is_harmed_always() -> None:
    """At the margin itself the chance of an error is some 2.5 %; of a loss of half more it is 0."""
    assert kinds(12, 40, 0.1).count("reject") <= 12
    assert kinds(12, 40, 0.0).count("reject") <= 2
    assert {"reject"} == set(kinds(12, 40, 0.5, seeds=40))


def test_of_few_labels_nothing_is_said() -> None:
    """Of fewer than 50 pairs, or of one block, there is no doubt, however bad they look."""
    assert {""} == set(kinds(4, PAIRS_MIN // 4, 3.0, seeds=9))
    assert {""} == set(kinds(1, 400, 3.0, seeds=9))
    assert set(kinds(5, 20, 0.3, seeds=60)) == {"", "hold", "reject"}


def test_harm_of_long_ago_is_no_debt() -> None:
    """A challenger that harmed a slice for fifty blocks, and is good now, is free of it in time."""
    rand = random.Random(5)
    found, said = SliceLosses(0.1, HOUR, 1, 0), []
    for block in range(130):
        for n in range(20):
            own = rand.choice((0.04, 0.64))
            loss = own * (1.6 if block < 50 else 0.9) + rand.gauss(0, 0.1)
            found.add(block * HOUR + n, ["abroad"], loss, own)
        found.close((block + 1) * HOUR)
        doubt = found.doubt()
        said.append("" if doubt is None else doubt.kind)
    assert {"reject"} == set(said[10:50])
    assert {""} == set(said[85:])


@pytest.mark.parametrize("stop", [0, 3, 7])
def test_losses_by_slice_go_on_alike_from_their_state(stop: int) -> None:
    """Written down and taken up anywhere, they come to the same."""
    expected = losses(3, 9, 20, 0.2)
    actual = losses(3, 9, 20, 0.2, stop)
    assert orjson.dumps(expected.dump()) == orjson.dumps(actual.dump())
    assert expected.doubt() == actual.doubt()


def test_of_many_values_the_most_frequent_of_the_first_examples_are_slices() -> None:
    """Before they are chosen none is; afterwards all others are one, also in a restart between."""
    rand = random.Random(2)
    names = SliceNames(["abroad"], {"country": 2})
    for n in range(LEARNED):
        value = rand.choices(("it", "no", f"rare{n}"), (5, 3, 2))[0]
        found = names.take(("abroad", f"country={value}"))
        assert (found == ["abroad"]) is (n < LEARNED - 1)
        if n in {3, LEARNED - 1}:
            state = orjson.loads(orjson.dumps(names.dump()))
            names = SliceNames(["abroad"], {"country": 2})
            names.load(state)
    for value, expected in (("it", "it"), ("no", "no"), ("se", "*"), ("rare7", "*")):
        assert [f"country={expected}"] == names.take((f"country={value}", "gone", "age=5"))
    other = SliceNames([], {"country": 3})
    other.load(names.dump())
    assert [] == other.take(("country=it", "abroad"))
