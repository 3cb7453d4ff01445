"""Where archives lie: a folder, or any address that fsspec knows.

A file is there whole or not at all. In a folder it is written under another name, brought to the
disk, and renamed; of object stores that is what putting an object means.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_ml.errors import LogError, LogLocked, UsageError
from stream_ml.shell.log.lease import Lease
from stream_ml.shell.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Storage"]

LOCAL = frozenset({"file", "local"})
LOCK = ".archiver"


class Storage:
    """The files below an address.

    Args:
        address: a folder, or `PROTOCOL://...` as fsspec has it, such as `s3://bucket/path`.

    Attributes:
        address: as it may be told: without a password, or what else it holds to be let in.

    Raises:
        UsageError: fsspec is not installed, or does not know the protocol.
        LogError: what is there cannot be reached.
    """

    def __init__(self, address: str) -> None:
        try:
            import fsspec  # noqa: PLC0415 - an extra; only who archives needs it
        except ImportError:
            raise UsageError(
                'archives need fsspec and pyarrow: pip install "stream-ml[archive]"'
            ) from None
        self.address, self._secrets = _without_secrets(address)
        try:
            self._fs, root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"{self.address}: expected a folder, or an address that fsspec knows, given one "
                f"that it does not: {self._told(error)}"
            ) from None
        except Exception as error:  # noqa: BLE001 - a protocol's library raises what is its own
            raise LogError(
                f"{self.address}: expected to reach an archive, given {self._told(error)}"
            ) from None
        self._root = str(root).rstrip("/")
        protocols = self._fs.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._folder = Path(self._root) if names & LOCAL else None

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, in the place of one of that name.

        Args:
            name: below the address.
            data: all of it.

        Raises:
            LogError: it could not be written.
        """
        with self._translated_errors(name):
            if self._folder is None:
                self._fs.pipe_file(f"{self._root}/{name}", data)
                return
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                file.write(data)

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Args:
            name: below the address.

        Raises:
            LogError: it is not there, or cannot be read.
        """
        with self._translated_errors(name):
            data: Any = self._fs.cat_file(f"{self._root}/{name}")
            return bytes(data)

    def has(self, name: str) -> bool:
        """Whether a file is there.

        Args:
            name: below the address.
        """
        with self._translated_errors(name):
            return bool(self._fs.exists(f"{self._root}/{name}"))

    def names(self, ending: str) -> list[str]:
        """The files whose name ends so, in order.

        Args:
            ending: of the name.
        """
        with self._translated_errors("files"):
            if not self._fs.exists(self._root):
                return []
            found = self._fs.find(self._root)
        prefix = len(self._root.lstrip("/")) + 1
        return sorted(str(name).lstrip("/")[prefix:] for name in found if name.endswith(ending))

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Keeps others of this machine from writing to the same folder; elsewhere nothing does.

        Raises:
            LogLocked: another one writes there.
        """
        if self._folder is None:
            yield
            return
        with self._translated_errors(LOCK):
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            lease = Lease(self._folder / LOCK)
        except LogLocked:
            raise LogLocked(
                f"{self.address}: expected nobody else to archive there, given another process "
                "that does; wait for it, or stop it"
            ) from None
        try:
            yield
        finally:
            lease.release()

    @contextmanager
    def _translated_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            given = self._told(error)
            raise LogError(f"{self.address}: expected to reach {name}, given {given}") from None

    def _told(self, error: Exception) -> str:
        """An error's words, without the secrets of the address that it may repeat."""
        words = str(error)
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words


def _without_secrets(address: str) -> tuple[str, list[str]]:
    """An address without user, password and query, and what was taken out of it.

    >>> _without_secrets("ftp://ada:pw@host/path?token=1")
    ('ftp://host/path', ['ada:pw@', 'ada:pw', 'pw', 'token=1'])
    >>> _without_secrets("/a/folder@home?")
    ('/a/folder@home?', [])
    """
    protocol, separator, rest = address.partition("://")
    if not separator or protocol in LOCAL:
        return address, []
    rest, _, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    user, _, host = host.rpartition("@")
    password = user.partition(":")[2]
    secrets = [f"{user}@" if user else "", user, password, query]
    return f"{protocol}://{host}{slash}{path}", [each for each in secrets if each]
