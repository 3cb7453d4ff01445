"""A group's partitions go to its members evenly, and what a member held stays with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.shell.kafka.assignor import TaskAssignor, shares
from stream_ml.shell.kafka.member_data import first_join_ms

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

PARTITIONS_MAX = 40
COUNTS = st.integers(0, PARTITIONS_MAX)
# Members remember what a topic had before it was made anew: some claim what is not there.
CLAIMS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.sets(st.integers(-2, PARTITIONS_MAX + 2), max_size=PARTITIONS_MAX),
    min_size=1,
    max_size=8,
)


def cluster(**topics: int) -> Any:
    """What a client knows of a cluster: how many partitions each topic has."""
    return SimpleNamespace(
        partitions_for_topic=lambda name: set(range(topics[name])) if name in topics else None
    )


def member(*topics: str, user_data: bytes | None = b"") -> Any:
    """What a member says when it joins."""
    return ConsumerProtocolMemberMetadata(0, list(topics), user_data)


def given_to(
    assigned: Mapping[str, ConsumerProtocolMemberAssignment],
) -> dict[str, dict[str, list[int]]]:
    """By member and topic, the partitions it got."""
    return {name: dict(each.assignment) for name, each in assigned.items()}


# --- shares -----------------------------------------------------------------------------------


@given(COUNTS, CLAIMS)
def test_every_partition_goes_to_one_member_and_shares_are_even(
    partitions: int, claims: dict[str, set[int]]
) -> None:
    """Whatever is claimed: none is left out or given twice, and sizes differ by one at most."""
    given_out = shares(partitions, claims)

    assert given_out.keys() == claims.keys()
    assert list(range(partitions)) == sorted(p for numbers in given_out.values() for p in numbers)
    sizes = [len(numbers) for numbers in given_out.values()]
    assert max(sizes) - min(sizes) <= 1
    assert all(numbers == sorted(numbers) for numbers in given_out.values())


@given(COUNTS, CLAIMS)
def test_a_member_keeps_of_its_claim_what_its_share_has_room_for(
    partitions: int, claims: dict[str, set[int]]
) -> None:
    """Those who claim most come first; of what is left of its claim each keeps up to its share."""
    given_out = shares(partitions, claims)
    ranked = sorted(claims, key=lambda name: (-len(claims[name]), name))
    taken: set[int] = set()
    for name in ranked:
        open_to_it = (claims[name] & set(range(partitions))) - taken
        kept = claims[name] & set(given_out[name])
        assert min(len(given_out[name]), len(open_to_it)) <= len(kept)
        taken |= kept


@given(COUNTS, CLAIMS, st.randoms(use_true_random=False))
def test_whoever_shares_out_comes_to_the_same_shares(
    partitions: int, claims: dict[str, set[int]], rand: random.Random
) -> None:
    """The order in which members joined changes nothing."""
    names = list(claims)
    rand.shuffle(names)

    assert shares(partitions, claims) == shares(partitions, {name: claims[name] for name in names})


@given(COUNTS, st.lists(st.integers(0, 5), max_size=20))
def test_only_what_has_to_move_moves(partitions: int, changes: list[int]) -> None:
    """Members come and go: who stays loses nothing but what is over its new share."""
    held: dict[str, set[int]] = {"m0": set()}
    for number, change in enumerate(changes):
        members = dict(held)
        if change and len(members) > 1:
            del members[sorted(members)[change % len(members)]]
        else:
            members[f"n{number}"] = set()
        new = {name: set(numbers) for name, numbers in shares(partitions, members).items()}
        for name, before in members.items():
            assert len(before & new[name]) == min(len(before), len(new[name]))
        held = new


# --- the group's protocol ---------------------------------------------------------------------


def test_a_task_has_the_partition_of_its_number_of_every_input() -> None:
    """Topics that are read together are shared out together."""
    assigned = TaskAssignor().assign(
        cluster(predictions=5, labels=5),
        {name: member("predictions", "labels") for name in ("a", "b")},
    )

    assert given_to(assigned) == {
        "a": {"predictions": [0, 1, 2], "labels": [0, 1, 2]},
        "b": {"predictions": [3, 4], "labels": [3, 4]},
    }


def test_what_was_assigned_is_claimed_when_the_group_is_shared_out_anew() -> None:
    """Two members that held 1, 3 and 0, 2 keep them, whoever of them joins first."""
    topics = cluster(events=4)
    assignors = {"a": TaskAssignor(), "b": TaskAssignor()}
    before = {"a": [1, 3], "b": [0, 2]}
    for name, numbers in before.items():
        assignors[name].on_assignment(
            ConsumerProtocolMemberAssignment(0, [("events", numbers)], b"")
        )

    said = {name: assignors[name].metadata({"events"}) for name in ("b", "a")}
    after = given_to(assignors["b"].assign(topics, said))

    assert after == {name: {"events": numbers} for name, numbers in before.items()}


def test_a_member_tells_at_each_join_when_it_joined_first() -> None:
    """As long as its process lives; and a leader of the former release reads its claim as ever."""
    times = iter((7, 8))
    ours = TaskAssignor(now_ms=lambda: next(times))
    joins = [ours.metadata({"events"}).user_data]
    ours.on_assignment(ConsumerProtocolMemberAssignment(0, [("events", [1, 3])], b""))
    joins.append(ours.metadata({"events"}).user_data)

    assert [7, 7] == [first_join_ms(each) for each in joins]
    assert [1, 3] == [each for each in orjson.loads(joins[1]) if type(each) is int]
    assert None is first_join_ms(b'[{"first_join_ms": true}, {}, 4]')


def test_a_topic_with_fewer_partitions_gets_those_it_has() -> None:
    """What is not there is given to nobody, and nothing of what is there is left out."""
    assigned = TaskAssignor().assign(
        cluster(predictions=4, labels=2),
        {name: member("predictions", "labels") for name in ("a", "b")},
    )

    assert given_to(assigned) == {
        "a": {"predictions": [0, 1], "labels": [0, 1]},
        "b": {"predictions": [2, 3], "labels": []},
    }


def test_a_topic_that_is_not_there_gives_nobody_anything() -> None:
    """The members wait for it, with nothing to do."""
    assigned = TaskAssignor().assign(cluster(), {"a": member("events")})

    assert given_to(assigned) == {"a": {"events": []}}


@pytest.mark.parametrize(
    "user_data",
    [
        None,
        b"",
        b"\xff\xfe",
        b"{",
        b"null",
        b'"0"',
        b'{"0":1}',
        b"[null,[0],{},1.5,true,false]",
        b"[-1,4,99999999999999999999]",
        b"[0,1,2,3,0,1,2,3]",
        b"[" * 2_000,
        b"[" + b",".join(b"%d" % n for n in range(10_000)) + b"]",
    ],
)
def test_what_another_program_says_about_itself_does_no_harm(user_data: bytes | None) -> None:
    """Shares stay even and whole, and are numbers, though a member sends anything at all."""
    said = {
        "hostile": member("events", user_data=user_data),
        "ours": member("events", user_data=b"[0,1]"),
    }

    assigned = TaskAssignor().assign(cluster(events=4), said)

    numbers = [p for each in given_to(assigned).values() for p in each["events"]]
    assert [0, 1, 2, 3] == sorted(numbers)
    assert {int} == set(map(type, numbers))
    assert {2} == {len(each["events"]) for each in given_to(assigned).values()}


@given(st.binary())
def test_any_bytes_are_a_claim(user_data: bytes) -> None:
    """Nothing that a member sends stops the one who shares out."""
    said = {"hostile": member("events", user_data=user_data), "ours": member("events")}
    assigned = TaskAssignor().assign(cluster(events=3), said)

    assert [0, 1, 2] == sorted(p for each in given_to(assigned).values() for p in each["events"])


def lines_of(assigned: Mapping[str, ConsumerProtocolMemberAssignment]) -> dict[str, list[str]]:
    """By member, the lines it got, as it understands it."""
    found = {}
    for name, each in assigned.items():
        assignor = TaskAssignor(["a", "b", "c"])
        assignor.on_assignment(each)
        found[name] = assignor.lines
    return found


def test_lines_are_shared_out_and_kept_and_all_read_the_same_partitions() -> None:
    """Where each is a task of its own; what a member that died had goes to those that are left."""
    topics, names = cluster(examples=1, registry=1), ("examples", "registry")
    first = TaskAssignor(["a", "b", "c"]).assign(topics, {n: member(*names) for n in ("x", "y")})
    left = TaskAssignor(["a", "b", "c"])
    left.on_assignment(first["y"])
    said = {"y": left.metadata(set(names)), "z": member(*names)}

    assert {"x": ["a", "b"], "y": ["c"]} == lines_of(first)
    assert {"y": ["c", "a"], "z": ["b"]} == {
        name: sorted(lines, key="cab".index)
        for name, lines in lines_of(TaskAssignor(["a", "b", "c"]).assign(topics, said)).items()
    }
    assert [{"examples": [0], "registry": [0]}] * 2 == list(given_to(first).values())


@given(st.binary())
def test_any_bytes_are_a_claim_to_lines(user_data: bytes) -> None:
    """Nothing that a member sends gives a line to two, or to nobody."""
    said = {"hostile": member("examples", user_data=user_data), "ours": member("examples")}
    assigned = TaskAssignor(["a", "b", "c"]).assign(cluster(examples=1), said)

    assert ["a", "b", "c"] == sorted(
        line for lines in lines_of(assigned).values() for line in lines
    )
