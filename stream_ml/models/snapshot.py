"""Snapshots: a learner as it was after n examples, in an envelope that can be checked.

Opening one asks, in this order, and stops at the first no:

1. is it small enough;  2. is the signature ours;  3. is it of this release of river;
4. was it learned on these features;  5. does it unpack within bounds, from the allow-list alone;
6. is the learner inside the one that the digest names;  7. does it still give the golden answers.

Nothing of the payload is looked at before its signature is checked. Pickles do not survive a
release of river, and need not: the examples log holds all that it takes to learn them again.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream_ml.errors import SnapshotRefused
from stream_ml.models.checkpoint import pack, unpack
from stream_ml.models.digest import digest, digest_and_size
from stream_ml.models.envelope import (
    NO_EXAMPLES,
    SIGNATURE_BYTES,
    SNAPSHOT_BYTES_MAX,
    WAY_OUT,
    Golden,
    Snapshot,
    decode,
    refusal,
    sign,
    unsigned_bytes,
)
from stream_ml.models.pickles import (
    RIVER_VERSION,
    compress,
    contain_errors,
    decompress,
    dumps,
    loads,
)
from stream_ml.models.recipes import answer

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
    "pack",
    "take",
    "unpack",
]

# Equal learners of one release of river differ by less on any machine we have seen.
GOLDEN_TOLERANCE = 1e-12


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
    pickle_bytes = dumps(learner)
    copy = loads(pickle_bytes)
    identity, extent = digest_and_size(
        copy
    )  # before it is asked: some models prepare themselves when asked
    snapshot = Snapshot(
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
        payload=compress(pickle_bytes),
        log=log,
        extent=extent,
    )
    body = unsigned_bytes(snapshot)
    if len(body) > SNAPSHOT_BYTES_MAX - SIGNATURE_BYTES:
        raise SnapshotRefused(
            "too_large",
            f"expected a snapshot of at most {SNAPSHOT_BYTES_MAX} bytes, given {snapshot.model} "
            f"with {len(body)}; way out: bound the learner (`max_depth`, a longer grace_period)",
        )
    return snapshot if key is None else replace(snapshot, signature=sign(body, key))


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
        raise refusal(snapshot, "river_version", f"river {RIVER_VERSION}", f"{snapshot.river}")
    if snapshot.features != feature_hash:
        raise refusal(snapshot, "feature_set", f"feature set {feature_hash}", snapshot.features)
    try:
        learner = loads(decompress(snapshot.payload))
    except SnapshotRefused as error:
        raise SnapshotRefused(error.reason, f"{snapshot.model}: {error}{WAY_OUT}") from None
    actual_digest = digest(learner, like=snapshot.digest)
    if actual_digest != snapshot.digest:
        raise refusal(snapshot, "malformed", f"digest {snapshot.digest}", actual_digest)
    for number, golden in enumerate(snapshot.golden):
        actual = _golden_answer(learner, target, golden.features)
        if not _agree(golden.answer, actual):
            question = f"golden answer {number} {golden.answer}"
            raise refusal(snapshot, "golden", question, str(actual))
    return learner


def _golden_answer(model: Any, target: Target, features: Mapping[str, float]) -> Answer:
    with contain_errors("golden", "golden prediction: {}"):
        return answer(model, target, features)


def _agree(expected: Answer, actual: Answer) -> bool:
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            _agree(value, actual[name]) for name, value in expected.items()
        )
    if isinstance(expected, float) and isinstance(actual, float):
        return math.isclose(expected, actual, rel_tol=GOLDEN_TOLERANCE, abs_tol=GOLDEN_TOLERANCE)
    return expected is None and actual is None
