"""What a server has answered: counted at its gate, for whoever scrapes."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from stream_ml.shell.metering.meter import ANSWER_S, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.web.asgi import Application, Message, Receive, Scope, Send

__all__ = ["Traffic"]

INTERNAL_ERROR = 500


class Traffic:
    """Requests by route and status, and how long until each answer began. Any thread may read.

    A route is the path as it is declared (`/v1/predictions/{event_id:path}`), or empty where a
    request came to none: what callers make up is no label.

    Attributes:
        requests: by route and status.
        seconds: by route.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.requests: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, Histogram] = {}

    async def observe(self, app: Application, scope: Scope, receive: Receive, send: Send) -> None:
        """Let an application answer, and count the answer once it begins.

        Args:
            app: that answers.
            scope: of the request.
            receive: of its connection.
            send: of its connection.
        """
        started_s, has_begun = self._clock(), False

        async def send_and_count(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                self._count(scope, message["status"], started_s)
            await send(message)

        try:
            await app(scope, receive, send_and_count)
        except Exception:
            if not has_begun:  # what is around us answers it
                self._count(scope, INTERNAL_ERROR, started_s)
            raise

    def _count(self, scope: Scope, status: int, started_s: float) -> None:
        route = getattr(scope.get("route"), "path", "")
        self.requests[route, str(status)] += 1
        histogram = self.seconds.get(route)
        if histogram is None:
            histogram = self.seconds[route] = Histogram(ANSWER_S)
        histogram.observe(self._clock() - started_s)
