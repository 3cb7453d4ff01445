"""What challengers cost in the served path: predict's time for an event with 0, 2 and 8 of them.

    python -m benchmarks.shadows [--events N] [--rounds N]

The cards' events, features and champion; the challengers are forests of ten trees. Predict is fed
alone, bytes to bytes, in pieces of 256 events, each contestant by turns on one core: CPU
microseconds for an event, of each piece the least of all rounds. Beside it stands what the answers
of the challengers cost evaluate, once the label is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import sys
import time
from typing import TYPE_CHECKING

import orjson
from river import forest

from stream_ml.codec import encode_example, encode_prediction
from stream_ml.examples.cards import cards, transactions
from stream_ml.records import Record, Source
from stream_ml.signing import Keyring
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.records import Output, Prediction

__all__ = ["main"]

KEY = b"benchmark".ljust(32, b".")
COUNTS = (0, 2, 8)
PIECE = 256
US = 1e6


class _Contestant:
    """Predict and evaluate with so many challengers, when their first set serves."""

    def __init__(self, challengers: int) -> None:
        models = {"logistic": cards.models["logistic"]}
        for number in range(challengers):
            models[f"forest{number}"] = forest.ARFClassifier(n_models=10, seed=number)
        promotion = dataclasses.replace(cards.promotion, slots=max(1, challengers))
        pipeline = dataclasses.replace(cards, models=models, promotion=promotion, monitors=None)
        self._evaluate, serving = Evaluate(pipeline, Keyring(KEY, {})), Serving(pipeline, KEY)
        models_written = _records(Learn(pipeline, KEY).start(), "models")
        serving.apply(models_written)
        serving.apply(_records(self._evaluate.apply(models_written), "registry"))
        self._predict = Predict(pipeline, serving)
        self._examples = 0
        # By piece.
        self.predict_us: dict[int, float] = {}
        self.answer_us: dict[int, float] = {}

    def run(self, number: int, piece: Sequence[Record]) -> None:
        """Predict a piece, and have its shadows answer.

        Args:
            number: of the piece.
            piece: events, which it has not had.
        """
        copies = [dataclasses.replace(record) for record in piece]
        begin = time.process_time()
        outputs = self._predict.apply(copies)
        self.predict_us[number] = (time.process_time() - begin) / len(piece) * US
        predictions = [output.memo for output in outputs if output.topic == "predictions"]
        examples = [self._example(prediction) for prediction in predictions]
        begin = time.process_time()
        assert not self._evaluate.wanted(examples)
        self.answer_us[number] = (time.process_time() - begin) / len(piece) * US

    def _example(self, prediction: Prediction) -> Record:
        self._examples += 1
        value = encode_example(
            encode_prediction(prediction), False, prediction.ts + 1, Source(0, self._examples)
        )
        return Record("examples", 0, self._examples, None, value, 2**42)


def _records(outputs: Sequence[Output], topic: str) -> list[Record]:
    values = [output.value for output in outputs if output.topic == topic]
    return [Record(topic, 0, n, None, value, 2**42) for n, value in enumerate(values)]


def main(arguments: list[str]) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_120)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    events, _ = transactions(options.events, seed=1)
    records = [
        Record("events", 0, n, event["card"].encode(), orjson.dumps(event), 2**42)
        for n, event in enumerate(events)
    ]
    gc.freeze()
    rounds = [_round(records) for _ in range(options.rounds)]
    print("challengers  predict, µs an event   of none   answers later, µs an example")
    for count in COUNTS:
        total, none = _least(rounds, count, "predict_us"), _least(rounds, 0, "predict_us")
        later = _least(rounds, count, "answer_us")
        print(f"{count:11}  {total:21.1f}  {total / none:8.3f}  {later:29.1f}")
    return 0


def _round(records: Sequence[Record]) -> dict[int, _Contestant]:
    contestants = {count: _Contestant(count) for count in COUNTS}
    for number, first in enumerate(range(0, len(records), PIECE)):
        piece = records[first : first + PIECE]
        for contestant in contestants.values():
            contestant.run(number, piece)
    return contestants


def _least(rounds: Sequence[dict[int, _Contestant]], count: int, member: str) -> float:
    """The mean over pieces of the least that each took in any round."""
    costs = [getattr(each[count], member) for each in rounds]
    return statistics.fmean(min(cost[number] for cost in costs) for number in costs[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
