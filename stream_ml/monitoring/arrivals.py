"""Which blocks are complete over all partitions of events, and which partitions are silent.

Theory of operation:

1. Each partition tells its blocks in the order of time. A block is complete when every partition
   that speaks has told of one that ends as late, or later. So what is complete, and when, depends
   neither on batches nor on who reads faster.
2. A partition is silent when it is `SILENT_BLOCKS` behind the furthest one. Where partitions may be
   read at different speeds, only if by the log's clock, too, it has said nothing for as long, or
   when it is a day behind: while a history is read, who lags is not silent. Where one process reads
   all in rounds, only if the others have told of more events than a round has. A night in which no
   partition brings any makes none of them silent in the morning.
3. What a partition tells of a block that was complete without it is counted, and compared with
   nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.features.durations import DAY_MS
from stream_ml.monitoring.columns import column
from stream_ml.monitoring.reference import dumped, loaded, merge_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.monitoring.columns import Column
    from stream_ml.records import ColumnSummary, Summary

__all__ = ["Arrivals", "Block", "Silence"]

SILENT_BLOCKS = 2
# So many events of a partition must be missing, at the least, before its silence is worth a word:
# one that goes on as usual has so few once in e^30 blocks.
MISSED_MIN = 30
# The number of events of a block is a mean over about so many.
BLOCKS_MAX = 200
# When so many events are known, half of them are forgotten.
EVENTS_MAX = 1_000_000


@dataclass(slots=True)
class Block:
    """What came in a block of event time, in all partitions.

    Attributes:
        start: UTC milliseconds.
        events: how many were taken.
        predictions: of how many one was asked for.
        refused: how many records were not taken, by reason and path.
        columns: what they hold, by name.
        missing_by: by column of a field, how many values were missing in events of which kind.
    """

    start: int
    events: int = 0
    predictions: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    missing_by: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Silence:
    """A partition of events that is silent.

    Attributes:
        partition: of events.
        since: up to when it has brought events for certain, UTC milliseconds.
        missed: how many it would have had since at the least, by its share of the past.
    """

    partition: int
    since: int
    missed: float


class Arrivals:
    """The blocks that are not complete yet.

    Args:
        block_ms: the length of a block.
        in_order: whether the partitions are read in the order of event time.
        round_events: in rounds of at most so many events.
        wait_ms: a partition tells of a block when it has events of so long after its end.
    """

    def __init__(
        self, block_ms: int, *, in_order: bool, round_events: int = 0, wait_ms: int = 0
    ) -> None:
        self._width = block_ms
        self._in_order = in_order
        self._round_events = round_events
        self._wait_ms = wait_ms
        self._told = 0
        self._open: dict[int, Block] = {}
        # By partition: the end of its last block, when the log took that in, its events, and how
        # many all had told of by then.
        self._partitions: dict[int, list[int]] = {}
        # Of the newest blocks that any has told of, the starts.
        self._starts: list[int] = []
        self._floor = 0
        self._blocks = 0
        self._events_per_block = 0.0
        self.late_count = 0

    def add(self, summary: Summary, append_ms: int) -> list[Block]:
        """Take in what a partition tells; the blocks that are complete with it, in their order.

        Args:
            summary: of a block of one partition.
            append_ms: when the log took it in.
        """
        former = self._partitions.get(summary.partition, [0, 0, 0, 0])
        end, events = max(former[0], summary.end), former[2] + summary.events
        self._told += summary.events
        self._starts = sorted({*self._starts, summary.start})[-SILENT_BLOCKS:]
        self._partitions[summary.partition] = [end, append_ms, events, self._told]
        if sum(each[2] for each in self._partitions.values()) > EVENTS_MAX:
            for each in self._partitions.values():
                each[2] //= 2
        if summary.start < self._floor:
            self.late_count += summary.events
            return []
        block = self._open.setdefault(summary.start, Block(summary.start))
        block.events += summary.events
        block.predictions += summary.predictions
        for reason, count in summary.refused.items():
            block.refused[reason] = block.refused.get(reason, 0) + count
        for kind, columns in (("field", summary.fields), ("feature", summary.features)):
            merge_columns(block.columns, _columns(kind, columns))
        for name, values in summary.fields.items():
            counts = block.missing_by.setdefault(f"field:{name}", {}) if values.missing_by else {}
            for kind, count in (values.missing_by or {}).items():
                counts[kind] = counts.get(kind, 0) + count
        return self._complete(append_ms)

    def _complete(self, append_ms: int) -> list[Block]:
        speaking = [
            known[0] for known in self._partitions.values() if not self._is_silent(known, append_ms)
        ]
        bound = min(speaking)
        starts = sorted(start for start in self._open if start + self._width <= bound)
        self._floor = max(self._floor, bound)
        blocks = [self._open.pop(start) for start in starts]
        for block in blocks:
            self._blocks = min(self._blocks + 1, BLOCKS_MAX)
            self._events_per_block += (block.events - self._events_per_block) / self._blocks
        return blocks

    def _is_silent(self, known: list[int], append_ms: int) -> bool:
        end, last_ms, _, told = known
        behind = max(each[0] for each in self._partitions.values()) - end
        bound = SILENT_BLOCKS * self._width
        if behind < bound:
            return False
        # After a pause of all, whoever tells of the first block is ahead of the others by that.
        if sum(start >= end for start in self._starts) < SILENT_BLOCKS:
            return False
        if self._in_order:
            return self._told - told >= self._round_events
        return append_ms - last_ms >= bound or behind >= DAY_MS

    def partitions(self) -> list[int]:
        """The partitions that have told of a block."""
        return sorted(self._partitions)

    @property
    def newest_end(self) -> int:
        """The end of the newest block that any partition has told of, UTC milliseconds."""
        return max(each[0] for each in self._partitions.values())

    def is_behind(self, subject: str) -> bool:
        """Whether a partition has not caught up with the others since it was silent.

        Args:
            subject: `partition:` and its number.
        """
        known = self._partitions.get(int(subject.rpartition(":")[2]))
        furthest = max(each[0] for each in self._partitions.values())
        return known is not None and furthest - known[0] >= SILENT_BLOCKS * self._width

    def silences(self, append_ms: int) -> list[Silence]:
        """The partitions that are silent, and would not be by chance.

        Args:
            append_ms: when the log took in the last of all.
        """
        total = sum(each[2] for each in self._partitions.values())
        furthest = max(each[0] for each in self._partitions.values())
        found = []
        for partition, known in sorted(self._partitions.items()):
            end, _, events, _ = known
            if events and events < total and self._is_silent(known, append_ms):
                # What it has brought of the block that it was in nobody has told of.
                blocks = (furthest - end) // self._width - 1
                missed = blocks * self._events_per_block * events / total
                if missed >= MISSED_MIN:
                    found.append(Silence(partition, end + self._wait_ms, missed))
        return found

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "partitions": {str(number): each for number, each in self._partitions.items()},
            "floor": self._floor,
            "told": self._told,
            "starts": self._starts,
            "blocks": [self._blocks, self._events_per_block],
            "late": self.late_count,
            "open": [
                [
                    each.start,
                    each.events,
                    each.predictions,
                    each.refused,
                    dumped(each.columns),
                    each.missing_by,
                ]
                for each in self._open.values()
            ],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `dump` gave."""
        self._partitions = {int(number): each for number, each in state["partitions"].items()}
        self._floor, self.late_count = state["floor"], state["late"]
        self._told, self._starts = state["told"], list(state.get("starts", ()))
        self._blocks, self._events_per_block = state["blocks"]
        self._open = {}
        # A former release did not tell kinds of events apart.
        for start, events, predictions, refused, columns, *more in state["open"]:
            block = Block(start, events, predictions, refused, loaded(columns), *more)
            self._open[start] = block


def _columns(kind: str, summaries: Mapping[str, ColumnSummary]) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for name, summary in summaries.items():
        values = column(is_number=summary.categories is None)
        values.take(summary)
        columns[f"{kind}:{name}"] = values
    return columns
