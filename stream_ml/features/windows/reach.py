"""From where to where a window reaches, among the times of a buffer: its frame, compiled.

A reach gives two indices into the sorted times of a buffer, [tail, upper): the events that the
window holds for an event at t. All that is before t lies before the index `head`. Neither index
ever falls as t rises, but where a late event comes in.
"""

# ruff: noqa: ARG002 - what is called alike has one signature, whoever needs it all
from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CountReach", "Reach", "SessionReach", "TimeReach"]


class Reach:
    """The base of all."""

    __slots__ = ()

    def find(self, times: list[int], start: int, head: int, t: int) -> tuple[int, int]:
        """The two indices, from nothing but the times.

        Args:
            times: ascending, in milliseconds.
            start: the first index that is held.
            head: the first index whose time is not below `t`.
            t: the moment of the question.
        """
        raise NotImplementedError

    def follow(
        self, times: list[int], span: tuple[int, int], t: int, former: tuple[int, int]
    ) -> tuple[int, int]:
        """The two indices, as `t` has risen and nothing before the former head has changed.

        Args:
            times: ascending, in milliseconds.
            span: the first index that is held, and the first whose time is not below `t`.
            t: the moment of the question.
            former: the tail and the head of the moment before.
        """
        return self.find(times, *span, t)


@dataclass(frozen=True, slots=True)
class TimeReach(Reach):
    """A reach by the clock alone.

    Attributes:
        begin: the first moment that is in, for an event at t; it never falls as t rises.
        end: the first moment that is out; None for t itself.
    """

    begin: Callable[[int], int]
    end: Callable[[int], int] | None = None

    def find(self, times: list[int], start: int, head: int, t: int) -> tuple[int, int]:
        """As `Reach.find`: by bisection."""
        tail = bisect_left(times, self.begin(t), start, head)
        return tail, head if self.end is None else bisect_left(times, self.end(t), tail, head)


@dataclass(frozen=True, slots=True)
class CountReach(Reach):
    """The newest events, so many, and none from before some time.

    Attributes:
        n: how many.
        within_ms: how far back at most.
    """

    n: int
    within_ms: int

    def find(self, times: list[int], start: int, head: int, t: int) -> tuple[int, int]:
        """As `Reach.find`: by counting back."""
        first = max(start, head - self.n)
        return bisect_left(times, t - self.within_ms, first, head), head


@dataclass(frozen=True, slots=True)
class SessionReach(Reach):
    """The events that follow each other, and are followed by the asking one, without a long gap.

    Attributes:
        gap_ms: the longest that is none.
        longest_ms: how far back at most.
    """

    gap_ms: int
    longest_ms: int

    def find(self, times: list[int], start: int, head: int, t: int) -> tuple[int, int]:
        """As `Reach.find`: by going back event by event."""
        if head == start or t - times[head - 1] > self.gap_ms:
            return head, head
        tail, oldest = head - 1, t - self.longest_ms
        while (
            tail > start
            and times[tail] - times[tail - 1] <= self.gap_ms
            and times[tail - 1] >= oldest
        ):
            tail -= 1
        return tail, head

    def follow(
        self, times: list[int], span: tuple[int, int], t: int, former: tuple[int, int]
    ) -> tuple[int, int]:
        """As `Reach.follow`: by what has come since."""
        start, head = span
        if head == start or t - times[head - 1] > self.gap_ms:
            return head, head
        tail = max(former[0], start)
        for index in range(max(former[1], start + 1), head):
            if times[index] - times[index - 1] > self.gap_ms:
                tail = index
        return bisect_left(times, t - self.longest_ms, tail, head), head
