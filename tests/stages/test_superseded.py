"""Snapshots that predictions which wait for their label may still name."""

from __future__ import annotations

from stream_ml.records import ModelRef, Prediction, ServingSet, Shadow, Source
from stream_ml.stages.superseded import SupersededSets

WAIT_MS = 1_000


def prediction(ts: int, **offsets: int) -> Prediction:
    """One whose shadows lie at these places on `models`, by slot."""
    shadows = {slot: Shadow(f"{slot}@0", None, offset) for slot, offset in offsets.items()}
    return Prediction("e", "k", ts, Source(0, 0), "own@9", -1, 0.5, False, {}, shadows)


def test_an_example_of_a_set_itself_is_none_of_a_later_one() -> None:
    """A predecessor that lies behind all challengers does not make its own set a former one."""
    former = ServingSet(ModelRef("own@9", "d", 9), {"tree": ModelRef("tree@0", "d", 1)}, None, None)
    present = ServingSet(
        ModelRef("own@12", "d", 12), {"tree": ModelRef("tree@12", "d", 13)}, None, None
    )
    sets = SupersededSets(WAIT_MS)
    sets.add(former, present)

    sets.see(prediction(100, tree=1, predecessor=7), 100)
    sets.see(prediction(5_000, tree=1, predecessor=7), 5_000)
    assert sets.models == {"tree@0"}

    sets.see(prediction(5_001, tree=13, predecessor=7), 5_001)
    sets.see(prediction(6_002, tree=13, predecessor=7), 6_002)
    assert sets.models == set()
