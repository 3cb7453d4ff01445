"""The labels that stand, and may be corrected yet; and what silence is taken for.

Theory of operation. All of it follows from the labels watermark W, as what `join` does:

1. *Silence*: once W has passed a prediction by `window`, its label is the one declared as `absent`,
   known at its time + `window`. A label that is judged by a later time comes after that, whether W
   has passed or not. So what is joined, and how, is a function of the logs.
2. *Correction*: a label about an event that has one takes its place. In the place of silence one
   may come within the horizon of its event; in the place of what somebody said, within
   `corrections` of the first label. The last one on the log counts, whatever its own time. The
   same label again is no correction: it confirms what silence said, and is a `duplicate_label` of
   what somebody did.
3. The prediction is kept as long as that may be, for whoever learns and judges needs it again. At
   most `pending_max` are; of more, those whose time is over soonest can be corrected no more.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

import orjson

from stream_ml.records import Correction
from stream_ml.stages.state import CORRECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import LabelValue
    from stream_ml.stages.task import DirtyKeys

__all__ = ["OVERFLOW", "Corrections", "StandingLabel"]

# Of more than `pending_max` of them.
OVERFLOW = (
    "labels may be corrected; those whose time is over soonest can be corrected no more: raise "
    "`pending_max`, or declare a shorter horizon or `corrections`"
)


class StandingLabel(NamedTuple):
    """The label of a prediction as it stands.

    `value` is the prediction, and `label_ts` the time of the label; `first_ts` is that of the
    first one that somebody said, None where silence was taken for it; `scored_ts` is that of the
    first one, silence or not.
    """

    ts: int
    value: bytes
    label: LabelValue
    label_ts: int
    first_ts: int | None
    scored_ts: int

    def corrected(self) -> Correction:
        """What a label says that takes its place."""
        return Correction(self.label, self.label_ts, self.first_ts is None, self.scored_ts)


class Corrections:
    """The labels that may be corrected, by event id and time of the prediction.

    Args:
        pipeline: the declaration.
        dirty: takes the keys of the entries that changed.
    """

    def __init__(self, pipeline: Pipeline, dirty: DirtyKeys[str]) -> None:
        self._horizon = pipeline.horizon_ms
        self._span_ms = pipeline.label.corrections_ms
        self._count_max = pipeline.pending_max
        self._dirty = dirty
        self._standing: dict[str, StandingLabel] = {}
        # By the time up to which each may be corrected; one that is gone, or later, is passed over.
        self._ends: list[tuple[int, str]] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._standing)

    def end_ms(self, standing: StandingLabel) -> int:
        """The time up to which a label may be corrected.

        Args:
            standing: the label.
        """
        if standing.first_ts is None:
            return standing.ts + self._horizon
        return standing.first_ts + self._span_ms

    def find(self, event_id: str, ts: int) -> StandingLabel | None:
        """The label that stands for a prediction; None where it may be corrected no more.

        Args:
            event_id: of the event.
            ts: its time.
        """
        return self._standing.get(_name(event_id, ts))

    def put(self, event_id: str, standing: StandingLabel) -> None:
        """Keep a label that stands now, if it may be corrected.

        Args:
            event_id: of the event.
            standing: its label.
        """
        name = _name(event_id, standing.ts)
        if standing.first_ts is not None and not self._span_ms:
            self._drop(name)
            return
        former = self._standing.get(name)
        self._dirty.put(f"{CORRECTIONS}{name}", new=former is None)
        self._standing[name] = standing
        end_ms = self.end_ms(standing)
        # Corrected again and again it keeps its end: once in the heap is enough.
        if former is None or self.end_ms(former) != end_ms:
            heapq.heappush(self._ends, (end_ms, name))

    def drop(self, event_id: str, ts: int) -> None:
        """Let a prediction be corrected no more.

        Args:
            event_id: of the event.
            ts: its time.
        """
        self._drop(_name(event_id, ts))

    def drop_before(self, watermark_ms: int) -> None:
        """Let go of what no label can correct any more.

        Args:
            watermark_ms: of the labels.
        """
        while self._ends and self._ends[0][0] < watermark_ms:
            self._drop_ended(*heapq.heappop(self._ends))

    def drop_overflow(self) -> int:
        """Let go of more than may be kept; how many that were."""
        dropped = 0
        while len(self._standing) > self._count_max:
            dropped += self._drop_ended(*heapq.heappop(self._ends))
        return dropped

    def forget(self, is_meant: Callable[[bytes], bool]) -> list[str]:
        """Let go of predictions; the ids of their events.

        Args:
            is_meant: whether a prediction is.
        """
        names = [name for name, each in self._standing.items() if is_meant(each.value)]
        for name in names:
            self._drop(name)
        return [name.partition(":")[2] for name in names]

    def _drop_ended(self, end_ms: int, name: str) -> bool:
        standing = self._standing.get(name)
        if standing is None or self.end_ms(standing) != end_ms:
            return False
        self._drop(name)
        return True

    def _drop(self, name: str) -> None:
        if self._standing.pop(name, None) is not None:
            self._dirty.delete(f"{CORRECTIONS}{name}")

    def entry(self, name: str) -> bytes | None:
        """A label that stands as it is written down; None if there is none.

        Args:
            name: of the entry.
        """
        each = self._standing.get(name)
        if each is None:
            return None
        times = each.label_ts, each.first_ts, each.scored_ts
        return orjson.dumps((each.ts, each.value.decode(), each.label, *times))

    def load(self, name: str, entry: bytes) -> None:
        """Take up a label.

        Args:
            name: of the entry.
            entry: as it was dumped.
        """
        ts, text, label, label_ts, first_ts, *scored = orjson.loads(entry)
        # One of before it was kept takes its last label for the first.
        scored_ts = scored[0] if scored else label_ts
        standing = StandingLabel(ts, text.encode(), label, label_ts, first_ts, scored_ts)
        self._standing[name] = standing
        heapq.heappush(self._ends, (self.end_ms(standing), name))


def _name(event_id: str, ts: int) -> str:
    # An id may come again, later.
    return f"{ts}:{event_id}"
