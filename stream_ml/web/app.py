"""The application: `create_app` puts the API together, and says what pages and metrics may share.

**For what is added to the same server** (a live page, metrics): `create_app` returns a FastAPI
application whose `app.state.service` is a `Service`. Add routes to it as to any other; the gate
before it (`gate`) checks hosts, origins, tokens, rates and sizes of all of them, sets security
headers where a response has none of its own, and leaves the caller in
`request.state.caller` (`access.Caller`: a name and roles). Paths that must open before anybody has
logged in, such as a page's own files, are `public_prefixes`.

**What a log says** is read in one place for all: `await service.board.snapshot()` gives a
`BoardSnapshot`, immutable and typed (status with the registry, models, alerts, drift, evaluations,
dead letters), at most a second old, or raises `StreamMLError` where the log cannot be read. It may
be called as often as one likes; the log is read at most once a second, in a thread. The same
`number` is the same content. `service.board.newest` is the last one without waiting, or None.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from stream_ml import __version__
from stream_ml.client import open_log
from stream_ml.errors import LogError, StreamMLError
from stream_ml.web.board import Board
from stream_ml.web.gate import LOOPBACK_NAMES, Gate, Limits
from stream_ml.web.problems import PROBLEM_TYPE, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.web.access import Access

__all__ = ["Service", "create_app", "json_response"]


@dataclass(slots=True)
class Service:
    """What the routes of a server share; `app.state.service`.

    Attributes:
        settings: which log, and which keys are set.
        pipeline: the declaration.
        limits: what is taken on.
        access: tells callers; keeps sessions.
        board: the views of the log.
    """

    settings: Settings
    pipeline: Pipeline
    limits: Limits
    access: Access
    board: Board

    def start(self) -> None:
        """Begin, in the event loop of the server."""
        self.board.start()

    def close(self) -> None:
        """End all that was begun."""
        self.board.close()


def create_app(
    settings: Settings,
    pipeline: Pipeline,
    access: Access,
    limits: Limits | None = None,
    *,
    hosts: frozenset[str] | None = LOOPBACK_NAMES,
    public_prefixes: tuple[str, ...] = (),
) -> FastAPI:
    """The application, which begins and ends with the server that runs it.

    Args:
        settings: which log, and which keys are set.
        pipeline: the declaration.
        access: tells callers.
        limits: what is taken on; by default `Limits()`.
        hosts: the names that requests may be for, without ports; None for any.
        public_prefixes: of paths that anybody may read.
    """
    limits = limits or Limits()
    opens = partial(open_log, settings, pipeline.name)
    service = Service(
        settings, pipeline, limits, access, Board(opens, settings, pipeline.promotion.mode)
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title=f"stream_ml: {pipeline.name}",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.service = service
    app.add_middleware(
        Gate, access=access, limits=limits, hosts=hosts, public_prefixes=public_prefixes
    )
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(StreamMLError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    return app


def json_response(members: Any, status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(
        orjson.dumps(members, option=orjson.OPT_NON_STR_KEYS), status, media_type="application/json"
    )


# --- what goes wrong --------------------------------------------------------------------------


def _answer(refusal: Refusal) -> Response:
    return Response(
        refusal.body(), refusal.status, headers=refusal.headers, media_type=PROBLEM_TYPE
    )


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _answer(error)


async def _on_error(_: Request, error: Exception) -> Response:
    if isinstance(error, LogError):
        return _answer(Refusal(503, str(error), "log", retry_s=1))
    return _answer(Refusal(500, str(error), "error"))


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    path = ".".join(map(str, first["loc"]))
    return _answer(Refusal(422, f"{path}: {first['msg']}", "parameter", path))


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _answer(Refusal(error.status_code, str(error.detail), "http"))
    response.headers.update(error.headers or {})
    return response
