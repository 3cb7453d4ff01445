"""Routes that publish: events, whose predictions they answer, and labels."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response

from stream_ml.errors import BadRecord, StreamMLError
from stream_ml.records import Output
from stream_ml.web.answers import as_refusal, json_response
from stream_ml.web.label_names import wire_label
from stream_ml.web.predictor import bad_record
from stream_ml.web.problems import Refusal
from stream_ml.web.schemas import (
    BatchAnswer,
    LabelAnswer,
    LabelBatchAnswer,
    PredictAnswer,
    PublishedAnswer,
    event_schema,
    label_schema,
    refusals,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Prediction
    from stream_ml.web.log_threads import Position
    from stream_ml.web.service import Service

__all__ = ["publish_router"]

JSON = "application/json"


class _Events(msgspec.Struct):
    """Events of a request, each with its own bytes."""

    events: list[msgspec.Raw]


class _Labels(msgspec.Struct):
    """Labels of a request, each with its own bytes."""

    labels: list[msgspec.Raw]


def publish_router(pipeline: Pipeline) -> APIRouter:
    """The routes, with the pipeline's own schemas in their documentation.

    Args:
        pipeline: the declaration.
    """
    router = APIRouter(tags=["predict"])
    event, label = event_schema(pipeline), label_schema(pipeline)
    posts: list[tuple[str, Callable[..., Any], str, dict[str, Any], dict[str, Any]]] = [
        (
            "/v1/predict",
            _predict,
            "Publish an event, and answer with its prediction",
            event,
            {"response_model": PredictAnswer, "responses": _also(202, PublishedAnswer)},
        ),
        (
            "/v1/predict/batch",
            _predict_batch,
            "Publish events, and answer with their predictions",
            _list_of("events", event),
            {"response_model": BatchAnswer, "responses": refusals(408, 413, 422)},
        ),
        (
            "/v1/labels",
            _label,
            "Publish a label",
            label,
            {
                "status_code": 202,
                "response_model": LabelAnswer,
                "responses": refusals(408, 413, 422),
            },
        ),
        (
            "/v1/labels/batch",
            _label_batch,
            "Publish labels",
            _list_of("labels", label),
            {
                "response_model": LabelBatchAnswer,
                "responses": refusals(408, 413, 422),
            },
        ),
    ]
    for path, endpoint, summary, schema, options in posts:
        body = {"required": True, "content": {JSON: {"schema": schema}}}
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            summary=summary,
            openapi_extra={"requestBody": body},
            **options,
        )
    return router


def _also(status: int, model: type[Any]) -> dict[int | str, dict[str, Any]]:
    return {**refusals(408, 409, 413, 422), status: {"model": model}}


def _list_of(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "array", "items": schema, "minItems": 1}},
        "required": [name],
    }


async def _predict(request: Request) -> Response:
    """Wait for the prediction; the same id again gets the same one, whenever it comes."""
    status, members = await _prediction(request.app.state.service, await request.body())
    return json_response(members, status)


async def _predict_batch(request: Request) -> Response:
    """Each event is answered as if it had come alone, in the order of the request."""
    service: Service = request.app.state.service
    values = _values(await request.body(), _Events, "events", service.limits.batch)
    return await _results(values, lambda value: _prediction(service, value))


async def _label(request: Request) -> Response:
    """The label is on the log when this is answered; that it joins is another matter."""
    return json_response(await _publish_label(request.app.state.service, await request.body()), 202)


async def _label_batch(request: Request) -> Response:
    """Each label is answered as if it had come alone, in the order of the request."""
    service: Service = request.app.state.service
    values = _values(await request.body(), _Labels, "labels", service.limits.batch)

    async def publish(value: bytes) -> tuple[int, dict[str, Any]]:
        return 202, await _publish_label(service, value)

    return await _results(values, publish)


async def _prediction(service: Service, value: bytes) -> tuple[int, dict[str, Any]]:
    answer = await service.predictor.predict(value)
    if answer.prediction is None:
        assert answer.position is not None, "it was published"
        event = service.pipeline.event_codec.decode(value)
        return 202, {
            "event_id": event.event_id,
            "event": _place(answer.position),
            "detail": answer.detail,
        }
    return 200, prediction_members(answer.prediction, answer.position)


def prediction_members(prediction: Prediction, position: Position | None) -> dict[str, Any]:
    """A prediction as a request is answered with it."""
    return {
        "event_id": prediction.event_id,
        "key": prediction.key,
        "ts": prediction.ts,
        "prediction": prediction.prediction,
        "fallback": prediction.fallback,
        "model": prediction.model,
        "event": None if position is None else _place(position),
    }


async def _publish_label(service: Service, value: bytes) -> dict[str, Any]:
    try:
        value = wire_label(value, service.pipeline)
        label = service.pipeline.label_codec.decode(value)
    except BadRecord as error:
        raise bad_record(error, value) from None
    service.predictor.check_label_time(label.ts)
    async with asyncio.timeout(service.limits.predict_s):
        position = await service.outbox.put(Output("labels", label.event_id.encode(), value))
    return {"event_id": label.event_id, "label": _place(position)}


async def _results(
    values: list[bytes], answer: Callable[[bytes], Awaitable[tuple[int, dict[str, Any]]]]
) -> Response:
    async def result(value: bytes) -> Mapping[str, Any]:
        try:
            status, members = await answer(value)
        except Refusal as refusal:
            return refusal.as_dict()
        except (StreamMLError, TimeoutError) as error:
            return as_refusal(error).as_dict()
        return {"status": status, **members}

    # Tasks begin in their order, so events of one key are published in that of the request.
    return json_response({"results": await asyncio.gather(*map(result, values))})


def _values(body: bytes, kind: type[Any], name: str, count_max: int) -> list[bytes]:
    try:
        items = getattr(msgspec.json.decode(body, type=kind), name)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(
            422, f"expected a JSON object with a list {name!r}: {error}", "not_json", "$"
        ) from None
    if not 0 < len(items) <= count_max:
        raise Refusal(
            422,
            f"expected 1 to {count_max:,} {name} in a request, given {len(items):,}",
            "too_many",
            f"$.{name}",
        )
    return [bytes(item) for item in items]


def _place(position: Position) -> dict[str, int]:
    return {"partition": position[0], "offset": position[1]}
