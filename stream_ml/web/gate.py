"""The gate before the application: whose requests come in, how many, how large, from which pages.

A page of another site in somebody's browser is the attacker to think of where a server is bound to
loopback: it can send requests here, and with a name of its own that resolves to 127.0.0.1 it could
read the answers too (DNS rebinding). So the host that a request names must be ours, and whatever
changes something must not come from a page of another site (`Sec-Fetch-Site`, `Origin`). No header
lets other sites read.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from stream_ml.web.access import ANONYMOUS, OPERATE, PUBLISH, READ, SESSION_COOKIE, Access, Caller
from stream_ml.web.problems import PROBLEM_TYPE, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_ml.web.asgi import Application, Message, Receive, Scope, Send
    from stream_ml.web.traffic import Traffic

__all__ = ["OPEN_PATHS", "Gate", "Limits", "required_role"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# An orchestrator asks them, without a token, also while all places are taken.
PROBE_PATHS = frozenset({"/healthz", "/readyz"})
# The first sends whoever opens it to the page, and says nothing else.
OPEN_PATHS = frozenset({"/", *PROBE_PATHS})
PUBLISH_PATHS = frozenset(
    {
        "/v1/predict",
        "/v1/predict/batch",
        "/v1/labels",
        "/v1/labels/batch",
        # Signed by whoever gives it: the worker looks at that.
        "/v1/commands",
    }
)
COMMAND_PREFIX = "/v1/commands"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
# A secret there would lie in histories and in the logs of proxies.
SECRET_PARAMETERS = frozenset({"token", "access_token", "api_key", "key"})
# Callers whose rates are kept; of those that came least lately nothing is known any more.
CALLERS_MAX = 10_000
BURST_S = 1.0
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
ENCODED_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the server takes on; what is beyond is refused with 4xx or 503, at once.

    Attributes:
        body_bytes: of one request.
        body_s: how long a body may take to arrive.
        rate: requests a second of one caller: a token's, or an address's without one.
        concurrency: requests at work at once, of all callers.
        streams: open streams of server-sent events.
        batch: events or labels in one request.
        predict_s: how long a prediction is waited for.
    """

    body_bytes: int = 1_048_576
    body_s: float = 10.0
    rate: float = 2_000.0
    concurrency: int = 1_024
    streams: int = 256
    batch: int = 500
    predict_s: float = 5.0


def required_role(method: str, path: str) -> str | None:
    """The role that a request takes; None where anybody may.

    >>> required_role("GET", "/v1/status"), required_role("POST", "/v1/commands/promote")
    ('read', 'operate')

    Args:
        method: of the request.
        path: of its address.
    """
    if path in OPEN_PATHS and method in SAFE_METHODS:
        return None
    if path in PUBLISH_PATHS:
        return PUBLISH
    if path.startswith(COMMAND_PREFIX):
        return OPERATE
    return READ if method in SAFE_METHODS or path == "/v1/session" else OPERATE


