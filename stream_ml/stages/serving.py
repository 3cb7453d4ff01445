"""What predicts now: a fold over `models` and `registry`, shared by the predict tasks.

Theory of operation:

1. The registry names serving sets. A set is applied whole, when its champion's snapshot has been
   read and verified; until then the former one goes on. Of several sets read at once only the
   newest counts. Its shadows are names and places: no snapshot of theirs is waited for, or loaded.
2. A snapshot's bytes are held from when `models` brings them until a set with newer ones has
   been applied, as many as `HELD_MAX` and `HELD_BYTES_MAX` allow. A champion that stays is not
   loaded again; an equal learner of another number of examples is another one.
3. A signature is checked before anything is believed, and a snapshot before it is unpickled.
   Bad records here are passed over: evaluate, which reads the same topics, writes the dead letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ml.codec import decode_decision
from stream_ml.errors import BadRecord, SnapshotRefused
from stream_ml.generation import FIRST, generation_after
from stream_ml.models.fast import batch_predictor, fast_predictor
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import Shadow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.models.fast import BatchPredictor, Predictor
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, ModelRef, Output, Record, ServingSet

__all__ = ["LoadedModel", "LoadedServingSet", "Serving"]

# Snapshots that no set has named yet, while evaluate is behind or nothing is to be renewed: the
# oldest are let go. A set that names one of those is not applied; the next one is.
HELD_MAX = 1_000
HELD_BYTES_MAX = 256 << 20
REFUSALS_MAX = 100


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A verified snapshot that answers. `example` is the newest example in it (-1: none).

    `predict_many` answers several rows at once, to the same bits, where the model can.
    """

    ref: ModelRef
    predict: Predictor
    example: int
    predict_many: BatchPredictor | None = None


@dataclass(frozen=True, slots=True)
class LoadedServingSet:
    """A serving set with its champion loaded; which snapshots shadow, by slot.

    `fallback` is served in place of the champion's answer, where it is not None.
    """

    champion: LoadedModel
    shadows: dict[str, Shadow]
    fallback: Answer = None


