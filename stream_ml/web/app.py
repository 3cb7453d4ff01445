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
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from stream_ml import __version__
from stream_ml.web.answers import add_error_handlers
from stream_ml.web.command_routes import command_router
from stream_ml.web.direct import DirectRoutes
from stream_ml.web.gate import LOOPBACK_NAMES, Gate, Limits
from stream_ml.web.page.routes import PUBLIC_PREFIX, add_page
from stream_ml.web.probes import ServiceProbes, probe_router
from stream_ml.web.publish_routes import publish_router
from stream_ml.web.schemas import ProblemDetails
from stream_ml.web.service import Service
from stream_ml.web.stream_routes import stream_router
from stream_ml.web.view_routes import view_router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.log.port import Isolation
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.web.access import Access

__all__ = ["create_app"]


def create_app(
    settings: Settings,
    pipeline: Pipeline,
    access: Access,
    limits: Limits | None = None,
    *,
    hosts: frozenset[str] | None = LOOPBACK_NAMES,
    public_prefixes: tuple[str, ...] = (),
    isolation: Isolation = "committed",
) -> FastAPI:
    """The application, which begins and ends with the server that runs it.

    Args:
        settings: which log, and which keys are set.
        pipeline: the declaration.
        access: tells callers.
        limits: what is taken on; by default `Limits()`.
        hosts: the names that requests may be for, without ports; None for any.
        public_prefixes: of paths that anybody may read.
        isolation: of a cluster, which predictions are answered with; see `Service`.
    """
    limits = limits or Limits()
    service = Service(settings, pipeline, access, limits, isolation=isolation)

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
    prefixes = (PUBLIC_PREFIX, *public_prefixes)
    app.state.probes = ServiceProbes(service)
    publishing = publish_router(pipeline)
    # What is added last is asked first.
    app.add_middleware(DirectRoutes, routes=publishing.routes)
    app.add_middleware(
        Gate,
        access=access,
        limits=limits,
        hosts=hosts,
        public_prefixes=prefixes,
        traffic=service.traffic,
    )
    add_error_handlers(app)
    for router in (publishing, stream_router(), view_router(), command_router()):
        app.include_router(router)
    app.include_router(probe_router())
    add_page(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document, with what every route may answer and how callers show who they are."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["ProblemDetails"] = ProblemDetails.model_json_schema()
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        # Without a token too, where this server lets anybody on this machine.
        document["security"] = [{"token": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema
