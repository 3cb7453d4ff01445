"""An address to listen on."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ListenAddress"]

LOOPBACK = "127.0.0.1"
PORT_MAX = 65_535


class ListenAddress(NamedTuple):
    """A host and a port, of which 0 is any that is free.

    >>> str(ListenAddress.parse("9464")), str(ListenAddress.parse("0.0.0.0:9464"))
    ('127.0.0.1:9464', '0.0.0.0:9464')
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """The address in a text: `HOST:PORT`, or `PORT` for this machine alone.

        Args:
            text: of an option or a variable.

        Raises:
            ValueError: it is none.
        """
        host, colon, port = text.rpartition(":")
        if (colon and not host) or not port.isdecimal() or int(port) > PORT_MAX:
            raise ValueError(text)
        return cls(host.strip("[]") or LOOPBACK, int(port))

    def with_port(self, port: int) -> ListenAddress:
        """The same host at another port.

        Args:
            port: of it.
        """
        return ListenAddress(self.host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
