"""How far a source of labels may be trusted: whether others say the same of the same events.

Labels name who knew them (`source`). Where several know of one event, the last word of each is
compared with the last word of all others on it, or of the one that is declared as trusted. A share
has the interval of Wilson (1927, Probable inference, the law of succession, and statistical
inference, JASA 22), which is one for few events, and at 0 and 1, too.

The measure is of what was published, whether or not it joined: a source that is excluded from
learning is measured as well. Of two sources alone it cannot say which one is wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

__all__ = ["Agreement", "SourceAgreement", "share_interval"]

# Of these, the newest; of more than so many sources those that came first.
EVENTS_MAX, SOURCES_MAX = 20_000, 64
# Of a normal distribution 95 % lie within.
Z = 1.96


@dataclass(frozen=True, slots=True)
class Agreement:
    """A source's labels beside those of others on the same events.

    Attributes:
        source: who knew them; None for labels that name nobody.
        labels: of how many events it has labels.
        compared: on how many of these there is a word of another source.
        agreed: on how many of these both are the same.
        low: of the share of these, the lower end of its 95 % interval; None where none is compared.
        high: the upper end.
        difference: of numbers, the mean of the absolute differences; None for others.
    """

    source: str | None
    labels: int
    compared: int
    agreed: int
    low: float | None
    high: float | None
    difference: float | None


class SourceAgreement:
    """The agreement of sources, over the labels of the newest events.

    Args:
        trusted: the source that others are compared with; None: with the last word of all others.

    >>> sources = SourceAgreement()
    >>> for source, label in [("a", True), ("b", False), ("a", False)]:
    ...     sources.add("e1", source, label)
    >>> [(each.source, each.compared, each.agreed) for each in sources.rows()]
    [('a', 1, 1), ('b', 1, 1)]
    """

    def __init__(self, trusted: str | None = None) -> None:
        self._trusted = trusted
        # By event, the last word of each source, the last that came behind the others.
        self._events: dict[str, dict[str | None, bool | float | str]] = {}
        self._sources: set[str] = set()

    def add(self, event_id: str, source: str | None, label: bool | float | str) -> None:
        """Take in a label.

        Args:
            event_id: of its event.
            source: who knew it.
            label: what it says.
        """
        if source is not None and source not in self._sources:
            if len(self._sources) >= SOURCES_MAX:
                return
            self._sources.add(source)
        words = self._events.pop(event_id, {})
        words.pop(source, None)
        words[source] = label
        self._events[event_id] = words
        if len(self._events) > EVENTS_MAX:
            del self._events[next(iter(self._events))]

    def rows(self) -> list[Agreement]:
        """The sources by name, labels of nobody last; none where no label names a source."""
        if not self._sources:
            return []
        labels, compared, agreed = (
            Counter[str | None](),
            Counter[str | None](),
            Counter[str | None](),
        )
        differences = dict[str | None, float]()
        for words in self._events.values():
            labels.update(words.keys())
            if len(words) == 1:
                continue
            for source, label in words.items():
                other = self._other(words, source)
                if other is None:
                    continue
                compared[source] += 1
                agreed[source] += label == other
                if type(label) is float and type(other) is float:
                    differences[source] = differences.get(source, 0.0) + abs(label - other)
        return [
            _row(source, labels[source], compared[source], agreed[source], differences.get(source))
            for source in sorted(labels, key=lambda source: (source is None, source or ""))
        ]

    def _other(
        self, words: dict[str | None, bool | float | str], source: str | None
    ) -> bool | float | str | None:
        """The word that a source's is compared with; None where there is none."""
        if self._trusted is not None:
            return None if source == self._trusted else words.get(self._trusted)
        return next(words[name] for name in reversed(words) if name != source)


def _row(
    source: str | None, labels: int, compared: int, agreed: int, difference: float | None
) -> Agreement:
    if not compared:
        return Agreement(source, labels, 0, 0, None, None, None)
    low, high = share_interval(agreed, compared)
    mean = None if difference is None else difference / compared
    return Agreement(source, labels, compared, agreed, low, high, mean)


def share_interval(count: float, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score.

    >>> low, high = share_interval(0, 200)
    >>> round(low, 4), round(high, 4)
    (0.0, 0.0188)

    Args:
        count: how many of them are.
        total: of how many, at least one.
    """
    share, weight = count / total, Z * Z / total
    centre = (share + weight / 2) / (1 + weight)
    spread = share * (1 - share) / total + weight / (4 * total)
    error = Z * math.sqrt(spread) / (1 + weight)
    return max(0.0, centre - error), min(1.0, centre + error)
