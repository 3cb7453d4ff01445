"""The answers of what shadows: made from the logged features once the label is there.

Theory of operation:

1. Predict names its shadows, each with the place of its snapshot on `models`. An answer is a
   function of the features and of that snapshot, so it is the same whenever it is made: here it is
   made before the fold, of many examples at once, a model at a time (`wanted`, `supply`), and the
   fold takes it from there (`fill`). No answer depends on what else lies in the batch.
2. Snapshots are opened when they are published, for that is when evaluate looks whether they are
   sound, and stay open: as many as `LOADED_MAX` and `PAYLOADS_MAX` allow, the one used longest ago
   is let go first. One that is needed again is read again from where it lies, by the shell.
3. A snapshot that is not there any more, or not the one that is named, or that cannot be opened has
   no answers. Nor has one that raises. Examples of former releases have answers, which stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stream_ml.errors import STOPS, BadRecord, SnapshotRefused
from stream_ml.models.fast import fast_predictor
from stream_ml.models.recipes import answer
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import Shadow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_ml.models.fast import Predictor
    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, Prediction

__all__ = ["LOADED_MAX", "PAYLOADS_MAX", "Shadows"]

# With labels a day late and four lines renewed each hour 100 are needed by turns.
LOADED_MAX = 1_000
# Of compressed payloads; what is made of one takes some ten times the memory.
PAYLOADS_MAX = 16 << 20


# A snapshot's name, the offset of the example that it is asked for, and the features of that.
_Question = tuple[str, int, "Mapping[str, float]"]


@dataclass(slots=True)
class _Loaded:
    """An open snapshot; its fast form is made when it is first asked."""

    model: str
    learner: Any
    golden: Sequence[Mapping[str, float]]
    payload_bytes: int
    predict: Predictor | None = None

    @classmethod
    def of(cls, snapshot: Snapshot, learner: Any) -> _Loaded:
        golden = [golden.features for golden in snapshot.golden]
        return cls(snapshot.model, learner, golden, len(snapshot.payload))


class Shadows:
    """Has shadows answer, and keeps what they need for it.

    Args:
        pipeline: the declaration.
        key: must have signed the snapshots.
        log: the identity of the log that they must have been written to.
    """

    def __init__(self, pipeline: Pipeline, key: bytes, log: str | None) -> None:
        self._pipeline = pipeline
        self._key = key
        self._log = log
        # By offset, the one used longest ago first; None of what has no answers.
        self._loaded: dict[int, _Loaded | None] = {}
        self._payloads = 0
        self._questions: dict[int, list[_Question]] = {}
        # By the offset of the example, then of the snapshot.
        self._answers: dict[int, dict[int, Shadow]] = {}

    def keep(self, offset: int, snapshot: Snapshot, learner: Any) -> None:
        """Keep a snapshot that was opened: it may shadow soon.

        Args:
            offset: its place on `models`.
            snapshot: as it was decoded.
            learner: what was inside.
        """
        self._add(offset, _Loaded.of(snapshot, learner))

    def wanted(self, examples: Iterable[tuple[int, Prediction]]) -> list[int]:
        """Answer what can be answered now; the places of the snapshots that the rest waits for.

        Args:
            examples: that are folded in next, by offset.
        """
        questions = self._questions
        for example, prediction in examples:
            features = prediction.features
            self._answers[example] = {}
            for shadow in prediction.shadows.values():
                if shadow.offset is None:
                    continue
                question = shadow.model, example, features
                if shadow.offset in questions:
                    questions[shadow.offset].append(question)
                else:
                    questions[shadow.offset] = [question]
        for offset in [offset for offset in self._questions if offset in self._loaded]:
            self._answer(offset)
        return sorted(self._questions)

    def supply(self, offset: int, value: bytes | None) -> None:
        """Take in a snapshot that was wanted, and have it answer.

        Args:
            offset: its place on `models`.
            value: what lies there; None if nothing does.
        """
        if offset not in self._loaded:
            self._add(offset, None if value is None else self._open(value))
        self._answer(offset)

    def fill(self, example: int, prediction: Prediction) -> Prediction:
        """The prediction with the answers of its shadows; itself, where it has them already.

        Args:
            example: the offset of the example.
            prediction: as it was logged.

        Raises:
            AssertionError: a snapshot was wanted, and not supplied.
        """
        shadows = prediction.shadows
        answers = self._answers.get(example, {})
        if not answers and all(shadow.offset is None for shadow in shadows.values()):
            return prediction
        try:
            return prediction.with_shadows(
                {
                    slot: shadow if shadow.offset is None else answers[shadow.offset]
                    for slot, shadow in shadows.items()
                }
            )
        except KeyError as missing:
            message = f"the snapshot at {missing} of models was not supplied for its answer"
            raise AssertionError(message) from None

    def forget_answers(self) -> None:
        """Forget what was answered: all of it has been folded in."""
        self._answers.clear()

    def _add(self, offset: int, loaded: _Loaded | None) -> None:
        if offset in self._loaded:
            return
        self._loaded[offset] = loaded
        self._payloads += _size(loaded)
        while len(self._loaded) > 1 and (
            len(self._loaded) > LOADED_MAX or self._payloads > PAYLOADS_MAX
        ):
            self._payloads -= _size(self._loaded.pop(next(iter(self._loaded))))

    def _open(self, value: bytes) -> _Loaded | None:
        p = self._pipeline
        try:
            snapshot = decode(value)
            if None not in (snapshot.log, self._log) and snapshot.log != self._log:
                return None  # genuine, of another log
            recipe = p.recipes.get(snapshot.name)
            learner = open_snapshot(snapshot, recipe, p.target, self._key, p.feature_set.hash)
            return _Loaded.of(snapshot, learner)
        except (BadRecord, SnapshotRefused):
            return None

    def _answer(self, offset: int) -> None:
        """Have one snapshot answer all that it is asked."""
        questions = self._questions.pop(offset, [])
        loaded = self._loaded.pop(offset)
        self._loaded[offset] = loaded  # it was used last
        predict = None if loaded is None else self._predictor(loaded)
        name = "" if loaded is None else loaded.model
        answers = self._answers
        for model, example, features in questions:
            said: Answer = None
            if predict is not None and model == name:
                try:
                    said = predict(features)
                except STOPS:
                    raise
                except BaseException:  # noqa: BLE001 - an estimator may raise anything
                    said = None
            answers[example][offset] = Shadow(model, said)

    def _predictor(self, loaded: _Loaded) -> Predictor:
        if loaded.predict is None:
            target = self._pipeline.target
            try:
                loaded.predict = fast_predictor(loaded.learner, target, loaded.golden)
            except STOPS:
                raise
            except BaseException:  # noqa: BLE001 - an estimator may raise anything, now and then
                loaded.predict = partial(answer, loaded.learner, target)
        return loaded.predict


def _size(loaded: _Loaded | None) -> int:
    return 0 if loaded is None else loaded.payload_bytes
