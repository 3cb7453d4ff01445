"""Positions held against what a log has: refused, or gone on with and told; nothing passed over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.errors import UsageError
from stream_ml.stages.positions import Extent, ResumePoint, find_resume_point

OFFSETS = st.integers(min_value=0, max_value=50)
IDENTITIES = st.sampled_from(["", "a", "b"])
PLACE = ("events", 0)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[int, int, str, Extent]:
    """Where a state is valid, up to where was read, of which topic, and what there is."""
    state = draw(OFFSETS)
    read = draw(st.integers(min_value=state, max_value=60))
    first = draw(OFFSETS)
    end = draw(st.integers(min_value=first, max_value=60))
    return state, read, draw(IDENTITIES), Extent(draw(IDENTITIES), first, end)


def go_on(world: tuple[int, int, str, Extent], *accepted: str) -> ResumePoint:
    """Where the task goes on."""
    state, read, known, extent = world
    return find_resume_point(
        "predict-0",
        state={PLACE: state},
        read={PLACE: read},
        identities={"events": known},
        extents={PLACE: extent},
        accepted_topics=accepted,
    )


def is_another(world: tuple[int, int, str, Extent]) -> bool:
    """Whether what there is cannot be what was read."""
    _, read, known, extent = world
    return read > extent.end or bool(
        read and known and extent.identity and known != extent.identity
    )


@given(worlds())
def test_what_was_not_read_is_read_or_counted(world: tuple[int, int, str, Extent]) -> None:
    """Of each offset before where the task goes on it is known that it was read, or skipped."""
    _, read, _, extent = world
    if is_another(world):
        with pytest.raises(UsageError, match=r"STREAM_ML_ACCEPT_TOPICS=events$"):
            go_on(world)
        return

    found = go_on(world)

    skipped = sum(notice.skipped for notice in found.notices)
    assert max(read, extent.first) == found.read[PLACE] == read + skipped


@given(worlds())
def test_what_is_accepted_as_another_is_read_from_its_beginning(
    world: tuple[int, int, str, Extent],
) -> None:
    """And what it lacks of that is counted, too."""
    found = go_on(world, "events")

    kinds = [notice.kind for notice in found.notices]
    if is_another(world):
        assert "topic_made_anew" == kinds.pop(0)
        assert {PLACE: world[3].first} == found.read == found.state
    assert kinds in ([], ["records_lost"])


@given(worlds())
def test_the_state_is_never_ahead_of_what_was_read_nor_below_what_there_is(
    world: tuple[int, int, str, Extent],
) -> None:
    """So that a replay between the two finds all of its records."""
    found = go_on(world, "events")

    assert world[3].first <= found.state[PLACE] <= found.read[PLACE] <= world[3].end


@given(worlds())
def test_what_is_as_it_was_is_not_told(world: tuple[int, int, str, Extent]) -> None:
    """A task that goes on where it was has nothing to say."""
    found = go_on(world, "events")

    moved = (found.state[PLACE], found.read[PLACE]) != world[:2]
    assert moved == bool(found.notices) or is_another(world)


def test_each_place_that_is_wrong_is_named() -> None:
    """With what was expected of it, and what is there."""
    with pytest.raises(UsageError) as refused:
        find_resume_point(
            "join-1",
            state={("predictions", 1): 7, ("labels", 1): 9},
            read={},
            identities={"predictions": "a", "labels": "b"},
            extents={("predictions", 1): Extent("c", 0, 99), ("labels", 1): Extent("b", 2, 8)},
            accepted_topics=(),
        )

    assert str(refused.value) == (
        "join-1: predictions-1: expected the partition of the topic a that was read up to 7, given "
        "the topic c, which begins at 0 and ends at 99; labels-1: expected the partition that was "
        "read up to 9, given one that begins at 2 and ends at 8. It was made anew, cut off, or is "
        "another cluster's; nothing of it was read. Put back what was there, or have the tasks "
        "begin where it begins, by starting once with STREAM_ML_ACCEPT_TOPICS=predictions,labels"
    )
