"""Checkpoints: live learners, signed so that only whoever has the key can have written them.

    "SML1" + signature (32 bytes) + river's release + newline + compressed pickle

The signature covers all that follows it, and is checked before any of that is read.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from stream_ml.errors import SnapshotRefused
from stream_ml.models.pickles import RIVER_VERSION, compress, decompress, dumps, loads
from stream_ml.signing import keys_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["pack", "unpack"]

_MAGIC = b"SML1"
_NO_SIGNATURE = bytes(32)
_HEAD = len(_MAGIC) + len(_NO_SIGNATURE)


def pack(learners: Mapping[str, Any], key: bytes | None) -> bytes:
    """Live learners by line, as bytes; unsigned without a key.

    Args:
        learners: by line.
        key: the pipeline's; None leaves them unsigned.

    Raises:
        SnapshotRefused: `class_not_allowed` or `too_large`, as `pickles.dumps`.
    """
    body = RIVER_VERSION.encode() + b"\n" + compress(dumps(dict(learners)))
    return _MAGIC + (_NO_SIGNATURE if key is None else _sign(body, key)) + body


def unpack(data: bytes, key: bytes | None, *, allow_unsigned: bool = False) -> dict[str, Any]:
    """The learners that were packed; they go on as if never stopped.

    Args:
        data: what `pack` gave.
        key: the pipeline's.
        allow_unsigned: whether bytes without a signature are believed, where there is no key.

    Raises:
        SnapshotRefused: `unsigned`, `signature`, `river_version`, `class_not_allowed`,
            `too_large` or `malformed`.
    """
    if len(data) < _HEAD or not data.startswith(_MAGIC):
        raise SnapshotRefused("malformed", "expected a checkpoint, given other bytes")
    signature, body = data[len(_MAGIC) : _HEAD], data[_HEAD:]
    _check_signature(signature, body, key, allow_unsigned=allow_unsigned)
    version, _, payload = body.partition(b"\n")
    if version != RIVER_VERSION.encode():
        raise SnapshotRefused(
            "river_version",
            f"checkpoint: expected river {RIVER_VERSION}, given {version[:40]!r}; way out: "
            "start a new log, and replay the events and labels into it",
        )
    learners = loads(decompress(payload))
    if type(learners) is not dict:
        raise SnapshotRefused("malformed", "expected learners by line")
    return learners


def _check_signature(
    signature: bytes, body: bytes, key: bytes | None, *, allow_unsigned: bool
) -> None:
    if key is None:
        if allow_unsigned:
            return
        raise SnapshotRefused(
            "unsigned",
            "checkpoint: expected a key to check its signature with, given none; way out: set the "
            "key, or allow unsigned models where nobody else can write to the log",
        )
    if signature == _NO_SIGNATURE:
        raise SnapshotRefused("unsigned", "checkpoint: expected a signature, given none")
    if not any(
        hmac.compare_digest(signature, _sign(body, candidate)) for candidate in keys_of(key)
    ):
        raise SnapshotRefused(
            "signature", "checkpoint: expected a signature by our key, given another"
        )


def _sign(body: bytes, key: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()
