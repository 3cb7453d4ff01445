"""Routes that stream: predictions, decisions and alerts as they come, as server-sent events."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from stream_ml.codec import decode_alert, decode_decision
from stream_ml.errors import BadRecord
from stream_ml.sealing import strip_seal
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.alerts import AlertFold, alert_seal
from stream_ml.shell.views.registry import Entry
from stream_ml.web.feed import EventStream, feed_messages, parse_position
from stream_ml.web.problems import Refusal
from stream_ml.web.schemas import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.records import Record
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.log.port import Log
    from stream_ml.web.service import Service

__all__ = ["stream_router"]

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
    return await _stream(service, "predictions", "prediction", _prediction, last_event_id or start)


async def _decisions(
    request: Request, start: Start = END, last_event_id: LastId = None
) -> Response:
    """Those that are signed, as the audit has them."""
    service: Service = request.app.state.service
    key = await service.pool.run(lambda log: reading_key(service.settings, log))
    return await _stream(
        service, "registry", "decision", lambda r: _decision(r, key), last_event_id or start
    )


async def _alerts(request: Request, start: Start = END, last_event_id: LastId = None) -> Response:
    """Each change of what is open, and each happening, with the command to look further."""
    service: Service = request.app.state.service
    seal = await service.pool.run(lambda log: _seal(service, log))
    return await _stream(
        service, "alerts", "alert", lambda r: _alert(r, seal), last_event_id or start
    )


async def _stream(
    service: Service,
    topic: str,
    name: str,
    render: Callable[[Record], list[bytes]],
    start: str,
) -> Response:
    if service.stream_count >= service.limits.streams:
        raise Refusal(503, f"{service.limits.streams:,} streams are open", "busy", retry_s=5)
    feed = await service.feed(topic)
    if start == BEGINNING:
        place = await feed.beginning()
    elif start == END:
        place = feed.end
    else:
        end = feed.end
        place = [min(p, e) for p, e in zip(parse_position(start, len(end)), end, strict=True)]

    def on_end() -> None:
        service.stream_count -= 1

    service.stream_count += 1
    messages = feed_messages(feed, place, render, name)
    return EventStream(messages, closing=service.closing, on_end=on_end)


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
