"""Whether labels have stopped while events go on, or events while labels do."""

from __future__ import annotations

from typing import Any

from stream_ml.features.durations import DAY_MS, HOUR_MS

__all__ = ["EventOutage", "LabelOutage"]

HISTORY_MS = 3 * DAY_MS
LABELS_MIN = 300
# Of events, blocks count.
BLOCKS_MIN = 24
# In an hour. What ended an outage counts for less, yet a week later it is usual still.
FADING = 0.001
OUTAGE_SHARE = 0.75


class LabelOutage:
    """How far the newest label is behind the events, usually and now.

    It is an outage where that is more than twice as far as it was at most, and two blocks more:
    labels that come in the evening, or not on Sundays, are as usual once they have done so before,
    be it that the first Sunday was told. Where events and labels may be read at different speeds,
    how long labels stayed away is also by their own times: a backlog of events that is read before
    its labels teaches nothing.

    Args:
        block_ms: the length of a block.
        in_order: whether events and labels are read in the order of their times; where they may be
            read at different speeds, the log's clock must say so as well.
        labels_min: of fewer labels nothing is said.
    """

    def __init__(self, block_ms: int, *, in_order: bool, labels_min: int = LABELS_MIN) -> None:
        self._labels_min = labels_min
        self._width = block_ms
        self._fading = max(1 - FADING * block_ms / HOUR_MS, 0.5)
        self._in_order = in_order
        self._first_ms = -1
        self._labels = 0
        self._newest_ms = -1
        self._append_ms = -1
        self._gap_ms = 0
        self._largest_ms = 0.0
        self.since: int | None = None

    def label(self, ts: int, append_ms: int) -> None:
        """Take in a label that was joined.

        Args:
            ts: the label's time, UTC milliseconds.
            append_ms: when the log took the example in.
        """
        if self._first_ms < 0:
            self._first_ms = ts
        self._labels += 1
        if ts > self._newest_ms:
            # Read in order, labels are behind by a batch of events at most, and by as much again.
            gap = self._gap_ms
            if not self._in_order:
                gap = min(gap, ts - self._newest_ms)
            share = 1.0 if self.since is None else OUTAGE_SHARE
            self._largest_ms = max(self._largest_ms, share * gap)
            self._newest_ms, self._gap_ms = ts, 0
        self._append_ms = max(self._append_ms, append_ms)

    def block(self, end: int, append_ms: int) -> bool:
        """A block of events has ended; whether labels are out.

        Args:
            end: of the block, UTC milliseconds.
            append_ms: when the log took in what told of it.
        """
        if not self._labels:
            return False
        behind = self._gap_ms = max(end - self._newest_ms, 0)
        if self._labels < self._labels_min or end - self._first_ms < HISTORY_MS:
            return False
        bound = 2 * self._largest_ms + 2 * self._width
        is_out = behind >= (bound if self.since is None else bound / 2)
        if is_out and not self._in_order and self.since is None:
            is_out = append_ms - self._append_ms >= behind / 2
        if not is_out:
            self.since = None
            self._largest_ms *= self._fading
        elif self.since is None:
            self.since = self._newest_ms
        return is_out

    def figures(self, end: int) -> dict[str, Any]:
        """The figures behind it.

        Args:
            end: of the last block of events, UTC milliseconds.
        """
        return {
            "newest_label": self._newest_ms,
            "behind_ms": end - self._newest_ms,
            "usual_ms_max": round(self._largest_ms),
        }

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [
            self._first_ms,
            self._labels,
            self._newest_ms,
            self._append_ms,
            self._gap_ms,
            self._largest_ms,
            self.since,
        ]

    def load(self, state: list[Any]) -> None:
        """Take up what `dump` gave."""
        (
            self._first_ms,
            self._labels,
            self._newest_ms,
            self._append_ms,
            self._gap_ms,
            self._largest_ms,
            self.since,
        ) = state


class EventOutage:
    """How far the newest block of events is behind the labels, usually and now.

    All of `LabelOutage`, with events and labels in each other's place: while labels of former
    events come, their times are a clock.

    Args:
        block_ms: the length of a block.
        in_order: whether events and labels are read in the order of their times.
    """

    def __init__(self, block_ms: int, *, in_order: bool) -> None:
        self._gap = LabelOutage(block_ms, in_order=in_order, labels_min=BLOCKS_MIN)

    @property
    def since(self) -> int | None:
        """The end of the last block of events, while they are out, UTC milliseconds."""
        return self._gap.since

    def events(self, end: int, append_ms: int) -> None:
        """A block of events is complete.

        Args:
            end: of the block, UTC milliseconds.
            append_ms: when the log took in what told of it.
        """
        self._gap.label(end, append_ms)
        self._gap.since = None

    def labels(self, end: int, append_ms: int) -> bool:
        """A block of labels has ended; whether events are out.

        Args:
            end: of the block, UTC milliseconds.
            append_ms: when the log took in the label that ended it.
        """
        return self._gap.block(end, append_ms)

    def figures(self, end: int) -> dict[str, Any]:
        """The figures behind it.

        Args:
            end: of the last block of labels, UTC milliseconds.
        """
        figures = self._gap.figures(end)
        return {"last_block": figures.pop("newest_label"), **figures}

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return self._gap.dump()

    def load(self, state: list[Any]) -> None:
        """Take up what `dump` gave."""
        self._gap.load(state)
