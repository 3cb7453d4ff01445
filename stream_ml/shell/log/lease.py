"""The worker's place on an embedded log: a lock of the operating system."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from stream_ml.errors import LogError, LogLocked

__all__ = ["Lease", "lease_of"]


class Lease:
    """A lock on a file, which the operating system frees when its holder dies."""

    def __init__(self, path: Path) -> None:
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise LogError(f"{path}: expected to open it for writing: {error}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise LogLocked(
                f"{path}: expected to be the only worker, given another one (process {holder}); "
                "stop it, or work on another log"
            ) from error
        # Who holds it is a courtesy to the next one: on a full disk the lock is good without it.
        with suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.write(self._handle, b"%d\n" % os.getpid())

    def release(self) -> None:
        """Let another have it."""
        os.close(self._handle)


def lease_of(path: Path) -> Path:
    """Where the worker's place of a log is held, by whatever name the log is opened.

    Raises:
        LogError: the file has further names that cannot be known.
    """
    links = path.stat().st_nlink
    if links > 1:
        raise LogError(
            f"{path}: expected a file of one name, given {links} hard links to it, each of which "
            "would have a worker and a journal of its own; remove the others, or copy the file"
        )
    return Path(f"{path.resolve()}.worker")
