"""Who may do what by HTTP: tokens with roles, from a file that only its owner may read.

    [tokens.shop]
    token = "at least 32 characters, as `openssl rand -hex 32` prints"
    roles = ["read", "publish"]

    [tokens.ana]
    token = "..."
    roles = ["read", "operate"]

Who has no token has the roles that `anonymous` names: on loopback those of whoever may log in to
this machine, elsewhere none.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import tomllib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.errors import UsageError
from stream_ml.shell.settings.settings import TOKEN_LENGTH_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "ANONYMOUS",
    "OPERATE",
    "PUBLISH",
    "READ",
    "ROLES",
    "SESSION_COOKIE",
    "Access",
    "Caller",
    "parse_tokens",
    "token_with_roles",
]

READ, PUBLISH, OPERATE = "read", "publish", "operate"
ROLES = (READ, PUBLISH, OPERATE)
ANONYMOUS = "anonymous"
SESSION_COOKIE = "stream_ml_session"
# The oldest gives way: who logs in a thousand times locks out nobody else for long.
SESSIONS_MAX = 1_000
BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Attributes:
        name: of the token; `anonymous` without one.
        roles: what they may do.
    """

    name: str
    roles: frozenset[str]


@dataclass(slots=True)
class Access:
    """Tells callers by the token or the session that a request bears.

    Tokens are held as hashes, and compared in constant time.

    Args:
        tokens: by name, the SHA-256 of the token and its roles.
        anonymous: the roles of whoever has no token.
    """

    tokens: Mapping[str, tuple[bytes, frozenset[str]]] = field(default_factory=dict, repr=False)
    anonymous: frozenset[str] = frozenset()
    _sessions: OrderedDict[bytes, Caller] = field(default_factory=OrderedDict, repr=False)

    def caller(self, authorization: str | None, session: str | None = None) -> Caller | None:
        """Who it is; None where the token or session is none of ours.

        Args:
            authorization: the header `Authorization`, if the request has one.
            session: the cookie of a session, if it has one.
        """
        if authorization is not None:
            if authorization[: len(BEARER)].lower() != BEARER:
                return None
            return self._by_token(authorization[len(BEARER) :].strip())
        if session is not None:
            return self._sessions.get(_digest(session)) or self._nobody()
        return self._nobody()

    def begin_session(self, caller: Caller) -> str:
        """A secret that stands for a caller from now on, until this server ends.

        Args:
            caller: who has shown a token.
        """
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = caller
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session

    def end_session(self, session: str) -> None:
        """Forget a session.

        Args:
            session: as `begin_session` has given it.
        """
        self._sessions.pop(_digest(session), None)

    def _nobody(self) -> Caller:
        return Caller(ANONYMOUS, self.anonymous)

    def _by_token(self, token: str) -> Caller | None:
        given, match = _digest(token), None
        # All are compared, so that the time tells nothing of which one it was.
        for name, (digest, roles) in self.tokens.items():
            if hmac.compare_digest(digest, given):
                match = Caller(name, roles)
        return match


def parse_tokens(location: str, text: str) -> dict[str, tuple[bytes, frozenset[str]]]:
    """The tokens that a file has: by name, the SHA-256 of each and its roles.

    Args:
        location: of the text, for messages; these never repeat a token.
        text: TOML, see the module.

    Raises:
        UsageError: it is something else.

    >>> tokens = parse_tokens("t", '[tokens.a]' + chr(10) + f'token = "{"x" * 32}"' + chr(10)
    ...     + 'roles = ["read"]')
    >>> [(name, sorted(roles)) for name, (_, roles) in tokens.items()]
    [('a', ['read'])]
    """
    try:
        members = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{location}: this is no TOML: {error}") from None
    tables = members.get("tokens")
    if set(members) != {"tokens"} or not isinstance(tables, dict) or not tables:
        raise UsageError(
            f"{location}: expected tables [tokens.NAME] and nothing else, given "
            f"{', '.join(sorted(members)) or 'nothing'}"
        )
    tokens = {name: _token(f"{location}: tokens.{name}", name, t) for name, t in tables.items()}
    if len({digest for digest, _ in tokens.values()}) < len(tokens):
        raise UsageError(f"{location}: expected a token of its own for each name, given one twice")
    return tokens


def token_with_roles(token: str, roles: Iterable[str]) -> tuple[bytes, frozenset[str]]:
    """A token as `Access` holds it.

    Args:
        token: the secret.
        roles: what whoever shows it may do.
    """
    return _digest(token), frozenset(roles)


def _token(location: str, name: str, table: Any) -> tuple[bytes, frozenset[str]]:
    if name == ANONYMOUS:
        raise UsageError(f"{location}: expected another name: {ANONYMOUS} is whoever has no token")
    if not isinstance(table, dict) or set(table) != {"token", "roles"}:
        actual = ", ".join(sorted(table)) if isinstance(table, dict) else "no table"
        raise UsageError(f"{location}: expected a token and roles, given {actual or 'nothing'}")
    token, roles = table["token"], table["roles"]
    if not isinstance(token, str) or len(token) < TOKEN_LENGTH_MIN or not token.isascii():
        raise UsageError(
            f"{location}.token: expected at least {TOKEN_LENGTH_MIN} ASCII characters, as "
            "`openssl rand -hex 32` prints, given others"
        )
    if not isinstance(roles, list) or not roles or not set(ROLES) >= set(map(str, roles)):
        raise UsageError(f"{location}.roles: expected some of {', '.join(ROLES)}, given {roles!r}")
    return token_with_roles(token, roles)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
