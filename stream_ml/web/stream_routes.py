"""Routes that stream: predictions, decisions and alerts as they come, as server-sent events."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from stream_ml.codec import decode_alert, decode_decision
from stream_ml.errors import BadRecord
from stream_ml.sealing import strip_seal
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.alerts import AlertFold, alert_seal
from stream_ml.shell.views.registry import Entry
from stream_ml.web.feed import EventStream, feed_messages, parse_position
from stream_ml.web.schemas import refusals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_ml.records import Record
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.log.port import Log
    from stream_ml.web.feed import Feed
    from stream_ml.web.service import Service

__all__ = ["stream_router"]

# The JSON of the events that a record has.
Render: TypeAlias = "Callable[[Record], list[bytes]]"
BEGINNING, END = "beginning", "end"
TEXT_MAX = 2_000
Start = Annotated[
    str,
    Query(
        description="where to begin: `beginning`, `end`, or the id of an event of this stream, "
        "after which it goes on",
        max_length=TEXT_MAX,
    ),
]
LastId = Annotated[
    str | None,
    Header(
        description="the id of the last event that was received: it goes on after it, whatever "
        "`start` says; browsers send it by themselves",
        max_length=TEXT_MAX,
    ),
]
STREAM = {
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
    "description": "events, each with its id, its name and its JSON, as they come",
}


def stream_router() -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["streams"])
    for name, endpoint in (
        ("predictions", _predictions),
        ("decisions", _decisions),
        ("alerts", _alerts),
    ):
        router.add_api_route(
            f"/v1/stream/{name}",
            endpoint,
            methods=["GET"],
            summary=f"Follow {name} as server-sent events",
            response_class=Response,
            responses={200: STREAM, **refusals(422)},
        )
    return router


async def _predictions(
    request: Request, start: Start = END, last_event_id: LastId = None
) -> Response:
    """Each is the record on the log: features, model, shadows and all."""
    service: Service = request.app.state.service
    authenticity = service.authenticity

    async def render() -> Render:
        return lambda record: _prediction(record) if authenticity.is_own(record) else []

    topic = _Topic("predictions", "prediction", render, authenticity.wait)
    return await _stream(service, topic, last_event_id or start)


async def _decisions(
    request: Request, start: Start = END, last_event_id: LastId = None
) -> Response:
    """Those that are signed, as the audit has them."""
    service: Service = request.app.state.service

    async def render() -> Render:
        key = await service.pool.run(lambda log: reading_key(service.settings, log))
        return lambda record: _decision(record, key)

    return await _stream(service, _Topic("registry", "decision", render), last_event_id or start)


async def _alerts(request: Request, start: Start = END, last_event_id: LastId = None) -> Response:
    """Each change of what is open, and each happening, with the command to look further."""
    service: Service = request.app.state.service

    async def render() -> Render:
        seal = await service.pool.run(lambda log: _seal(service, log))
        return lambda record: _alert(record, seal)

    return await _stream(service, _Topic("alerts", "alert", render), last_event_id or start)


class _Topic(NamedTuple):
    """What a stream is of: a topic, the name of its events, and how a record becomes some."""

    topic: str
    name: str
    render: Callable[[], Awaitable[Render]]
    ready: Callable[[], Awaitable[None]] | None = None


async def _stream(service: Service, topic: _Topic, start: str) -> Response:
    on_end = service.open_stream()
    try:
        render = await topic.render()
        feed = await service.feed(topic.topic)
        place = await _place(feed, start)
    except BaseException:
        on_end()
        raise
    messages = feed_messages(feed, place, render, topic.name, topic.ready)
    return EventStream(messages, closing=service.closing, on_end=on_end)


async def _place(feed: Feed, start: str) -> list[int]:
    if start == BEGINNING:
        return await feed.beginning()
    end = feed.end
    if start == END:
        return end
    return [min(p, e) for p, e in zip(parse_position(start, len(end)), end, strict=True)]


def _seal(service: Service, log: Log) -> RecordSeal | None:
    return alert_seal(log, reading_key(service.settings, log))


def _prediction(record: Record) -> list[bytes]:
    value = record.value
    if value is None:
        return []
    if b"\n" not in value and b"\r" not in value:
        return [value]
    with suppress(orjson.JSONDecodeError):
        return [orjson.dumps(orjson.loads(value))]
    return []


def _decision(record: Record, key: bytes | None) -> list[bytes]:
    with suppress(BadRecord):
        decision = decode_decision(record.value, key)
        return [orjson.dumps(Entry(decision, record.append_ms).as_dict())]
    return []


def _alert(record: Record, seal: RecordSeal | None) -> list[bytes]:
    with suppress(BadRecord):
        body: Any = strip_seal(record.value) if seal is None else seal.unseal(record.value)
        # Each by itself: since when it was open, a change that resolves it says.
        views = AlertFold().add(record, decode_alert(body))
        return [orjson.dumps(view.as_dict()) for view in views]
    return []
