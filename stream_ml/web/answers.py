"""Answers and refusals as responses of the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from stream_ml.errors import LogError, NoAnswer, StreamMLError
from stream_ml.web.problems import PROBLEM_TYPE, Refusal

if TYPE_CHECKING:
    from fastapi import FastAPI

# Of what is wrong with a request, so much is told.
MISTAKES_MAX = 20

__all__ = ["add_error_handlers", "as_refusal", "json_response", "problem_response"]


def json_response(members: Any, status: int = 200) -> Response:
    """An answer as JSON.

    Args:
        members: what JSON can hold.
        status: of HTTP.
    """
    body = orjson.dumps(members, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, media_type="application/json")


def as_refusal(error: StreamMLError | TimeoutError) -> Refusal:
    """An error as HTTP has it.

    Args:
        error: that a route has met.
    """
    if isinstance(error, TimeoutError):
        return Refusal(503, "the log has not taken it in time, or may have", "late", retry_s=1)
    if isinstance(error, NoAnswer):
        return Refusal(504, str(error), "no_answer", retry_s=1)
    if isinstance(error, LogError):
        return Refusal(503, str(error), "log", retry_s=1)
    # What is left is about what lies on the log, or how this server is set up.
    return Refusal(503, str(error), "unavailable", retry_s=60)


def add_error_handlers(app: FastAPI) -> None:
    """Let an application answer refusals and errors as problems (RFC 9457).

    Args:
        app: the application.
    """
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(StreamMLError, _on_error)
    app.add_exception_handler(TimeoutError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)


def problem_response(refusal: Refusal) -> Response:
    """A refusal as a problem (RFC 9457).

    Args:
        refusal: of a request.
    """
    return Response(
        refusal.body(), refusal.status, headers=refusal.headers, media_type=PROBLEM_TYPE
    )


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return problem_response(error)


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, (StreamMLError, TimeoutError))
    return problem_response(as_refusal(error))


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistakes = [_mistake(each) for each in error.errors()[:MISTAKES_MAX]]
    detail = "; ".join(f"{path}: {words}" for path, words in mistakes)
    listed = [{"path": path, "detail": words} for path, words in mistakes]
    return problem_response(
        Refusal(422, detail, "wrong_type", mistakes[0][0], members={"mistakes": listed})
    )


def _mistake(error: dict[str, Any]) -> tuple[str, str]:
    """Where something is wrong, and what."""
    kind, *path = map(str, error["loc"])
    place = "$" + "".join(f".{part}" for part in path if not part.isdigit())
    if error["type"] == "extra_forbidden":
        return place, "expected no such member"
    return place, f"{'' if kind == 'body' else f'{kind}: '}{error['msg']}"


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = {404: "not_found", 405: "method"}.get(error.status_code, "http")
    response = problem_response(Refusal(error.status_code, str(error.detail), reason))
    response.headers.update(error.headers or {})
    return response
