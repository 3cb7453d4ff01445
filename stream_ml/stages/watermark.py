"""The watermark of `examples`: how far the truth is known, whichever partition brought it."""

from __future__ import annotations

__all__ = ["ExamplesWatermark"]


class ExamplesWatermark:
    """The least newest label time over the join partitions that still bring labels.

    A partition that has fallen behind the newest by more than `silence_ms` is left out, so that
    one without traffic does not hold time still. Never goes back.

    >>> watermark = ExamplesWatermark(silence_ms=100)
    >>> watermark.advance(0, 1_000), watermark.advance(1, 950), watermark.advance(0, 1_040)
    (1000, 1000, 1000)
    >>> watermark.advance(1, 1_030), watermark.advance(0, 2_000)
    (1030, 2000)
    """

    def __init__(self, silence_ms: int) -> None:
        self._silence_ms = silence_ms
        self.newest: dict[int, int] = {}
        self.ms = -1

    def advance(self, partition: int, label_ts: int) -> int:
        """The watermark once an example of this join partition and label time was read."""
        newest = self.newest
        if label_ts > newest.get(partition, -1):
            newest[partition] = label_ts
            if len(newest) == 1:
                self.ms = label_ts
            else:
                bound, least = max(newest.values()) - self._silence_ms, min(newest.values())
                if least < bound:
                    least = min(ts for ts in newest.values() if ts >= bound)
                self.ms = max(self.ms, least)
        return self.ms

    def dump(self) -> list[object]:
        """The state, as JSON can hold it."""
        return [self.ms, list(self.newest.items())]

    def load(self, state: list[object]) -> None:
        """Take up a dumped state."""
        self.ms, newest = state  # type: ignore[assignment]  # as dumped
        self.newest = {int(p): int(ts) for p, ts in newest}  # type: ignore[attr-defined]  # as dumped
