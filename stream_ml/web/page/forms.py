"""Forms: commands, logging in and out. Each form bears a token that only its page knows.

The gate has looked at the origin already; the token in the form is the second lock. It is made of
the viewer's session and a secret of this server, so that a page of another site, or of another
session, has none that fits.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.responses import HTMLResponse, RedirectResponse, Response

from stream_ml.errors import StreamMLError
from stream_ml.web.access import OPERATE, SESSION_COOKIE
from stream_ml.web.command_routes import give_command
from stream_ml.web.page.contents import confirmation
from stream_ml.web.page.render import render
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request

    from stream_ml.web.access import Caller
    from stream_ml.web.service import Service

__all__ = ["PAGE_HEADERS", "FormTokens", "command", "in_frame", "log_in", "log_out", "login_page"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    # Without any, a browser sends a form as if it came from nowhere, and the gate lets none in.
    "referrer-policy": "same-origin",
}
KINDS = ("promote", "rollback", "pause", "resume", "restart")
WITH_EXPECT = frozenset({"promote", "rollback"})
WITH_MODEL = frozenset({"promote", "restart"})
# They change what is served, or throw away what was learned: asked once more, with the figures.
CONFIRMED = frozenset({"promote", "rollback", "restart"})
REASON_MAX = 512
FIELDS_MAX = 16
ANSWER_S = 20.0


class FormTokens:
    """Tokens of forms, each good for one session on this server."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, request: Request) -> str:
        """The token for the forms of whoever asks."""
        session = request.cookies.get(SESSION_COOKIE, "")
        return hmac.new(self._secret, session.encode(), hashlib.sha256).hexdigest()

    def check(self, request: Request, fields: Mapping[str, str]) -> None:
        """Let a form in that a page of ours has sent for this session.

        Raises:
            Refusal: another has.
        """
        given = fields.get("form_token", "")
        if not hmac.compare_digest(given.encode(), self.of(request).encode()):
            raise Refusal(
                403,
                "expected the form of a page that this server has sent to you, given another; load "
                "the page again",
                "form_token",
            )


async def command(request: Request, tokens: FormTokens) -> Response:
    """Give the command of a form, and show how it was answered.

    Args:
        request: with the form.
        tokens: of forms.
    """
    kind = "command"
    try:
        fields = await _command_fields(request, tokens)
        kind = fields["kind"]
        service: Service = request.app.state.service
        if kind in CONFIRMED and fields.get("confirmed") != "yes":
            values = confirmation(await service.board.snapshot(), fields)
            body = render("confirm", form_token=tokens.of(request), fields=fields, **values)
            return in_frame(request, f"Confirm: {kind}", body)
        answer = await give_command(
            service,
            request.state.caller,
            kind,
            fields["reason"].strip(),
            model=(fields.get("model") or None) if kind in WITH_MODEL else None,
            expect=(fields.get("expect") or None) if kind in WITH_EXPECT else None,
            timeout_s=ANSWER_S,
        )
    except Refusal as refusal:
        number = _number(refusal.members)
        return _answered(
            request, refusal.status, accepted=False, kind=kind, text=refusal.detail, number=number
        )
    except StreamMLError as error:
        return _answered(request, 504, accepted=False, kind=kind, text=str(error), number=None)
    decision = answer["decision"]
    return _answered(
        request,
        200,
        accepted=True,
        kind=kind,
        text=f"{decision['champion']} serves; {decision['reason']}",
        number=decision["number"],
        effect=answer["effect"],
    )


async def _command_fields(request: Request, tokens: FormTokens) -> dict[str, str]:
    """The fields of a form that asks for a command, of somebody who may.

    Raises:
        Refusal: it is none, or they may not.
    """
    caller: Caller = request.state.caller
    if OPERATE not in caller.roles:
        raise Refusal(403, f"expected the role {OPERATE!r}, which you do not have", "role")
    fields = await _fields(request)
    tokens.check(request, fields)
    kind, reason = fields.get("kind", ""), fields.get("reason", "").strip()
    if kind not in KINDS:
        raise Refusal(422, f"expected one of {', '.join(KINDS)}, given {kind[:40]!r}", "kind")
    if not 0 < len(reason) <= REASON_MAX:
        expected = f"expected a reason of 1 to {REASON_MAX} characters"
        raise Refusal(422, f"{expected}, given {len(reason)}", "reason")
    return fields


def _number(members: Mapping[str, Any]) -> int | None:
    decision = members.get("decision")
    number = decision.get("number") if isinstance(decision, dict) else None
    return number if isinstance(number, int) else None


def _answered(
    request: Request,
    status: int,
    *,
    accepted: bool,
    kind: str,
    text: str,
    number: int | None,
    effect: str = "",
) -> Response:
    body = render("answer", accepted=accepted, kind=kind, text=text, number=number, effect=effect)
    return in_frame(request, "Answer", body, status)


def in_frame(request: Request, title: str, content: str, status: int = 200) -> Response:
    """A piece of a page, for a page that asks for it; else as a page of its own.

    Args:
        request: that asks.
        title: of the page.
        content: HTML.
        status: of the answer.
    """
    if "x-fragment" not in request.headers:
        name = request.app.state.service.pipeline.name
        content = render("plain", title=title, content=content, pipeline=name)
    return HTMLResponse(content, status, headers=PAGE_HEADERS)


def login_page(
    request: Request, tokens: FormTokens, refusal: str | None = None, status: int = 200
) -> Response:
    """The form that asks for a token.

    Args:
        request: that asks.
        tokens: of forms.
        refusal: why the last attempt failed.
        status: of the answer.
    """
    name = request.app.state.service.pipeline.name
    body = render("login", pipeline=name, refusal=refusal, form_token=tokens.of(request))
    return in_frame(request, "Log in", body, status)


async def log_in(request: Request, tokens: FormTokens) -> Response:
    """Begin a session for whoever shows a token: a cookie that no script reads.

    Args:
        request: with the form.
        tokens: of forms.
    """
    service: Service = request.app.state.service
    try:
        fields = await _fields(request)
        tokens.check(request, fields)
    except Refusal as refusal:
        return login_page(request, tokens, refusal.detail, refusal.status)
    caller = service.access.caller(f"Bearer {fields.get('secret', '')}")
    if caller is None:
        return login_page(request, tokens, "This server knows no such token.", 401)
    answer = RedirectResponse("/page", 303)
    answer.set_cookie(
        SESSION_COOKIE,
        service.access.begin_session(caller),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return answer


async def log_out(request: Request, tokens: FormTokens) -> Response:
    """End the session.

    Args:
        request: with the form.
        tokens: of forms.
    """
    service: Service = request.app.state.service
    tokens.check(request, await _fields(request))
    service.access.end_session(request.cookies.get(SESSION_COOKIE, ""))
    answer = RedirectResponse("/page", 303)
    answer.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
    return answer


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        Refusal: it is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, f"expected a form, given {kind[:60]!r}", "content_type")
    try:
        text = (await request.body()).decode("utf-8")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        raise Refusal(422, "expected a form in UTF-8, with few fields", "form") from None