class Serving:
    """Follows the registry and hands out the present serving set."""

    def __init__(self, pipeline: Pipeline, key: bytes, log: str | None = None) -> None:
        self._pipeline = pipeline
        # The identity of the log; once a decision has named it, none without it is believed.
        self._log = log
        self._has_log_identity = False
        self._key = key
        # By offset; of what is no snapshot of ours only why not.
        self._snapshots: dict[int, bytes | BadRecord | SnapshotRefused] = {}
        self._bytes = 0
        # One past the last offset of `models` that was read.
        self._models_end = 0
        self._number = -1
        self._generation = FIRST
        self.dropped_count = 0
        self._next_set: ServingSet | None = None
        self._current: LoadedServingSet | None = None
        self.refusals: list[str] = []

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in records of `models` and `registry`; nothing is written."""
        for record in records:
            if record.topic == "models":
                self._models_end = max(self._models_end, record.offset + 1)
                if record.value is not None:
                    self._keep_snapshot(record.offset, record.value)
            else:
                self._read_decision(record)
        return []

    def _keep_snapshot(self, offset: int, value: bytes) -> None:
        """Keep a snapshot until a set names it, or a newer one; what is not ours is not kept."""
        content: bytes | BadRecord | SnapshotRefused = value
        try:
            self._verify(value)
        except (BadRecord, SnapshotRefused) as refusal:
            content = refusal
        self._snapshots[offset] = content
        self._bytes += _size(content)
        while len(self._snapshots) > 1 and (
            len(self._snapshots) > HELD_MAX or self._bytes > HELD_BYTES_MAX
        ):
            self._bytes -= _size(self._snapshots.pop(next(iter(self._snapshots))))
            self.dropped_count += 1

    def _verify(self, value: bytes) -> None:
        snapshot = decode(value)
        snapshot.verify(self._key)
        if None not in (snapshot.log, self._log) and snapshot.log != self._log:
            raise SnapshotRefused(
                "foreign_log",
                f"{snapshot.model}: expected a snapshot of this log, {self._log}, given a genuine "
                f"one of {snapshot.log}",
            )

    def _read_decision(self, record: Record) -> None:
        try:
            decision = record.memo or decode_decision(record.value, self._key)
        except BadRecord:
            return
        if self._log is not None and decision.log != self._log:
            if decision.log is not None or self._has_log_identity:
                return  # genuine, of another log
        else:
            self._has_log_identity = True
        if decision.number > self._number:  # none that was written before is believed again
            self._number = decision.number
            self._generation = generation_after(self._generation, decision)
            self._next_set = decision.serving

    @property
    def is_outdated(self) -> bool:
        """Whether other features were applied than are predicted with here."""
        return self._generation.number > self._pipeline.generation.number

    def has_begun(self, offsets: Mapping[int, int]) -> bool:
        """Whether other features are to begin no later than where events were read to.

        Args:
            offsets: by partition, up to where events were read.
        """
        begins = self._generation.offsets
        if begins == self._pipeline.generation.offsets:
            return False  # what is retired alone is another
        return any(offset >= begins.get(partition, 0) for partition, offset in offsets.items())

    def missing(self) -> list[int]:
        """The offset on `models` of the snapshot that the newest set still needs, if it does."""
        if self._next_set is None:
            return []
        champion = self._next_set.champion
        is_loaded = self._current is not None and self._current.champion.ref == champion
        return [] if is_loaded or champion.offset in self._snapshots else [champion.offset]

    def forgotten(self) -> list[int]:
        """Those of `missing` that were read, and let go: whoever reads has to bring them again.

        A set names one that returns to what served before, or promotes what has shadowed.
        """
        return sorted({offset for offset in self.missing() if offset < self._models_end})

    def current(self) -> LoadedServingSet | None:
        """The present serving set; None before the first set is loaded (not ready)."""
        if self._next_set is not None and not self.missing():
            serving_set, self._next_set = self._next_set, None
            self._load_set(serving_set)
        return self._current

    def _load_set(self, serving_set: ServingSet) -> None:
        ref = serving_set.champion
        former = self._current
        try:
            is_loaded = former is not None and former.champion.ref == ref
            champion = former.champion if former is not None and is_loaded else self._load(ref)
        except (SnapshotRefused, BadRecord) as refusal:
            self._refuse(f"{ref.model} does not serve: {refusal}")
            return
        shadows = _shadows(serving_set)
        self._current = LoadedServingSet(
            champion,
            {slot: Shadow(shadow.model, None, shadow.offset) for slot, shadow in shadows},
            serving_set.fallback,
        )
        newest = max([ref.offset, *(shadow.offset for _, shadow in shadows)])
        self._snapshots = {
            offset: value for offset, value in self._snapshots.items() if offset > newest
        }
        self._bytes = sum(map(_size, self._snapshots.values()))

    def _refuse(self, message: str) -> None:
        del self.refusals[: len(self.refusals) - REFUSALS_MAX + 1]
        self.refusals.append(message)

    def _load(self, ref: ModelRef) -> LoadedModel:
        content = self._snapshots[ref.offset]
        if not isinstance(content, bytes):
            raise content
        snapshot = decode(content)
        if (snapshot.model, snapshot.digest) != (ref.model, ref.digest):
            raise SnapshotRefused(
                "digest",
                f"the registry names {ref.model} {ref.digest} at offset {ref.offset} of models, "
                f"where {snapshot.model} {snapshot.digest} lies",
            )
        p = self._pipeline
        recipe, view = p.reader(snapshot.name, snapshot.features)
        learner = open_snapshot(snapshot, recipe, p.target, self._key, view.hash)
        golden = [golden.features for golden in snapshot.golden]
        return LoadedModel(
            ref,
            view.narrow(fast_predictor(learner, p.target, golden)),
            snapshot.examples["last"],
            # One that knows a part of the features goes on until another one has won.
            batch_predictor(learner, p.target, golden) if view.is_whole else None,
        )


def _size(content: bytes | BadRecord | SnapshotRefused) -> int:
    return len(content) if isinstance(content, bytes) else 0


def _shadows(serving: ServingSet) -> list[tuple[str, ModelRef]]:
    shadows = [*serving.challengers.items()]
    if serving.predecessor is not None:
        shadows.append(("predecessor", serving.predecessor))
    if serving.first is not None:
        shadows.append(("first", serving.first))
    return shadows
