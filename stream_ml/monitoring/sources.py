"""Whether one source of labels has come to say something else than the others.

Labels name who knew them (`source`). The loss of what was served is summed up by source and block
of the labels' time. A source is wrong, and not the world, when its own loss has grown by a lot, and
that of all others has not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["BLOCKS_RUNNING", "SourceLosses", "SourceShift"]

# Of an open block, and of the past; longer names are cut: those that begin alike count as one.
SOURCES_MAX, PAST_SOURCES_MAX, SOURCE_LENGTH_MAX = 16, 64, 64
LABELS_MIN = 10
PAST_MIN = 400
# How much a mean loss (Brier) must grow, and those of the others may.
GROWTH_MIN, GROWTH_OTHERS = 0.2, 0.05
FACTOR_MIN = 1.5
BLOCKS_RUNNING, QUIET_BLOCKS = 3, 6
PAST_LABELS_MAX = 5_000


class SourceShift(NamedTuple):
    """A source, its mean loss now and usually, and the start of the first block that said so."""

    source: str
    loss: float
    usual: float
    since: int


class SourceLosses:
    """The losses of served answers by the source of their labels."""

    def __init__(self) -> None:
        # By source, of the open block and of the past: labels, and the sum of their losses.
        self._now: dict[str, list[float]] = {}
        self._past: dict[str, list[float]] = {}
        # By source: blocks that say so, the start of the first, and blocks running that do not.
        self._suspects: dict[str, list[int]] = {}

    def add(self, source: str, loss: float) -> None:
        """Take in a label.

        Args:
            source: who knew it.
            loss: of the served answer, 0 to 1.
        """
        source = source[:SOURCE_LENGTH_MAX]
        sums = self._now.get(source)
        if sums is None:
            if len(self._now) >= SOURCES_MAX:
                return
            sums = self._now[source] = [0.0, 0.0]
        sums[0] += 1
        sums[1] += loss

    def close(self, start: int) -> tuple[list[SourceShift], list[str]]:
        """End a block: the sources that are found to be wrong with it, and those that are not.

        Args:
            start: of the block, UTC milliseconds.
        """
        now, self._now = self._now, {}
        growths = {
            source: (sums[1] / sums[0], self._usual(source))
            for source, sums in sorted(now.items())
            if sums[0] >= LABELS_MIN and self._past.get(source, [0.0])[0] >= PAST_MIN
        }
        found, ended = [], []
        for source, (loss, usual) in growths.items():
            others = [each for name, each in growths.items() if name != source]
            is_alone = bool(others) and all(a - b <= GROWTH_OTHERS for a, b in others)
            suspect = self._suspects.get(source)
            is_known = suspect is not None and suspect[0] >= BLOCKS_RUNNING
            least = GROWTH_MIN / 2 if is_known else GROWTH_MIN
            if loss - usual >= least and (is_known or (is_alone and loss >= FACTOR_MIN * usual)):
                suspect = self._suspects.setdefault(source, [0, start, 0])
                suspect[0], suspect[2] = suspect[0] + 1, 0
                if suspect[0] == BLOCKS_RUNNING:
                    found.append(SourceShift(source, loss, usual, suspect[1]))
            elif suspect is not None:
                suspect[2] += 1
                if not is_known or suspect[2] >= QUIET_BLOCKS:
                    del self._suspects[source]
                    ended += [source] if is_known else []
        for source, sums in sorted(now.items()):
            if source not in self._suspects:
                self._learn(source, sums)
        return found, ended

    def suspects(self) -> list[str]:
        """The sources that are found to be wrong, sorted."""
        return sorted(s for s, suspect in self._suspects.items() if suspect[0] >= BLOCKS_RUNNING)

    def _usual(self, source: str) -> float:
        labels, total = self._past[source]
        return total / labels

    def _learn(self, source: str, sums: list[float]) -> None:
        if source not in self._past and len(self._past) >= PAST_SOURCES_MAX:
            others = self._past.keys() - self._suspects.keys()
            if not others:
                return
            # Labels name as many sources as they like.
            del self._past[min(others, key=lambda name: (self._past[name][0], name))]
        past = self._past.setdefault(source, [0.0, 0.0])
        past[0] += sums[0]
        past[1] += sums[1]
        if past[0] > PAST_LABELS_MAX:
            self._past[source] = [past[0] / 2, past[1] / 2]

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [self._now, self._past, self._suspects]

    def load(self, state: list[Any]) -> None:
        """Take up what `dump` gave."""
        self._now, self._past, self._suspects = state
