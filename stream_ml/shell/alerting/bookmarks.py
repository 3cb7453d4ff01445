"""How far a recipient of a route has been served, kept where a restart finds it.

Beside the log in a file, as the log's key is, for only the worker writes in the log itself; on a
cluster among the offsets of a consumer group, so that a route goes on wherever `up` runs next.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, NamedTuple, Protocol

import orjson

if TYPE_CHECKING:
    from stream_ml.shell.kafka.log import KafkaLog

__all__ = ["Bookmark", "BookmarkError", "FileBookmark", "GroupBookmark", "Place"]

BEGUN = "begun"


class Place(NamedTuple):
    """How far a recipient has been served.

    Attributes:
        offset: of the next record of `alerts`.
        is_begun: whether what was open there when the route was new is delivered.
    """

    offset: int
    is_begun: bool


class BookmarkError(Exception):
    """Raised when a place cannot be read."""


class Bookmark(Protocol):
    """Where a place is kept."""

    def load(self) -> Place | None:
        """The place; None for a route that is new.

        Raises:
            BookmarkError: there is one, but it cannot be read now.
        """

    def store(self, place: Place) -> None:
        """Keep it, also if the machine stops now."""


class FileBookmark:
    """A place in a file of its own.

    Args:
        path: of the log.
        name: of the route and its recipient.
        log: the log's identity: a file that was left beside another log counts for nothing.
    """

    def __init__(self, path: str, name: str, log: str) -> None:
        self._file = Path(f"{path}.route-{name}")
        self._log = log

    def load(self) -> Place | None:
        """The place; see `Bookmark.load`."""
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            # Were it taken for a new route's, what is not delivered yet would be passed over.
            raise BookmarkError(
                f"how far it was served cannot be read from {self._file}: {error.strerror}; let "
                "the worker read it, or remove it: the route then begins anew with what is open"
            ) from None
        with suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            members = orjson.loads(content)
            if members["log"] == self._log:
                return Place(int(members["offset"]), bool(members["is_begun"]))
        return None

    def store(self, place: Place) -> None:
        """Keep it; see `Bookmark.store`."""
        text = orjson.dumps({"log": self._log, **place._asdict()})
        folder, name = self._file.parent, self._file.name
        with NamedTemporaryFile("wb", dir=folder, prefix=f".{name}.", delete=False) as temporary:
            temporary.write(text)
            temporary.flush()
            os.fsync(temporary.fileno())
        Path(temporary.name).replace(self._file)


class GroupBookmark:
    """A place among the offsets of a consumer group that nobody is a member of.

    Args:
        log: the cluster's.
        name: of the route and its recipient.
    """

    def __init__(self, log: KafkaLog, name: str) -> None:
        self._log = log
        self._group = f"route-{name}"

    def load(self) -> Place | None:
        """The place; see `Bookmark.load`."""
        mark = self._log.mark(self._group, "alerts")
        return None if mark is None else Place(mark[0], mark[1] == BEGUN)

    def store(self, place: Place) -> None:
        """Keep it; see `Bookmark.store`."""
        self._log.set_mark(self._group, "alerts", place.offset, BEGUN if place.is_begun else "")
