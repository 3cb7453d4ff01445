"""Snapshots: a learner as it was after n examples, in an envelope that can be checked.

Opening one asks, in this order, and stops at the first no:

1. is it small enough;  2. is the signature ours;  3. is it of its line's kind and library release;
4. was it learned on these features;  5. does it unpack within bounds, by its line's reader alone;
6. is the learner inside the one that the digest names;  7. does it still give the golden answers.

Nothing of the payload is looked at before its signature is checked, and its reader is that of the
declared recipe: river's pickles go through an allow-list. Neither they nor the bytes of another
library survive each of its releases, and need not: the examples log holds all that it takes to
learn them again.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream_ml.errors import SnapshotRefused
from stream_ml.models.checkpoint import pack, unpack
from stream_ml.models.digest import digest
from stream_ml.models.envelope import (
    NO_EXAMPLES,
    SIGNATURE_BYTES,
    SNAPSHOT_BYTES_MAX,
    WAY_OUT,
    Golden,
    Opened,
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
    loads,
)
from stream_ml.models.recipes import answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.models.recipes import Recipe, Target
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
    "signed",
    "take",
    "unpack",
]

# Equal learners of one release of river differ by less on any machine we have seen.
GOLDEN_TOLERANCE = 1e-12


def take(
    learner: Any,
    recipe: Recipe,
    target: Target,
    *,
    version: int,
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
        recipe: its line's, as it was declared.
        target: what it predicts.
        version: how many examples it has learned.
        feature_hash: the digest of the feature set that it learned on.
        key: the pipeline's.
        parent: the line's snapshot before, `name@version`.
        examples: which ones are inside: how many, and the offsets of the first and the last one.
        epoch: figures of the refresh instant that it is taken at.
        golden_features: inputs whose answers are kept, to be made again wherever it is opened.
        log: the identity of the log that it is taken for.

    Raises:
        SnapshotRefused: `class_not_allowed`, `unreadable` (a `Learner` does not read what it
            wrote), `golden` (an answer is not finite), or `too_large`, with the size.
    """
    for figure, value in (epoch or {}).items():
        if isinstance(value, float) and not math.isfinite(value):  # orjson would write null
            raise AssertionError(f"the figure {figure} of {recipe.name}@{version} is {value}")
    data = recipe.dump(learner)
    copy = recipe.load(data)
    # Before it is asked: some models prepare themselves when asked.
    identity, extent = recipe.identity(copy, data)
    snapshot = Snapshot(
        name=recipe.name,
        version=version,
        recipe=recipe.description,
        river=RIVER_VERSION,
        features=feature_hash,
        parent=parent,
        examples=dict(examples),
        epoch=dict(epoch or {}),
        golden=tuple(Golden(dict(x), _golden_answer(copy, target, x)) for x in golden_features),
        digest=identity,
        payload=compress(data),
        log=log,
        format=recipe.format,
        library=recipe.library,
        extent=extent,
    )
    opened = Opened(copy, snapshot.payload, identity, snapshot.golden, feature_hash, recipe)
    snapshot = replace(snapshot, opened=opened)
    body = unsigned_bytes(snapshot)
    if len(body) > SNAPSHOT_BYTES_MAX - SIGNATURE_BYTES:
        raise SnapshotRefused(
            "too_large",
            f"expected a snapshot of at most {SNAPSHOT_BYTES_MAX} bytes, given {snapshot.model} "
            f"with {len(body)}; way out: bound the learner (`max_depth`, a longer grace_period)",
        )
    return snapshot if key is None else replace(snapshot, signature=sign(body, key))


def signed(snapshot: Snapshot, key: bytes, epoch: Mapping[str, Any]) -> Snapshot:
    """A snapshot that was taken unsigned, with more figures of its instant, and signed.

    Args:
        snapshot: as `take` gave it without a key.
        key: the pipeline's.
        epoch: figures that were not known when it was taken; they take the place of others.
    """
    whole = replace(snapshot, epoch={**snapshot.epoch, **epoch})
    return replace(whole, signature=sign(unsigned_bytes(whole), key))


def open_snapshot(
    snapshot: Snapshot,
    recipe: Recipe | None,
    target: Target,
    key: bytes | None,
    feature_hash: str,
    *,
    allow_unsigned: bool = False,
) -> Any:
    """The learner inside, after every check that this module's head lists.

    Args:
        snapshot: as it was decoded.
        recipe: its line's, as it is declared; None where it is declared no more: river's own
            learners are then read, and no others.
        target: what it must predict.
        key: the pipeline's.
        feature_hash: the digest of the feature set that asks.
        allow_unsigned: whether one without a signature is believed, where there is no key.

    Raises:
        SnapshotRefused: with the reason of the first check that failed.
    """
    snapshot.verify(key, allow_unsigned=allow_unsigned)
    opened = snapshot.opened
    if opened is not None and opened.recipe is recipe:
        # What this very process has read back and asked need not be once more; of what was altered
        # since, nothing is believed.
        content = snapshot.payload, snapshot.digest, snapshot.golden, snapshot.features
        if content == opened[1:5] and snapshot.features == feature_hash:
            return opened.learner
    _check_reader(snapshot, recipe)
    if snapshot.features != feature_hash:
        raise refusal(snapshot, "feature_set", f"feature set {feature_hash}", snapshot.features)
    try:
        data = decompress(snapshot.payload)
        learner = loads(data) if recipe is None else recipe.load(data)
    except SnapshotRefused as error:
        raise SnapshotRefused(error.reason, f"{snapshot.model}: {error}{WAY_OUT}") from None
    if recipe is None:
        actual_digest = digest(learner, like=snapshot.digest)
    else:
        actual_digest = recipe.digest(learner, data, like=snapshot.digest)
    if actual_digest != snapshot.digest:
        raise refusal(snapshot, "malformed", f"digest {snapshot.digest}", actual_digest)
    for number, golden in enumerate(snapshot.golden):
        actual = _golden_answer(learner, target, golden.features)
        if not _agree(golden.answer, actual):
            question = f"golden answer {number} {golden.answer}"
            raise refusal(snapshot, "golden", question, str(actual))
    return learner


def _check_reader(snapshot: Snapshot, recipe: Recipe | None) -> None:
    """Make sure that the line's recipe reads such bytes."""
    if recipe is None and snapshot.format is not None:
        expected = f"a declared line {snapshot.name!r}, whose learner reads its bytes"
        raise refusal(snapshot, "undeclared", expected, "none")
    if recipe is not None and snapshot.format != recipe.format:
        actual = snapshot.format or "river's"
        raise refusal(snapshot, "format", f"bytes of {recipe.format or 'river'}", actual)
    if snapshot.format is None:
        if snapshot.river != RIVER_VERSION:
            raise refusal(snapshot, "river_version", f"river {RIVER_VERSION}", f"{snapshot.river}")
    elif recipe is not None and snapshot.library != recipe.library:
        raise refusal(snapshot, "library", recipe.library or "no library", str(snapshot.library))


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
