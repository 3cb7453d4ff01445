"""How much of a topic is refused, by reason: an alert when it is much, or far more than before.

Theory of operation. Records are counted in blocks of `BLOCK_RECORDS`, so that what is said is a
function of the log, however records are batched:

1. An episode opens, with an alert, when a reason has refused `REFUSED_MIN` records of a block and
   at least `SHARE_MIN` of what was read of it; or when a block ends of which it has refused
   `UNUSUAL_MIN` and `UNUSUAL_TIMES` its share of the past.
2. While it is open nothing more is said. It closes, with another alert, at the end of the first
   block of which the reason has refused less than half of either.
3. The past is what was read outside of episodes, and old blocks count for less and less of it.

It is kept small: a count and the first record's place and problem, by reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.codec import encode
from stream_ml.records import Alert, Output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ml.errors import BadRecord
    from stream_ml.records import Record

__all__ = ["BLOCK_RECORDS", "Refusals"]

BLOCK_RECORDS = 1_000
REFUSED_MIN = 50
SHARE_MIN = 0.1
# Of chance alone so many in place of a fifth of them come once in some million blocks.
UNUSUAL_MIN = 20
UNUSUAL_TIMES = 5
# When the past is as long as this, half of it is forgotten.
PAST_RECORDS_MAX = 100_000
KIND = "refusals"


class Refusals:
    """What a stage refuses of one partition of a topic.

    Args:
        stage: who refuses.
        topic: what it reads.
    """

    def __init__(self, stage: str, topic: str) -> None:
        self._stage = stage
        self._topic = topic
        self._read = 0
        self._refused_counts: dict[str, int] = {}
        self._samples: dict[str, dict[str, Any]] = {}
        self._open: set[str] = set()
        self._past_read = 0
        self._past: dict[str, int] = {}

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
        if count == 1:
            self._samples[reason] = {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "path": error.path,
                "message": str(error),
            }
        read = self._read + count_read
        if reason in self._open or count < REFUSED_MIN or count < SHARE_MIN * read:
            return []
        self._open.add(reason)
        return [self._alert("open", reason, read, ts)]

    def read(self, count: int, ts: int) -> list[Output]:
        """So many records, a part, were read; what is to be said where a block has ended.

        Args:
            count: how many records the part had.
            ts: the time of an alert, UTC milliseconds.
        """
        self._read += count
        if self._read < BLOCK_RECORDS:
            return []
        alerts = []
        for reason in sorted({*self._refused_counts, *self._open}):
            was_open, is_open = reason in self._open, self._goes_on(reason)
            if was_open != is_open:
                state = "open" if is_open else "resolved"
                alerts.append(self._alert(state, reason, BLOCK_RECORDS, ts))
                (self._open.add if is_open else self._open.remove)(reason)
            if not is_open:
                self._past[reason] = self._past.get(reason, 0) + self._refused_counts.get(reason, 0)
        self._end_block()
        return alerts

    def _goes_on(self, reason: str) -> bool:
        """Whether a block that ends belongs to an episode."""
        count, usual = self._refused_counts.get(reason, 0), self._past.get(reason, 0)
        # What has opened an episode keeps it open at half of that.
        weighted_count = count * (2 if reason in self._open else 1)
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
        self._read, self._refused_counts, self._samples = 0, {}, {}

    def _alert(self, state: str, reason: str, read: int, ts: int) -> Output:
        count = self._refused_counts.get(reason, 0)
        details = {
            "state": state,
            "topic": self._topic,
            "reason": reason,
            "refused": count,
            "records": read,
            "share": count / read,
        }
        message = f"{count} of {read} {self._topic} were refused as {reason}"
        sample = self._samples.get(reason)
        if state == "resolved":
            message = f"no more than usual is refused as {reason}: {message}"
        elif sample is not None:
            details["sample"] = sample
            message = (
                f"{message}, first partition {sample['partition']}, offset {sample['offset']}: "
                f"{sample['message']}"
            )
        alert = Alert(KIND, ts, self._stage, message, details)
        return Output("alerts", KIND.encode(), encode(alert), alert)

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [
            self._read,
            self._refused_counts,
            self._samples,
            sorted(self._open),
            self._past_read,
            self._past,
        ]

    def load(self, state: Sequence[Any]) -> None:
        """Take up a dumped state; nothing where there was none yet."""
        if state:
            (
                self._read,
                self._refused_counts,
                self._samples,
                reasons,
                self._past_read,
                self._past,
            ) = state
            self._open = set(reasons)
