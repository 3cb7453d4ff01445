"""Routes that read: the views as the commands of their names print them, all from the board."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from stream_ml.codec import encode_prediction, encode_shadows
from stream_ml.records import ID_LENGTH_MAX
from stream_ml.schema import INTEGER_MAX
from stream_ml.shell.views.audit import served_at
from stream_ml.shell.views.registry import effects
from stream_ml.shell.views.stalled import stages_list
from stream_ml.web.answers import json_response
from stream_ml.web.problems import Refusal
from stream_ml.web.schemas import View, refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.web.board import BoardSnapshot
    from stream_ml.web.service import Service

__all__ = ["view_router"]

Count = Annotated[int, Query(ge=0, le=1_000, description="how many of the last, at most")]


def view_router() -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["views"])
    for name, endpoint, summary in (
        ("status", _status, "Lag, freshness, scores, dead letters, what holds now"),
        ("models", _models, "What serves, what challenges it, at what cost, by which decisions"),
        ("evidence", _evidence, "Scores of every model and what speaks for each challenger"),
        ("evaluations", _evaluations, "How the models stood, each time that was written down"),
        ("drift", _drift, "What has moved in the data, since when, and why"),
        ("alerts", _alerts, "What is open, and the last changes"),
        ("dead-letters", _dead_letters, "The last records that were refused, and why"),
        ("audit", _audit, "Decisions"),
        ("audit/at", _audit_at, "What served at a time, and why"),
        ("audit/verify", _audit_verify, "Whether the registry is as it was written"),
    ):
        router.add_api_route(
            f"/v1/{name}",
            endpoint,
            methods=["GET"],
            summary=summary,
            response_model=View,
            responses=refusals(422),
        )
    router.add_api_route(
        "/v1/predictions/{event_id:path}",
        _prediction,
        methods=["GET"],
        summary="A prediction by its event's id",
        response_model=View,
        responses=refusals(404, 422),
    )
    return router


async def _from_board(request: Request, members: Callable[[BoardSnapshot], Any]) -> Response:
    service: Service = request.app.state.service
    return json_response(members(await service.board.snapshot()))


def _notes(service: Service, snapshot: BoardSnapshot) -> list[str]:
    settings = service.settings
    notes = [] if snapshot.is_checked else [settings.unverified_reason(settings.path)]
    registry = snapshot.status.registry
    for count, words in (
        (registry.unsigned_count, "not signed with our key"),
        (registry.copy_count, "copies of earlier ones"),
    ):
        if count:
            notes.append(f"{count:,} records of the registry are {words}, and count for nothing")
    return notes


async def _status(request: Request) -> Response:
    """As `stream-ml status --format json`; `taken_ms` is up to when it is true."""
    service: Service = request.app.state.service
    return await _from_board(
        request,
        lambda snapshot: {
            "log": snapshot.log,
            "identity": snapshot.identity,
            "taken_ms": snapshot.taken_ms,
            "empty": snapshot.is_empty,
            "mode": snapshot.mode,
            **snapshot.status.as_dict(),
            "at_work": stages_list(snapshot.at_work),
            "stalled": [task.as_dict() for task in snapshot.stalled],
            "sources": [asdict(each) for each in snapshot.sources],
            "backlogs": [backlog.as_dict() for backlog in snapshot.backlogs],
            "notes": _notes(service, snapshot),
        },
    )


async def _models(request: Request, decisions: Count = 10) -> Response:
    """As `stream-ml models --format json`."""
    service: Service = request.app.state.service

    def members(snapshot: BoardSnapshot) -> dict[str, Any]:
        registry = snapshot.status.registry
        last = registry.decisions[-decisions:] if decisions else ()
        return {
            "log": snapshot.log,
            "pipeline": registry.pipeline,
            "since": None if registry.since is None else registry.since.as_dict(),
            "effect": effects(registry),
            **snapshot.models.as_dict(),
            "decisions": [entry.as_dict() for entry in last],
            "notes": _notes(service, snapshot),
        }

    return await _from_board(request, members)


async def _evidence(request: Request) -> Response:
    """The newest evaluation of each model, and by challenger the evidence against the champion."""
    return await _from_board(
        request,
        lambda snapshot: {
            "champion": snapshot.status.champion,
            "evidence": snapshot.models.evidence or {},
            "evaluations": snapshot.models.evaluations,
            "blocks": snapshot.status.blocks,
        },
    )


async def _evaluations(
    request: Request,
    model: Annotated[str | None, Query(max_length=ID_LENGTH_MAX)] = None,
    last: Count = 100,
) -> Response:
    """Of one model or of all, the oldest first."""

    def members(snapshot: BoardSnapshot) -> dict[str, Any]:
        matches = [e for e in snapshot.evaluations if model is None or e["model"] == model]
        return {"evaluations": matches[-last:] if last else []}

    return await _from_board(request, members)


async def _drift(request: Request) -> Response:
    """As `stream-ml drift --format json`."""
    return await _from_board(
        request, lambda snapshot: {"log": snapshot.log, **snapshot.drift.as_dict()}
    )


async def _alerts(request: Request, last: Annotated[int, Query(ge=0, le=200)] = 20) -> Response:
    """As `stream-ml alerts --format json`."""

    def members(snapshot: BoardSnapshot) -> dict[str, Any]:
        view = snapshot.alerts
        changes = view.last[-last:] if last else ()
        return {
            "open_counts": view.open_counts,
            "open": [alert.as_dict() for alert in view.open],
            "last": [alert.as_dict() for alert in changes],
            "foreign": view.foreign,
        }

    return await _from_board(request, members)


async def _dead_letters(
    request: Request, last: Annotated[int, Query(ge=0, le=100)] = 20
) -> Response:
    """How many of the last were refused for which reason, and the last of them."""

    def members(snapshot: BoardSnapshot) -> dict[str, Any]:
        letters = snapshot.letters[-last:] if last else ()
        return {
            "reasons": snapshot.status.dead_letters,
            "read": snapshot.status.dead_letters_read,
            "total": snapshot.status.dead_letters_total,
            "last": [
                {
                    "partition": view.partition,
                    "offset": view.offset,
                    "append_ms": view.append_ms,
                    "letter": asdict(view.letter),
                }
                for view in letters
            ],
        }

    return await _from_board(request, members)


async def _audit(
    request: Request,
    last: Count = 100,
    before: Annotated[
        int | None, Query(ge=0, le=INTEGER_MAX, description="only decisions before this number")
    ] = None,
) -> Response:
    """As `stream-ml audit log --format json`, the oldest first."""
    service: Service = request.app.state.service

    def members(snapshot: BoardSnapshot) -> dict[str, Any]:
        entries = [
            entry
            for entry in snapshot.status.registry.decisions
            if before is None or entry.decision.number < before
        ]
        return {
            "decisions": [entry.as_dict() for entry in (entries[-last:] if last else ())],
            "total": len(entries),
            "notes": _notes(service, snapshot),
        }

    return await _from_board(request, members)


async def _audit_at(
    request: Request,
    ts: Annotated[int | None, Query(ge=0, le=INTEGER_MAX, description="UTC ms; else now")] = None,
    clock: Annotated[
        Literal["events", "log"], Query(description="whose time it is: of events, or the log's own")
    ] = "events",
) -> Response:
    """As `stream-ml audit at --format json`; `decision` is null where nothing served yet."""

    def members(snapshot: BoardSnapshot) -> dict[str, Any]:
        decisions = snapshot.status.registry.decisions
        entry = served_at(decisions, sys.maxsize if ts is None else ts, by_log=clock == "log")
        return {
            "time": snapshot.taken_ms if ts is None else ts,
            "decision": None if entry is None else entry.as_dict(),
        }

    return await _from_board(request, members)


async def _audit_verify(request: Request) -> Response:
    """As `stream-ml audit verify --format json`: `flaw` is null where it is sound."""
    service: Service = request.app.state.service
    # Looked through at most every ten seconds, whoever asks.
    verdict = await service.verdicts.get()
    return json_response(asdict(verdict))


async def _prediction(
    request: Request,
    event_id: Annotated[str, Path(min_length=1, max_length=ID_LENGTH_MAX)],
) -> Response:
    """The record on the log, with features, model and shadows; of the last 300,000 or so."""
    service: Service = request.app.state.service
    prediction = await service.predictor.find(event_id)
    if prediction is None:
        raise Refusal(
            404,
            f"no prediction for {event_id[:100]!r} among the last of its partition; "
            "`stream-ml audit reproduce` and `predictions` look further",
            "not_found",
        )
    value = encode_prediction(prediction, encode_shadows(prediction.shadows))
    return Response(value, media_type="application/json")
