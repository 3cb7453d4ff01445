"""The routes of the page: read-only for whoever may read, and forms for whoever may operate."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Path, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from stream_ml import __version__
from stream_ml.errors import StreamMLError
from stream_ml.schema import INTEGER_MAX
from stream_ml.shell.settings.keys import reading_key
from stream_ml.web.access import OPERATE, READ
from stream_ml.web.feed import EventStream
from stream_ml.web.page import details, forms
from stream_ml.web.page.forms import PAGE_HEADERS, FormTokens, in_frame
from stream_ml.web.page.live import Live
from stream_ml.web.page.recent import SEARCHED_MAX, RecentReader
from stream_ml.web.page.render import PARTS, part_rows, render
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.shell.log.port import Log
    from stream_ml.web.service import Service

__all__ = ["PUBLIC_PREFIX", "STREAM_PATH", "add_page"]

# Under it the page checks roles itself: who has none is asked to log in, in words.
PUBLIC_PREFIX = "/page"
# Streams are counted by themselves.
STREAM_PATH = "/v1/stream/page"
STATIC_TYPES = {
    "icon.svg": "image/svg+xml",
    "idiomorph.min.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
PLACES = {"predictions", "examples"}
# Searches at work and waiting, of all viewers: one reads at a time, and so few wait for it.
SEARCHES_MAX = 4
Offset = Annotated[int, Path(ge=0, le=INTEGER_MAX)]
Name = Annotated[str, Path(max_length=64)]
T = TypeVar("T")


class _Page:
    """The routes, and what they share.

    Args:
        service: of the server.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tokens = FormTokens()
        self._searching = asyncio.Lock()
        self._search_count = 0
        self._reader = RecentReader(
            service.pipeline.name,
            lambda log: reading_key(service.settings, log),
            service.authenticity.prediction,
        )
        self.live = Live(
            service.board,
            service.pipeline,
            lambda: self._read(self._reader.read),
            service.closing,
            checkpoint_s=service.settings.checkpoint_seconds,
        )

    async def _read(self, run: Callable[[Log], T]) -> T:
        """What a thread makes of the log, once it is known how ours is told from others'."""
        with suppress(Refusal):  # then nothing is believed
            await self._service.authenticity.check_setup()
        return await self._service.pool.run(run)

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(include_in_schema=False)
        for path, endpoint in (
            ("/", self._root),
            ("/page", self._page),
            ("/page/static/{name}", self._static),
            ("/page/login", self._login),
            ("/page/keys", self._key),
            ("/page/decisions/{number}", self._decision),
            ("/page/alerts/{fingerprint}", self._alert),
            ("/page/letters/{partition}/{offset}", self._letter),
            ("/page/{topic}/{partition}/{offset}", self._prediction),
            ("/page/{topic}/{partition}/{offset}/again", self._again),
            ("/page/{topic}/{partition}/{offset}/trace", self._trace),
            (STREAM_PATH, self._stream),
        ):
            router.add_api_route(path, endpoint, methods=["GET"])
        for path, post in (
            ("/page/command", forms.command),
            ("/page/login", forms.log_in),
            ("/page/logout", forms.log_out),
        ):
            router.add_api_route(path, self._post(post), methods=["POST"])
        return router

    def _post(self, post: Callable[[Request, FormTokens], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            response: Response = await post(request, self._tokens)
            return response

        return endpoint

    async def _root(self) -> Response:
        return RedirectResponse("/page", 303)

    async def _page(self, request: Request) -> Response:
        caller, service = request.state.caller, self._service
        if READ not in caller.roles:
            return RedirectResponse("/page/login", 303)
        try:
            parts = await self.live.parts()
        except StreamMLError as error:
            return in_frame(request, "No answer", render("trouble", text=str(error)), 503)
        body = render(
            "page",
            seen=self.live.seen,
            pipeline=service.pipeline.name,
            log=service.settings.path,
            parts=parts,
            catalogue=PARTS,
            rows=part_rows(PARTS),
            caller=caller.name,
            has_tokens=bool(service.access.tokens),
            may_act=OPERATE in caller.roles,
            form_token=self._tokens.of(request),
            answer=None,
            version=__version__,
        )
        return HTMLResponse(body, headers=PAGE_HEADERS)

    async def _login(self, request: Request) -> Response:
        return forms.login_page(request, self._tokens)

    async def _static(self, name: Name) -> Response:
        if name not in STATIC_TYPES:
            raise Refusal(404, f"expected one of {', '.join(sorted(STATIC_TYPES))}", "not_found")
        body = (files("stream_ml.web.page") / "static" / name).read_bytes()
        headers = {"cache-control": "max-age=300"}
        return Response(body, headers=headers, media_type=STATIC_TYPES[name])

    async def _stream(self, request: Request, seen: str = "") -> Response:
        service = self._service
        on_end = service.open_stream()
        messages = self.live.stream(request.headers.get("last-event-id", seen))
        return EventStream(messages, closing=service.closing, on_end=on_end)

    # --- single records -----------------------------------------------------------------------

    async def _record(self, request: Request, values: dict[str, Any]) -> Response:
        body = render("record", **{"links": (), **values})
        return in_frame(request, values["title"], body)

    async def _decision(self, request: Request, number: Offset) -> Response:
        _check_reader(request)
        snapshot = await self._service.board.snapshot()
        return await self._record(request, details.decision(snapshot, number))

    async def _alert(self, request: Request, fingerprint: Name) -> Response:
        _check_reader(request)
        snapshot = await self._service.board.snapshot()
        return await self._record(request, details.alert(snapshot, fingerprint))

    async def _letter(self, request: Request, partition: Offset, offset: Offset) -> Response:
        _check_reader(request)
        snapshot = await self._service.board.snapshot()
        values = await self._service.pool.run(
            lambda log: details.letter(snapshot, log, partition, offset)
        )
        return await self._record(request, values)

    async def _prediction(
        self, request: Request, topic: Name, partition: Offset, offset: Offset
    ) -> Response:
        _check_reader(request)
        _check_topic(topic)
        values = await self._searched(
            lambda log: details.prediction(log, self._reader, topic, (partition, offset))
        )
        return await self._record(request, values)

    async def _again(
        self, request: Request, topic: Name, partition: Offset, offset: Offset
    ) -> Response:
        _check_reader(request)
        _check_topic(topic)
        service = self._service

        def run(log: Log) -> dict[str, Any]:
            key = reading_key(service.settings, log)
            if key is None:
                raise Refusal(
                    409, "nothing can be made again: no key is set to check snapshots", "key"
                )
            where = (topic, partition, offset)
            return details.reproduction(log, self._reader, service.pipeline, key, where)

        return await self._record(request, await self._searched(run))

    async def _trace(
        self, request: Request, topic: Name, partition: Offset, offset: Offset
    ) -> Response:
        _check_reader(request)
        _check_topic(topic)
        service = self._service

        def run(log: Log) -> dict[str, Any]:
            key = reading_key(service.settings, log)
            where = (topic, partition, offset)
            return details.event_trace(log, self._reader, service.pipeline, key, where)

        return await self._record(request, await self._searched(run))

    async def _searched(self, run: Callable[[Log], T]) -> T:
        """What is found in many records, or whole topics, for which the log's threads are few.

        Raises:
            Refusal: too many look for something.
        """
        if self._search_count >= SEARCHES_MAX:
            raise Refusal(
                503,
                f"expected at most {SEARCHES_MAX} searches at once; try again soon",
                "busy",
                retry_s=1,
            )
        self._search_count += 1
        try:
            async with self._searching:
                return await self._read(run)
        finally:
            self._search_count -= 1

    async def _key(
        self, request: Request, of: Annotated[str, Query(max_length=1_000)] = ""
    ) -> Response:
        _check_reader(request)
        rows = await self._searched(lambda log: self._reader.of_key(log, of))
        body = render("keys", key=of, rows=rows, searched=SEARCHED_MAX)
        return in_frame(request, "Predictions", body)


def add_page(app: FastAPI) -> None:
    """Add the page to the server's application.

    Args:
        app: as `create_app` makes it, with `PUBLIC_PREFIX` among its public prefixes.
    """
    page = _Page(app.state.service)
    app.state.page = page
    app.include_router(page.router())


def _check_reader(request: Request) -> None:
    if READ not in request.state.caller.roles:
        raise Refusal(401, f"expected the role {READ!r}: log in at /page/login", "role")


def _check_topic(topic: str) -> None:
    if topic not in PLACES:
        raise Refusal(404, f"expected one of {', '.join(sorted(PLACES))}", "not_found")
