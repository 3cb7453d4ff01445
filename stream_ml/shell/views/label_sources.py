"""How far the sources of labels agree, as the newest labels on the log say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from stream_ml.monitoring.agreement import EVENTS_MAX, Agreement, SourceAgreement
from stream_ml.shell.log.reading import read_partition

if TYPE_CHECKING:
    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log

__all__ = ["Agreement", "LabelSources"]

# Of so many newest labels it is seen whether any names a source; where none does, no more are read.
PROBE_RECORDS = 500


class LabelSources:
    """The agreement of sources on a log, read on from where it was read before.

    Args:
        trusted: the source that others are compared with; None: with the last word of all others.
    """

    def __init__(self, trusted: str | None = None) -> None:
        self._trusted = trusted
        self._agreement = SourceAgreement(trusted)
        self._next: dict[int, int] = {}
        self._rows: list[Agreement] = []

    def read(self, log: Log) -> list[Agreement]:
        """Take in the labels that have come; how far sources agree, empty where none is named.

        Args:
            log: to look at; a worker may be at work on it.
        """
        if not self._next and not self._names_sources(log):
            return []
        has_news = False
        for partition in range(log.partitions.get("labels", 0)):
            start = self._next.get(partition)
            if start is None:
                start = _last(log, partition, EVENTS_MAX)
            for record in read_partition(log, "labels", partition, start):
                start, has_news = record.offset + 1, True
                self._add(record)
            self._next[partition] = start
        if has_news:
            self._rows = self._agreement.rows()
        return self._rows

    def _names_sources(self, log: Log) -> bool:
        return any(
            b'"source"' in (record.value or b"")
            for partition in range(log.partitions.get("labels", 0))
            for record in read_partition(
                log, "labels", partition, _last(log, partition, PROBE_RECORDS)
            )
        )

    def _add(self, record: Record) -> None:
        try:
            members = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError:
            return
        if not isinstance(members, dict):
            return
        event_id, label, source = (members.get(name) for name in ("event_id", "label", "source"))
        if not isinstance(event_id, str) or not isinstance(source, str | None):
            return
        if type(label) is int:
            label = float(label)
        if isinstance(label, bool | float | str):
            self._agreement.add(event_id, source, label)


def _last(log: Log, partition: int, count: int) -> int:
    """The offset from which so many of the newest labels of a partition lie."""
    end = log.end_offset("labels", partition)
    return max(log.first_offset("labels", partition), end - count)
