"""How far time has come on events and labels, for whoever publishes what was refused before.

What stages have written down is a floor, and may be behind: of each partition the newest records
are read as well, so that what lies there and is not read yet counts. Of these, strays, events of
an id that came shortly before and labels of excluded sources lead nothing, as in the stages. What
is said to be late by the others probably is: a stage may still refuse some of what is not read yet
(an id that came long before). A record that is not said to be late may still become so until a
stage reads it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import orjson

from stream_ml.errors import BadRecord
from stream_ml.sealing import MARKER, marker_in
from stream_ml.shell.log.port import whole_piece
from stream_ml.shell.log.reading import read_partition
from stream_ml.shell.views.dead_letters import LetterFilter, read_letters
from stream_ml.stages.lateness import Lateness, declared_lateness_ms
from stream_ml.stages.watermark import Watermark
from stream_ml.topics import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.log.port import Log

__all__ = ["InputWatermarks"]

# A watermark is led by the newest records of a few keys.
NEWEST_RECORDS = 2_000


class InputWatermarks:
    """The watermarks of the partitions of events and labels, each read when it is first asked for.

    Args:
        log: that they lie on.
        pipeline: the declaration.
    """

    def __init__(self, log: Log, pipeline: Pipeline) -> None:
        self._log, self._pipeline = log, pipeline
        self._excluded_sources = pipeline.label.excluded_sources
        self._events: dict[int, Watermark] = {}
        self._labels: dict[int, Watermark] = {}
        # By partition of events: how far back its ids and windows go, whatever the lateness.
        self._floors: dict[int, int] = {}
        self._refused: set[tuple[str, int, int]] | None = None

    def excess_of_event(self, key: str, ts: int) -> int:
        """By how much an event would come too late; 0 and less: it would not.

        Args:
            key: its key.
            ts: its time, UTC milliseconds.
        """
        watermark = self._of_events(key)
        bound_ms = max(
            watermark.ms - self._pipeline.window_lateness_ms, self._floors[self._partition(key)]
        )
        return bound_ms - ts

    def excess_of_label(self, event_id: str, ts: int) -> int:
        """By how much a label would at least come too late; 0 and less: perhaps not at all.

        Args:
            event_id: of the event that it is about, which came no later than its label was known.
            ts: its time, UTC milliseconds.
        """
        partition = partition_of(event_id.encode(), self._log.partitions["labels"])
        if partition not in self._labels:
            decode = self._pipeline.label_codec.decode
            self._labels[partition] = self._read(
                "labels", partition, "join", ("labels_led_by", "labels_watermark"), decode
            )
        return self._labels[partition].ms - self._pipeline.horizon_ms - ts

    def add_event(self, key: str, ts: int, append_ms: int) -> None:
        """Take note of an event that is published now: what follows it is judged behind it.

        Args:
            key: its key.
            ts: its time, UTC milliseconds.
            append_ms: when the log takes it in.
        """
        self._of_events(key).advance(key, ts, append_ms)

    def _partition(self, key: str) -> int:
        return partition_of(key.encode(), self._log.partitions["events"])

    def _of_events(self, key: str) -> Watermark:
        partition = self._partition(key)
        if partition not in self._events:
            decode = self._pipeline.event_codec.decode
            self._events[partition] = self._read(
                "events", partition, "predict", ("led_by", "watermark"), decode
            )
        return self._events[partition]

    def _read(
        self,
        topic: str,
        partition: int,
        stage: str,
        names: tuple[str, str],
        decode: Callable[[bytes | None], Any],
    ) -> Watermark:
        watermark = Watermark(self._pipeline.events.breadth)
        if topic == "events":
            self._floors[partition] = -1
        value = whole_piece(self._log, f"{stage}-{partition}", "")
        if value is not None:
            state = orjson.loads(value)
            watermark.load(state.get(names[0], state[names[1]]))
            if topic == "events":
                self._floors[partition] = self._floor(partition, watermark.ms, state)
        first = self._log.first_offset(topic, partition)
        start = max(first, self._log.end_offset(topic, partition) - NEWEST_RECORDS)
        refused, ids = self._refused_positions(), set[str]()
        for record in read_partition(self._log, topic, partition, start):
            if (topic, partition, record.offset) in refused:
                continue
            try:
                read = decode(record.value)
            except BadRecord:
                continue
            key = read.key if topic == "events" else read.event_id
            is_repeat = topic == "events" and read.event_id in ids
            is_excluded = topic == "labels" and read.source in self._excluded_sources
            if is_repeat or is_excluded or self._is_stray(topic, partition, key):
                continue
            if read.ts <= record.append_ms + self._pipeline.skew_ms:
                ids.add(read.event_id)
                watermark.advance(key, read.ts, record.append_ms)
        return watermark

    def _is_stray(self, topic: str, partition: int, key: str) -> bool:
        """Whether a record is sent on to another partition, where it lies once more."""
        log = self._log
        return (
            log.forwards_strays and partition_of(key.encode(), log.partitions[topic]) != partition
        )

    def _floor(self, partition: int, watermark_ms: int, state: Mapping[str, Any]) -> int:
        """As predict reckons it when it takes up a state of another lateness."""
        marker = whole_piece(self._log, f"predict-{partition}", MARKER.decode())
        former = {} if marker is None else marker_in(marker).declaration
        lateness = Lateness(self._pipeline.window_lateness_ms)
        lateness.load(state, watermark_ms, declared_lateness_ms(former))
        return lateness.floor_ms

    def _refused_positions(self) -> set[tuple[str, int, int]]:
        """Where those of the newest records lie that led nothing when they were read."""
        if self._refused is None:
            starts = {
                (topic, partition): self._log.end_offset(topic, partition) - NEWEST_RECORDS
                for topic in ("events", "labels")
                for partition in range(self._log.partitions[topic])
            }
            letters = (view.letter for view in read_letters(self._log, LetterFilter()))
            self._refused = {
                (each.topic, each.partition, each.offset)
                for each in letters
                if each.offset >= starts.get((each.topic, each.partition), sys.maxsize)
            }
        return self._refused
