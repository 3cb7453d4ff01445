"""Predictions made again: from the features that were logged, by the snapshots that they name.

A snapshot is looked up as the registry names it, by digest and place on `models`, and opened with
every check that serving makes. Its answer must be the one that was logged. Snapshots are opened one
at a time, each once, however many predictions it made.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from stream_ml.codec import decode_example
from stream_ml.errors import STOPS, BadRecord, SnapshotRefused
from stream_ml.models.recipes import answer
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import line_of
from stream_ml.sealing import Seals
from stream_ml.shell.log.reading import filled, predictions_in, read_all, shadow_answers
from stream_ml.shell.views.registry import entries, running_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_ml.models.fast import Predictor
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import (
        Answer,
        ModelRef,
        Prediction,
        Record,
        ServingSet,
        ShadowAnswers,
    )
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.log.port import Log

__all__ = ["TOLERANCE", "ReproducedAnswer", "Reproduction", "find", "reproduce", "sample"]

# Equal models of one release of river differ by less on any machine we have seen.
TOLERANCE = 1e-12


# A number, a prediction, a slot of its serving set, and the answer that was logged there.
_Question = tuple[int, "Prediction", str, "Answer"]


@dataclass(frozen=True, slots=True)
class ReproducedAnswer:
    """An answer that was logged, and what the same snapshot says now."""

    event_id: str
    slot: str
    model: str
    logged_answer: Answer
    new_answer: Answer

    @property
    def difference(self) -> float:
        """The largest difference between the two; infinite where they cannot be compared."""
        return _difference(self.logged_answer, self.new_answer)

    @property
    def equal(self) -> bool:
        """Whether they differ by no more than rounding."""
        return self.difference <= TOLERANCE


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The outcome of a reproduction.

    Attributes:
        answers: those that could be made again.
        dropped: how many could not, for their snapshot is no longer kept, by model.
        refused: how many could not, for their snapshot cannot be believed, by reason.
    """

    answers: tuple[ReproducedAnswer, ...]
    dropped: Counter[str]
    refused: Counter[str]

    @property
    def different(self) -> list[ReproducedAnswer]:
        """The answers that are not what was logged."""
        return [answer for answer in self.answers if not answer.equal]

    @property
    def worst(self) -> float:
        """The largest difference of any answer."""
        return max((answer.difference for answer in self.answers), default=0.0)


def find(log: Log, event_id: str) -> Prediction | None:
    """The prediction on an event: as logged, or as kept with its label where that is gone.

    Args:
        log: to read from.
        event_id: the event's.
    """
    key = event_id.encode()
    candidates = (record for record in read_all(log, "predictions") if record.key == key)
    for _, prediction in predictions_in(candidates):
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
    ranges = [
        (partition, range(log.first_offset("predictions", partition), end))
        for partition in range(log.partitions["predictions"])
        if (end := log.end_offset("predictions", partition))
    ]
    total = sum(len(offsets) for _, offsets in ranges)
    rand = random.Random(seed)  # noqa: S311 - a sample
    records: dict[tuple[int, int], Record] = {}
    draw = count
    while True:
        for index in sorted(rand.sample(range(total), min(draw, total))):
            for partition, offsets in ranges:
                if index < len(offsets):
                    for record in log.read("predictions", partition, offsets[index], 1):
                        records[partition, record.offset] = record
                    break
                index -= len(offsets)  # noqa: PLW2901 - a place within the next partition
        if len(records) >= count or draw >= total:
            break
        draw *= 4  # offsets have gaps, so of some draws the same record came
    selection = list(records.values())
    if len(selection) > count:
        selection = rand.sample(selection, count)
    return [prediction for _, prediction in predictions_in(selection)]


def reproduce(
    log: Log, pipeline: Pipeline, key: bytes, predictions: Iterable[Prediction]
) -> Reproduction:
    """Make predictions again, the champion's answers and those of every shadow that has answered.

    Args:
        log: where snapshots and registry lie.
        pipeline: the declaration that they were made under.
        key: what snapshots and decisions are signed with.
        predictions: those to make again.
    """
    pipeline = running_pipeline(log, pipeline, key)
    by_model: dict[str, list[_Question]] = {}
    seal = Seals(key, pipeline.name, log.identity).records("answers")
    answered = _with_answers(log, list(predictions), seal)
    questions = ((prediction, *slot) for prediction in answered for slot in _slots(prediction))
    for number, (prediction, slot, model, logged_answer) in enumerate(questions):
        by_model.setdefault(model, []).append((number, prediction, slot, logged_answer))
    refs = _refs(log, key)
    answers: list[tuple[int, ReproducedAnswer]] = []
    dropped_counts: Counter[str] = Counter()
    refused_counts: Counter[str] = Counter()
    for model, group in by_model.items():
        try:
            predict = _open(log, pipeline, key, model, refs)
        except (SnapshotRefused, BadRecord) as refusal:
            refused_counts[str(refusal)] += len(group)
            continue
        if predict is None:
            dropped_counts[model] += len(group)
            continue
        answers += _answers(predict, pipeline, model, group)
    # In the order of the predictions, not by model.
    answers_in_order = tuple(answer for _, answer in sorted(answers, key=itemgetter(0)))
    return Reproduction(answers_in_order, dropped_counts, refused_counts)


