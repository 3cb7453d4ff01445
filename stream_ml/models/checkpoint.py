"""Checkpoints: live learners, signed so that only whoever has the key can have written them.

    "SML2" + signature (32 bytes) + heading + newline + compressed learner

The heading of river's learners is river's release and the name of the line, that of any other
names its line, and the library and release whose bytes these are. The signature covers all but
itself, and is checked before any of that is read. What reads the learner is chosen by the line's
recipe.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import SnapshotRefused
from stream_ml.models.pickles import RIVER_VERSION, compress, decompress
from stream_ml.signing import keys_of

if TYPE_CHECKING:
    from stream_ml.models.recipes import Recipe

__all__ = ["pack", "unpack"]

_MAGIC = b"SML2"
# What a former release wrote: river's learners in a dict, by the name of their line.
_FORMER_MAGIC = b"SML1"
_NO_SIGNATURE = bytes(32)
_HEAD = len(_MAGIC) + len(_NO_SIGNATURE)


def pack(learner: Any, recipe: Recipe, key: bytes | None, payload: bytes | None = None) -> bytes:
    """A live learner as bytes; unsigned without a key.

    Args:
        learner: of the recipe.
        recipe: its line's.
        key: the pipeline's; None leaves it unsigned.
        payload: of a snapshot of it as it is now, which spares writing it down once more.

    Raises:
        SnapshotRefused: `class_not_allowed` or `too_large`, as `Recipe.dump`.
    """
    body = _heading(recipe) + b"\n" + (payload or compress(recipe.dump(learner)))
    return _MAGIC + (_NO_SIGNATURE if key is None else _sign(_MAGIC + body, key)) + body


def unpack(data: bytes, recipe: Recipe, key: bytes | None, *, allow_unsigned: bool = False) -> Any:
    """The learner that was packed; it goes on as if never stopped.

    Args:
        data: what `pack` gave.
        recipe: the line's, which says what reads it.
        key: the pipeline's.
        allow_unsigned: whether bytes without a signature are believed, where there is no key.

    Raises:
        SnapshotRefused: `unsigned`, `signature`, `river_version`, `library`, `class_not_allowed`,
            `too_large`, `malformed` or `unreadable`.
    """
    is_former = data.startswith(_FORMER_MAGIC)
    if len(data) < _HEAD or not (is_former or data.startswith(_MAGIC)):
        raise SnapshotRefused("malformed", "expected a checkpoint, given other bytes")
    signature, body = data[len(_MAGIC) : _HEAD], data[_HEAD:]
    signed = body if is_former else _MAGIC + body
    _check_signature(signature, signed, key, allow_unsigned=allow_unsigned)
    heading, _, payload = body.partition(b"\n")
    if heading != (_former_heading(recipe) if is_former else _heading(recipe)):
        raise SnapshotRefused(
            "river_version" if recipe.format is None else "library",
            f"checkpoint: expected {_reader(recipe)}, given {heading[:80]!r}; way out: "
            "start a new log, and replay the events and labels into it",
        )
    learner = recipe.load(decompress(payload))
    if recipe.format is not None or not is_former:
        return learner
    if type(learner) is not dict or recipe.name not in learner:
        raise SnapshotRefused("malformed", f"expected the learner of the line {recipe.name!r}")
    return learner[recipe.name]


def _heading(recipe: Recipe) -> bytes:
    """What says whose learner follows, and what reads it."""
    former = _former_heading(recipe)
    return b" ".join([former, recipe.name.encode()]) if recipe.format is None else former


def _former_heading(recipe: Recipe) -> bytes:
    if recipe.format is None:
        return RIVER_VERSION.encode()
    return orjson.dumps([recipe.format, recipe.name, recipe.library])


def _reader(recipe: Recipe) -> str:
    if recipe.format is None:
        return f"river {RIVER_VERSION}"
    return f"the line {recipe.name!r} of {recipe.library or 'its own'}"


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
