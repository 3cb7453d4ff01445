"""Runs the application on uvicorn, until it is asked to stop."""

from __future__ import annotations

import gc
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

    from stream_ml.web.service import Service

__all__ = ["serve"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEEP_ALIVE_S = 30
# What is at work has so long to end; streams are told at once.
GRACE_S = 5


def serve(app: FastAPI, listener: socket.socket, on_start: Callable[[], object]) -> None:
    """Serve until SIGINT or SIGTERM; what is at work then has a few seconds to end.

    Args:
        app: of `create_app`.
        listener: of `listening.bind`.
        on_start: called when requests are taken.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        # An address that a client claims is not where it is.
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        lifespan="on",
    )
    _Server(config, app.state.service, on_start).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that says when it has begun, and ends its streams when it is to end."""

    def __init__(
        self, config: uvicorn.Config, service: Service, on_start: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._service = service
        self._on_start = on_start

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Be asked to stop by SIGINT or SIGTERM; having done so is no failure."""
        former = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin."""
        await super().startup(sockets)
        # What is there by now stays: to look through it again and again for garbage took a seventh
        # of the CPU of requests.
        gc.collect()
        gc.freeze()
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: streams first, which else would go on for ever."""
        self._service.closing.set()
        await super().shutdown(sockets)