def _answers(
    predict: Predictor, pipeline: Pipeline, model: str, group: list[_Question]
) -> Iterator[tuple[int, ReproducedAnswer]]:
    """The answers of one snapshot, each with its number among all."""
    for number, prediction, slot, logged_answer in group:
        new_answer = _predict(predict, prediction)
        if slot == "champion" and prediction.fallback and new_answer is None:
            new_answer = _fallback(pipeline, logged_answer)
        yield (
            number,
            ReproducedAnswer(prediction.event_id, slot, model, logged_answer, new_answer),
        )


def _fallback(pipeline: Pipeline, logged_answer: Answer) -> Answer:
    """The fallback; where the label had fewer classes when it was served, of the first so many."""
    if not isinstance(logged_answer, dict) or not pipeline.target.classes:
        fallback: Answer = pipeline.fallback
        return fallback
    classes = pipeline.target.classes[: len(logged_answer)]
    declared = pipeline.label.fallback
    if declared is None:
        return dict.fromkeys(classes, 1 / len(classes))
    return {name: float(name == declared) for name in classes}


def _slots(prediction: Prediction) -> Iterator[tuple[str, str, Answer]]:
    # Where the serving set's fallback was served, the champion's own answer is among the shadows.
    if line_of(prediction.model) not in prediction.shadows:
        yield "champion", prediction.model, prediction.prediction
    for slot, shadow in prediction.shadows.items():
        if shadow.offset is None:
            yield slot, shadow.model, shadow.prediction


def _with_answers(log: Log, predictions: list[Prediction], seal: RecordSeal) -> list[Prediction]:
    """The predictions with what their shadows said, where their label has come."""
    numbers = {prediction.event_id: number for number, prediction in enumerate(predictions)}
    answered = list(predictions)
    for answers in shadow_answers(log, seal) if numbers else ():
        number = numbers.get(answers.event_id)
        if number is not None and _is_about(log, answers, predictions[number]):
            answered[number] = filled(predictions[number], answers)
    return answered


def _is_about(log: Log, answers: ShadowAnswers, prediction: Prediction) -> bool:
    """Whether answers are about this prediction: an id may come again, long after."""
    for record in log.read("examples", 0, answers.example, 1):
        with suppress(BadRecord):
            source = decode_example(record.value).prediction.source
            return record.offset == answers.example and source == prediction.source
    return False


def _refs(log: Log, key: bytes) -> dict[str, ModelRef]:
    """Where each snapshot lies that ever stood in a serving set."""
    return {
        ref.model: ref
        for entry in entries(log, key)
        for ref in _slots_of_set(entry.decision.serving)
        if ref is not None
    }


def _slots_of_set(serving: ServingSet) -> list[ModelRef | None]:
    return [serving.champion, *serving.challengers.values(), serving.predecessor, serving.first]


def _open(
    log: Log, pipeline: Pipeline, key: bytes, model: str, refs: dict[str, ModelRef]
) -> Predictor | None:
    """Predicts as the snapshot does; None if it is no longer kept.

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
        recipe, view = pipeline.reader(snapshot.name, snapshot.features)
        learner = open_snapshot(snapshot, recipe, pipeline.target, key, view.hash)
        return view.narrow(partial(answer, learner, pipeline.target))
    return None


def _predict(predict: Predictor, prediction: Prediction) -> Answer:
    try:
        return predict(prediction.features)
    except STOPS:
        raise
    except BaseException:  # noqa: BLE001 - an estimator may raise anything; then too no answer
        return None


def _difference(first: Answer, second: Answer) -> float:
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return math.inf
        return max((abs(first[name] - second[name]) for name in first), default=0.0)
    if isinstance(first, int | float) and isinstance(second, int | float):
        # Of large numbers, as regressions give, a share of them is what rounding leaves.
        return abs(first - second) / max(1.0, abs(first))
    return 0.0 if first is second else math.inf
