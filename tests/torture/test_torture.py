"""Worlds at random keep what is promised, and bugs that are planted in them are seen."""

from __future__ import annotations

import pytest

from tests.torture import planted
from tests.torture.worlds import Tally, make, torture

# Which worlds are made is fixed: a failure here is one of the code, and repeats.
FIRST_SEED = 1_000
BATCHES = 6
WORLDS = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_whatever_is_declared_and_happens_all_promises_hold(batch: int) -> None:
    """No exception, every record accounted for, replays alike, memory and features as defined."""
    tally = Tally()
    for seed in range(FIRST_SEED + batch * WORLDS, FIRST_SEED + (batch + 1) * WORLDS):
        wrong = torture(make(seed, tally), tally)
        assert [] == wrong, f"again: python -m tests.torture --seed {seed}"

    print(tally)
    assert WORLDS == tally.counts["declarations"]


def test_these_worlds_are_about_something() -> None:
    """All kinds of truth, several partitions, commands, and declarations refused and changed."""
    tally = Tally()
    worlds = [make(seed, tally) for seed in range(FIRST_SEED, FIRST_SEED + 60)]

    assert {world.declaration.kind for world in worlds} == {"bool", "enum", "float"}
    assert any(world.history.partitions > 1 for world in worlds)
    assert any(phase.commands for world in worlds for phase in world.history.phases)
    assert any(phase.declares for world in worlds for phase in world.history.phases)
    assert tally.refused["models"] > 0


@pytest.mark.parametrize(
    "name",
    [
        "a horizon one millisecond short",
        "the second prediction of an id is taken",
        "a window one millisecond too long",
    ],
)
def test_a_planted_bug_is_seen_within_a_few_worlds(name: str) -> None:
    """What a single record does not show is found by what must hold of all."""
    assert planted.caught(name, worlds=12) is not None


def test_without_a_planted_bug_nothing_is_seen_there() -> None:
    """The worlds in which bugs are planted are clean themselves."""
    for seed in range(planted.FIRST_SEED, planted.FIRST_SEED + 4):
        assert [] == torture(make(seed, Tally()), Tally())
