"""The labels that came before their predictions, and wait for them."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

import orjson

from stream_ml.codec import ID_LENGTH_MAX
from stream_ml.errors import BadRecord, UsageError
from stream_ml.records import EventLabel, Record
from stream_ml.stages.state import LABELS

if TYPE_CHECKING:
    from stream_ml.codec import LabelCodec
    from stream_ml.stages.task import DirtyKeys

__all__ = ["LABELS_PER_ID_MAX", "WaitingLabel", "WaitingLabels"]

# An id is labelled once, and again where somebody thinks better of it; more is a mistake. All
# that wait are one entry of state.
LABELS_PER_ID_MAX = 16
# Labels that wait may be so long on average, beyond a few.
LABEL_BYTES_MEAN_MAX = 256
LABELS_BYTES_MIN = 1 << 20


class WaitingLabel(NamedTuple):
    """A label that waits for its prediction, and the labels watermark that it is judged by."""

    record: Record
    label: EventLabel
    watermark: int


class WaitingLabels:
    """Labels by event id, and by time for dropping; an id's entry is written where it changed.

    Args:
        codec: reads labels of a former process again.
        count_max: how many may wait.
        dirty: takes the keys of the entries that changed.

    Attributes:
        bytes: the length of all that wait.
        bytes_max: how long they may be.
    """

    def __init__(self, codec: LabelCodec, count_max: int, dirty: DirtyKeys[str]) -> None:
        self._codec = codec
        self._count_max = count_max
        self._dirty = dirty
        self._labels: dict[str, list[WaitingLabel]] = {}
        self._count = 0
        self.bytes = 0
        self.bytes_max = max(LABELS_BYTES_MIN, count_max * LABEL_BYTES_MEAN_MAX)
        # A label that waits no more is passed over.
        self._times: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return self._count

    def get(self, event_id: str) -> list[WaitingLabel] | None:
        """The labels of an id, in the order of the log; None if there are none."""
        return self._labels.get(event_id)

    @property
    def is_overfull(self) -> bool:
        """Whether more wait than may."""
        return self._count > self._count_max or self.bytes > self.bytes_max

    def is_full(self, event_id: str) -> bool:
        """Whether no more of an id may wait."""
        return len(self._labels.get(event_id, ())) >= LABELS_PER_ID_MAX

    def add(self, waiting: WaitingLabel) -> None:
        """Let a label wait."""
        record, label = waiting.record, waiting.label
        if record.key is not None:
            record.key = record.key[:ID_LENGTH_MAX]  # as much as a dead letter would show
        self._dirty.put(f"{LABELS}{label.event_id}", new=label.event_id not in self._labels)
        self._labels.setdefault(label.event_id, []).append(waiting)
        self._count += 1
        self.bytes += _size(record)
        heapq.heappush(self._times, (label.ts, record.offset, label.event_id))

    def keep(self, event_id: str, waiting: list[WaitingLabel]) -> None:
        """Let only `waiting` wait, of the labels of an id.

        Args:
            event_id: of the labels.
            waiting: those that still wait; may be empty.
        """
        former = self._labels[event_id]
        if len(waiting) == len(former):
            return
        self._count -= len(former) - len(waiting)
        self.bytes -= sum(_size(item.record) for item in former)
        self.bytes += sum(_size(item.record) for item in waiting)
        if waiting:
            self._labels[event_id] = waiting
            self._dirty.put(f"{LABELS}{event_id}", new=False)
        else:
            del self._labels[event_id]
            self._dirty.delete(f"{LABELS}{event_id}")

    @property
    def oldest_ms(self) -> int | None:
        """The time of the oldest, or of one that was older and waits no more."""
        return self._times[0][0] if self._times else None

    def pop_oldest(self) -> WaitingLabel | None:
        """Let the oldest wait no more; None if it was gone already."""
        _, offset, event_id = heapq.heappop(self._times)
        waiting = self._labels.get(event_id, [])
        for number, item in enumerate(waiting):
            if item.record.offset == offset:
                self.keep(event_id, waiting[:number] + waiting[number + 1 :])
                return item
        return None

    def entry(self, event_id: str) -> bytes | None:
        """An id's labels as they are written down; None if there are none."""
        waiting = self._labels.get(event_id)
        if waiting is None:
            return None
        return orjson.dumps(
            [
                (
                    item.record.partition,
                    item.record.offset,
                    # A key is any bytes; latin-1 maps each byte to one character and back.
                    None if item.record.key is None else item.record.key.decode("latin-1"),
                    (item.record.value or b"").decode(),
                    item.record.append_ms,
                    item.watermark,
                )
                for item in waiting
            ]
        )

    def load(self, event_id: str, entry: bytes) -> None:
        """Take up an id's labels.

        Args:
            event_id: of the labels.
            entry: as it was dumped.

        Raises:
            UsageError: one is no label under this declaration.
        """
        waiting = self._labels[event_id] = []
        for partition, offset, key, text, append_ms, watermark in orjson.loads(entry):
            raw = None if key is None else key.encode("latin-1")
            record = Record("labels", partition, offset, raw, text.encode(), append_ms)
            try:
                record.memo = label = self._codec.decode(record.value)
            except BadRecord as error:
                raise UsageError(
                    f"a label that waits, of partition {partition} and offset {offset}, is none "
                    f"under this declaration: {error}. Declare labels as they were, or give the "
                    "pipeline another name, under which it begins anew"
                ) from None
            waiting.append(WaitingLabel(record, label, watermark))
            self._count += 1
            self.bytes += _size(record)
            heapq.heappush(self._times, (label.ts, offset, event_id))


def _size(record: Record) -> int:
    return len(record.value or b"") + len(record.key or b"")
