"""The table of stages says what the catalogue of topics says."""

from __future__ import annotations

import pytest

from stream_ml.stages.topology import SHARED_OUTPUTS, STAGES, StageSpec, readers_of
from stream_ml.topics import catalogue


def _writes(spec: StageSpec) -> set[str]:
    own = {*spec.outputs, *spec.exchanged, f"{spec.name}-changelog"}
    return {*own, *spec.rerouted_inputs, *SHARED_OUTPUTS}


def _reads(spec: StageSpec) -> set[str]:
    return {*spec.inputs, *spec.feed, *spec.exchanged, f"{spec.name}-changelog"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_and_writes_what_the_topics_files_say(name: str) -> None:
    """Whoever looks at a topic's file and whoever looks at the table see one dataflow."""
    topics = catalogue().values()

    assert {each.name for each in topics if name in each.writers} == _writes(STAGES[name])
    assert {each.name for each in topics if name in each.readers} == _reads(STAGES[name])


def test_the_order_of_the_table_is_that_of_the_data() -> None:
    """No input but the registry comes from a later stage: data flows one way."""
    names = list(STAGES)
    for spec in STAGES.values():
        for other in names[names.index(spec.name) + 1 :]:
            assert {"registry"} >= set(spec.inputs) & set(STAGES[other].outputs)


def test_every_output_of_a_stage_that_a_stage_needs_has_its_readers() -> None:
    """The loop is closed: examples teach and judge, snapshots and decisions reach predictions."""
    assert ("learn", "evaluate") == readers_of("examples")
    assert ("predict", "evaluate") == readers_of("models")
    assert ("predict", "learn", "evaluate") == readers_of("registry")
