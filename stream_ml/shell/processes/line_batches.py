"""Lines as they come, from a file or a pipe, in batches that neither wait long nor grow large."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from stream_ml.shell.input_files import STANDARD_INPUT, Unpacker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_ml.shell.processes.stop import Stop

__all__ = ["Line", "batches", "every_line", "pace"]

T = TypeVar("T")
BATCH_LINES = 1_000
BATCH_S = 0.05
READ_BYTES = 256 * 1024
BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line with its number, from 1; None stands for one that is longer than we read."""

    number: int
    text: bytes | None


def batches(
    handle: int,
    stop: Stop,
    *,
    bytes_max: int,
    file: str = STANDARD_INPUT,
    is_raw: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[Line]]:
    """The lines that may be read from `handle`, without blanks at their ends and empty ones.

    A batch is given out when it has 1,000 lines or its first one is 50 ms old, whichever comes
    first. When asked to stop, what was read so far is the last batch, an unfinished line left out.

    Args:
        handle: of an open file or pipe.
        stop: ends it.
        bytes_max: a longer line is not kept in memory, and comes as None.
        file: what messages call it.
        is_raw: lines are as they are, with blanks at their ends, and empty ones are among them.
        clock: seconds, from any start.
    """
    splitter = _Splitter(bytes_max, file, is_raw=is_raw)
    batch: list[Line] = []
    due = 0.0
    while not stop.is_requested:
        wait = due - clock() if batch else None
        if stop.wait(wait, handle):
            chunk = os.read(handle, READ_BYTES)
            for line in splitter.lines(chunk) if chunk else splitter.end():
                if not batch:
                    due = clock() + BATCH_S
                batch.append(line)
                if len(batch) >= BATCH_LINES:
                    yield batch
                    batch = []
            if not chunk:
                break
        if batch and clock() >= due:
            yield batch
            batch = []
    if batch:
        yield batch


def every_line(handle: int, *, bytes_max: int, file: str, is_raw: bool = False) -> Iterator[Line]:
    """The lines of what is read from `handle`, one by one, to its end; see `batches`.

    Args:
        handle: an open file's descriptor.
        bytes_max: of the longest line that is taken whole.
        file: its name, for messages.
        is_raw: as for `batches`.
    """
    splitter = _Splitter(bytes_max, file, is_raw=is_raw)
    while chunk := os.read(handle, READ_BYTES):
        yield from splitter.lines(chunk)
    yield from splitter.end()


class _Splitter:
    """Cuts chunks into lines, across their borders, unpacked where they are packed."""

    def __init__(self, bytes_max: int, file: str, *, is_raw: bool) -> None:
        self._bytes_max = bytes_max
        self._is_raw = is_raw
        self._unpacker = Unpacker(file)
        self._number = 0
        self._parts: list[bytes] = []
        self._length = 0

    def lines(self, chunk: bytes) -> Iterator[Line]:
        return self._cut(self._unpacker.feed(chunk))

    def end(self) -> Iterator[Line]:
        """What is left where the input ends."""
        yield from self._cut(self._unpacker.end())
        yield from self._flush()

    def _cut(self, pieces: Iterator[bytes]) -> Iterator[Line]:
        for piece in pieces:
            *complete, tail = piece.split(b"\n")
            for text in complete:
                self._keep(text)
                yield from self._flush()
            self._keep(tail)

    def _flush(self) -> Iterator[Line]:
        """What has been kept, as a line."""
        self._number += 1
        # Some editors mark UTF-8 where a file begins, and files are put one after the other.
        text = b"".join(self._parts)
        text = text.removeprefix(BOM) if self._is_raw else text.strip().removeprefix(BOM)
        if self._length > self._bytes_max:
            yield Line(self._number, None)
        elif text or self._is_raw:
            yield Line(self._number, text)
        self._parts, self._length = [], 0

    def _keep(self, text: bytes) -> None:
        self._length += len(text)
        if self._length > self._bytes_max:
            self._parts = []
        elif text:
            self._parts.append(text)


def pace(
    lines: Iterator[list[T]],
    per_second: float,
    stop: Stop,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[T]]:
    """The same lines, so many a second: none sooner than its place in the line allows.

    Where the source or the log held it up, it makes up for that, so that the mean rate holds.

    Args:
        lines: in batches.
        per_second: how many lines a second.
        stop: ends the wait when somebody asks for it.
        clock: seconds that never go back.
    """
    size = max(1, int(per_second * BATCH_S))
    start, line_count = clock(), 0
    for batch in lines:
        for start_index in range(0, len(batch), size):
            stop.wait(start + line_count / per_second - clock())
            if stop.is_requested:
                return
            piece = batch[start_index : start_index + size]
            yield piece
            line_count += len(piece)
