"""Has the champion's live learner diverged? Judged with evidence and a margin.

Theory of operation:

1. Learn compares the live learner with what serves, on the same examples, before it learns them. So
   many examples make a *block*, which has a score: by how much the live one did worse. In Brier it
   is the difference of the means; for regression, whose errors may grow without bound, it is
   (live - served) / (live + served), between -1 and 1. A snapshot carries the moments of the scores
   since the one before it. A block over many refreshes has none: what serves is then all but the
   learner itself, and nothing is won by keeping an older copy of it.
2. A learner has diverged if, over the newest refreshes, one to `EPOCHS_MAX` of them, the mean score
   exceeds the margin by more than `STANDARD_ERRORS`. The standard error is that of the blocks'
   scores, drawn towards `PRIOR_DEVIATION` as if `PRIOR_BLOCKS` more blocks had been seen: one block
   shows what is gross, and what is slight takes many. To it is added that of luck which all blocks
   between two refreshes share, of a day say, which is taken to be as large as the margin. It is no
   test with a promise, for it looks again and again, which is what so many errors leave room for.
3. Once diverged, a learner is refused until a refresh whose mean score is within the margin: the
   evidence since counts, not that from before.

Scores of former releases' snapshots are none: they say nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BLOCK_EXAMPLES", "BlockScores", "Divergence"]

# Fewer examples than this say nothing about divergence.
BLOCK_EXAMPLES = 50
# So many refreshes may fall into a block that has a score.
REFRESHES_MAX = 5
EPOCHS_MAX = 8
STANDARD_ERRORS = 4.0
PRIOR_BLOCKS = 2
PRIOR_DEVIATION = 0.05
# Losses of a regression may be past what adds up to a finite number.
LOSS_MAX = 1e150


class BlockScores:
    """The blocks of one learner: how much worse than what serves it did since the last refresh.

    Args:
        is_relative: whether scores are relative, as for regression.
    """

    __slots__ = (
        "_count",
        "_is_relative",
        "_live",
        "_refreshes",
        "_served",
        "blocks",
        "squares",
        "total",
    )

    def __init__(self, *, is_relative: bool) -> None:
        self._is_relative = is_relative
        # Of the block that is not full yet, which refreshes do not cut.
        self._count = self._refreshes = 0
        self._live = self._served = 0.0
        self.blocks = 0
        self.total = self.squares = 0.0

    def add(self, live_loss: float, served_loss: float) -> None:
        """Take in both losses on one example."""
        self._live += min(live_loss, LOSS_MAX)
        self._served += min(served_loss, LOSS_MAX)
        self._count += 1
        if self._count == BLOCK_EXAMPLES:
            self._close()

    def _close(self) -> None:
        score, total = self._live - self._served, self._live + self._served
        if not self._is_relative:
            score /= BLOCK_EXAMPLES
        elif total:
            score /= total
        if self._refreshes <= REFRESHES_MAX:
            self.blocks += 1
            self.total += score
            self.squares += score * score
        self._count, self._refreshes, self._live, self._served = 0, 0, 0.0, 0.0

    def take(self) -> dict[str, Any]:
        """The moments since the last refresh, which begin anew with this."""
        self._refreshes += 1
        moments = {"blocks": self.blocks, "total": self.total, "squares": self.squares}
        self.blocks, self.total, self.squares = 0, 0.0, 0.0
        return moments

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [
            self._count,
            self._refreshes,
            self._live,
            self._served,
            self.blocks,
            self.total,
            self.squares,
        ]

    def load(self, state: list[Any]) -> None:
        """Take up a dumped state."""
        self._count, self._refreshes, self._live, self._served, *moments = state
        self.blocks, self.total, self.squares = moments


class _Epoch(NamedTuple):
    """The moments of the scores of the blocks between two refreshes."""

    blocks: int
    total: float
    squares: float


class Divergence:
    """Follows the learner of the line that serves.

    Args:
        margin: how much worse than what serves the learner may be: Brier, or where scores are
            relative as a share of the served answers' error.
        is_relative: whether scores are relative, as for regression.

    >>> divergence = Divergence(0.005, is_relative=False)
    >>> divergence.judge({"blocks": 4, "total": 1.2, "squares": 0.36})
    'it loses 0.3000 more than what serves on the newest 200 examples, where 0.005 is borne'
    >>> divergence.judge({"blocks": 4, "total": 0.0, "squares": 0.0}) is None
    True
    """

    def __init__(self, margin: float, *, is_relative: bool) -> None:
        self._margin = margin
        self._bound = margin / (2 + margin) if is_relative else margin
        self._is_relative = is_relative
        self._epochs: list[_Epoch] = []
        self._has_diverged = False

    def restart(self) -> None:
        """Begin anew: another line serves, or its learner is another."""
        self._epochs, self._has_diverged = [], False

    def judge(self, moments: Mapping[str, Any] | None) -> str | None:
        """Take in what a snapshot brought, and say in words why its learner has diverged, if so.

        Args:
            moments: as `BlockScores.take` gave them; None or of no blocks says nothing new.
        """
        epoch = _Epoch(0, 0.0, 0.0) if moments is None else _Epoch(**moments)
        if self._has_diverged and epoch.blocks and epoch.total <= self._bound * epoch.blocks:
            self._epochs, self._has_diverged = [], False
        if epoch.blocks:
            self._epochs = [*self._epochs, epoch][-EPOCHS_MAX:]
        blocks, total, squares = 0, 0.0, 0.0
        for epochs, epoch in enumerate(reversed(self._epochs), 1):
            blocks += epoch.blocks
            total += epoch.total
            squares += epoch.squares
            if self._exceeds(epochs, blocks, total, squares):
                self._has_diverged = True
                return self._sentence(blocks, total / blocks)
        if self._has_diverged:
            return self._sentence(blocks, total / blocks)
        return None

    def _exceeds(self, epochs: int, blocks: int, total: float, squares: float) -> bool:
        mean = total / blocks
        deviations = max(0.0, squares - total * mean) + PRIOR_BLOCKS * PRIOR_DEVIATION**2
        variance = deviations / (blocks - 1 + PRIOR_BLOCKS)
        # `sqrt` is exactly rounded everywhere.
        error = math.sqrt(variance / blocks + self._bound * self._bound / epochs)
        return mean - self._bound > STANDARD_ERRORS * error

    def _sentence(self, blocks: int, mean: float) -> str:
        size = f"{mean:.4f}"
        if self._is_relative:
            # (live - served) / (live + served), as a share of what serves loses.
            size = f"{2 * mean / (1 - mean):.1%}" if mean < 1 else "infinitely"
        return (
            f"it loses {size} more than what serves on the newest {blocks * BLOCK_EXAMPLES} "
            f"examples, where {self._margin} is borne"
        )

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {"epochs": [[*epoch] for epoch in self._epochs], "diverged": self._has_diverged}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a dumped state."""
        self._epochs = [_Epoch(*epoch) for epoch in state["epochs"]]
        self._has_diverged = state["diverged"]
