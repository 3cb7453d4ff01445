"""Routes that are asked hundreds of times a second, answered before the framework looks for them.

FastAPI finds a route, works out what its function takes, and passes each answer through a stack of
handlers: some 500 us of CPU a request, twice of what the answer itself takes. What such a route
takes is a body and nothing else, so its function is called at once. It is declared with FastAPI all
the same, which describes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.routing import APIRoute

from stream_ml.errors import StreamMLError
from stream_ml.web.answers import as_refusal, problem_response
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.web.asgi import Application, Receive, Scope, Send

__all__ = ["DirectRoutes"]


class DirectRoutes:
    """An ASGI application that answers some routes, before another one for the rest.

    Args:
        app: what is behind it.
        routes: each of one method and a path without parameters; its function takes the request
            and gives the response.
    """

    def __init__(self, app: Application, routes: Sequence[Any]) -> None:
        self._app = app
        self._routes: dict[str, dict[str, APIRoute]] = {}
        for route in routes:
            if isinstance(route, APIRoute):
                self._routes[route.path] = dict.fromkeys(route.methods or (), route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or leave it to what is behind."""
        routes = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        route = None if routes is None else routes.get(scope["method"])
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        try:
            response = await route.endpoint(Request(scope, receive))
        except Refusal as refusal:
            response = problem_response(refusal)
        except (StreamMLError, TimeoutError) as error:
            response = problem_response(as_refusal(error))
        await response(scope, receive, send)
