"""CSV as RFC 4180 has it, record by record, however broken, in bounded memory.

Lines are pushed in as they come, so a pipe that falls silent holds nothing up. A quote that is not
closed spoils its own line alone: the lines behind it are read again, each for itself.
"""

from __future__ import annotations

import csv
from collections import deque
from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.shell.processes.line_batches import Line

__all__ = ["CsvParser"]

# How often quotes of a record of several lines may seem to be closed and are not.
ATTEMPTS_MAX = 8
_OPEN_END = "unexpected end of data"


class CsvParser:
    r"""Makes records of lines; each is a list of cells, or why it is none.

    Args:
        delimiter: between the cells.
        bytes_max: of the longest record; a longer one is refused.

    >>> from stream_ml.shell.processes.line_batches import Line
    >>> parser = CsvParser(",", 100)
    >>> [*parser.feed(Line(1, b'a,"b')), *parser.feed(Line(2, b'c"')), *parser.end()]
    [(1, ['a', 'b\nc'])]
    """

    def __init__(self, delimiter: str, bytes_max: int) -> None:
        self._delimiter = delimiter
        self._bytes_max = bytes_max
        self._queue: deque[Line] = deque()
        # The lines of a record whose quote is open, and what is known of them.
        self._open: list[Line] = []
        self._length = self._quotes = self._attempts = 0
        # Of the whole process: a field is no longer than a record, which we bound.
        csv.field_size_limit(max(csv.field_size_limit(), bytes_max))

    def feed(self, line: Line) -> Iterator[tuple[int, list[str] | BadRecord]]:
        """The records that one more line ends, each with the number of its first line.

        Args:
            line: as it is in the file, its end left out.
        """
        self._queue.append(line)
        while self._queue:
            yield from self._take(self._queue.popleft())

    def end(self) -> Iterator[tuple[int, list[str] | BadRecord]]:
        """The records that are left where the file ends."""
        while self._open:
            yield self._give_up("a quote that is closed", "none up to the end of the file")
            while self._queue:
                yield from self._take(self._queue.popleft())

    def _take(self, line: Line) -> Iterator[tuple[int, list[str] | BadRecord]]:
        if self._open:
            yield from self._continue(line)
            return
        try:
            text = _decode(line)
            cells = self._cells([text])
        except BadRecord as error:
            yield line.number, error
        else:
            if cells is None:
                self._open, self._length = [line], len(text)
                self._quotes, self._attempts = text.count('"'), 0
            elif cells:
                yield line.number, cells

    def _continue(self, line: Line) -> Iterator[tuple[int, list[str] | BadRecord]]:
        """Take one more line of a record whose quote was open."""
        self._open.append(line)
        if line.text is None or self._length + len(line.text) > self._bytes_max:
            wanted = f"a quote that is closed within {self._bytes_max} bytes"
            yield self._give_up(wanted, "none")
            return
        self._length += len(line.text)
        self._quotes += line.text.count(b'"')
        if self._quotes % 2:
            return
        try:
            cells = self._cells([_decode(each) for each in self._open])
        except BadRecord as error:
            yield self._give_up("quotes around whole cells", error.message)
            return
        if cells is not None:
            first, self._open = self._open[0], []
            yield first.number, cells
            return
        self._attempts += 1
        if self._attempts > ATTEMPTS_MAX:
            yield self._give_up("quotes around whole cells", "others between them")

    def _give_up(self, expected: str, actual: str) -> tuple[int, BadRecord]:
        """Refuse the line where the quote was opened, and read the others again."""
        first, *others = self._open
        self._open = []
        self._queue.extendleft(reversed(others))
        return first.number, BadRecord("not_csv", "$", f"expected {expected}, given {actual}")

    def _cells(self, texts: list[str]) -> list[str] | None:
        """The cells of a record; None where its quote is still open.

        Raises:
            BadRecord: it is none.
        """
        *some, last = texts
        lines = [*(f"{text}\n" for text in some), last]
        try:
            return next(csv.reader(lines, delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            if str(error) == _OPEN_END:
                return None
            raise BadRecord("not_csv", "$", f"expected a row of CSV: {error}") from None


def _decode(line: Line) -> str:
    if line.text is None:
        raise BadRecord("too_large", "$", "expected a shorter line, given one past the limit")
    try:
        text = line.text.decode()
    except UnicodeDecodeError as error:
        byte = line.text[error.start]
        raise BadRecord(
            "not_utf8",
            "$",
            f"expected UTF-8, given the byte 0x{byte:02x} at {error.start + 1}; write it as UTF-8, "
            "as in `iconv -f LATIN1 -t UTF-8 FILE | ... -`",
        ) from None
    if "\0" in text:
        raise BadRecord("not_csv", "$", "expected text, given a NUL byte")
    return text
