"""Refusals as HTTP has them (RFC 9457): each names what was expected, what was given, a way out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROBLEM_TYPE", "Refusal"]

PROBLEM_TYPE = "application/problem+json"


@dataclass
class Refusal(Exception):  # noqa: N818 - it is an answer, and no fault of the program
    """A request that is refused.

    Attributes:
        status: of HTTP.
        detail: for a person to read.
        reason: one word for machines.
        path: where in the record, as `$.field`, of a bad one.
        retry_s: after how many seconds it may be tried again, where that makes sense.
        members: others of the answer.
    """

    status: int
    detail: str
    reason: str
    path: str | None = None
    retry_s: float | None = None
    members: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The members of the answer."""
        path = {} if self.path is None else {"path": self.path}
        return {
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "reason": self.reason,
            **path,
            "detail": self.detail,
            **self.members,
        }

    def body(self) -> bytes:
        """The answer as JSON."""
        return orjson.dumps(self.as_dict())

    @property
    def headers(self) -> dict[str, str]:
        """Those that the answer has beside its type."""
        headers = {}
        if self.retry_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_s)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return headers
