"""Windows of entities over all partitions of events: facts of each in, answers as of a time out.

Theory of operation:

1. Each partition tells facts (`EntityFacts`): the events that it took, and its *frontier*, below
   which it will take none any more. So what all partitions took below their least frontier is
   final, whatever the order in which facts of different partitions come.
2. An event at t is answered as of t - delay, once the least frontier has come there. Before, the
   final events below are put into the windows, in the order of time, then partition, then offset.
   So an answer is a function of the facts alone: of no interleaving, and of no process.
3. What no answer can reach any more is dropped: below the least, over partitions, of the frontier
   less the delay, and of the oldest event that still waits.
4. Facts that were taken before are passed over, by the offset up to which they were judged.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.errors import BadRecord
from stream_ml.records import Event
from stream_ml.stages.state import split_by_prefix
from stream_ml.stages.task import DirtyKeys
from stream_ml.summaries import decode_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_ml.features import FeatureSet
    from stream_ml.records import EntityFacts
    from stream_ml.stages.task import StateEntry

__all__ = ["EntityQuestion", "EntityWindows", "PartitionProgress"]

_WINDOWS, _WAITING = "w", "e"


class EntityQuestion(NamedTuple):
    """An event that asks as of a time; its answers are put among those of all windows."""

    ms: int
    event: Event
    answers: list[float | None]


@dataclass(slots=True)
class PartitionProgress:
    """How far a partition has come; see `EntityFacts`."""

    offset: int = 0
    frontier: int = 0
    answered: int = 0
    oldest: int | None = None


class EntityWindows:
    """The windows of entities over all partitions.

    Args:
        feature_set: with a delay.
        partitions: how many the events have.

    Attributes:
        frontier_ms: the least frontier of all partitions.
        newest_ms: the greatest.
        state: the windows.
    """

    def __init__(self, feature_set: FeatureSet, partitions: int) -> None:
        assert feature_set.delay_ms is not None, "without a delay they are of one partition"
        self.delay_ms = feature_set.delay_ms
        self.state = feature_set.new_state(delayed=True)
        self.partitions = [PartitionProgress() for _ in range(partitions)]
        self.frontier_ms = self.newest_ms = 0
        self._names = frozenset(feature_set.delayed_fields)
        # Events that are not in the windows yet, as a heap: time, partition, offset.
        self._waiting: list[tuple[int, int, int]] = []
        self._fields: dict[tuple[int, int], dict[str, Any]] = {}
        self._dirty = DirtyKeys[tuple[int, int]]()
        self._bound_ms = 0

    def fresh(self) -> EntityWindows:
        """The same before any facts."""
        return EntityWindows(self.state.feature_set, len(self.partitions))

    def __len__(self) -> int:
        """How many events are not in the windows yet."""
        return len(self._waiting)

    def read(self, value: bytes | None) -> bool:
        """Take facts as they lie on the log; whether the least frontier has risen.

        Args:
            value: of a record of `entities`, without its seal.

        Raises:
            BadRecord: it is not one that a task of this pipeline can have written.
        """
        facts = decode_facts(value)
        names = self._names
        if facts.partition >= len(self.partitions):
            raise BadRecord("malformed", "$.partition", f"expected below {len(self.partitions)}")
        if any(event.fields.keys() != names for event in facts.events):
            raise BadRecord("malformed", "$.events", f"expected the fields {sorted(names)}")
        return self.take(facts)

    def take(self, facts: EntityFacts) -> bool:
        """Take facts in; whether the least frontier has risen.

        Args:
            facts: of one partition, not older than those that were taken of it before.
        """
        progress = self.partitions[facts.partition]
        for event in facts.events:
            if event.offset >= progress.offset:
                name = (facts.partition, event.offset)
                heapq.heappush(self._waiting, (event.ts, *name))
                self._fields[name] = event.fields
                self._dirty.put(name, new=True)
        if facts.offset >= progress.offset:
            progress.offset, progress.oldest = facts.offset, facts.oldest
        progress.frontier = max(progress.frontier, facts.frontier)
        progress.answered = max(progress.answered, facts.answered)
        self.newest_ms = max(self.newest_ms, progress.frontier)
        least = min(each.frontier for each in self.partitions)
        has_risen = least > self.frontier_ms
        self.frontier_ms = max(least, self.frontier_ms)
        self._drop()
        return has_risen

    @property
    def oldest_question_ms(self) -> int:
        """As of when, at least, whatever asks from now on."""
        return min(
            each.frontier - self.delay_ms
            if each.oldest is None
            else min(each.frontier - self.delay_ms, each.oldest)
            for each in self.partitions
        )

    def _drop(self) -> None:
        """Drop what no answer can reach any more."""
        bound_ms = self.oldest_question_ms
        if bound_ms > self._bound_ms:
            self._bound_ms = bound_ms
            self._insert_before(bound_ms)
            self.state.advance(bound_ms)

    def answer(self, questions: Iterable[EntityQuestion]) -> None:
        """Put the answers among those of each question, none of which is past the frontier."""
        for question in sorted(questions, key=lambda each: each.ms):
            assert question.ms <= self.frontier_ms, "events may still come below"
            self._insert_before(question.ms)
            self.state.fill(question.event, question.ms, question.answers)

    def _insert_before(self, ms: int) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] < ms:
            ts, *name = heapq.heappop(waiting)
            partition, offset = name
            self._dirty.delete((partition, offset))
            self.state.insert(Event("", ts, "", self._fields.pop((partition, offset))))

    def forget(self, is_meant: Callable[[str], bool], name: str) -> None:
        """Let another name stand for the values that are meant; their windows go.

        Args:
            is_meant: whether a text is.
            name: for those.
        """
        self.state.forget(is_meant, name)
        for key, fields in self._fields.items():
            if any(type(value) is str and is_meant(value) for value in fields.values()):
                self._fields[key] = {
                    field: name if type(value) is str and is_meant(value) else value
                    for field, value in fields.items()
                }
                self._dirty.put(key, new=False)

    def dump(self) -> list[Any]:
        """The state that belongs to no piece, as JSON can hold it."""
        partitions = [[p.offset, p.frontier, p.answered, p.oldest] for p in self.partitions]
        return [self.frontier_ms, self.newest_ms, self._bound_ms, partitions]

    def dirty(self) -> list[StateEntry]:
        """The pieces that have changed since the last call; None for one that went."""
        times = {(partition, offset): ts for ts, partition, offset in self._waiting}
        waiting: list[StateEntry] = []
        for name in self._dirty.drain():
            fields = self._fields.get(name)
            value = None if fields is None else orjson.dumps([times[name], fields])
            waiting.append((f"{_WAITING}{name[0]}:{name[1]}", value))
        return [*waiting, *((f"{_WINDOWS}{name}", value) for name, value in self.state.dirty())]

    def load(self, state: Sequence[Any], pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state.

        Args:
            state: what `dump` gave.
            pieces: what `dirty` gave, all that live.
        """
        self.frontier_ms, self.newest_ms, self._bound_ms, partitions = state
        self.partitions = [PartitionProgress(*each) for each in partitions]
        entries = split_by_prefix(pieces, _WINDOWS, _WAITING)
        for name, value in entries[_WAITING]:
            partition, _, offset = name.partition(":")
            key = (int(partition), int(offset))
            ts, self._fields[key] = orjson.loads(value)
            self._waiting.append((ts, *key))
        heapq.heapify(self._waiting)
        self.state.restore(entries[_WINDOWS])
        self.state.advance(self._bound_ms)
