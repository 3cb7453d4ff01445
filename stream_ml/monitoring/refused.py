"""What is refused of the events, by reason and path, where it is far more than usual.

The alert about it is predict's (`poison_rate`); here it is kept for a diagnosis, for a path names a
field, and reasons name a flood of what is late or doubled.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RefusedShares"]

COUNT_MIN, SHARE_MIN, TIMES_MIN = 10, 0.05, 5
QUIET_BLOCKS = 3
RECORDS_MAX = 1_000_000
# So many reasons with their paths are known of the past; longer ones are cut.
REASONS_MAX, REASON_LENGTH_MAX = 256, 128


class RefusedShares:
    """The shares of what is refused.

    Attributes:
        episodes: by reason and path: `since`, the start of the first block (UTC ms), `share` of
            the records, the largest, `usual`, and how many blocks running were `quiet`.
    """

    def __init__(self) -> None:
        self._records = 0
        self._counts: dict[str, int] = {}
        self.episodes: dict[str, dict[str, Any]] = {}

    def take(self, start: int, events: int, refused: dict[str, int]) -> None:
        """Take in a block.

        Args:
            start: of the block, UTC milliseconds.
            events: how many were taken.
            refused: how many were not, by reason and path.
        """
        total = events + sum(refused.values())
        counts: dict[str, int] = {}
        for reason, count in refused.items():
            known = reason[:REASON_LENGTH_MAX]
            counts[known] = counts.get(known, 0) + count
        for reason in sorted({*counts, *self.episodes}):
            count = counts.get(reason, 0)
            usual = self._counts.get(reason, 0) / self._records if self._records else 0.0
            share = count / total if total else 0.0
            if self._records and count >= COUNT_MIN and share >= max(SHARE_MIN, TIMES_MIN * usual):
                episode = self.episodes.setdefault(
                    reason, {"since": start, "share": 0.0, "usual": usual, "quiet": 0}
                )
                episode["share"], episode["quiet"] = max(episode["share"], share), 0
                continue
            if reason in self.episodes:
                self.episodes[reason]["quiet"] += 1
                if self.episodes[reason]["quiet"] >= QUIET_BLOCKS:
                    del self.episodes[reason]
            self._counts[reason] = self._counts.get(reason, 0) + count
        if len(self._counts) > REASONS_MAX:
            kept = sorted(self._counts, key=lambda name: (-self._counts[name], name))
            self._counts = {name: self._counts[name] for name in kept[:REASONS_MAX]}
        self._records += total
        if self._records > RECORDS_MAX:
            self._records //= 2
            self._counts = {reason: n // 2 for reason, n in self._counts.items() if n > 1}

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [self._records, self._counts, self.episodes]

    def load(self, state: list[Any]) -> None:
        """Take up what `dump` gave."""
        self._records, self._counts, self.episodes = state