class Gate:
    """An ASGI application before another one; see the module.

    The caller lies in `scope["state"]["caller"]` for what is behind it.

    Args:
        app: what is behind it.
        access: tells callers.
        limits: what is taken on.
        hosts: the names that requests may be for, without ports; None for any.
        public_prefixes: of paths that a page needs before anybody has logged in.
        traffic: counts what is answered, here or behind.
        clock: seconds, from any start.
    """

    def __init__(
        self,
        app: Application,
        access: Access,
        limits: Limits,
        *,
        hosts: frozenset[str] | None = LOOPBACK_NAMES,
        public_prefixes: tuple[str, ...] = (),
        traffic: Traffic | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._access = access
        self._limits = limits
        self._hosts = hosts
        self._public_prefixes = public_prefixes
        self._rates = _Rates(limits.rate, clock)
        self._traffic = traffic
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if self._traffic is not None and scope["type"] == "http":
            await self._traffic.observe(self._enter, scope, receive, send)
        else:
            await self._enter(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        try:
            self._admit(scope, headers)
            if scope["type"] == "http":
                await self._pass(scope, headers, receive, _with_security_headers(send))
                return
        except Refusal as refusal:
            await _refuse(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _pass(
        self, scope: Scope, headers: Mapping[str, str], receive: Receive, send: Send
    ) -> None:
        is_probe = scope["path"] in PROBE_PATHS and scope["method"] in SAFE_METHODS
        if self._at_work >= self._limits.concurrency and not is_probe:
            raise Refusal(
                503, f"{self._limits.concurrency:,} requests are at work", "busy", retry_s=1
            )
        # A stream has a bound of its own.
        counts = not scope["path"].startswith("/v1/stream/") and not is_probe
        self._at_work += counts
        try:
            if scope["method"] not in SAFE_METHODS:
                receive = await self._with_body(headers, receive)
            await self._app(scope, receive, send)
        finally:
            self._at_work -= counts

    def _admit(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Let a request in, or raise why not."""
        is_websocket = scope["type"] == "websocket"
        method = "GET" if is_websocket else scope["method"]
        self._check_host(headers)
        _check_origin(method, headers, always=is_websocket)
        try:
            caller = self._caller(headers)
        except Refusal:
            # Whoever tries tokens is held to the rate of an address.
            self._rates.take(_address_key(scope))
            raise
        self._rates.take(_rate_key(scope, caller))
        query = scope["query_string"]
        if query and not SECRET_PARAMETERS.isdisjoint(
            name.lower() for name, _ in parse_qsl(query.decode("latin-1"))
        ):
            raise Refusal(
                400,
                "expected no secret in an address, which histories and logs keep; send the header "
                "`Authorization: Bearer TOKEN`",
                "secret_in_address",
            )
        role = required_role(method, scope["path"])
        if role is not None and role not in caller.roles and not self._is_public(scope["path"]):
            _refuse_role(caller, role)
        scope.setdefault("state", {})["caller"] = caller

    def _is_public(self, path: str) -> bool:
        return path.startswith(self._public_prefixes) if self._public_prefixes else False

    def _check_host(self, headers: Mapping[str, str]) -> None:
        if self._hosts is None:
            return
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._hosts:
            raise Refusal(
                421,
                f"expected a host of {', '.join(sorted(self._hosts))}, given {host[:100]!r}; name "
                "another with --host-name",
                "host",
            )

    def _caller(self, headers: Mapping[str, str]) -> Caller:
        session = None
        if "cookie" in headers and "authorization" not in headers:
            try:
                cookie = SimpleCookie(headers["cookie"]).get(SESSION_COOKIE)
            except CookieError:
                cookie = None
            session = None if cookie is None else cookie.value
        caller = self._access.caller(headers.get("authorization"), session)
        if caller is None:
            raise Refusal(
                401,
                "expected `Authorization: Bearer TOKEN` with a token that this server knows, given "
                "another",
                "token",
            )
        return caller

    async def _with_body(self, headers: Mapping[str, str], receive: Receive) -> Receive:
        """A `receive` that has the whole body."""
        maximum = self._limits.body_bytes
        length = headers.get("content-length", "0")
        too_large = Refusal(413, f"expected a body of at most {maximum:,} bytes", "too_large")
        if length.isdigit() and int(length) > maximum:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > maximum:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refusal(
                408, f"expected the body within {self._limits.body_s:g} s", "slow_body"
            ) from None
        whole: Iterator[Message] = iter(
            [{"type": "http.request", "body": b"".join(parts), "more_body": False}]
        )

        async def receive_whole() -> Message:
            message = next(whole, None)
            return await receive() if message is None else message

        return receive_whole


class _Rates:
    """Of each caller a bucket that fills with the rate (a token bucket)."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate * BURST_S)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Count one request of a caller, or raise that it is one too many."""
        now_s = self._clock()
        level, filled_s = self._buckets.pop(key, (self._capacity, now_s))
        level = min(self._capacity, level + (now_s - filled_s) * self._rate)
        self._buckets[key] = (max(0.0, level - 1), now_s)
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        if level < 1:
            raise Refusal(
                429,
                f"expected at most {self._rate:g} requests a second",
                "rate",
                retry_s=(1 - level) / self._rate,
            )


def _rate_key(scope: Scope, caller: Caller) -> str:
    if caller.name != ANONYMOUS:
        return f"token {caller.name}"
    return _address_key(scope)


def _address_key(scope: Scope) -> str:
    client = scope.get("client")
    return "unknown" if client is None else str(client[0])


def _refuse_role(caller: Caller, role: str) -> None:
    if caller.name == ANONYMOUS:
        raise Refusal(
            401,
            f"expected `Authorization: Bearer TOKEN`, with a token that has the role {role!r}, "
            "given none",
            "token",
        )
    raise Refusal(
        403,
        f"{caller.name}: expected a token with the role {role!r}, given one with "
        f"{', '.join(sorted(caller.roles))}",
        "role",
    )


def _check_origin(method: str, headers: Mapping[str, str], *, always: bool) -> None:
    """Refuse what a page of another site sends."""
    if method in SAFE_METHODS and not always:
        return
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    is_foreign = site not in {"same-origin", "none"}
    if origin is not None:
        try:
            address = urlsplit(origin).netloc
        except ValueError:
            address = ""
        is_foreign = is_foreign or not address or address != headers.get("host", "")
    if is_foreign:
        raise Refusal(
            403,
            "expected a request of a page of this server, or of no page, given one of another "
            "site; no other site may",
            "cross_site",
        )


def _with_security_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += [item for item in ENCODED_HEADERS if item[0] not in present]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_headers


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    body = refusal.body()
    headers = {
        "content-type": PROBLEM_TYPE,
        "content-length": str(len(body)),
        # What is left of a body that nobody reads must not be taken for the next request.
        **({"connection": "close"} if refusal.status in {408, 413} else {}),
        **refusal.headers,
    }
    send = _with_security_headers(send)
    await send(
        {
            "type": "http.response.start",
            "status": refusal.status,
            "headers": [(n.lower().encode(), v.encode()) for n, v in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
