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
4. A line that takes longer than the stopwatch's budget over an answer, `SLOW_RUNNING` times running
   or once `SLOW_AT_ONCE` times as long, is asked no more until it starts anew. What it has said
   stands; that it is not asked is part of the state. Without a stopwatch nobody is too slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stream_ml.errors import STOPS, BadRecord, SnapshotRefused
from stream_ml.models.fast import fast_predictor
from stream_ml.models.recipes import answer
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import Shadow, line_of
from stream_ml.stages.effort import NO_STOPWATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_ml.models.fast import Predictor
    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, Prediction
    from stream_ml.stages.effort import Stopwatch

__all__ = ["LOADED_MAX", "PAYLOADS_MAX", "Shadows"]

# Once may be the machine's fault, which was put to sleep, or short of memory.
SLOW_RUNNING = 3
SLOW_AT_ONCE = 10
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
        stopwatch: measures what answers take; None: nothing is measured, and none is too slow.

    Attributes:
        quarantined: the lines that are asked no more, each with why.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        key: bytes,
        log: str | None,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._stopwatch = NO_STOPWATCH if stopwatch is None else stopwatch
        self._is_timed = stopwatch is not None
        self.quarantined: dict[str, str] = {}
        # Those of which nobody was told yet, and how often running a line was too slow.
        self._untold: list[str] = []
        self._slow: dict[str, int] = {}
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
        known = [offset for offset in questions if offset in self._loaded]
        if known:
            with self._stopwatch.watch():
                for offset in known:
                    self._answer(offset)
        return sorted(questions)

    def supply(self, offset: int, value: bytes | None) -> None:
        """Take in a snapshot that was wanted, and have it answer.

        Args:
            offset: its place on `models`.
            value: what lies there; None if nothing does.
        """
        with self._stopwatch.watch():
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

    def end(self) -> list[str]:
        """Forget what was answered, for all of it has been folded in; lines that are asked no more.

        Returns:
            Those of them that nobody was told of yet.
        """
        self._answers.clear()
        untold, self._untold = self._untold, []
        return untold

    def renew(self, line: str) -> bool:
        """Ask a line again, which has started anew; whether it was quarantined.

        Args:
            line: which.
        """
        self._slow.pop(line, None)
        return self.quarantined.pop(line, None) is not None

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
        name = "" if loaded is None else loaded.model
        line = line_of(name)
        self._stopwatch.attend(line)
        predict = None if loaded is None else self._predictor(loaded)
        answers, is_timed, seconds = self._answers, self._is_timed, self._stopwatch.seconds
        last_s = seconds()
        for model, example, features in questions:
            said: Answer = None
            if predict is not None and model == name and line not in self.quarantined:
                try:
                    said = predict(features)
                except STOPS:
                    raise
                except BaseException:  # noqa: BLE001 - an estimator may raise anything
                    said = None
                if is_timed:
                    now_s = seconds()
                    self._time(line, model, now_s - last_s)
                    last_s = now_s
            answers[example][offset] = Shadow(model, said)

    def _time(self, line: str, model: str, taken_s: float) -> None:
        """Take note of how long a line took over an answer, and ask it no more if that is too long.

        Args:
            line: of the snapshot.
            model: the snapshot.
            taken_s: seconds.
        """
        budget_s = self._stopwatch.budget_s
        if taken_s <= budget_s:
            if self._slow:
                self._slow.pop(line, None)
            return
        self._slow[line] = self._slow.get(line, 0) + 1
        if self._slow[line] >= SLOW_RUNNING or taken_s > SLOW_AT_ONCE * budget_s:
            self.quarantined[line] = (
                f"{model} took {taken_s:.3g} s over an answer, longer than the budget of "
                f"{budget_s:g} s"
            )
            self._untold.append(line)

    def dump(self) -> dict[str, str]:
        """The state, as JSON can hold it."""
        return self.quarantined

    def load(self, state: Mapping[str, str]) -> None:
        """Take up a dumped state."""
        self.quarantined.clear()
        self.quarantined.update(state)

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
