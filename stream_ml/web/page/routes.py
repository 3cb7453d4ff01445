"""The routes of the page: read-only for whoever may read, and forms for whoever may operate."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse, StreamingResponse

from stream_ml import __version__
from stream_ml.web.access import READ
from stream_ml.web.page.live import Live
from stream_ml.web.page.render import PARTS, render
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from stream_ml.web.access import Caller
    from stream_ml.web.service import Service

__all__ = ["PUBLIC_PREFIX", "STREAM_PATH", "add_page"]

# Under it the page checks roles itself: who has none is asked to log in, in words.
PUBLIC_PREFIX = "/page"
# Streams are counted by themselves.
STREAM_PATH = "/v1/stream/page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "cache-control": "no-store"}
STATIC_TYPES = {
    "icon.svg": "image/svg+xml",
    "idiomorph.min.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}


def add_page(app: FastAPI) -> Live:
    """Add the page to the server's application.

    Args:
        app: as `create_app` makes it.

    Returns:
        What it shows; to be closed when the server ends.
    """
    service: Service = app.state.service
    live = Live(service.board, service.pipeline)
    app.state.live = live
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/", _root, methods=["GET"])
    router.add_api_route("/page", _page, methods=["GET"])
    router.add_api_route("/page/static/{name}", _static, methods=["GET"])
    router.add_api_route(STREAM_PATH, _stream, methods=["GET"])
    app.include_router(router)
    return live


async def _root() -> Response:
    return RedirectResponse("/page", 303)


async def _page(request: Request) -> Response:
    caller: Caller = request.state.caller
    service, live = request.app.state.service, request.app.state.live
    if READ not in caller.roles:
        return RedirectResponse("/page/login", 303)
    parts = await live.parts()
    return _html(
        render(
            "page",
            seen=live.seen,
            pipeline=service.pipeline.name,
            log=service.settings.path,
            parts=parts,
            catalogue=PARTS,
            caller=caller.name,
            has_tokens=bool(service.access.tokens),
            may_act=False,
            form_token="",
            answer=None,
            version=__version__,
        )
    )


async def _static(name: str) -> Response:
    if name not in STATIC_TYPES:
        raise Refusal(404, f"expected one of {', '.join(sorted(STATIC_TYPES))}", "not_found")
    body = (files("stream_ml.web.page") / "static" / name).read_bytes()
    headers = {"cache-control": "max-age=300"}
    return Response(body, headers=headers, media_type=STATIC_TYPES[name])


async def _stream(request: Request, seen: str = "") -> Response:
    live: Live = request.app.state.live
    last = request.headers.get("last-event-id", seen)
    return StreamingResponse(
        live.stream(last), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


def _html(body: str, status: int = 200) -> Response:
    return HTMLResponse(body, status, headers=HEADERS)
