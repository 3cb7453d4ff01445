"""The HTTP side: `/metrics`, `/healthz` and `/readyz`, each request in a thread of its own.

Nobody who asks slowly, or too much, holds up the worker: requests are few at a time, end after some
seconds, and only read.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from stream_ml.metrics.health import ProbeAnswer
    from stream_ml.shell.settings.listening import ListenAddress

__all__ = ["Endpoint"]

REQUESTS_MAX = 8
# By when a request must have come, and its answer gone: a client that sends a byte now and then
# would else hold a place for good.
REQUEST_S = 10.0


class Endpoint:
    """Answers scrapes and probes from `start` until it is closed; a context manager.

    Args:
        address: where to listen; port 0 takes a free one.
        write_metrics: what a scrape gets and its content type, given its `Accept` header.
        healthy: whether the process is.
        ready: whether it is.
        request_s: after how long a connection ends, whatever its client does.

    Raises:
        UsageError: it cannot listen there.
    """

    def __init__(
        self,
        address: ListenAddress,
        *,
        write_metrics: Callable[[str], tuple[bytes, str]],
        healthy: Callable[[], ProbeAnswer],
        ready: Callable[[], ProbeAnswer],
        request_s: float = REQUEST_S,
    ) -> None:
        probes = {"/healthz": healthy, "/readyz": ready}

        class Handler(_Handler):
            def answer(self, path: str) -> tuple[int, str, bytes]:
                if path == "/metrics":
                    body, content_type = write_metrics(self.headers.get("Accept") or "")
                    return HTTPStatus.OK, content_type, body
                if path not in probes:
                    return HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /healthz, /readyz\n"
                verdict = probes[path]()
                status = HTTPStatus.SERVICE_UNAVAILABLE if verdict.problems else HTTPStatus.OK
                return status, "application/json", orjson.dumps(verdict.as_dict()) + b"\n"

        try:
            self._server = _Server((address.host, address.port), Handler, request_s)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"metrics: expected to listen on {address}: {error}; name another address with "
                "--metrics HOST:PORT"
            ) from None
        self.address = address.with_port(self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], request_s: float
    ) -> None:
        self._request_s = request_s
        self._free = threading.BoundedSemaphore(REQUESTS_MAX)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        deadline = threading.Timer(self._request_s, _end, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], _: Any) -> None:
        """Nothing: whoever asked has gone, or was too slow."""


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server_version = "stream-ml"
    sys_version = ""

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Answer a request."""
        try:
            status, content_type, body = self.answer(self.path.partition("?")[0])
        except Exception as error:  # noqa: BLE001 - told to who asked, and to nobody else
            status, content_type = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain"
            body = f"{type(error).__name__}: {error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: a scrape every few seconds is no news."""
