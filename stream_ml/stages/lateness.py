"""How late an event may be, where a longer lateness was declared on a running log.

Theory of operation:

1. At a longer lateness the ids and the windows do not go further back than the former one kept
   them. So what was too late by the former one then still is: it lies before a floor.
2. Each change is noted with the first offset that was judged by the longer one. Whoever folds the
   events again, to fill other windows, judges each as it was judged when it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.features.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_ml.records import Record

__all__ = ["Lateness", "LatenessChange", "declared_lateness_ms"]

# The first offset of a partition that was judged by a longer lateness, and the one before it, ms.
LatenessChange = tuple[int, int]
# An offset that is not known until the next record comes.
_NEXT = -1


def declared_lateness_ms(declaration: Mapping[str, str]) -> int | None:
    """The lateness up to which events are taken, in milliseconds; None where it is not known.

    >>> declared_lateness_ms({"events.lateness": "20s"}), declared_lateness_ms({})
    (20000, None)

    Args:
        declaration: text by path.
    """
    text = declaration.get("events.window_lateness", declaration.get("events.lateness"))
    if text is None:
        return None
    return 0 if text == "0" else parse_duration(text)


class Lateness:
    """How late an event of one partition may be.

    Attributes:
        ms: how far behind the watermark, milliseconds.
        floor_ms: the least event time that is not too late, whatever the watermark; -1: any.

    Args:
        declared_ms: the lateness as it is declared.
        changes: those that are still to come, for events that are folded again, in their order.

    >>> lateness = Lateness(60_000, [(40, 20_000)])
    >>> lateness.ms
    20000
    >>> lateness.begin(40, watermark_ms=500_000)
    >>> lateness.ms, lateness.floor_ms
    (60000, 480000)
    """

    def __init__(self, declared_ms: int, changes: Sequence[LatenessChange] = ()) -> None:
        self._declared_ms = declared_ms
        self._changes: list[LatenessChange] = []
        self._future = [*changes]
        # Of a state that was taken up, until the next record says the offset.
        self._former_ms: int | None = None
        self.ms = self._future[0][1] if self._future else declared_ms
        self.floor_ms = -1

    @property
    def changes(self) -> tuple[LatenessChange, ...]:
        """What has been changed, in order."""
        return tuple(self._changes)

    def parts(self, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Records, cut where the lateness changes.

        Args:
            records: in the order of the log.
        """
        rest = records
        for offset, _ in tuple(self._future):
            count = sum(record.offset < offset for record in rest)
            if 0 < count < len(rest):
                yield rest[:count]
                rest = rest[count:]
        yield rest

    def begin(self, offset: int, watermark_ms: int) -> None:
        """Before a record is judged, and before it leads the watermark.

        Args:
            offset: of the record.
            watermark_ms: of the partition.
        """
        if self._former_ms is not None:
            self._changes.append((offset, self._former_ms))
            self._former_ms = None
        while self._future and self._future[0][0] <= offset:
            change = self._future.pop(0)
            self._changes.append(change)
            self.floor_ms = max(self.floor_ms, watermark_ms - change[1])
            self.ms = self._future[0][1] if self._future else self._declared_ms

    def dump(self) -> dict[str, Any]:
        """Members of the state."""
        members: dict[str, Any] = {"lateness": [self.ms, self.floor_ms]}
        changes = [[offset, ms] for offset, ms in self._changes]
        if self._former_ms is not None:
            changes.append([_NEXT, self._former_ms])
        return members | ({"lateness_changes": changes} if changes else {})

    def load(
        self, members: Mapping[str, Any], watermark_ms: int, former_ms: int | None = None
    ) -> bool:
        """Take up a state; whether it is known what its lateness was.

        Args:
            members: of the state.
            watermark_ms: of the partition.
            former_ms: the lateness that was declared when it was made; for one of a former release,
                which does not say it.
        """
        if "lateness" in members:
            former_ms, self.floor_ms = members["lateness"]
        self._load_changes(members.get("lateness_changes", ()))
        if former_ms is not None and former_ms < self._declared_ms:
            self.floor_ms = max(self.floor_ms, watermark_ms - former_ms)
            if self._former_ms is None:
                self._former_ms = former_ms
        return former_ms is not None

    def _load_changes(self, changes: Iterable[tuple[int, int]]) -> None:
        for offset, ms in changes:
            if offset == _NEXT:
                self._former_ms = ms
            else:
                self._changes.append((offset, ms))
