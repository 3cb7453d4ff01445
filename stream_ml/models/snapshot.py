"""Snapshots: a learner as it was after n examples, in an envelope that can be checked.

Opening one asks, in this order, and stops at the first no:

1. is it small enough;  2. is the signature ours;  3. is it of this release of river;
4. was it learned on these features;  5. does it unpack within bounds, from the allow-list alone;
6. is the learner inside the one that the digest names;  7. does it still give the golden answers.

Nothing of the payload is looked at before its signature is checked. Pickles do not survive a
release of river, and need not: the examples log holds all that it takes to learn them again.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from base64 import b64decode, b64encode
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import BadRecord, SnapshotRefused
from stream_ml.models.checkpoint import seal, unseal
from stream_ml.models.digest import digest, measured
from stream_ml.models.pickles import RIVER_VERSION, compress, contained, decompress, dumps, loads
from stream_ml.models.recipes import answer
from stream_ml.signing import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.models.recipes import Target
    from stream_ml.records import Answer

__all__ = [
    "GOLDEN_TOLERANCE",
    "NO_EXAMPLES",
    "SNAPSHOT_BYTES_MAX",
    "Golden",
    "Snapshot",
    "decode",
    "open_snapshot",
    "seal",
    "take",
    "unseal",
]

# `record_bytes_max` of topics/models.toml: what the log takes as one record.
SNAPSHOT_BYTES_MAX = 16 * 1024 * 1024
# Equal learners of one release of river differ by less on any machine we have seen.
GOLDEN_TOLERANCE = 1e-12

# What `Snapshot.examples` holds before the first.
NO_EXAMPLES = {"count": 0, "first": -1, "last": -1}

_WAY_OUT = "; way out: start a new log, and replay the events and labels into it"
_SIGNATURE = b',"signature":"'


@dataclass(frozen=True, slots=True)
class Golden:
    """Features, and what the learner said about them when the snapshot was taken."""

    features: dict[str, float]
    answer: Answer


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
        payload: the compressed pickle.
        signature: HMAC-SHA256 over all the others; None if unsigned.
        log: the identity of the log that it was written to; None in those of former releases.
        extent: how many bytes the digest was taken of, where it was; not written.
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
    extent: int = field(default=0, repr=False, compare=False)

    @property
    def model(self) -> str:
        """`name@version`, which is also its key on `models`."""
        return f"{self.name}@{self.version}"

    def encode(self) -> bytes:
        """The record on `models`."""
        body = _body(self)
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
        body, given = _body(self), self.signature.encode()
        if not any(hmac.compare_digest(_sign(body, each).encode(), given) for each in keys_of(key)):
            raise _refused(self, "signature", "a signature by our key", "another")


def take(
    learner: Any,
    target: Target,
    *,
    name: str,
    version: int,
    recipe: str,
    feature_hash: str,
    key: bytes | None,
    parent: str | None = None,
    examples: Mapping[str, int] = NO_EXAMPLES,
    epoch: Mapping[str, Any] | None = None,
    golden_features: Iterable[Mapping[str, float]] = (),
    log: str | None = None,
) -> Snapshot:
    """A snapshot of the learner, which goes on unchanged.

    The golden answers are those of the learner as read back, so that what is published is known
    to open. They answer `golden_features`, as many as are given. `key` None leaves it unsigned.

    Args:
        learner: live; it is copied by writing it down.
        target: what it predicts.
        name: of its line.
        version: how many examples it has learned.
        recipe: as it was declared, in river's own words.
        feature_hash: the digest of the feature set that it learned on.
        key: the pipeline's.
        parent: the line's snapshot before, `name@version`.
        examples: which ones are inside: how many, and the offsets of the first and the last one.
        epoch: figures of the refresh instant that it is taken at.
        golden_features: inputs whose answers are kept, to be made again wherever it is opened.
        log: the identity of the log that it is taken for.

    Raises:
        SnapshotRefused: `class_not_allowed`, `golden` (an answer is not finite), or `too_large`,
            with the size.
    """
    for figure, value in (epoch or {}).items():
        if isinstance(value, float) and not math.isfinite(value):  # orjson would write null
            raise AssertionError(f"the figure {figure} of {name}@{version} is {value}")
    pickled = dumps(learner)
    copy = loads(pickled)
    identity, extent = measured(
        copy
    )  # before it is asked: some models prepare themselves when asked
    unsigned = Snapshot(
        name=name,
        version=version,
        recipe=recipe,
        river=RIVER_VERSION,
        features=feature_hash,
        parent=parent,
        examples=dict(examples),
        epoch=dict(epoch or {}),
        golden=tuple(Golden(dict(x), _golden_answer(copy, target, x)) for x in golden_features),
        digest=identity,
        payload=compress(pickled),
        log=log,
        extent=extent,
    )
    body = _body(unsigned)
    if len(body) > SNAPSHOT_BYTES_MAX - len(_SIGNATURE) - 66:
        raise SnapshotRefused(
            "too_large",
            f"expected a snapshot of at most {SNAPSHOT_BYTES_MAX} bytes, given {unsigned.model} "
            f"with {len(body)}; way out: bound the learner (`max_depth`, a longer grace_period)",
        )
    return unsigned if key is None else replace(unsigned, signature=_sign(body, key))


def decode(value: bytes) -> Snapshot:
    """The envelope; its payload is not looked into.

    Raises:
        BadRecord: the bytes are not those that `Snapshot.encode` gives for any snapshot.
    """
    if len(value) > SNAPSHOT_BYTES_MAX:
        raise BadRecord("too_large", "$", f"expected at most {SNAPSHOT_BYTES_MAX} bytes")
    try:
        given = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadRecord("not_json", "$", str(error)) from None
    if not isinstance(given, dict):
        raise BadRecord("wrong_type", "$", f"expected an object, given {type(given).__name__}")
    snapshot = _Reader(given).snapshot()
    # One spelling per snapshot: no byte of a record is left that no check covers.
    if _canonical(snapshot) != value:
        raise BadRecord("not_canonical", "$", "expected the bytes that encoding it gives")
    return snapshot


def _canonical(snapshot: Snapshot) -> bytes | None:
    try:
        return snapshot.encode()
    except orjson.JSONEncodeError:
        return None  # orjson reads deeper nesting than it writes


def open_snapshot(
    snapshot: Snapshot,
    target: Target,
    key: bytes | None,
    feature_hash: str,
    *,
    allow_unsigned: bool = False,
) -> Any:
    """The learner inside, after every check that this module's head lists.

    Args:
        snapshot: as it was decoded.
        target: what it must predict.
        key: the pipeline's.
        feature_hash: the digest of the feature set that asks.
        allow_unsigned: whether one without a signature is believed, where there is no key.

    Raises:
        SnapshotRefused: with the reason of the first check that failed.
    """
    snapshot.verify(key, allow_unsigned=allow_unsigned)
    if snapshot.river != RIVER_VERSION:
        raise _refused(snapshot, "river_version", f"river {RIVER_VERSION}", f"{snapshot.river}")
    if snapshot.features != feature_hash:
        raise _refused(snapshot, "feature_set", f"feature set {feature_hash}", snapshot.features)
    try:
        learner = loads(decompress(snapshot.payload))
    except SnapshotRefused as error:
        raise SnapshotRefused(error.reason, f"{snapshot.model}: {error}{_WAY_OUT}") from None
    found = digest(learner, like=snapshot.digest)
    if found != snapshot.digest:
        raise _refused(snapshot, "malformed", f"digest {snapshot.digest}", found)
    for number, golden in enumerate(snapshot.golden):
        given = _golden_answer(learner, target, golden.features)
        if not _agree(golden.answer, given):
            asked = f"golden answer {number} {golden.answer}"
            raise _refused(snapshot, "golden", asked, str(given))
    return learner


def _refused(snapshot: Snapshot, reason: str, expected: str, given: str) -> SnapshotRefused:
    return SnapshotRefused(
        reason, f"{snapshot.model}: expected {expected}, given {given}{_WAY_OUT}"
    )


def _sign(body: bytes, key: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def _golden_answer(model: Any, target: Target, features: Mapping[str, float]) -> Answer:
    with contained("golden", "golden prediction: {}"):
        return answer(model, target, features)


def _agree(expected: Answer, given: Answer) -> bool:
    if isinstance(expected, dict) and isinstance(given, dict):
        return expected.keys() == given.keys() and all(
            _agree(value, given[name]) for name, value in expected.items()
        )
    if isinstance(expected, float) and isinstance(given, float):
        return math.isclose(expected, given, rel_tol=GOLDEN_TOLERANCE, abs_tol=GOLDEN_TOLERANCE)
    return expected is None and given is None


def _body(snapshot: Snapshot) -> bytes:
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
            **({} if snapshot.log is None else {"log": snapshot.log}),
        }
    )


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
        "log",
    }
)


class _Reader:
    """Takes an envelope's members out of a JSON object, each of its type."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given

    def snapshot(self) -> Snapshot:
        given = self._given
        for name in given.keys() - _MEMBERS:
            raise BadRecord("unknown_field", f"$.{name}", "no member of a snapshot")
        examples = self._take("examples", dict)
        return Snapshot(
            name=self._take("model", str),
            version=_integer(given.get("version"), "$.version"),
            recipe=self._take("recipe", str),
            river=self._take("river", str),
            features=self._take("features", str),
            parent=None if given.get("parent") is None else self._take("parent", str),
            examples={n: _integer(examples.get(n), f"$.examples.{n}") for n in NO_EXAMPLES},
            epoch=self._take("epoch", dict),
            golden=tuple(map(_golden, self._take("golden", list))),
            digest=self._take("digest", str),
            payload=self._payload(),
            signature=None if "signature" not in given else self._take("signature", str),
            log=None if "log" not in given else self._take("log", str),
        )

    def _take(self, name: str, type_: type) -> Any:
        value = self._given.get(name)
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
    features, said = value
    if not isinstance(features, dict) or not (said is None or isinstance(said, float | dict)):
        raise _wrong_type("$.golden", "pairs of features and answer", value)
    return Golden(features, said)


def _wrong_type(path: str, expected: str, value: Any) -> BadRecord:
    return BadRecord("wrong_type", path, f"expected {expected}, given {type(value).__name__}")
