"""Files that are there whole or not at all, whoever dies while they are written."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
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
        path: that it is to have, in the place of one that is there, whose mode and owner it gets.

    Raises:
        OSError: it could not be written.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            if path.exists():
                _own(file, path.stat())
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

    What is none, such as a pipe or `/dev/stdout`, is written to as it is; so is a file that cannot
    be replaced by another of the same owner, or lies in a folder that takes no other.

    Args:
        path: where to.

    Raises:
        OSError: it could not be written.
    """
    with whole_file(path) if _is_replaceable(path) else path.open("wb") as file:
        yield file


def _is_replaceable(path: Path) -> bool:
    if path.is_symlink() or not os.access(path.parent, os.W_OK | os.X_OK):
        return False
    if not path.exists():
        return True
    return path.is_file() and (os.geteuid() in {0, path.stat().st_uid})


def _own(file: BinaryIO, former: os.stat_result) -> None:
    """Give a file the owner and the mode of another, as far as we may."""
    with suppress(OSError):
        os.fchown(file.fileno(), former.st_uid, former.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(former.st_mode))


def _sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
