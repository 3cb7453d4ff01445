"""Files that people name, of whatever kind: opened, unpacked if they are gzip, or named by kind.

A file is read once, from its beginning, so a pipe, `/dev/stdin` or a named pipe is as good as any.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.errors import StreamMLError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["STANDARD_INPUT", "Unpacker", "check", "open_file"]

STANDARD_INPUT = "-"
# Enough to tell one kind of file from another.
HEAD_BYTES = 8
# What a chunk of a packed file is handed on in, lest a small one fill the memory.
PIECE_BYTES = 1024 * 1024
GZIP = b"\x1f\x8b"
# Both the header and the checksum of gzip are read.
GZIP_BITS = 31
CLOSED_INPUT = "-: expected a standard input to read, given a closed one"
LINES_WANTED = "expected a file of JSON lines"
# How a file begins, what it is, and the way out.
KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x28\xb5\x2f\xfd", "one packed by zstd", "unpack it, as in `zstdcat FILE | ... -`"),
    (b"PK\x03\x04", "a zip archive", "unpack it, as in `unzip -p FILE | ... -`"),
    (b"PK\x05\x06", "an empty zip archive", "name another"),
    (b"BZh", "one packed by bzip2", "unpack it, as in `bzcat FILE | ... -`"),
    (b"\xfd7zXZ\x00", "one packed by xz", "unpack it, as in `xzcat FILE | ... -`"),
    (b"\x04\x22\x4d\x18", "one packed by lz4", "unpack it, as in `lz4cat FILE | ... -`"),
    (b"PAR1", "a Parquet file", "write it as JSON lines, a row each"),
    (b"ARROW1", "an Arrow file", "write it as JSON lines, a row each"),
    (b"Obj\x01", "an Avro file", "write it as JSON lines, a record each"),
    (b"SQLite f", "an SQLite file", "to look at a log, see `stream-ml status`"),
    (b"\xff\xfe", "UTF-16", "write it as UTF-8, as in `iconv -f UTF-16 -t UTF-8 FILE | ... -`"),
    (b"\xfe\xff", "UTF-16", "write it as UTF-8, as in `iconv -f UTF-16 -t UTF-8 FILE | ... -`"),
    (b"\x00\x00\xfe\xff", "UTF-32", "write it as UTF-8, with `iconv`"),
    (b"{\x00", "UTF-16", "write it as UTF-8, as in `iconv -f UTF-16LE -t UTF-8 FILE | ... -`"),
    (b"\x00{", "UTF-16", "write it as UTF-8, as in `iconv -f UTF-16BE -t UTF-8 FILE | ... -`"),
)


def check(files: Sequence[str]) -> None:
    """Find out at once what would else end the reading of files half way.

    Raises:
        UsageError: one is not there, is a folder, or of a kind that is not read.
    """
    if files.count(STANDARD_INPUT) > 1:
        raise UsageError("-: expected the standard input once, given it twice")
    for file in files:
        if file == STANDARD_INPUT:
            if sys.stdin is None:
                raise UsageError(CLOSED_INPUT)
            continue
        try:
            regular = stat.S_ISREG(Path(file).stat().st_mode)
        except OSError as error:
            raise _unreadable(file, error) from None
        # Of a pipe nothing is read twice, so what it is shows when it is read.
        if regular or Path(file).is_dir():
            with open_file(file) as handle:
                _recognise(file, os.read(handle, HEAD_BYTES))


@contextmanager
def open_file(file: str) -> Iterator[int]:
    """The handle that a file is read from; `-` is the standard input.

    Raises:
        UsageError: it cannot be read.
    """
    if file == STANDARD_INPUT:
        yield _standard_input()
        return
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(file, error) from None
    try:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise UsageError(f"{file}: {LINES_WANTED}, given a folder")
        yield handle
    finally:
        os.close(handle)


def _standard_input() -> int:
    if sys.stdin is None:
        raise UsageError(CLOSED_INPUT)
    handle = sys.stdin.fileno()
    # Somebody who shares it may have made it non-blocking.
    os.set_blocking(handle, True)
    return handle


def _unreadable(file: str, error: OSError) -> UsageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{file}: {LINES_WANTED}, given none of that name")
    return UsageError(f"{file}: {LINES_WANTED}, given what cannot be read: {error.strerror}")


def _recognise(file: str, head: bytes) -> None:
    for begins, kind, way_out in KINDS:
        if head.startswith(begins):
            raise UsageError(f"{file}: {LINES_WANTED}, given {kind}; {way_out}")


class Unpacker:
    """Makes the text of a file from its chunks; gzip is unpacked, other kinds are named.

    Args:
        file: what messages call it.

    >>> unpacker = Unpacker("a.jsonl.gz")
    >>> import gzip
    >>> b"".join([*unpacker.feed(gzip.compress(b"text")), *unpacker.end()])
    b'text'
    """

    def __init__(self, file: str) -> None:
        self._file = file
        # What came before it was known what it is; None since.
        self._head: bytes | None = b""
        self._gzip: zlib._Decompress | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The text that one more chunk adds.

        Raises:
            UsageError: it is of a kind that is not read.
            StreamMLError: it is damaged.
        """
        if self._head is not None:
            self._head += chunk
            if len(self._head) < HEAD_BYTES and b"\n" not in self._head:
                return
            chunk = self._begin(self._head)
        yield from self._unpack(chunk)

    def end(self) -> Iterator[bytes]:
        """The text that is left where the file ends; raises as `feed` does."""
        if self._head is not None:
            yield from self._unpack(self._begin(self._head))
        if self._gzip is not None:
            yield self._gzip.flush()
            if not self._gzip.eof:
                raise self._damage_error("it ends in the middle")

    def _begin(self, head: bytes) -> bytes:
        self._head = None
        _recognise(self._file, head)
        if head.startswith(GZIP):
            self._gzip = zlib.decompressobj(GZIP_BITS)
        return head

    def _unpack(self, chunk: bytes) -> Iterator[bytes]:
        if self._gzip is None:
            yield chunk
            return
        while chunk:
            if self._gzip.eof:  # files that were put one after the other, or zeros at the end
                if not chunk.strip(b"\0"):
                    return
                self._gzip = zlib.decompressobj(GZIP_BITS)
            try:
                piece = self._gzip.decompress(chunk, PIECE_BYTES)
            except zlib.error as error:
                raise self._damage_error(str(error)) from None
            yield piece
            chunk = self._gzip.unused_data if self._gzip.eof else self._gzip.unconsumed_tail

    def _damage_error(self, reason: str) -> StreamMLError:
        return StreamMLError(
            f"{self._file}: expected a sound gzip file, given a damaged one ({reason}); nothing of "
            "it is read from there on"
        )
