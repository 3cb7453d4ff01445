"""Whether answers still tell true from false: what a change of the concept does, and no other."""

from __future__ import annotations

from typing import Any

__all__ = ["Contrast"]

FAST, SLOW = 1 / 64, 1 / 2_048
LABELS_MIN = 256


class Contrast:
    """How much higher answers are for what turns out true, now and usually; of yes or no.

    Where more is true than before, or inputs are other ones, those that are true are still told
    from the others; where what is true has become another thing they are not.

    Attributes:
        lowest: the least contrast since a change began; None where there is none.
    """

    def __init__(self) -> None:
        self._labels = 0
        # Means of answers of what is false and of what is true: of the last, and usual ones.
        self._fast, self._slow = [0.5, 0.5], [0.5, 0.5]
        # The share of what is true, less what answers said it would be.
        self._surplus = 0.0
        self.lowest: float | None = None
        self._usual: float | None = None

    def add(self, answer: float, *, label: bool, is_changed: bool) -> None:
        """Take in an answer and its label.

        Args:
            answer: the chance that was given to True.
            label: what was true.
            is_changed: whether a change of the loss is open.
        """
        self._labels += 1
        fast, slow = max(FAST, 1 / self._labels), max(SLOW, 1 / self._labels)
        self._fast[label] += fast * (answer - self._fast[label])
        self._surplus += fast * (label - answer - self._surplus)
        if not is_changed:
            self._slow[label] += slow * (answer - self._slow[label])
            return
        if self._usual != self._slow[1] - self._slow[0]:
            self._usual, self.lowest = self._slow[1] - self._slow[0], None
        now = self._fast[1] - self._fast[0]
        self.lowest = now if self.lowest is None else min(self.lowest, now)

    def report(self) -> dict[str, float | None]:
        """The figures: the least contrast since the last change, the usual one, the surplus."""
        return {
            "lowest": self.lowest,
            "usual": self._slow[1] - self._slow[0],
            "surplus": self._surplus,
        }

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [self._labels, self._fast, self._slow, self._surplus, self.lowest, self._usual]

    def load(self, state: list[Any]) -> None:
        """Take up what `dump` gave."""
        self._labels, self._fast, self._slow, self._surplus, self.lowest, self._usual = state
