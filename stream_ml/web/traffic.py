"""What a server has answered: counted at its gate, for whoever scrapes."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from stream_ml.shell.metering.meter import ANSWER_S, Histogram

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Traffic"]


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

    def observed(self, scope: MutableMapping[str, Any], send: Send) -> Send:
        """A `send` that counts the answer once it begins.

        Args:
            scope: of the request.
            send: of its connection.
        """
        started_s = self._clock()

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "")
                self.requests[route, str(message["status"])] += 1
                histogram = self.seconds.get(route)
                if histogram is None:
                    histogram = self.seconds[route] = Histogram(ANSWER_S)
                histogram.observe(self._clock() - started_s)
            await send(message)

        return send_and_count
