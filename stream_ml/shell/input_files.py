"""Files that people name, of whatever kind: opened, unpacked if they are packed, or named by kind.

A file is read once, from its beginning, so a pipe, `/dev/stdin` or a named pipe is as good as any.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import os
import stat
import sys
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from stream_ml.errors import StreamMLError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["HEAD_BYTES", "INPUT_KINDS", "PACKED_SUFFIXES", "PARQUET", "STANDARD_INPUT", "Kind"]
__all__ += ["Unpacker", "check", "open_file"]

STANDARD_INPUT = "-"
# What is read; see `rows.reader`.
Kind = Literal["jsonl", "csv", "parquet"]
INPUT_KINDS: tuple[Kind, ...] = get_args(Kind)
# Enough to tell one kind of file from another.
HEAD_BYTES = 8
# What a chunk of a packed file is handed on in, lest a small one fill the memory.
PIECE_BYTES = 1024 * 1024
GZIP = b"\x1f\x8b"
# Both the header and the checksum of gzip are read.
GZIP_BITS = 31
CLOSED_INPUT = "-: expected a standard input to read, given a closed one"
FILE_WANTED = "expected a file of JSON lines, CSV or Parquet"
PARQUET = b"PAR1"
# The endings of names of packed files, which say nothing of what is in them.
PACKED_SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".zst"})
# How a file begins, what it is, and the way out.
KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", "unpack it, as in `unzip -p FILE | ... -`"),
    (b"PK\x05\x06", "an empty zip archive", "name another"),
    (b"\x04\x22\x4d\x18", "one packed by lz4", "unpack it, as in `lz4cat FILE | ... -`"),
    (b"ARROW1", "an Arrow file", "write it as Parquet"),
    (b"Obj\x01", "an Avro file", "write it as JSON lines, a record each"),
    (PARQUET, "a Parquet file", "name it, or say `--input parquet` where it is piped"),
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
                head = os.read(handle, HEAD_BYTES)
            if not head.startswith(PARQUET):
                _recognise(file, head)
            if packing := _packing_of(head):
                packing.opened(file)


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
            raise UsageError(f"{file}: {FILE_WANTED}, given a folder")
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
        return UsageError(f"{file}: {FILE_WANTED}, given none of that name")
    return UsageError(f"{file}: {FILE_WANTED}, given what cannot be read: {error.strerror}")


def _recognise(file: str, head: bytes) -> None:
    for begins, kind, way_out in KINDS:
        if head.startswith(begins):
            raise UsageError(f"{file}: {FILE_WANTED}, given {kind}; {way_out}")


class Unpacker:
    """Makes the text of a file from its chunks; what is packed is unpacked, other kinds are named.

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
        self._packing: _Packing | None = None
        self._stream: _Stream | None = None

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
        if self._stream is not None and not self._stream.eof:
            raise self._damage_error("it ends in the middle")

    def _begin(self, head: bytes) -> bytes:
        self._head = None
        _recognise(self._file, head)
        self._packing = _packing_of(head)
        if self._packing is not None:
            self._stream = self._packing.opened(self._file)
        return head

    def _unpack(self, chunk: bytes) -> Iterator[bytes]:
        if self._packing is None or self._stream is None:
            yield chunk
            return
        while chunk or not (self._stream.eof or self._stream.needs_input):
            if self._stream.eof:  # files that were put one after the other, or zeros at the end
                if not chunk.strip(b"\0"):
                    return
                self._stream = self._packing.opened(self._file)
            try:
                piece = self._stream.decompress(chunk, PIECE_BYTES)
            except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise self._damage_error(str(error)) from None
            yield piece
            chunk = self._stream.unused_data if self._stream.eof else b""

    def _damage_error(self, reason: str) -> StreamMLError:
        name = "packed" if self._packing is None else self._packing.name
        return StreamMLError(
            f"{self._file}: expected a sound {name} file, given a damaged one ({reason}); nothing "
            "of it is read from there on"
        )


def _packing_of(head: bytes) -> _Packing | None:
    return next((each for each in PACKINGS if head.startswith(each.begins)), None)


class _Stream(Protocol):
    """One packed stream, as the modules of Python unpack them."""

    @property
    def eof(self) -> bool:
        """It has ended."""

    @property
    def needs_input(self) -> bool:
        """There is no more of what it was given."""

    @property
    def unused_data(self) -> bytes:
        """What came behind its end."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Some more of the text."""


class _Gzip:
    """A gzip stream, with the face of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(GZIP_BITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        # Its checksum comes last, and is not taken before all of the text was given.
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


class _Packing(NamedTuple):
    """A way of packing: how such files begin, and what unpacks them."""

    begins: bytes
    name: str
    opened: Callable[[str], _Stream]


def _zstd(file: str) -> _Stream:
    """What unpacks zstd: of Python from 3.14 on, else of its backport.

    Raises:
        UsageError: there is neither.
    """
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            stream: _Stream = importlib.import_module(name).ZstdDecompressor()
            return stream
    raise UsageError(
        f"{file}: expected a file that can be unpacked, given one packed by zstd; install "
        "backports.zstd, or unpack it, as in `zstdcat FILE | ... -`"
    )


PACKINGS = (
    _Packing(GZIP, "gzip", lambda _: _Gzip()),
    _Packing(b"BZh", "bzip2", lambda _: bz2.BZ2Decompressor()),
    _Packing(b"\xfd7zXZ\x00", "xz", lambda _: lzma.LZMADecompressor()),
    _Packing(b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)
