"""The bound: what a learner that predicts live would have said, from what the log holds.

Theory of operation:

1. The line that serves at the end starts again, fresh from its recipe, and is asked at the time of
   every prediction that the log holds, with the features as they were logged. By then it has
   learned every label that was known: examples in the order of the log, as far as their labels
   are due, a label before a question of the same time (river's progressive validation).
2. On its way it leaves copies that learn no more: one where the never-updated first model
   stopped, one where the last replacement took over. They tell what a better recipe would have
   made of the same labels, and what more labels are worth, from what learning on is.
3. Predictions and examples are merged by time as they are read. Only answers whose label has not
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
from stream_ml.records import line_of
from stream_ml.shell.log.reading import examples, predictions_in, read_partition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ml.models.fast import Predictor
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, Decision, Example, Prediction
    from stream_ml.shell.log.port import Log

__all__ = ["LIVE", "lived"]

LIVE = "live"


def lived(
    log: Log, pipeline: Pipeline, decided: Sequence[Decision]
) -> Iterator[tuple[Example, dict[str, Answer]]]:
    """Every example in the order of the log, with what `live` and its frozen copies had said.

    Args:
        log: holds all predictions of its examples.
        pipeline: the declaration.
        decided: every decision, for what serves at the end and where copies are frozen.
    """
    line = line_of(decided[-1].serving.champion.model)
    moments = _moments(line, decided)
    learner = pipeline.recipes[line].fresh()
    asked: dict[str, Predictor] = {LIVE: partial(answer, learner, pipeline.target)}
    said: dict[tuple[int, int], dict[str, Answer]] = {}
    rest = examples(log)
    example = next(rest, None)
    learned = 0
    for prediction in _predictions(log):
        # A label may be due at the time of its own question, which then comes first.
        while example and example.label_ts <= prediction.ts and _place(example.prediction) in said:
            yield example, said.pop(_place(example.prediction))
            learn(learner, pipeline.target, example.prediction.features, example.label)
            learned += 1
            if learned in moments:
                asked[f"{line}@{learned}"] = fast_predictor(copy.deepcopy(learner), pipeline.target)
            example = next(rest, None)
        said[_place(prediction)] = _ask(asked, prediction)
    while example:
        yield example, said.pop(_place(example.prediction), {})
        example = next(rest, None)


def _moments(line: str, decided: Sequence[Decision]) -> set[int]:
    """After how many examples a copy is frozen; what `first` itself says is not asked again."""
    models = [d.serving.champion.model for d in decided if d.kind == "replaced"][-1:]
    first = decided[-1].serving.first
    if first is not None and line_of(first.model) != line:
        models.append(first.model)
    return {int(model.rpartition("@")[2]) for model in models}


def _predictions(log: Log) -> Iterator[Prediction]:
    """All predictions, by time as far as each partition is in its order."""
    partitions = [
        (each for _, each in predictions_in(read_partition(log, "predictions", p)))
        for p in range(log.partitions["predictions"])
    ]
    return heapq.merge(*partitions, key=lambda prediction: prediction.ts)


def _place(prediction: Prediction) -> tuple[int, int]:
    """Where its event lies, which tells it from every other."""
    return prediction.source.partition, prediction.source.offset


def _ask(asked: dict[str, Predictor], prediction: Prediction) -> dict[str, Answer]:
    said: dict[str, Answer] = {}
    for name, ask in asked.items():
        with suppress(BadAnswer):
            said[name] = ask(prediction.features)
    return said
