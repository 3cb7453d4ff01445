"""How many of the predictions of a block have got their label, and how long labels took.

A prediction counts in the block of its time, and so does its label, whenever that comes. A block is
over when no more labels can come for it, that is a horizon after its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LabelCoverage"]

RECENT_MAX = 6
FADING = 0.95
# Predictions of so many blocks wait for labels; of more the oldest are left out.
OPEN_MAX = 2_048


class LabelCoverage:
    """Predictions and labels by block.

    Args:
        block_ms: the length of a block.
        horizon_ms: how long after its event a label may come.

    >>> coverage = LabelCoverage(1_000, 5_000)
    >>> coverage.predict(0, 8)
    >>> for _ in range(6):
    ...     coverage.label(999)
    >>> coverage.close(6_000)
    >>> coverage.dump()["recent"]
    [[0, 8, 6]]
    """

    def __init__(self, block_ms: int, horizon_ms: int) -> None:
        self._width, self._horizon_ms = block_ms, horizon_ms
        # By block: predictions, and labels of these.
        self._open: dict[int, list[int]] = {}
        self._floor = -1
        self._recent: list[list[int]] = []
        self._usual = [0.0, 0.0]

    def predict(self, start: int, predictions: int) -> None:
        """Count predictions.

        Args:
            start: of the block, UTC milliseconds.
            predictions: how many a partition of events has had in it.
        """
        self._block(start // self._width)[0] += predictions

    def label(self, ts: int) -> None:
        """Count a label.

        Args:
            ts: of its prediction, UTC milliseconds.
        """
        self._block(ts // self._width)[1] += 1

    def _block(self, number: int) -> list[int]:
        block = self._open.get(number)
        if block is None:
            block = [0, 0]
            if number > self._floor:
                self._open[number] = block
                if len(self._open) > OPEN_MAX:
                    del self._open[min(self._open)]
        return block

    def close(self, watermark_ms: int) -> None:
        """End the blocks for which no label can come any more.

        Args:
            watermark_ms: of the examples.
        """
        bound = (watermark_ms - self._horizon_ms) // self._width - 1
        if bound <= self._floor:
            return
        self._floor = bound
        for number in sorted(each for each in self._open if each <= bound):
            predictions, labels = self._open.pop(number)
            # A block that was told of after it was over has labels, and no predictions.
            if predictions:
                self._recent.append([number * self._width, predictions, min(labels, predictions)])
        while len(self._recent) > RECENT_MAX:
            _, predictions, labels = self._recent.pop(0)
            self._usual[0] = FADING * self._usual[0] + predictions
            self._usual[1] = FADING * self._usual[1] + labels

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it: `recent` has start, predictions and labels of blocks."""
        return {
            "open": {str(number): block for number, block in sorted(self._open.items())},
            "floor": self._floor,
            "recent": self._recent,
            "usual": self._usual,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `dump` gave."""
        self._open = {int(number): list(block) for number, block in state["open"].items()}
        self._floor, self._usual = state["floor"], list(state["usual"])
        self._recent = [list(row) for row in state["recent"]]
