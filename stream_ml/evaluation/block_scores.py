"""Scores by block of time: how every model did in the last blocks, and usually.

Theory of operation. Scores are sums over all examples, so a block's are the difference of two: what
they came to before its first example, and after its last. That costs nothing while examples come.
A block is one of the watermark of the examples: those that come while it is within the block. The
last blocks are kept each for itself; older ones fade into what is usual, about twenty of them. A
block without examples is none.

Where labels may be corrected a correction has to find the block of its example. So an example is
then of the block of its first label's time, which each correction of it names; where that is not
the open one, what the example adds is taken out of that and put into its own (`book`).
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.scores import described, widened_totals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.evaluation.scores import Scores

__all__ = ["ScoresByBlock", "block_reports"]

RECENT_MAX = 6
FADING = 0.95


class ScoresByBlock:
    """The scores of the last blocks.

    Args:
        block_ms: the length of a block.
        kind: of the task.
        classes: of a multiclass task.
    """

    def __init__(self, block_ms: int, kind: str, classes: tuple[str, ...]) -> None:
        self._width = block_ms
        self._kind, self._classes = kind, classes
        # The open block, and by model or slice what its scores came to when it began.
        self._block = -1
        self._former: dict[str, list[float]] = {}
        self._recent: list[list[Any]] = []
        # By block that is not open yet, what examples ahead of the watermark add to it.
        self._ahead: dict[int, dict[str, list[float]]] = {}
        self._usual: dict[str, list[float]] = {}

    def is_over(self, watermark_ms: int) -> bool:
        """Whether the open block is over.

        Args:
            watermark_ms: of the examples, with the newest one.
        """
        return watermark_ms // self._width > self._block

    def close(self, watermark_ms: int, scores: Mapping[str, Scores]) -> None:
        """End the open block before the example that has ended it is scored.

        Args:
            watermark_ms: of the examples, with that one.
            scores: by model or slice, of all examples before it.
        """
        totals = {name: each.totals() for name, each in scores.items()}
        if self._block >= 0:
            parts = {name: _less(each, self._former.get(name)) for name, each in totals.items()}
            for name, part in self._ahead.pop(self._block, {}).items():
                parts[name] = _sum(parts.get(name), part)
            self._keep(self._block, parts)
        self._block, self._former = watermark_ms // self._width, totals
        for number in sorted(self._ahead):
            if number < self._block:
                self._keep(number, self._ahead.pop(number))
        while len(self._recent) > RECENT_MAX:
            _, parts = self._recent.pop(0)
            for name, part in parts.items():
                usual = self._usual.get(name) or [0.0] * len(part)
                self._usual[name] = [
                    FADING * former + new for former, new in zip(usual, part, strict=True)
                ]

    def _keep(self, number: int, parts: dict[str, list[float]]) -> None:
        parts = {name: part for name, part in parts.items() if part[0] or part[1]}
        if parts:
            self._recent.append([number * self._width, parts])

    def is_open(self, time_ms: int) -> bool:
        """Whether a time lies in the open block.

        Args:
            time_ms: UTC milliseconds.
        """
        return time_ms // self._width == self._block

    def book(
        self, name: str, change: Sequence[float], label_ms: int, *, is_new: bool = False
    ) -> None:
        """Count in the block of its label what an example has added, and not in the open one.

        Args:
            name: of the model or slice.
            change: of its totals, which have it already.
            label_ms: the time of the first label of the example.
            is_new: whether that is the label; else it is a correction, which counts no more where
                the block has faded.
        """
        number = label_ms // self._width
        if number == self._block:
            return
        self._former[name] = _sum(self._former.get(name), change)
        parts = self._ahead.get(number) if number > self._block else self._recent_parts(number)
        if is_new and parts is None:
            parts = self._begin(number)
        if parts is not None and (is_new or name in parts):
            parts[name] = _sum(parts.get(name), change)

    def _recent_parts(self, number: int) -> dict[str, list[float]] | None:
        found = (parts for start, parts in self._recent if start == number * self._width)
        return next(found, None)

    def _begin(self, number: int) -> dict[str, list[float]]:
        """The scores of a block that had no example; of one that has faded, what is usual."""
        start, parts = number * self._width, dict[str, list[float]]()
        if number > self._block:
            self._ahead[number] = parts
        elif len(self._recent) >= RECENT_MAX and start < self._recent[0][0]:
            return self._usual
        else:
            self._recent.append([start, parts])
            self._recent.sort(key=itemgetter(0))
        return parts

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it, with all that it takes to read it."""
        return {
            "width": self._width,
            "task": [self._kind, list(self._classes)],
            "block": self._block,
            "former": self._former,
            "recent": self._recent,
            "usual": self._usual,
            **({"ahead": sorted(self._ahead.items())} if self._ahead else {}),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `dump` gave; of blocks of another length nothing stays.

        Args:
            state: of the same task, which may have had fewer classes.
        """
        if state.get("width") != self._width:
            return
        count = len(state["task"][1])

        def parts(totals: Mapping[str, list[float]]) -> dict[str, list[float]]:
            if count == len(self._classes):
                return dict(totals)
            return {
                name: widened_totals(each, self._kind, count, len(self._classes))
                for name, each in totals.items()
            }

        self._block, self._former = state["block"], parts(state["former"])
        self._recent = [[start, parts(totals)] for start, totals in state["recent"]]
        self._usual = parts(state["usual"])
        self._ahead = {number: parts(totals) for number, totals in state.get("ahead", ())}


def _sum(totals: Sequence[float] | None, change: Sequence[float]) -> list[float]:
    if totals is None:
        return list(change)
    return [total + more for total, more in zip(totals, change, strict=True)]


def _less(totals: list[float], former: list[float] | None) -> list[float]:
    if former is None:
        return totals
    return [now - before for now, before in zip(totals, former, strict=True)]


def block_reports(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores of the last blocks, the oldest first, behind what is usual.

    Args:
        state: what `ScoresByBlock.dump` gave.

    Returns:
        Of each block `start` (None: usual) and `end`, UTC milliseconds, and `scores`, by model or
        `slice NAME`: see `described`.
    """
    kind, classes = state["task"]
    rows = [[None, state["usual"]], *state["recent"]]
    return [
        {
            "start": start,
            "end": None if start is None else start + state["width"],
            "scores": {
                name: described(kind, tuple(classes), part) for name, part in sorted(parts.items())
            },
        }
        for start, parts in rows
    ]
