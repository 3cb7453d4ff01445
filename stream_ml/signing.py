"""Signatures on records that must not be forged, and the keys and roles of operators.

A signed record is a JSON object whose last member is `signature`: the HMAC-SHA256 of the object
as it reads without it. Signing bytes rather than values needs no canonical JSON.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_ml.errors import BadRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = [
    "COMMANDS",
    "LOCAL",
    "ROLES",
    "Keyring",
    "Operator",
    "RollingKey",
    "keys_of",
    "seal",
    "unseal",
]

_SIGNATURE = b',"signature":"'
# The operator who has the pipeline's own key.
LOCAL = "local"

COMMANDS = (
    *("promote", "rollback", "pause", "resume", "restart", "batch"),
    *("redrive", "forget", "apply"),
)
# The commands that each role may give.
ROLES: dict[str, frozenset[str]] = {
    "operator": frozenset(COMMANDS),
    "guard": frozenset({"rollback", "pause"}),
    "observer": frozenset(),
}


class RollingKey(bytes):
    """The present key, and beside it the former one, which signs nothing more but is believed.

    >>> keys_of(RollingKey(b"new", former=b"old")), keys_of(b"new")
    ((b'new', b'old'), (b'new',))
    """

    former: bytes

    def __new__(cls, key: bytes, *, former: bytes) -> Self:
        """`key` itself, to whoever knows nothing of a former one."""
        rolling = super().__new__(cls, key)
        rolling.former = former
        return rolling


def keys_of(key: bytes) -> tuple[bytes, ...]:
    """The keys by which something is believed, the present one first."""
    return (bytes(key), key.former) if isinstance(key, RollingKey) else (key,)


@dataclass(frozen=True, slots=True)
class Operator:
    """A key that signs commands, and the role of whoever holds it."""

    key: bytes = field(repr=False)
    role: str


@dataclass(frozen=True, slots=True)
class Keyring:
    """The pipeline's own key, which signs models and decisions, and the operators' by name."""

    pipeline_key: bytes = field(repr=False)
    operators: Mapping[str, Operator] = field(default_factory=dict)

    def operator(self, name: str) -> Operator | None:
        """The operator of this name; `local`, who has the pipeline's own key, may do anything."""
        if name == LOCAL:
            return Operator(self.pipeline_key, "operator")
        return self.operators.get(name)


def seal(body: bytes, key: bytes) -> bytes:
    """`body`, a JSON object, with its signature as the last member.

    >>> seal(b'{"a":1}', b"secret")[:22]
    b'{"a":1,"signature":"aa'

    Args:
        body: a JSON object as bytes.
        key: signs it, by HMAC-SHA256.
    """
    return body[:-1] + _SIGNATURE + _hmac(body, key) + b'"}'


def unseal(value: bytes | None, key: bytes | None) -> bytes:
    """The body that `seal` was given. Without a key, for readers who have none, nothing is checked.

    Raises:
        BadRecord: `value` is not signed with `key`.

    >>> unseal(seal(b'{"a":1}', b"secret"), b"secret")
    b'{"a":1}'
    """
    if value is None:
        raise BadRecord("tombstone", "$", "expected a signed JSON object, given no value")
    index = value.rfind(_SIGNATURE)
    if key is None:
        return value if index < 0 else value[:index] + b"}"
    if index < 0:
        raise BadRecord("unsigned", "$.signature", "expected a signature, given none")
    body = value[:index] + b"}"
    signature = value[index + len(_SIGNATURE) :]
    if not any(
        hmac.compare_digest(signature, _hmac(body, candidate) + b'"}') for candidate in keys_of(key)
    ):
        raise BadRecord("signature", "$.signature", "it is not that of this record and our key")
    return body


def _hmac(body: bytes, key: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).hexdigest().encode()
