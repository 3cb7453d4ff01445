"""The record of a snapshot on `models`: its members, its bytes and its signature, each checked.

The learner inside is bytes here. `models.snapshot` takes and opens it, and needs river to do so.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from stream_ml.errors import BadRecord, SnapshotRefused
from stream_ml.signing import keys_of

if TYPE_CHECKING:
    from stream_ml.records import Answer

__all__ = [
    "NO_EXAMPLES",
    "SIGNATURE_BYTES",
    "SNAPSHOT_BYTES_MAX",
    "WAY_OUT",
    "Golden",
    "Snapshot",
    "decode",
    "refusal",
    "sign",
    "unsigned_bytes",
]

# `record_bytes_max` of topics/models.toml: what the log takes as one record.
SNAPSHOT_BYTES_MAX = 16 * 1024 * 1024

# What `Snapshot.examples` holds before the first.
NO_EXAMPLES = {"count": 0, "first": -1, "last": -1}

WAY_OUT = "; way out: start a new log, and replay the events and labels into it"
_SIGNATURE = b',"signature":"'
# No less than a signature adds to a record: its member, 64 hexadecimal digits, closing signs.
SIGNATURE_BYTES = len(_SIGNATURE) + 66


@dataclass(frozen=True, slots=True)
class Golden:
    """Features, and what the learner said about them when the snapshot was taken."""

    features: dict[str, float]
    answer: Answer


class Opened(NamedTuple):
    """The learner that a process has read back from its own snapshot, and from what.

    `recipe` is the one that has read it, no other one that is equal.
    """

    learner: Any
    payload: bytes
    digest: str
    golden: tuple[Golden, ...]
    features: str
    recipe: Any


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A learner after `version` examples, and what is needed to trust it.

    Attributes:
        name: the line it was taken of.
        version: how many examples the line had learned.
        recipe: the learner as declared.
        river: the release of river that it was taken with.
        features: the digest of the feature set that it was learned on.
        parent: the line's snapshot before this one, as `name@version`.
        examples: which are inside: their `count`, and the offsets on `examples` of the `first`
            and the `last` (-1: none).
        epoch: figures of the refresh instant that it was taken at.
        golden: predictions that it must make again.
        digest: canonical digest of the learner.
        payload: the compressed bytes of the learner: river's pickle, or what a `Learner` dumped.
        signature: HMAC-SHA256 over all the others; None if unsigned.
        log: the identity of the log that it was written to; None in those of former releases.
        format: what reads the payload; None: river's allow-list.
        library: the library and release that alone reads it, where it is not river's.
        extent: how many bytes the digest was taken of, where it was; not written.
        opened: what is inside, where this process has taken it itself; not written.
    """

    name: str
    version: int
    recipe: str
    river: str
    features: str
    parent: str | None
    examples: dict[str, int]
    epoch: dict[str, Any]
    golden: tuple[Golden, ...]
    digest: str
    payload: bytes = field(repr=False)
    signature: str | None = None
    log: str | None = None
    format: str | None = None
    library: str | None = None
    extent: int = field(default=0, repr=False, compare=False)
    opened: Opened | None = field(default=None, repr=False, compare=False)

    @property
    def model(self) -> str:
        """`name@version`, which is also its key on `models`."""
        return f"{self.name}@{self.version}"

    def encode(self) -> bytes:
        """The record on `models`."""
        body = unsigned_bytes(self)
        if self.signature is None:
            return body
        return body[:-1] + _SIGNATURE + self.signature.encode() + b'"}'

    def verify(self, key: bytes | None, *, allow_unsigned: bool = False) -> None:
        """Make sure that it was signed with this key.

        Args:
            key: the pipeline's.
            allow_unsigned: whether one without a signature is believed, where there is no key.

        Raises:
            SnapshotRefused: `unsigned` or `signature`.
        """
        if key is None or self.signature is None:
            if allow_unsigned and key is None:
                return
            lacking = "key to check it with" if key is None else "signature"
            raise SnapshotRefused(
                "unsigned",
                f"{self.model}: expected a signed snapshot, given no {lacking}; way out: set the "
                "key, or allow unsigned models where nobody else can write to the log",
            )
        body, signature = unsigned_bytes(self), self.signature.encode()
        if not any(
            hmac.compare_digest(sign(body, candidate).encode(), signature)
            for candidate in keys_of(key)
        ):
            raise refusal(self, "signature", "a signature by our key", "another")


