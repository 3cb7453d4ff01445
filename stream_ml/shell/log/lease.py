"""The worker's place on an embedded log: a lock of the operating system."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from stream_ml.errors import LogError, LogLocked

__all__ = ["Lease", "is_leased", "lease_of", "leased_ms"]

# Who looks whether it is held, holds it for an instant.
ATTEMPTS, PAUSE_S = 3, 0.02


class Lease:
    """A lock on a file, which the operating system frees when its holder dies."""

    def __init__(self, path: Path) -> None:
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise LogError(f"{path}: expected to open it for writing: {error}") from error
        try:
            self._lock()
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

    def _lock(self) -> None:
        for left in reversed(range(ATTEMPTS)):
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if not left:
                    raise
                time.sleep(PAUSE_S)
            else:
                return

    def release(self) -> None:
        """Let another have it."""
        os.close(self._handle)


def is_leased(path: Path) -> bool:
    """Whether a worker holds a place.

    Args:
        path: of its lock, as `lease_of` has it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LogError(f"{path}: expected to open it for reading: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def leased_ms(path: Path) -> int | None:
    """When a place was taken last (UTC ms), as its holder wrote its number down; None if never.

    Args:
        path: of its lock, as `lease_of` has it.
    """
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except OSError:
        return None


def lease_of(path: Path, task: str | None = None) -> Path:
    """Where the worker's place of a log is held, by whatever name the log is opened.

    Args:
        path: of the log.
        task: whose worker it is; None for the pipeline's own.

    Raises:
        LogError: the file has further names that cannot be known.
    """
    links = path.stat().st_nlink
    if links > 1:
        raise LogError(
            f"{path}: expected a file of one name, given {links} hard links to it, each of which "
            "would have a worker and a journal of its own; remove the others, or copy the file"
        )
    return Path(f"{path.resolve()}{'' if task is None else f'.{task}'}.worker")
