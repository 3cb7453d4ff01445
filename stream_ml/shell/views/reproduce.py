"""Predictions made again: from the features that were logged, by the snapshots that they name.

A snapshot is looked up as the registry names it, by digest and place on `models`, and opened with
every check that serving makes. What it says then must be what was logged. Snapshots are opened one
at a time, each once, however many predictions it made.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.codec import decode_example
from stream_ml.errors import STOPS, BadRecord, SnapshotRefused
from stream_ml.models.recipes import answer
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.shell.log.reading import predictions_in, read_all
from stream_ml.shell.views.registry import entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, ModelRef, Prediction, Record, ServingSet
    from stream_ml.shell.log.port import Log

__all__ = ["TOLERANCE", "Again", "Reproduced", "find", "reproduce", "sample"]

# Equal models of one release of river differ by less on any machine we have seen.
TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Again:
    """An answer that was logged, and what the same snapshot says now."""

    event_id: str
    slot: str
    model: str
    logged: Answer
    again: Answer

    @property
    def difference(self) -> float:
        """The largest difference between the two; infinite where they cannot be compared."""
        return _difference(self.logged, self.again)

    @property
    def equal(self) -> bool:
        """Whether they differ by no more than rounding."""
        return self.difference <= TOLERANCE


@dataclass(slots=True)
class Reproduced:
    """What came of it.

    Attributes:
        answers: those that could be made again.
        dropped: how many could not, for their snapshot is no longer kept, by model.
        refused: how many could not, for their snapshot cannot be believed, by reason.
    """

    answers: list[Again] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def different(self) -> list[Again]:
        """The answers that are not what was logged."""
        return [each for each in self.answers if not each.equal]

    @property
    def worst(self) -> float:
        """The largest difference of any answer."""
        return max((each.difference for each in self.answers), default=0.0)


def find(log: Log, event_id: str) -> Prediction | None:
    """The prediction on an event: as logged, or as kept with its label where that is gone.

    Args:
        log: to read from.
        event_id: the event's.
    """
    key = event_id.encode()
    named = (record for record in read_all(log, "predictions") if record.key == key)
    for _, prediction in predictions_in(named):
        return prediction
    for record in read_all(log, "examples"):
        if record.key == key:
            with suppress(BadRecord):  # what is none is not ours
                return decode_example(record.value).prediction
    return None


def sample(log: Log, count: int, seed: int) -> list[Prediction]:
    """So many of the predictions on the log, or all if there are fewer; equal seeds draw alike.

    Args:
        log: to read from.
        count: how many.
        seed: of the draw.
    """
    places = [
        (partition, range(log.first_offset("predictions", partition), end))
        for partition in range(log.partitions["predictions"])
        if (end := log.end_offset("predictions", partition))
    ]
    total = sum(len(offsets) for _, offsets in places)
    world = random.Random(seed)  # noqa: S311 - a sample
    found: dict[tuple[int, int], Record] = {}
    draw = count
    while True:
        for at in sorted(world.sample(range(total), min(draw, total))):
            for partition, offsets in places:
                if at < len(offsets):
                    for record in log.read("predictions", partition, offsets[at], 1):
                        found[partition, record.offset] = record
                    break
                at -= len(offsets)  # noqa: PLW2901 - a place within the next partition
        if len(found) >= count or draw >= total:
            break
        draw *= 4  # offsets have gaps, so of some draws the same record came
    chosen = list(found.values())
    if len(chosen) > count:
        chosen = world.sample(chosen, count)
    return [prediction for _, prediction in predictions_in(chosen)]


def reproduce(
    log: Log, pipeline: Pipeline, key: bytes, predictions: Iterable[Prediction]
) -> Reproduced:
    """Make predictions again, the champion's answers and every shadow's.

    Args:
        log: where snapshots and registry lie.
        pipeline: the declaration that they were made under.
        key: what snapshots and decisions are signed with.
        predictions: those to make again.
    """
    asked: dict[str, list[tuple[int, Prediction, str, Answer]]] = {}
    questions = ((each, *logged) for each in predictions for logged in _logged(each))
    for number, (prediction, slot, model, logged) in enumerate(questions):
        asked.setdefault(model, []).append((number, prediction, slot, logged))
    refs = _refs(log, key)
    done = Reproduced()
    answers: list[tuple[int, Again]] = []
    for model, each in asked.items():
        try:
            learner = _open(log, pipeline, key, model, refs)
        except (SnapshotRefused, BadRecord) as refusal:
            done.refused[str(refusal)] += len(each)
            continue
        if learner is None:
            done.dropped[model] += len(each)
            continue
        for number, prediction, slot, logged in each:
            again = _ask(learner, pipeline, prediction)
            if slot == "champion" and prediction.fallback and again is None:
                again = pipeline.fallback
            answers.append((number, Again(prediction.event_id, slot, model, logged, again)))
    # In the order in which they were asked for, not by model.
    done.answers = [again for _, again in sorted(answers, key=lambda pair: pair[0])]
    return done


def _logged(prediction: Prediction) -> Iterator[tuple[str, str, Answer]]:
    yield "champion", prediction.model, prediction.prediction
    for slot, shadow in prediction.shadows.items():
        yield slot, shadow.model, shadow.prediction


def _refs(log: Log, key: bytes) -> dict[str, ModelRef]:
    """Where each snapshot lies that ever stood in a serving set."""
    return {
        ref.model: ref
        for entry in entries(log, key)
        for ref in _standing(entry.decision.serving)
        if ref is not None
    }


def _standing(serving: ServingSet) -> list[ModelRef | None]:
    return [serving.champion, *serving.challengers.values(), serving.predecessor, serving.first]


def _open(
    log: Log, pipeline: Pipeline, key: bytes, model: str, refs: dict[str, ModelRef]
) -> Any | None:
    """The learner; None if its snapshot is no longer kept.

    Raises:
        SnapshotRefused, BadRecord: it is not what the registry names, or cannot be opened.
    """
    ref = refs.get(model)
    if ref is None:
        raise SnapshotRefused("unknown", f"{model}: the registry never named such a snapshot")
    for record in log.read("models", 0, ref.offset, 1):
        if record.offset != ref.offset or record.value is None:
            return None
        snapshot = decode(record.value)
        if (snapshot.model, snapshot.digest) != (ref.model, ref.digest):
            raise SnapshotRefused(
                "digest",
                f"{model}: expected digest {ref.digest}, as the registry names it, given "
                f"{snapshot.model} with {snapshot.digest}",
            )
        return open_snapshot(snapshot, pipeline.target, key, pipeline.feature_set.hash)
    return None


def _ask(learner: Any, pipeline: Pipeline, prediction: Prediction) -> Answer:
    try:
        return answer(learner, pipeline.target, prediction.features)
    except STOPS:
        raise
    except BaseException:  # noqa: BLE001 - an estimator may raise anything; then too no answer
        return None


def _difference(one: Answer, other: Answer) -> float:
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return math.inf
        return max((abs(one[name] - other[name]) for name in one), default=0.0)
    if isinstance(one, int | float) and isinstance(other, int | float):
        # Of large numbers, as regressions give, a share of them is what rounding leaves.
        return abs(one - other) / max(1.0, abs(one))
    return 0.0 if one is other else math.inf