def decode(value: bytes) -> Snapshot:
    """The envelope; its payload is not looked into.

    Raises:
        BadRecord: the bytes are not those that `Snapshot.encode` gives for any snapshot.
    """
    if len(value) > SNAPSHOT_BYTES_MAX:
        raise BadRecord("too_large", "$", f"expected at most {SNAPSHOT_BYTES_MAX} bytes")
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadRecord("not_json", "$", str(error)) from None
    if not isinstance(members, dict):
        raise BadRecord("wrong_type", "$", f"expected an object, given {type(members).__name__}")
    snapshot = _Reader(members).snapshot()
    # One spelling per snapshot: no byte of a record is left that no check covers.
    if _canonical(snapshot) != value:
        raise BadRecord("not_canonical", "$", "expected the bytes that encoding it gives")
    return snapshot


def _canonical(snapshot: Snapshot) -> bytes | None:
    try:
        return snapshot.encode()
    except orjson.JSONEncodeError:
        return None  # orjson reads deeper nesting than it writes


def refusal(snapshot: Snapshot, reason: str, expected: str, actual: str) -> SnapshotRefused:
    """The refusal of a snapshot: what was expected of it, what was given, the way out.

    Args:
        snapshot: the one that is refused.
        reason: one word, by which refusals are counted.
        expected: of the snapshot.
        actual: by it.
    """
    return SnapshotRefused(
        reason, f"{snapshot.model}: expected {expected}, given {actual}{WAY_OUT}"
    )


def sign(body: bytes, key: bytes) -> str:
    """The signature of a record's unsigned bytes, in hexadecimal.

    Args:
        body: the record without its signature.
        key: the pipeline's.
    """
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def unsigned_bytes(snapshot: Snapshot) -> bytes:
    """The record without its signature: what is signed."""
    return orjson.dumps(
        {
            "model": snapshot.name,
            "version": snapshot.version,
            "recipe": snapshot.recipe,
            "river": snapshot.river,
            "features": snapshot.features,
            "parent": snapshot.parent,
            "examples": {name: snapshot.examples[name] for name in NO_EXAMPLES},
            "epoch": snapshot.epoch,
            "golden": [[golden.features, golden.answer] for golden in snapshot.golden],
            "digest": snapshot.digest,
            "payload": b64encode(snapshot.payload).decode(),
            **{name: value for name in _OPTIONAL if (value := getattr(snapshot, name)) is not None},
        }
    )


# Members that are absent rather than null, in the order in which they are written.
_OPTIONAL = ("log", "format", "library")
_MEMBERS = frozenset(
    {
        "model",
        "version",
        "recipe",
        "river",
        "features",
        "parent",
        "examples",
        "epoch",
        "golden",
        "digest",
        "payload",
        "signature",
        *_OPTIONAL,
    }
)


class _Reader:
    """Takes an envelope's members out of a JSON object, each of its type."""

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members

    def snapshot(self) -> Snapshot:
        members = self._members
        for name in members.keys() - _MEMBERS:
            raise BadRecord("unknown_field", f"$.{name}", "no member of a snapshot")
        examples = self._take("examples", dict)
        return Snapshot(
            name=self._take("model", str),
            version=_integer(members.get("version"), "$.version"),
            recipe=self._take("recipe", str),
            river=self._take("river", str),
            features=self._take("features", str),
            parent=None if members.get("parent") is None else self._take("parent", str),
            examples={n: _integer(examples.get(n), f"$.examples.{n}") for n in NO_EXAMPLES},
            epoch=self._take("epoch", dict),
            golden=tuple(map(_golden, self._take("golden", list))),
            digest=self._take("digest", str),
            payload=self._payload(),
            signature=None if "signature" not in members else self._take("signature", str),
            **{name: self._take(name, str) for name in _OPTIONAL if name in members},
        )

    def _take(self, name: str, type_: type) -> Any:
        value = self._members.get(name)
        if type(value) is not type_:
            raise _wrong_type(f"$.{name}", type_.__name__, value)
        return value

    def _payload(self) -> bytes:
        try:
            return b64decode(self._take("payload", str), validate=True)
        except ValueError:
            raise BadRecord("not_base64", "$.payload", "expected base64") from None


def _integer(value: Any, path: str) -> int:
    if type(value) is not int:
        raise _wrong_type(path, "int", value)
    return value


def _golden(value: Any) -> Golden:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - a pair
        raise _wrong_type("$.golden", "pairs of features and answer", value)
    features, answer = value
    if not isinstance(features, dict) or not (answer is None or isinstance(answer, float | dict)):
        raise _wrong_type("$.golden", "pairs of features and answer", value)
    return Golden(features, answer)


def _wrong_type(path: str, expected: str, value: Any) -> BadRecord:
    return BadRecord("wrong_type", path, f"expected {expected}, given {type(value).__name__}")
