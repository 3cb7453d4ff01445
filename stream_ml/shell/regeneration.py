"""Features made again from the events on a log, as they would have been served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord
from stream_ml.stages.backfill import Backfill, Vectors
from stream_ml.stages.inputs import example_in
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log
    from stream_ml.stages.erasure import Erasures

__all__ = ["ExampleFeatures", "Regeneration", "event_fold"]

# Labels may come in another order than they were made in; what is wanted later than that is made
# again from the first event.
SLACK_MS = 3_600_000
READ_RECORDS = 2_000


def event_fold(pipeline: Pipeline, partition: int, erasures: Erasures | None = None) -> Predict:
    """Predict as it is before the first event, to fold events without predicting.

    Args:
        pipeline: the declaration, as it runs.
        partition: of the events.
        erasures: reads markers that keys are to be forgotten; None: they are bad records.
    """
    return Predict(pipeline, Serving(pipeline, b""), partition=partition, erasures=erasures)


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
        self, wanted: Iterable[tuple[int, int]], newest_ms: int
    ) -> dict[tuple[int, int], dict[str, float] | None]:
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
            pipeline, erasures = self._pipeline, self._erasures
            keep_ms = pipeline.horizon_ms + pipeline.lateness_ms + pipeline.skew_ms + SLACK_MS
            self._partitions[partition] = Vectors(
                lambda: event_fold(pipeline, partition, erasures),
                lambda offset, end: self._events(partition, offset, end),
                keep_ms,
            )
        return self._partitions[partition]

    def _events(self, partition: int, offset: int, end: int) -> Iterator[Sequence[Record]]:
        while offset < end and (
            records := self._log.read("events", partition, offset, min(READ_RECORDS, end - offset))
        ):
            offset = records[-1].offset + 1
            yield records


class ExampleFeatures:
    """What a model of some features has learned examples with.

    Args:
        log: with the events.
        pipeline: the declaration, as it runs.
        feature_hash: of what the model knows, as its snapshots name it.
        erasures: see `event_fold`.
    """

    def __init__(
        self,
        log: Log,
        pipeline: Pipeline,
        feature_hash: str,
        erasures: Erasures | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._view = pipeline.view(feature_hash)
        self._is_present = self._view.hash == pipeline.feature_set.hash
        self._backfill = Backfill(pipeline)
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
        wanted = self._backfill.wanted([record]) if self._is_present else []
        if wanted:
            self._backfill.supply(self._regeneration.vectors(wanted, example.label_ts))
        elif not self._is_present:
            return self._view.select(example.prediction.features)
        features, is_partial = self._backfill.features(example)
        return None if is_partial else self._view.select(features)
