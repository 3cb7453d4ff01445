"""The bound: the answers of a learner that predicts live, from the records of a log.

Theory of operation:

1. The line that serves at the end starts again, fresh from its recipe, and is asked at the time of
   every prediction that the log holds, with the features as they were logged. By then it has
   learned every label that was known: examples in the order of the log, as far as their labels
   are due, a label before a question of the same time (river's progressive validation).
2. On its way it leaves copies that learn no more: one where the never-updated first model
   stopped, one where the last replacement took over. They tell what a better recipe would have
   made of the same labels, and what more labels are worth, from what learning on is.
3. Of an event whose label was corrected it learns the labels as they came, each at its own time,
   and what learn passes over it does too; its answer is held against the last of them, as all
   others are.
4. Predictions and examples are merged by time as they are read. Only answers whose label has not
   come yet are held.
"""

from __future__ import annotations

import copy
import heapq
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from stream_ml.models.fast import fast_predictor
from stream_ml.models.recipes import BadAnswer, answer, learn
from stream_ml.models.retrained import Retrained
from stream_ml.records import line_of
from stream_ml.shell.log.reading import examples, last_labels, predictions_in, read_partition
from stream_ml.stages.lessons import Lessons

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_ml.models.fast import Predictor
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, Decision, Example, LabelValue, Prediction
    from stream_ml.shell.log.port import Log

__all__ = ["LIVE", "bound_answers"]

LIVE = "live"


def bound_answers(
    log: Log, pipeline: Pipeline, decisions: Sequence[Decision]
) -> Iterator[tuple[Example, dict[str, Answer]]]:
    """Every example in the order of the log, with the answers of `live` and its frozen copies.

    Args:
        log: holds all predictions of its examples.
        pipeline: the declaration.
        decisions: all of them: the last names the line, replacements say where copies are frozen.
    """
    line = line_of(decisions[-1].serving.champion.model)
    if isinstance(pipeline.recipes[line].estimator, Retrained):
        # It does not learn one by one: there is nothing between its renewals.
        yield from ((example, {}) for example in examples(log, pipeline.label))
        return
    freeze_counts = _freeze_counts(line, decisions)
    learner = pipeline.recipes[line].fresh()
    predictors: dict[str, Predictor] = {LIVE: partial(answer, learner, pipeline.target)}
    pending: dict[tuple[int, int], dict[str, Answer]] = {}
    last = last_labels(log) if pipeline.label.revisable_ms is not None else {}
    remaining, lessons = examples(log), Lessons()
    example = next(remaining, None)
    label_count = 0
    for prediction in _predictions(log):
        # A label may be due at the time of its own question, which then comes first.
        while (
            example
            and example.label_ts <= prediction.ts
            and (example.correction is not None or _event_source(example.prediction) in pending)
        ):
            is_lesson, label = lessons.takes(example, pipeline.label), example.label
            if example.correction is None:
                yield _with_label(example, last), pending.pop(_event_source(example.prediction))
            if is_lesson:
                learn(learner, pipeline.target, example.prediction.features, label)
            label_count += 1
            if label_count in freeze_counts:
                snapshot = copy.deepcopy(learner)
                predictors[f"{line}@{label_count}"] = fast_predictor(snapshot, pipeline.target)
            example = next(remaining, None)
        pending[_event_source(prediction)] = _answers(predictors, prediction)
    while example:
        if example.correction is None:
            yield _with_label(example, last), pending.pop(_event_source(example.prediction), {})
        example = next(remaining, None)


def _with_label(example: Example, last: Mapping[tuple[int, int], LabelValue]) -> Example:
    """An example with the last label of its event."""
    example.label = last.get(_event_source(example.prediction), example.label)
    return example


def _freeze_counts(line: str, decisions: Sequence[Decision]) -> set[int]:
    """Numbers of examples after which a copy is frozen; `first` itself needs none."""
    models = [d.serving.champion.model for d in decisions if d.kind == "replaced"][-1:]
    first = decisions[-1].serving.first
    if first is not None and line_of(first.model) != line:
        models.append(first.model)
    return {int(model.rpartition("@")[2]) for model in models}


def _predictions(log: Log) -> Iterator[Prediction]:
    """All predictions, by time as far as each partition is in its order."""
    partitions = [
        (prediction for _, prediction in predictions_in(read_partition(log, "predictions", p)))
        for p in range(log.partitions["predictions"])
    ]
    return heapq.merge(*partitions, key=lambda prediction: prediction.ts)


def _event_source(prediction: Prediction) -> tuple[int, int]:
    """Partition and offset of its event, which tell it from every other."""
    return prediction.source.partition, prediction.source.offset


def _answers(predictors: dict[str, Predictor], prediction: Prediction) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for name, predict in predictors.items():
        with suppress(BadAnswer):
            answers[name] = predict(prediction.features)
    return answers
