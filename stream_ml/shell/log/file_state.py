"""How an embedded log's file lies there: whose it is, what is beside it, what it looks like."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stream_ml.errors import LogError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["has_left_over", "is_somebody_elses", "looks", "refuse_special"]


def refuse_special(path: Path) -> None:
    """Refuse what is there and no file: to open a pipe would wait for somebody for ever.

    Raises:
        LogError: it is something else.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device"
        raise LogError(f"{path}: expected a file, given {kind}; choose another path")


def is_somebody_elses(path: Path) -> bool:
    """Whether nobody is at work on it, and files that we left beside it were in its owner's way."""
    return not os.access(path, os.W_OK) and not _wal_of(path).exists()


def has_left_over(path: Path) -> bool:
    """Whether a worker that was killed has left more beside it."""
    wal = _wal_of(path)
    return wal.exists() and wal.stat().st_size > 0


def looks(path: Path) -> tuple[object, ...]:
    """What differs when somebody has written to the file, or is at work on it."""
    stats = [file.stat() if file.exists() else None for file in (path, _wal_of(path))]
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None for stat in stats)


def _wal_of(path: Path) -> Path:
    real = path.resolve()
    return real.with_name(f"{real.name}-wal")
