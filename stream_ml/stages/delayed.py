"""Predict with windows of entities over all partitions: an event is answered when they are final.

Theory of operation:

1. An event is judged, taken and put into the windows of its key as ever (`predict`). One that asks
   then *waits*, with what those windows said, until all partitions have come to its time less the
   delay; the answers of entities' windows are of that time (`entity_windows`).
2. The position on `events` is that of judging. What waits is state, in pieces of its own.
3. What a partition took, and how far it has come, are facts on `entities`, in the transaction of
   what it led to. From them every task of every process has the windows: nothing of them is state.
   Where there is one partition, no such topic is needed: the task keeps the windows itself.
4. An event that waits is answered where its time less the delay is at most `answered`, which only
   rises and is told with the facts. So whoever takes over knows which were, though a replay cannot
   see when frontiers of other partitions came.
5. A partition in which nothing comes would hold up all. Where it was read to its end, and nothing
   came for a while, it tells that it takes nothing below the greatest frontier, nor below what
   itself still waits for, in one transaction with its state. An event of it that comes later and
   is older than that is answered as of there, and is in no entity's window; it is counted.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.features.entities import GROUP_LENGTH_KEPT
from stream_ml.features.feature_set import FeatureState
from stream_ml.features.texts import text_digest
from stream_ml.records import EntityEvent, EntityFacts, Event, Output, Record
from stream_ml.stages.entity_windows import EntityQuestion, EntityWindows
from stream_ml.stages.predict import Predict, PredictionRequest
from stream_ml.stages.state import DELAYED, KEYLESS, split_by_prefix
from stream_ml.stages.task import DirtyKeys
from stream_ml.summaries import encode_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ml.errors import BadRecord
    from stream_ml.features import FeatureSet
    from stream_ml.pipeline import Pipeline
    from stream_ml.stages.erasure import Erasure, Erasures
    from stream_ml.stages.serving import Serving
    from stream_ml.stages.task import StateEntry

__all__ = ["WAITING_MAX", "DelayedPredict", "new_predict"]

TOPIC = "entities"
# More than this wait for other partitions, and no more is read.
WAITING_MAX = 50_000
# Facts of more events are told in several records.
FACTS_EVENTS_MAX = 256
FACTS_BYTES_MAX = 256 * 1024

_WAITING, _ENTITIES = "p", "e"


def new_predict(
    pipeline: Pipeline,
    serving: Serving,
    partition: int,
    *,
    partitions: int | None = None,
    erasures: Erasures | None = None,
    entities: EntityWindows | None = None,
) -> Predict:
    """Predict as the declaration wants it.

    Args:
        pipeline: the declaration.
        serving: see `Predict`.
        partition: of the events.
        partitions: see `Predict`.
        erasures: see `Predict`.
        entities: the windows over all partitions, fed by somebody else; None: there is one.
    """
    if pipeline.feature_set.delay_ms is None:
        return Predict(pipeline, serving, partitions, partition=partition, erasures=erasures)
    return DelayedPredict(
        pipeline, serving, partitions, partition=partition, erasures=erasures, entities=entities
    )


class _JudgedState(FeatureState):
    """The windows of keys, and which events were taken since this was emptied."""

    def __init__(self, feature_set: FeatureSet) -> None:
        super().__init__(feature_set)
        self.taken: list[Event] = []

    def insert(self, event: Event) -> None:
        super().insert(event)
        self.taken.append(event)


class DelayedPredict(Predict):
    """Predict on one partition of events, with windows of entities over all of them.

    Args:
        pipeline: the declaration, with a delay.
        serving: see `Predict`.
        partitions: see `Predict`.
        partition: of the events.
        erasures: see `Predict`.
        entities: the windows, which somebody feeds with the facts of all partitions; None: there is
            one partition, and the windows are this stage's own.

    Attributes:
        offset: up to where events were judged: the next offset.
    """

    _features: _JudgedState

    def __init__(
        self,
        pipeline: Pipeline,
        serving: Serving,
        partitions: int | None = None,
        *,
        partition: int = 0,
        erasures: Erasures | None = None,
        entities: EntityWindows | None = None,
    ) -> None:
        super().__init__(pipeline, serving, partitions, partition=partition, erasures=erasures)
        self._features = _JudgedState(pipeline.feature_set)
        self._partition = partition
        self._is_alone = entities is None
        self._entities = EntityWindows(pipeline.feature_set, 1) if entities is None else entities
        # What windows of the key say to events of this batch that ask, by the object's number.
        self._answers: dict[int, list[float | None]] = {}
        # What waits, as a heap: time less the delay, and the offset, by which lies the rest.
        self._order: list[tuple[int, int]] = []
        self._waiting: dict[int, tuple[int, PredictionRequest, list[float | None]]] = {}
        self._dirty_waiting = DirtyKeys[int]()
        self.offset = self._frontier_ms = self._answered_ms = 0
        # Whether it was closed since its state was written.
        self._has_closed = False
        # Of events that came after their partition had told that none would.
        self.counts["entity_late"] = 0

    # --- work ----------------------------------------------------------------------------------

    def _fold(self, records: Sequence[Record]) -> list[Output | PredictionRequest]:
        outputs, facts = self._judge(records)
        self._take(facts)
        return [*outputs, *self._due(), *self._told(facts)]

    def replay(self, records: Sequence[Record]) -> None:
        """Fold in events that were judged before; `settle` tells which were answered."""
        _, facts = self._judge(records)
        self._take(facts)
        if self._is_alone:
            self._due()

    def settle(self) -> None:
        """Drop what was answered before, as the facts of this partition say."""
        progress = self._entities.partitions[self._partition]
        self._frontier_ms = max(self._frontier_ms, progress.frontier)
        self._answered_ms = max(self._answered_ms, progress.answered)
        while self._order and self._order[0][0] <= self._answered_ms:
            offset = self._order[0][1]
            self._pop()
            del self._waiting[offset]

    @property
    def is_due(self) -> bool:
        """Whether something need wait no longer."""
        return bool(self._order) and self._order[0][0] <= self._entities.frontier_ms

    def closing_ms(self, now_ms: int) -> int | None:
        """Below what nothing would be taken any more, if nothing came; None where that is so.

        Args:
            now_ms: what the clock shows; not even what is waited for may close what is ahead of it.
        """
        newest_ms = max((ms for ms, _ in self._order), default=0)
        own_ms = min(newest_ms, now_ms - self._lateness.ms)
        frontier_ms = max(self._entities.newest_ms, own_ms)
        return frontier_ms if frontier_ms > self._frontier_ms else None

    def release(self) -> list[Output]:
        """The answers of what need wait no longer, as the windows have been fed since."""
        return self._answered() if self.is_due else []

    def _answered(self) -> list[Output]:
        serving_set = self._serving.current()
        assert serving_set is not None, "predict is fed before the first serving set is loaded"
        self._has_changed = True
        return self._outputs([*self._due(), *self._told([])], serving_set)

    def close(self, now_ms: int) -> list[Output]:
        """Tell that nothing older comes: all was read, and nothing came for a while.

        Args:
            now_ms: see `closing_ms`.
        """
        frontier_ms = self.closing_ms(now_ms)
        if frontier_ms is None:
            return []
        self._frontier_ms, self._has_changed, self._has_closed = frontier_ms, True, True
        self._take([])
        return self._answered()

    @property
    def is_full(self) -> bool:
        """Whether so many wait for other partitions that no more should be read.

        Never where all wait for this one: then only reading on helps.
        """
        is_last = self._frontier_ms <= self._entities.frontier_ms
        return len(self._waiting) >= WAITING_MAX and not is_last

    @property
    def sizes(self) -> dict[str, int]:
        """As of `Predict`, and how many events wait."""
        return {**super().sizes, "waiting": len(self._waiting)}

    def _judge(
        self, records: Sequence[Record]
    ) -> tuple[list[Output | PredictionRequest], list[EntityEvent]]:
        """Take events in: what is to be written at once, and what windows of entities get."""
        outputs: list[Output | PredictionRequest] = []
        for item in super()._fold(records):
            if isinstance(item, PredictionRequest):
                # What comes after silence asks as of where its partition was closed.
                ms = max(item.event.ts, self._frontier_ms) - self._entities.delay_ms
                self._put(ms, item, self._answers[id(item.event)])
                self._dirty_waiting.put(item.record.offset, new=True)
            else:
                outputs.append(item)
        self._answers.clear()
        taken = {id(event) for event in self._features.taken}
        self._features.taken.clear()
        names = self._pipeline.feature_set.delayed_fields
        facts: list[EntityEvent] = []
        for record in records:
            event = record.memo
            if id(event) not in taken:
                continue
            if event.ts < self._frontier_ms:
                self.counts["entity_late"] += 1
            else:
                fields = {name: _short(event.fields[name]) for name in names}
                facts.append(EntityEvent(record.offset, event.ts, fields))
        self.offset = records[-1].offset + 1
        self._frontier_ms = max(self._frontier_ms, self._watermark.ms - self._lateness.ms)
        return outputs, facts

    def _vector(self, event: Event) -> dict[str, float] | None:
        if not self._pipeline.wants_prediction(event):
            return None
        if self._takes_late and self._is_late(event):
            return None
        answers = self._answers[id(event)] = self._features.answers(event)
        return self._features.vector(event, answers)

    def _put(self, ms: int, request: PredictionRequest, answers: list[float | None]) -> None:
        offset = request.record.offset
        heapq.heappush(self._order, (ms, offset))
        self._waiting[offset] = (ms, request, answers)

    def _pop(self) -> EntityQuestion:
        ms, offset = heapq.heappop(self._order)
        self._dirty_waiting.delete(offset)
        _, request, answers = self._waiting[offset]
        return EntityQuestion(ms, request.event, answers)

    def _take(self, events: list[EntityEvent]) -> None:
        """Where there is no other partition: feed the windows."""
        if self._is_alone:
            self._entities.take(self._facts(events))

    def _facts(self, events: list[EntityEvent]) -> EntityFacts:
        oldest = self._order[0][0] if self._order else None
        return EntityFacts(
            self._partition,
            self.offset,
            self._frontier_ms,
            self._answered_ms,
            oldest,
            tuple(events),
        )

    def _told(self, events: list[EntityEvent]) -> list[Output]:
        """The facts as they are told to other partitions, where there are some."""
        if self._is_alone:
            return []
        parts: list[list[EntityEvent]] = [[]]
        size = 0
        for event in events:
            size += len(str(event.fields))
            if len(parts[-1]) >= FACTS_EVENTS_MAX or size > FACTS_BYTES_MAX:
                parts.append([])
                size = 0
            parts[-1].append(event)
        outputs = []
        for number, part in enumerate(parts):
            facts = self._facts(part)
            if number < len(parts) - 1:
                # Only the last tells how far all of them bring the partition.
                facts.offset, facts.frontier = part[-1].offset + 1, 0
            key = str(self._partition).encode()
            outputs.append(Output(TOPIC, key, encode_facts(facts), facts))
        return outputs

    def _due(self) -> list[PredictionRequest]:
        """What need wait no longer, with its features."""
        frontier_ms = self._entities.frontier_ms
        self._answered_ms = max(self._answered_ms, frontier_ms)
        questions: list[EntityQuestion] = []
        requests: list[PredictionRequest] = []
        offsets: list[int] = []
        while self._order and self._order[0][0] <= frontier_ms:
            offsets.append(self._order[0][1])
            questions.append(self._pop())
        self._entities.answer(questions)
        for offset in offsets:
            _, (record, event, _), answers = self._waiting.pop(offset)
            requests.append(PredictionRequest(record, event, self._features.vector(event, answers)))
        state = self._entities.state
        self._features.dropped_count += state.dropped_count
        state.dropped_count = 0
        return requests

    def _forget(self, erasure: Erasure | BadRecord) -> None:
        super()._forget(erasure)
        erasures = self._erasures
        assert erasures is not None, "a marker was read by it"
        assert not isinstance(erasure, Exception), "it would have been refused"

        def is_meant(key: str) -> bool:
            return erasures.means(erasure, key)

        meant = {
            offset
            for offset, (_, request, _) in self._waiting.items()
            if is_meant(request.event.key)
        }
        for offset in meant:
            self._dirty_waiting.delete(offset)
            del self._waiting[offset]
        self._order = [each for each in self._order if each[1] not in meant]
        heapq.heapify(self._order)
        if self._is_alone:
            self._entities.forget(is_meant, erasure.subject)

    # --- state ---------------------------------------------------------------------------------

    def needs_checkpoint(self) -> bool:
        """Once it was closed: no record says so."""
        return self._has_closed

    def dirty(self) -> list[StateEntry]:
        """As of `Predict`, with what waits and, of one partition, the windows."""
        self._has_closed = False
        keyless: dict[str, Any] = {
            "offset": self.offset,
            "frontier": self._frontier_ms,
            "answered": self._answered_ms,
        }
        entries = super().dirty()
        if self._is_alone:
            keyless["entities"] = self._entities.dump()
            entries += [(f"{DELAYED}{_ENTITIES}{n}", v) for n, v in self._entities.dirty()]
        for offset in self._dirty_waiting.drain():
            value = None
            if offset in self._waiting:
                ms, (record, _, _), answers = self._waiting[offset]
                text = (record.value or b"").decode()
                value = orjson.dumps([ms, record.append_ms, text, answers])
            entries.append((f"{DELAYED}{_WAITING}{offset}", value))
        return [*entries, (DELAYED, orjson.dumps(keyless))]

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Take up a state."""
        own: list[tuple[str, bytes]] = []
        others: list[tuple[str, bytes]] = []
        for name, value in pieces:
            (own if name.startswith(DELAYED) else others).append((name, value))
        super().restore(others)
        entries = split_by_prefix(((n[1:], v) for n, v in own), _WAITING, _ENTITIES)
        for name, value in entries[_WAITING]:
            ms, append_ms, text, answers = orjson.loads(value)
            record = Record("events", self._partition, int(name), None, text.encode(), append_ms)
            event = self._pipeline.event_codec.decode(record.value)
            self._put(ms, PredictionRequest(record, event, {}), answers)
        for _, value in entries[KEYLESS]:
            keyless = orjson.loads(value)
            self.offset, self._frontier_ms = keyless["offset"], keyless["frontier"]
            self._answered_ms = keyless["answered"]
            if self._is_alone:
                self._entities.load(keyless["entities"], entries[_ENTITIES])


def _short(value: Any) -> Any:
    """A value as it is told: a digest of a long text, as windows would name it."""
    return text_digest(value) if type(value) is str and len(value) > GROUP_LENGTH_KEPT else value
