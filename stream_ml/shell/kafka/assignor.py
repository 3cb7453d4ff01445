"""Assigns partitions to the workers of a stage: even shares, and a worker keeps what it had.

A task's inputs have the same partition number, so a number is given as a whole, of every topic.
What a worker held it claims again when the group is shared out anew (its state is still in memory,
see `task`); of that it keeps as much as is its share, and only the rest moves.

Where each line is a task of its own, all tasks read the same partitions, and every member is given
these; which lines are whose is said beside them.

Brokers do not tell since when a member is in its group, so each says itself when it first joined:
whoever looks at the group then knows a worker that has just come (`log.worker_since_ms`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

from stream_ml.shell.kafka.member_data import FIRST_JOIN, told_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiokafka.cluster import ClusterMetadata

__all__ = ["TaskAssignor", "shares"]


def shares(partitions: int, claims: Mapping[str, set[int]]) -> dict[str, list[int]]:
    """Share out partition numbers: sizes differ by one at most, and claims are kept up to that.

    Args:
        partitions: how many there are, numbered from 0.
        claims: by member, what it held before.

    >>> shares(4, {"a": {0, 1, 2, 3}, "b": set()})
    {'a': [0, 1], 'b': [2, 3]}
    >>> shares(3, {"a": {2}, "b": {0, 1}, "c": set()})
    {'a': [2], 'b': [0], 'c': [1]}
    """
    minimum, remainder = divmod(partitions, len(claims))
    # Members that held most come first: the remainder, one partition each, is theirs.
    by_size = sorted(claims, key=lambda member: (-len(claims[member]), member))
    capacity = {member: minimum + (rank < remainder) for rank, member in enumerate(by_size)}
    free = set(range(partitions))
    numbers: dict[str, list[int]] = {}
    for member in by_size:
        numbers[member] = sorted(claims[member] & free)[: capacity[member]]
        free -= set(numbers[member])
    # The rest goes to whoever has room, in the order of names: every member computes the same.
    free_numbers = sorted(free)
    for member in sorted(claims):
        short = capacity[member] - len(numbers[member])
        numbers[member] = sorted(numbers[member] + free_numbers[:short])
        free_numbers = free_numbers[short:]
    return {member: numbers[member] for member in sorted(numbers)}


class TaskAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # it ships no types
    """`shares` as a group protocol (KIP-54 has the idea); an instance is one member's.

    Args:
        lines: that are tasks of their own; empty: a task has the partition of its number.
        now_ms: the time (UTC ms).
    """

    name = "stream-ml"
    version = 0

    def __init__(
        self,
        lines: Sequence[str] = (),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._lines = lines
        self._now_ms = now_ms
        self._first_join_ms: int | None = None
        self._numbers: list[int] = []
        # The lines that are ours; a member may know of others, declared elsewhere.
        self.lines: list[str] = []

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """The join request's metadata: the member's topics, what it held, its first join."""
        if self._first_join_ms is None:
            self._first_join_ms = self._now_ms()
        held: Sequence[Any] = self.lines if self._lines else self._numbers
        user_data = orjson.dumps([*held, {FIRST_JOIN: self._first_join_ms}])
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), user_data)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Share out the partitions of a group whose members all read the same topics.

        Args:
            cluster: what the brokers say of the topics.
            members: of the group, with what each had before.
        """
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        if self._lines:
            return self._assign_lines(topics, members)
        claims = {member: _claims(metadata.user_data) for member, metadata in members.items()}
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version,
                [(topic, [p for p in numbers if p < counts[topic]]) for topic in topics],
                b"",
            )
            for member, numbers in shares(max(counts.values(), default=0), claims).items()
        }

    def _assign_lines(
        self, topics: Sequence[str], members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Share out the lines; all members have the partitions that they are taught from."""
        number_of = {line: number for number, line in enumerate(self._lines)}
        claims = {
            member: {number_of[line] for line in _names(metadata.user_data) if line in number_of}
            for member, metadata in members.items()
        }
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version,
                [(topic, [0]) for topic in topics],
                orjson.dumps([self._lines[number] for number in numbers]),
            )
            for member, numbers in shares(len(self._lines), claims).items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what is held from now on."""
        self._numbers = sorted({p for _, numbers in assignment.assignment for p in numbers})
        self.lines = _names(assignment.user_data)


def _names(user_data: bytes) -> list[str]:
    """The lines that are named; none where none are."""
    return [name for name in told_items(user_data) if type(name) is str]


def _claims(user_data: bytes) -> set[int]:
    # JSON's true would pass for a 1, and be given out as one.
    return {number for number in told_items(user_data) if type(number) is int}
