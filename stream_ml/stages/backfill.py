"""Features of what was recorded before they were declared, as they would have been served.

Theory of operation:

1. An example has the features that were logged when it was predicted on. Those declared since are
   made again: all events are folded anew under the present declaration, up to the event's own
   place and no further (`Vectors`), so that nothing which came later is in them.
2. What was logged stays as it is for lines of former generations. A line that knows the features of
   today learns all of them made again (`Backfill`): under a name that a former generation had, too,
   another feature may have been logged.
3. An example whose event is gone from the log, or that asked for no prediction as declared now,
   has no new features. A line that knows them passes it over, and counts it as missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord
from stream_ml.stages.inputs import example_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example, Record
    from stream_ml.stages.predict import Predict

__all__ = ["Backfill", "Vectors"]

# So many are kept without a look at how old they are.
KEPT_MIN = 1_000
# Features by name.
Vector = dict[str, float]
# A partition of events, and the offset there.
EventOffset = tuple[int, int]


class Backfill:
    """Puts the new features beside those that examples were logged with.

    Args:
        pipeline: the declaration, as it runs.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._generation = pipeline, pipeline.generation
        self._vectors: dict[EventOffset, Vector | None] = {}

    def wanted(self, records: Iterable[Record]) -> list[EventOffset]:
        """The events whose features are to be supplied before these records are folded in.

        Args:
            records: of `examples`.
        """
        if not self._generation.offsets:
            return []
        examples = [example_in(record, self._pipeline) for record in records]
        return [
            (example.prediction.source.partition, example.prediction.source.offset)
            for example in examples
            if not isinstance(example, BadRecord)
            if self._generation.is_before(example.prediction.source)
        ]

    def supply(self, vectors: Mapping[EventOffset, Vector | None]) -> None:
        """Take in features that were wanted, for the records that are given next.

        Args:
            vectors: by event; None where they cannot be made.
        """
        self._vectors = {**vectors}

    def features(self, example: Example) -> tuple[Vector, bool]:
        """All features of an example as declared now, and whether it lacks the new ones.

        What was logged and is not declared any more is among them.

        Args:
            example: as it was recorded.
        """
        logged = example.prediction.features
        source = example.prediction.source
        if not self._generation.is_before(source):
            return logged, False
        vector = self._vectors.get((source.partition, source.offset))
        if vector is None:
            return logged, True
        # Their order counts to learners: that of the declaration comes first.
        return {**vector, **{n: x for n, x in logged.items() if n not in vector}}, False


class Vectors:
    """The features of the events of one partition, made again in the order of the log.

    Args:
        start: makes a stage that has folded nothing.
        read: gives the events from an offset up to another, in batches, as long as there are any.
        keep_ms: for how long in event time features are kept for examples that come later.
    """

    def __init__(
        self,
        start: Callable[[], Predict],
        read: Callable[[int, int], Iterable[Sequence[Record]]],
        keep_ms: int,
    ) -> None:
        self._start, self._read = start, read
        self._keep_ms = keep_ms
        self._begin()

    def _begin(self) -> None:
        self._stage = self._start()
        self._next = 0
        # By offset: the time of the event, and its features.
        self._kept: dict[int, tuple[int, Vector]] = {}
        self._kept_max = KEPT_MIN
        # By offset, whether an event had features that were let go.
        self._forgotten = bytearray()

    def take(self, offsets: Iterable[int], newest_ms: int) -> dict[int, Vector | None]:
        """The features of events, by offset; None where they cannot be made.

        Args:
            offsets: which.
            newest_ms: the event time, UTC milliseconds, that the examples have come to.
        """
        wanted = frozenset(offsets)
        if any(offset < len(self._forgotten) and self._forgotten[offset] for offset in wanted):
            # It came later than any should: all is made again, and kept for longer from now on.
            self._keep_ms *= 2
            self._begin()
        oldest_ms = newest_ms - self._keep_ms
        if self._next <= max(wanted, default=-1):
            self._fold(wanted, oldest_ms)
        vectors = {offset: self._vector(offset) for offset in wanted}
        if len(self._kept) > self._kept_max:
            old = [offset for offset, (ts, _) in self._kept.items() if ts < oldest_ms]
            for offset in old:
                del self._kept[offset]
                self._forget(offset)
            self._kept_max = KEPT_MIN + 2 * len(self._kept)
        return vectors

    def _vector(self, offset: int) -> Vector | None:
        kept = self._kept.get(offset)
        return None if kept is None else kept[1]

    def _forget(self, offset: int) -> None:
        missing = offset + 1 - len(self._forgotten)
        if missing > 0:
            self._forgotten.extend(bytes(missing))
        self._forgotten[offset] = 1

    def _fold(self, wanted: frozenset[int], oldest_ms: int) -> None:
        """Fold events up to the last one that is wanted, and no further."""
        end = max(wanted) + 1
        for records in self._read(self._next, end):
            batch = [record for record in records if record.offset < end]
            if not batch:
                return
            for offset, ts, features in self._stage.vectors(batch):
                if ts >= oldest_ms or offset in wanted:
                    self._kept[offset] = ts, features
                else:
                    self._forget(offset)
            self._next = batch[-1].offset + 1
            if self._next >= end:
                return
