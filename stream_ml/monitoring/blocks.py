"""The blocks of event time that are open, and what came in each: one summary a block.

Theory of operation:

1. An event counts in the block of its time. A block closes when the watermark has passed its end
   by as much as an event may be late, at most by a block; what comes later still counts in the
   oldest block that is open.
2. Rows are kept until some hundreds are there, and then counted at once, a column at a time: that
   costs a fifth of counting one by one. What is counted does not depend on when.
3. Nothing is random, and no clock is read: blocks are a function of the events and watermarks.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.monitoring.columns import CATEGORIES_MAX, Column, category_name, column
from stream_ml.records import ColumnSummary, Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Layout", "OpenBlocks"]

# A clock that is wrong opens no block further than this past the watermark's, and before there is
# a watermark no more blocks than that.
AHEAD_MAX = 2
OPEN_MAX = 8
ROWS_MAX = 512
# A record must fit its topic; past this many columns the first are watched.
COLUMNS_MAX = 256
REASONS_MAX = 32
OTHER_REASONS = "other"
_NEVER = 2**62


class Layout:
    """The columns that are watched.

    Args:
        block_ms: the length of a block.
        fields: by name, whether it holds numbers.
        features: the names of the features, all numbers.
        kind: the field that tells kinds of events apart, each with fields of its own; None where
            there is none.
    """

    def __init__(
        self,
        block_ms: int,
        fields: Mapping[str, bool],
        features: Iterable[str],
        kind: str | None = None,
    ) -> None:
        self.block_ms = block_ms
        self.fields = dict(list(fields.items())[:COLUMNS_MAX])
        self.features = tuple(features)[: COLUMNS_MAX - len(self.fields)]
        self.kind = kind if kind in self.fields else None


class _Block:
    __slots__ = (
        "events",
        "features",
        "fields",
        "kind",
        "missing_by",
        "predictions",
        "refused",
        "requests",
        "rows",
    )

    def __init__(self, layout: Layout) -> None:
        self.kind = layout.kind
        # By field: of events of which kind it was missing, and how often.
        self.missing_by: dict[str, dict[str, int]] = {}
        self.events = 0
        self.predictions = 0
        self.refused: dict[str, int] = {}
        self.fields = {name: column(is_number=number) for name, number in layout.fields.items()}
        self.features = {name: column(is_number=True) for name in layout.features}
        # Fields of events, and features of requests, that are still to be counted.
        self.rows: list[dict[str, Any]] = []
        self.requests: list[dict[str, float]] = []

    def count(self) -> None:
        rows, requests = self.rows, self.requests
        if rows:
            self.events += len(rows)
            kinds = None if self.kind is None else [row[self.kind] for row in rows]
            for name, column_of in self.fields.items():
                values = [row[name] for row in rows]
                column_of.add(values)
                if kinds is not None and None in values:
                    self._count_missing(name, kinds, values)
            rows.clear()
        if requests:
            self.predictions += len(requests)
            for name, column_of in self.features.items():
                column_of.add([request.get(name) for request in requests])
            requests.clear()

    def _count_missing(self, name: str, kinds: list[Any], values: list[Any]) -> None:
        counts = self.missing_by.setdefault(name, {})
        missing = Counter(kind for kind, value in zip(kinds, values, strict=True) if value is None)
        for kind, count in missing.items():
            known = category_name(kind)
            if known in counts or len(counts) < CATEGORIES_MAX:
                counts[known] = counts.get(known, 0) + count

    def summary(self, name: str) -> ColumnSummary:
        """What is written of a field."""
        made = self.fields[name].summary()
        if name in self.missing_by:
            made.missing_by = dict(sorted(self.missing_by[name].items()))
        return made


class OpenBlocks:
    """The open blocks of a partition.

    Args:
        layout: what is watched.
        lateness_ms: how far behind the watermark an event may be.
    """

    def __init__(self, layout: Layout, lateness_ms: int) -> None:
        self._layout = layout
        self._width = layout.block_ms
        self._wait_ms = min(lateness_ms, layout.block_ms)
        self._open: dict[int, _Block] = {}
        # The block that the last event went to, and its rows.
        self._start = -1
        self._block = _Block(layout)
        # OpenBlocks before this are closed.
        self._floor = 0
        # The watermark that closes the oldest block that is open.
        self.due_ms = _NEVER
        self._changed: set[int] = set()
        self._written: set[int] = set()

    def __len__(self) -> int:
        """How many blocks are open."""
        return len(self._open)

    def add(
        self,
        ts: int,
        fields: dict[str, Any],
        features: dict[str, float] | None,
        watermark_ms: int,
    ) -> None:
        """Count an event, and the prediction that it asks for.

        Args:
            ts: of the event, UTC milliseconds.
            fields: of the event.
            features: of its prediction; None where it asks for none.
            watermark_ms: of the events so far.
        """
        if ts - ts % self._width != self._start:
            self._turn(ts, watermark_ms)
        block = self._block
        block.rows.append(fields)
        if features is not None:
            block.requests.append(features)
        if len(block.rows) >= ROWS_MAX:
            block.count()

    def refuse(self, reason: str, watermark_ms: int) -> None:
        """Count a record that was refused, in the newest block: it has no time that counts.

        Args:
            reason: with the path, for that may name a field.
            watermark_ms: of the events so far; before the first there is no block to count it in.
        """
        if watermark_ms < 0 and not self._open:
            return
        self._turn(max(self._open, default=watermark_ms), watermark_ms)
        refused = self._block.refused
        if reason not in refused and len(refused) >= REASONS_MAX:
            reason = OTHER_REASONS
        refused[reason] = refused.get(reason, 0) + 1

    def _turn(self, ts: int, watermark_ms: int) -> None:
        """Let what comes count in the block of a time, or in the nearest that may be open."""
        width = self._width
        start = max(ts - ts % width, self._floor)
        if start not in self._open:
            if watermark_ms >= 0:
                start = min(start, watermark_ms - watermark_ms % width + AHEAD_MAX * width)
            elif len(self._open) >= OPEN_MAX:
                start = max(self._open)
            start = max(start, self._floor)
        self._changed.add(start)
        self._start = start
        block = self._open.get(start)
        if block is None:
            block = self._open[start] = _Block(self._layout)
            self._set_due()
        self._block = block

    def _set_due(self) -> None:
        self.due_ms = min(self._open, default=_NEVER) + self._width + self._wait_ms

    def close(self, watermark_ms: int, partition: int) -> list[Summary]:
        """The summaries of the blocks that a watermark has passed, which are open no more.

        Args:
            watermark_ms: of the events.
            partition: of the events.
        """
        bound = watermark_ms - self._wait_ms - self._width
        summaries = []
        for start in sorted(start for start in self._open if start <= bound):
            block = self._open.pop(start)
            block.count()
            self._changed.add(start)
            summaries.append(
                Summary(
                    partition,
                    start,
                    start + self._width,
                    block.events,
                    block.predictions,
                    dict(sorted(block.refused.items())),
                    {name: block.summary(name) for name in block.fields},
                    {name: values.summary() for name, values in block.features.items()},
                )
            )
        if summaries:
            self._floor = summaries[-1].end
            self._start = -1
            self._set_due()
        return summaries

    def dump(self) -> list[int]:
        """What there is once: the length of blocks, and which are closed."""
        return [self._width, self._floor]

    def dirty(self) -> list[tuple[str, bytes | None]]:
        """The blocks that changed since the last call, by their start; None where one closed."""
        entries: list[tuple[str, bytes | None]] = []
        for start in sorted(self._changed):
            block = self._open.get(start)
            if block is None:
                if start in self._written:
                    entries.append((str(start), None))
                    self._written.discard(start)
                continue
            block.count()
            self._written.add(start)
            entries.append((str(start), _encode(block)))
        # Events go on in the block of the last one without a turn.
        self._changed.clear()
        self._start = -1
        return entries

    def restore(self, state: list[int] | None, entries: Iterable[tuple[str, bytes]]) -> None:
        """Take up what `dump` and `dirty` gave; blocks of another length are left behind.

        Args:
            state: what `dump` gave; None where there was nothing.
            entries: of the blocks that were open.
        """
        width, floor = state or (0, 0)
        for name, value in entries:
            start = int(name)
            self._written.add(start)
            if width == self._width:
                self._open[start] = _decode(value, self._layout)
            else:
                self._changed.add(start)
        # A block of the new length is not counted twice.
        self._floor = -(-floor // self._width) * self._width
        self._set_due()


def _encode(block: _Block) -> bytes:
    return orjson.dumps(
        [
            block.events,
            block.predictions,
            block.refused,
            *(
                {name: _packed(values) for name, values in columns.items()}
                for columns in (block.fields, block.features)
            ),
            block.missing_by,
        ]
    )


def _packed(values: Column) -> list[Any]:
    summary = values.summary()
    return [getattr(summary, name) for name in summary.__struct_fields__]


def _decode(value: bytes, layout: Layout) -> _Block:
    block = _Block(layout)
    # A former release did not tell kinds apart.
    block.events, block.predictions, block.refused, fields, features, *more = orjson.loads(value)
    if more and layout.kind is not None:
        block.missing_by = {name: each for name, each in more[0].items() if name in block.fields}
    for columns, packed in ((block.fields, fields), (block.features, features)):
        for name, values in columns.items():
            if name in packed:
                values.take(ColumnSummary(*packed[name]))
    return block
