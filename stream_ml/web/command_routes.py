"""Routes that act: commands, signed with this server's operator's key, or by the caller's own.

A command goes the way of the command line's: signed, on the log, carried out or refused by the
worker, and answered by its decision. The registry names the operator whose key has signed, and who
asked for it: the name of the caller's token.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from stream_ml import client
from stream_ml.errors import BadRecord, CommandRefused
from stream_ml.records import Command
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.registry import effects, read_registry
from stream_ml.web.access import ANONYMOUS
from stream_ml.web.answers import json_response
from stream_ml.web.problems import Refusal
from stream_ml.web.schemas import (
    TIMEOUT_S,
    BatchCommand,
    CommandAnswer,
    LineCommand,
    PlainCommand,
    PromoteCommand,
    RollbackCommand,
    refusals,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.records import Decision
    from stream_ml.shell.log.port import Log
    from stream_ml.web.access import Caller
    from stream_ml.web.service import CommandSlots, Service

__all__ = ["command_router", "give_command"]

SIGNED_SCHEMA = {
    "type": "object",
    "title": "SignedCommand",
    "description": "A command as `stream_ml.codec.encode_command` makes it, for this pipeline and "
    "log (`pipeline` and `identity` of the status).",
    "properties": {
        name: {"type": "string"}
        for name in ("command_id", "kind", "operator", "actor", "reason", "signature")
    }
    | {"ts": {"type": "integer", "minimum": 0}},
    "required": ["command_id", "kind", "operator", "actor", "reason", "ts", "signature"],
}


def command_router() -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["commands"])
    for kind, endpoint, summary in (
        ("promote", _promote, "Let a challenger serve"),
        ("rollback", _rollback, "Let the predecessor, or what served before, serve again"),
        ("pause", _pause, "Change nothing of what serves until `resume`"),
        ("resume", _resume, "End a pause, a freeze or a suspension"),
        ("restart", _restart, "Let a line learn anew, from nothing"),
        ("batch", _batch, "Change how many examples a line fits at once"),
    ):
        router.add_api_route(
            f"/v1/commands/{kind}",
            endpoint,
            methods=["POST"],
            summary=summary,
            response_model=CommandAnswer,
            responses=refusals(408, 409, 413, 422, 504),
        )
    router.add_api_route(
        "/v1/commands",
        _signed,
        methods=["POST"],
        summary="Give a command that its operator has signed with a key of their own",
        response_model=CommandAnswer,
        responses=refusals(408, 409, 413, 422, 504),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": SIGNED_SCHEMA}},
            }
        },
    )
    return router


async def _promote(request: Request, body: PromoteCommand) -> Response:
    """Refused (409) where another champion serves than is expected, or the evidence is short."""
    return await _command(request, "promote", body, model=body.model, expect=body.expect)


async def _rollback(request: Request, body: RollbackCommand) -> Response:
    """Refused (409) where another champion serves, or there is nothing to return to."""
    return await _command(request, "rollback", body, model=body.model, expect=body.expect)


async def _pause(request: Request, body: PlainCommand) -> Response:
    """Learning and scoring go on."""
    return await _command(request, "pause", body)


async def _resume(request: Request, body: PlainCommand) -> Response:
    """Models are renewed and replaced again as the pipeline declares it."""
    return await _command(request, "resume", body)


async def _restart(request: Request, body: LineCommand) -> Response:
    """What the line has in the serving set answers until its next snapshot."""
    return await _command(request, "restart", body, model=body.model)


async def _batch(request: Request, body: BatchCommand) -> Response:
    """Refused (409) where the line is not taught in mini-batches."""
    details = {"batch": body.batch}
    return await _command(request, "batch", body, model=body.model, details=details)


async def _command(
    request: Request,
    kind: str,
    body: PlainCommand,
    *,
    details: dict[str, Any] | None = None,
    **members: str | None,
) -> Response:
    answer = await give_command(
        request.app.state.service,
        request.state.caller,
        kind,
        body.reason,
        command_id=body.id,
        actor=body.actor,
        timeout_s=body.timeout_s,
        details=details,
        **members,
    )
    return json_response(answer)


async def _signed(request: Request) -> Response:
    """The worker checks the signature; this server needs no key for it."""
    service: Service = request.app.state.service
    value = await request.body()

    def give(log: Log, key: bytes | None) -> Decision:
        return client.signed_command(
            log, value, verifying_key=key, timeout_s=TIMEOUT_S, wait=service.wait
        )

    return json_response(await _answer(service, service.signed_commands, give))


async def give_command(
    service: Service,
    caller: Caller,
    kind: str,
    reason: str,
    *,
    model: str | None = None,
    expect: str | None = None,
    details: dict[str, Any] | None = None,
    command_id: str | None = None,
    actor: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Give a command for a caller, and wait for its answer: as the command line prints it.

    Args:
        service: of this server.
        caller: who asks for it, and has the role.
        kind: `promote`, `rollback`, `pause`, `resume`, `restart` or `batch`.
        reason: why, for whoever reads the audit.
        model: what to promote, to return to, or to restart.
        expect: what serves now.
        details: those of its kind.
        command_id: names it; by default a new one.
        actor: who asks for it, where the caller has no token.
        timeout_s: how long to wait, in seconds.

    Raises:
        Refusal: it was refused (409, or 422 where it was not even believed), or too many wait.
        NoAnswer: none came in time.
        StreamMLError: there is no key, or the log cannot be reached.
    """
    settings = service.settings
    name = caller.name if caller.name != ANONYMOUS else actor or settings.operator
    command = Command(
        command_id=command_id or str(uuid.uuid4()),
        kind=kind,
        ts=time.time_ns() // 1_000_000,
        operator=settings.operator,
        actor=name,
        reason=reason,
        expect=expect,
        model=model,
        details=details,
    )

    def give(log: Log, key: bytes | None) -> Decision:
        signing_key = settings.commanding_key(settings.path)
        return client.command(
            log,
            command,
            signing_key,
            verifying_key=key,
            timeout_s=timeout_s,
            wait=service.wait,
        )

    return await _answer(service, service.commands, give)


async def _answer(
    service: Service, slots: CommandSlots, give: Callable[[Log, bytes | None], Decision]
) -> dict[str, Any]:
    def run(log: Log) -> dict[str, Any]:
        key = reading_key(service.settings, log)
        decision = give(log, key)
        return {
            "accepted": decision.kind != "refused",
            "decision": decision.as_dict(),
            "effect": effects(read_registry(log, key, recent=0)),
            "checked": key is not None,
        }

    try:
        answer = await slots.run(run)
    except CommandRefused as error:
        raise Refusal(422, str(error), "not_believed") from None
    except BadRecord as error:
        raise Refusal(422, error.message, error.reason, error.path) from None
    if not answer["accepted"]:
        raise Refusal(409, answer["decision"]["reason"], "refused", members=answer)
    return answer
