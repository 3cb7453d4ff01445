"""Features made again from the events on a log, as they would have been served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord, UsageError
from stream_ml.stages.backfill import Backfill, Vectors
from stream_ml.stages.erasure import Erasures
from stream_ml.stages.inputs import example_in
from stream_ml.stages.partitioning import refuse_partitions
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log
    from stream_ml.stages.learn import Learn

__all__ = ["ExampleFeatures", "LearnFeatures", "Regeneration", "event_fold"]

# Labels may come in another order than they were made in; what is wanted later than that is made
# again from the first event.
SLACK_MS = 3_600_000
READ_RECORDS = 2_000
# A partition of events, and the offset there.
EventOffset = tuple[int, int]


def event_fold(
    log: Log, pipeline: Pipeline, partition: int, erasures: Erasures | None = None
) -> Predict:
    """Predict as it is before the first event, to fold events without predicting.

    Args:
        log: that the events are of.
        pipeline: the declaration, as it runs.
        partition: of the events.
        erasures: reads markers that keys are to be forgotten; None: they are bad records.

    Raises:
        UsageError: they lie in several partitions, and must not; or what is asked for depends on
            other partitions.
    """
    if pipeline.feature_set.delay_ms is not None:
        raise UsageError(
            "features: expected windows that one partition of events gives, given windows with a "
            "`delay`, whose answers depend on when other partitions were silent: they cannot be "
            "made again from the events. Give the pipeline another name, which begins anew"
        )
    refuse_partitions(pipeline, log.partitions["events"])
    partitions = log.partitions["events"] if log.forwards_strays else None
    serving = Serving(pipeline, b"")
    return Predict(
        pipeline,
        serving,
        partitions,
        partition=partition,
        erasures=erasures,
        lateness_changes=pipeline.generation.lateness.get(partition, ()),
    )


class Regeneration:
    """Makes features again that events would have been served with.

    Args:
        log: with the events.
        pipeline: the declaration, as it runs.
        erasures: see `event_fold`.
    """

    def __init__(self, log: Log, pipeline: Pipeline, erasures: Erasures | None = None) -> None:
        self._log, self._pipeline, self._erasures = log, pipeline, erasures
        self._partitions: dict[int, Vectors] = {}

    def vectors(
        self, wanted: Iterable[EventOffset], newest_ms: int
    ) -> dict[EventOffset, dict[str, float] | None]:
        """The features of events, by partition and offset; None where they cannot be made.

        Args:
            wanted: which.
            newest_ms: the event time, UTC milliseconds, that the examples have come to.
        """
        offsets: dict[int, list[int]] = {}
        for partition, offset in wanted:
            offsets.setdefault(partition, []).append(offset)
        made: Mapping[int, dict[int, dict[str, float] | None]] = {
            partition: self._of(partition).take(each, newest_ms)
            for partition, each in offsets.items()
        }
        return {
            (partition, offset): vector
            for partition, by_offset in made.items()
            for offset, vector in by_offset.items()
        }

    def _of(self, partition: int) -> Vectors:
        if partition not in self._partitions:
            log, pipeline, erasures = self._log, self._pipeline, self._erasures
            self._partitions[partition] = Vectors(
                lambda: event_fold(log, pipeline, partition, erasures),
                lambda offset, end: self._events(partition, offset, end),
                _keep_ms(pipeline),
            )
        return self._partitions[partition]

    def _events(self, partition: int, offset: int, end: int) -> Iterator[Sequence[Record]]:
        """The events of a stretch; none where the first are gone, for windows would lack them."""
        while offset < end and not self._is_gone(partition, offset):
            records = self._log.read("events", partition, offset, min(READ_RECORDS, end - offset))
            # Retention may have gone on between the question and the reading.
            if not records or self._is_gone(partition, offset):
                return
            offset = records[-1].offset + 1
            yield records

    def _is_gone(self, partition: int, offset: int) -> bool:
        return self._log.first_offset("events", partition) > offset


def _keep_ms(pipeline: Pipeline) -> int:
    """For how long, in event time, examples of earlier events may come."""
    waits_ms = pipeline.horizon_ms + pipeline.lateness_ms + pipeline.skew_ms
    return waits_ms + pipeline.label.corrections_ms + SLACK_MS


class _Folds:
    """Folds of the events, by the task of learn that wants features of them.

    Tasks that go through the same examples want the same, one after the other: the first one has
    it made, and the others have no fold of their own.
    """

    def __init__(self, begin: Callable[[], Regeneration]) -> None:
        self._begin = begin
        self.clear()

    def clear(self) -> None:
        """Let go of all: a fold is about as large as what predict holds."""
        self.tasks: dict[str, Regeneration] = {}
        # What was made last, and the newest event time that any was wanted at.
        self._wanted: list[EventOffset] = []
        self._vectors: dict[EventOffset, dict[str, float] | None] = {}
        self.newest_ms = -1

    def supply(self, learn: Learn, wanted: list[EventOffset], newest_ms: int) -> None:
        """Give a task what it wants."""
        if wanted != self._wanted:
            if learn.name not in self.tasks:
                self.tasks[learn.name] = self._begin()
            self._vectors = self.tasks[learn.name].vectors(wanted, newest_ms)
            self._wanted, self.newest_ms = wanted, max(self.newest_ms, newest_ms)
        learn.supply(self._vectors)


class LearnFeatures:
    """Supplies tasks of learn with the features that examples were logged without.

    Args:
        log: with the events.
        pipeline: the declaration, as it runs.
        erasures: see `event_fold`.
    """

    def __init__(self, log: Log, pipeline: Pipeline, erasures: Erasures | None = None) -> None:
        self._keep_ms = _keep_ms(pipeline)
        # What is caught up with, and what comes now, are far apart.
        self._past, self._recent = (
            _Folds(lambda: Regeneration(log, pipeline, erasures)) for _ in range(2)
        )

    def supply_past(self, learn: Learn, records: Sequence[Record]) -> None:
        """Before a task catches up with examples.

        Args:
            learn: its stage.
            records: that it is given next.
        """
        if records and (wanted := learn.wanted(records)):
            self._past.supply(learn, wanted, learn.newest_ms(records))

    def end_past(self, learn: Learn) -> None:
        """Where a task is not behind any more.

        Args:
            learn: its stage.
        """
        # What was made last others may be about to want.
        self._past.tasks.pop(learn.name, None)

    def supply_recent(self, learn: Learn, records: Sequence[Record]) -> None:
        """Before a task is given what has come.

        Args:
            learn: its stage.
            records: that it is given next.
        """
        if wanted := learn.wanted(records):
            self._recent.supply(learn, wanted, learn.newest_ms(records))
        elif self._is_past_recent(learn, records):
            self._recent.clear()

    def _is_past_recent(self, learn: Learn, records: Sequence[Record]) -> bool:
        """Whether records came so long after the last that lacked any that no more can come."""
        if not self._recent.tasks or records[0].topic != "examples":
            return False
        return learn.newest_ms(records) > self._recent.newest_ms + self._keep_ms


class ExampleFeatures:
    """What a model of some features has learned examples with.

    Args:
        log: with the events.
        pipeline: the declaration, as it runs.
        feature_hash: of what the model knows, as its snapshots name it.
        key: reads markers among the events that keys are to be forgotten; without one they are
            bad records.
    """

    def __init__(self, log: Log, pipeline: Pipeline, feature_hash: str, key: bytes | None) -> None:
        self._pipeline = pipeline
        self._view = pipeline.view(feature_hash)
        self._is_present = self._view.hash == pipeline.feature_set.hash
        self._backfill = Backfill(pipeline)
        erasures = None if key is None else Erasures(key, pipeline.name, log.identity)
        self._regeneration = Regeneration(log, pipeline, erasures)

    def of(self, record: Record) -> dict[str, float] | None:
        """The features of the example in a record; None where the model has passed it over.

        Args:
            record: of `examples`.

        Raises:
            BadRecord: there is none in it.
        """
        example = example_in(record, self._pipeline)
        if isinstance(example, BadRecord):
            raise example
        if not self._is_present:
            return self._view.select(example.prediction.features)
        wanted = self._backfill.wanted([record])
        if wanted:
            self._backfill.supply(self._regeneration.vectors(wanted, example.label_ts))
        features, is_partial = self._backfill.features(example)
        return None if is_partial else self._view.select(features)
