"""The socket that a server listens on, without what answers on it: that takes a while to load."""

from __future__ import annotations

import socket

from stream_ml.errors import UsageError

__all__ = ["bind"]

BACKLOG = 2_048


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Args:
        host: an address of this machine, or a name of one.
        port: 0 for any that is free.

    Raises:
        UsageError: it cannot.
    """
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"{host}:{port}: expected to listen there: {reason or error}; choose another with "
            "--host and --port"
        ) from None
    return listener
