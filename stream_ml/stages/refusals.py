"""How much of a topic is refused, by reason and source: an alert when it is much, or unusual.

Theory of operation. Records are counted in blocks of `BLOCK_RECORDS`, so that what is said is a
function of the log, however records are batched:

1. An episode opens, with an alert, when a reason has refused `REFUSED_MIN` records of a block and
   at least `SHARE_MIN` of what was read of it; or when a block ends of which it has refused
   `UNUSUAL_MIN` and `UNUSUAL_TIMES` its share of the past.
2. While it is open nothing more is said. It closes, with another alert, when `CALM_BLOCKS` in a
   row have ended of which the reason has refused less than half of either: a share that comes and
   goes is one episode.
3. The past is what was read outside of episodes, and old blocks count for less and less of it.

An alert names the sources, most first: of labels their `source` where it can be read, else the
partition that a record was published to. It is kept small: counts, and the first record's place and
problem, by reason.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ml.errors import BadRecord
    from stream_ml.records import Output, Record
    from stream_ml.stages.alarms import Alarms

__all__ = ["BLOCK_RECORDS", "CALM_BLOCKS", "KIND", "Refusals"]

BLOCK_RECORDS = 1_000
REFUSED_MIN = 50
SHARE_MIN = 0.1
# Of chance alone so many in place of a fifth of them come once in some million blocks.
UNUSUAL_MIN = 20
UNUSUAL_TIMES = 5
CALM_BLOCKS = 3
# When the past is as long as this, half of it is forgotten.
PAST_RECORDS_MAX = 100_000
# Of each reason so many sources are counted by name in a block, and the others together.
SOURCES_MAX = 20
SOURCE_LENGTH_MAX = 64
OTHERS = "others"
KIND = "poison_rate"


class Refusals:
    """What a stage refuses of one partition of a topic.

    Args:
        alarms: of the stage that refuses.
        topic: what it reads.
    """

    def __init__(self, alarms: Alarms, topic: str) -> None:
        self._alarms = alarms
        self._topic = topic
        self._read = 0
        self._refused_counts: dict[str, int] = {}
        self._samples: dict[str, dict[str, Any]] = {}
        # Of open episodes, how many blocks in a row have had little of them.
        self._calm_blocks: dict[str, int] = {}
        # By reason, how many of each source.
        self._sources: dict[str, dict[str, int]] = {}
        self._past_read = 0
        self._past: dict[str, int] = {}
        # Whether a block has ended with the last part.
        self.has_ended_block = False

    def parts(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """The records cut where blocks end; `read` is to be called after each part."""
        first = 0
        while first < len(records):
            last = first + BLOCK_RECORDS - self._read
            yield records if first == 0 and last >= len(records) else records[first:last]
            first = last

    def refuse(self, record: Record, error: BadRecord, count_read: int, ts: int) -> list[Output]:
        """Count a record, with which so many of its part were read; what is to be said.

        Args:
            record: what was refused.
            error: why.
            count_read: how many records of its part were read, it among them.
            ts: the time of the alert, UTC milliseconds.
        """
        reason = error.reason
        count = self._refused_counts[reason] = self._refused_counts.get(reason, 0) + 1
        sources = self._sources.setdefault(reason, {})
        source = _source(record)
        if source not in sources and len(sources) >= SOURCES_MAX:
            source = OTHERS
        sources[source] = sources.get(source, 0) + 1
        if count == 1:
            self._samples[reason] = {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "path": error.path,
                "message": str(error),
            }
        read = self._read + count_read
        if count < REFUSED_MIN or count < SHARE_MIN * read or self._is_open(reason):
            return []
        return self._change(reason, read, ts, is_open=True)

    def read(self, count: int, ts: int) -> list[Output]:
        """So many records, a part, were read; what is to be said where a block has ended.

        Args:
            count: how many records the part had.
            ts: the time of an alert, UTC milliseconds.
        """
        self._read += count
        self.has_ended_block = self._read >= BLOCK_RECORDS
        if not self.has_ended_block:
            return []
        alerts = []
        for reason in sorted({*self._refused_counts, *self._open_reasons()}):
            is_open = self._stays_open(reason)
            alerts += self._change(reason, BLOCK_RECORDS, ts, is_open=is_open)
            if not is_open:
                self._past[reason] = self._past.get(reason, 0) + self._refused_counts.get(reason, 0)
        self._end_block()
        return alerts

    def _stays_open(self, reason: str) -> bool:
        """Whether an episode is open after a block that ends."""
        if self._is_much(reason):
            self._calm_blocks.pop(reason, None)
            return True
        if not self._is_open(reason):
            return False
        calm = self._calm_blocks.pop(reason, 0) + 1
        if calm < CALM_BLOCKS:
            self._calm_blocks[reason] = calm
        return calm < CALM_BLOCKS

    def _is_much(self, reason: str) -> bool:
        """Whether a block that ends has much of it, or far more than usual."""
        count, usual = self._refused_counts.get(reason, 0), self._past.get(reason, 0)
        # What has opened an episode keeps it open at half of that.
        weighted_count = count * (2 if self._is_open(reason) else 1)
        if weighted_count >= SHARE_MIN * BLOCK_RECORDS:
            return True
        if not self._past_read or weighted_count < UNUSUAL_MIN:
            return False
        return weighted_count * self._past_read >= UNUSUAL_TIMES * usual * BLOCK_RECORDS

    def _end_block(self) -> None:
        self._past_read += BLOCK_RECORDS
        if self._past_read >= PAST_RECORDS_MAX:
            self._past_read //= 2
            self._past = {reason: n // 2 for reason, n in self._past.items() if n > 1}
        self._read, self._refused_counts, self._samples, self._sources = 0, {}, {}, {}

    def _is_open(self, reason: str) -> bool:
        return self._alarms.is_open(KIND, f"{self._topic}/{reason}")

    def _open_reasons(self) -> list[str]:
        prefix = f"{self._topic}/"
        return [
            subject.removeprefix(prefix)
            for subject in self._alarms.subjects(KIND)
            if subject.startswith(prefix)
        ]

    def _change(self, reason: str, read: int, ts: int, *, is_open: bool) -> list[Output]:
        """Open or resolve the alarm of a reason; nothing where it is so already."""
        subject = f"{self._topic}/{reason}"
        if is_open is self._is_open(reason):
            return []
        count = self._refused_counts.get(reason, 0)
        details: dict[str, Any] = {
            "topic": self._topic,
            "reason": reason,
            "refused": count,
            "records": read,
            "share": count / read,
        }
        message = f"{count} of {read} {self._topic} were refused as {reason}"
        if not is_open:
            message = f"no more than usual is refused as {reason}: {message}"
            return self._alarms.resolve(KIND, subject, message, ts, details)
        sample = self._samples.get(reason)
        if sample is not None:
            sources = sorted(self._sources.get(reason, {}).items(), key=lambda each: -each[1])
            details |= {"sources": dict(sources), "sample": sample}
            if sources:
                message = f"{message}, {sources[0][1]} of them from {sources[0][0]}"
            message = (
                f"{message}, first partition {sample['partition']}, offset {sample['offset']}: "
                f"{sample['message']}"
            )
        return self._alarms.open(KIND, subject, message, ts, details)

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it; what is open is in the stage's alarms."""
        # Where nothing calms down: as a former release had it, which kept there what was open.
        calm: dict[str, int] | list[str] = self._calm_blocks or []
        counts = [self._read, self._refused_counts, self._samples]
        figures = [*counts, calm, self._past_read, self._past]
        return [*figures, self._sources] if self._sources else figures

    def load(self, state: Sequence[Any]) -> None:
        """Take up a dumped state, after the stage's alarms; nothing where there was none yet."""
        if not state:
            return
        self._read, self._refused_counts, self._samples, calm, *past = state
        self._past_read, self._past, *sources = past
        self._sources = sources[0] if sources else {}
        self._calm_blocks = calm if isinstance(calm, dict) else {}
        for reason in calm if isinstance(calm, list) else ():
            self._alarms.adopt(KIND, f"{self._topic}/{reason}", -1)


def _source(record: Record) -> str:
    """Who a refused record is from: a label's `source`, else the partition it was published to."""
    if record.topic == "labels":
        with suppress(orjson.JSONDecodeError):
            members = orjson.loads(record.value or b"")
            if isinstance(members, dict) and isinstance(members.get("source"), str):
                return str(members["source"][:SOURCE_LENGTH_MAX])
    return f"{record.topic}-{(record.origin or record).partition}"
