"""Progress on anything longer than two seconds: how far, how fast, how long still.

On a terminal one line is written over and over; elsewhere (a log file, CI) a plain line comes
every five seconds. Work that is done within two seconds says nothing.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self, TextIO

__all__ = ["Progress", "duration", "with_progress"]

T = TypeVar("T")

QUIET_S = 2.0
# Often enough to look alive; each drawing costs a system call.
REDRAW_S = 0.2
LINE_S = 5.0
WATCHED_RECORDS = 500


class Progress:
    """Shows how one piece of work gets on; called with how much is done, a context manager.

    Args:
        label: the work in a word, such as `working`.
        total: how much there is; None where nobody knows.
        stream: where it is shown; standard error by default.
        clock: seconds, from any start.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._start = clock()
        self._due = self._start + (QUIET_S if self._terminal else LINE_S)
        self._width = 0
        self.count = 0

    def __call__(self, count: int) -> None:
        """Note that so many records are done, and show it if it is time to."""
        self.count = count
        now_s = self._clock()
        if now_s >= self._due:
            self._due = now_s + (REDRAW_S if self._terminal else LINE_S)
            self._show(self._line(now_s - self._start))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = self._clock() - self._start
        if kind is None and seconds > QUIET_S:
            self._show(self._summary(seconds))
        if self._width:
            # What is written next begins on a line of its own, an error message above all.
            self._put("\n")

    def _line(self, seconds: float) -> str:
        rate = self.count / seconds
        if self._total is None:
            return f"{self._label}: {self.count:,} records, {rate:,.0f}/s"
        share = self.count / self._total if self._total else 1.0
        remaining = self._total - self.count
        left = f", {duration(remaining / rate)} left" if rate and remaining > 0 else ""
        return f"{self._label}: {share:.0%} of {self._total:,} records, {rate:,.0f}/s{left}"

    def _summary(self, seconds: float) -> str:
        rate = self.count / seconds
        return f"{self._label}: {self.count:,} records in {duration(seconds)}, {rate:,.0f}/s"

    def _show(self, line: str) -> None:
        if self._terminal:
            # Blanks cover what is left of a longer line before.
            self._put(f"\r{line:<{self._width}}")
            self._width = len(line)
        else:
            self._put(f"{line}\n")

    def _put(self, text: str) -> None:
        # The work goes on, whether anybody can see how far it is or not.
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def with_progress(records: Iterable[T], progress: Progress) -> Iterator[T]:
    """The same records, their progress shown while they are gone through.

    Args:
        records: of any kind.
        progress: is told of each.
    """
    count = 0
    for count, record in enumerate(records, start=1):
        yield record
        # A glance at the clock for each would cost more than some of the work.
        if count % WATCHED_RECORDS == 0:
            progress(count)
    progress(count)


def duration(seconds: float) -> str:
    """A length of time as people say it, in its two largest units.

    >>> duration(0.4), duration(59.6), duration(61), duration(3_600), duration(187_200)
    ('0.4 s', '1 min', '1 min 1 s', '1 h', '2 d 4 h')
    """
    if seconds < 1:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        parts.append(f"{count} {unit}" if count else "")
    largest = next(index for index, part in enumerate(parts) if part)
    return " ".join(part for part in parts[largest : largest + 2] if part)
