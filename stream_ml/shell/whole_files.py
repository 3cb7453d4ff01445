"""Files that are there whole or not at all, whoever dies while they are written."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PARTIAL", "output_file", "whole_file"]

# What a file's name ends in until all of it is there.
PARTIAL = ".part"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name once all of it is on the disk; after an error there is none.

    Args:
        path: that it is to have, in the place of one that is there.

    Raises:
        OSError: it could not be written.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def output_file(path: Path) -> Iterator[BinaryIO]:
    """A file as somebody named it on a command line: whole or not at all, where it is a file.

    What is none, such as a pipe or `/dev/stdout`, is written to as it is.

    Args:
        path: where to.

    Raises:
        OSError: it could not be written.
    """
    is_replaceable = not path.is_symlink() and (path.is_file() or not path.exists())
    with whole_file(path) if is_replaceable else path.open("wb") as file:
        yield file


def _sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
