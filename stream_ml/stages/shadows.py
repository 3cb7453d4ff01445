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
   no answers. Nor has one that raises. One whose process is lost while it is opened is asked no
   more, as one is that does not answer. Examples of former releases have answers, which stay.
4. A line that takes longer than the stopwatch's budget over an answer, `SLOW_RUNNING` times
   running, or at whose answer the worker dies again and again, is asked no more until it starts
   anew. What it has said stands; that it is not asked is part of the state. Without a stopwatch
   nobody is too slow. Of `predecessor` and `first` it is the snapshot that is asked no more, for
   their line may be the champion's.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stream_ml.errors import STOPS, BadRecord, SnapshotRefused, brief_error
from stream_ml.models.fast import fast_predictor
from stream_ml.models.learner import Lesson, RemoteLearner
from stream_ml.models.recipes import answer
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.models.target import BadAnswer, valid_answer
from stream_ml.records import Shadow, line_of
from stream_ml.stages.effort import ANSWER, LOST, NO_STOPWATCH, SNAPSHOT, LearnerLost

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from stream_ml.models.fast import Predictor
    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, Prediction
    from stream_ml.stages.effort import Stopwatch

__all__ = ["LOADED_MAX", "PAYLOADS_MAX", "Shadows"]

# Once may be the machine's fault, which was put to sleep, or short of memory.
SLOW_RUNNING = 3
# Of snapshots that are asked no more; those of lines are few.
MODELS_MAX = 100
# With labels a day late and four lines renewed each hour 100 are needed by turns.
LOADED_MAX = 1_000
# Of compressed payloads; what is made of one takes some ten times the memory.
PAYLOADS_MAX = 16 << 20


# A snapshot's name, the offset of the example that it is asked for, the features of that, and who
# answers for what it takes: the line, or the snapshot itself.
_Question = tuple[str, int, "Mapping[str, float]", str]


@dataclass(slots=True)
class _Loaded:
    """An open snapshot; its fast form is made when it is first asked."""

    model: str
    learner: Any
    golden: Sequence[Mapping[str, float]]
    payload_bytes: int
    feature_hash: str
    predict: Predictor | None = None

    @classmethod
    def of(cls, snapshot: Snapshot, learner: Any) -> _Loaded:
        golden = [golden.features for golden in snapshot.golden]
        return cls(snapshot.model, learner, golden, len(snapshot.payload), snapshot.features)


class Shadows:
    """Has shadows answer, and keeps what they need for it.

    Args:
        pipeline: the declaration.
        key: must have signed the snapshots.
        log: the identity of the log that they must have been written to.
        stopwatch: measures what answers take; None: nothing is measured, and none is too slow.

    Attributes:
        quarantined: the lines, and the snapshots, that are asked no more, each with why.
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
            for slot, shadow in prediction.shadows.items():
                if shadow.offset is None:
                    continue
                question = shadow.model, example, features, _account(slot, shadow.model)
                asked = questions.setdefault(shadow.offset, [])
                if not asked or asked[-1][:2] != question[:2]:
                    asked.append(question)
                elif slot == question[3]:  # in two slots: it is asked once, as its line
                    asked[-1] = question
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
                names = {question[3] for question in self._questions.get(offset, ())}
                is_asked = value is not None and not names <= self.quarantined.keys()
                self._stopwatch.attend(f"{ANSWER}{min(names, default='')}")
                self._add(offset, self._open(value, names) if value and is_asked else None)
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
        """Forget what was answered, for all was folded in; who is asked no more.

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

    def _open(self, value: bytes, accounts: Collection[str]) -> _Loaded | None:
        """The snapshot in `value`; those who answer for it are asked no more if it harms."""
        p = self._pipeline
        try:
            snapshot = decode(value)
            if None not in (snapshot.log, self._log) and snapshot.log != self._log:
                return None  # genuine, of another log
            recipe, view = p.reader(snapshot.name, snapshot.features)
            learner = open_snapshot(snapshot, recipe, p.target, self._key, view.hash)
            return _Loaded.of(snapshot, learner)
        except BadRecord:
            return None
        except SnapshotRefused as refusal:
            # It is none, or none of ours; but where its process was lost it is like an answer.
            for account in sorted(accounts) if refusal.reason == LOST else ():
                self._quarantine(account, str(refusal))
            return None

    def _answer(self, offset: int) -> None:
        """Have one snapshot answer all that it is asked."""
        questions = self._questions.pop(offset, [])
        loaded = self._loaded.pop(offset)
        self._loaded[offset] = loaded  # it was used last
        if loaded is not None and isinstance(loaded.learner, RemoteLearner):
            self._answer_there(offset, loaded.model, loaded.learner, questions)
            return
        name = "" if loaded is None else loaded.model
        attended = ""
        predict: Predictor | None = None
        answers, is_timed, seconds = self._answers, self._is_timed, self._stopwatch.seconds
        last_s = seconds()
        for model, example, features, account in questions:
            said: Answer = None
            if loaded is not None and model == name and account not in self.quarantined:
                if account != attended:
                    self._stopwatch.attend(f"{ANSWER}{account}")
                    attended = account
                if predict is None:
                    predict = self._predictor(loaded)
                    last_s = seconds()
                try:
                    said = predict(features)
                except STOPS:
                    raise
                except BaseException:  # noqa: BLE001 - an estimator may raise anything
                    said = None
                if is_timed:
                    now_s = seconds()
                    self._time(account, model, now_s - last_s)
                    last_s = now_s
            answers[example][offset] = Shadow(model, said)

    def _answer_there(
        self, offset: int, name: str, learner: RemoteLearner, questions: Sequence[_Question]
    ) -> None:
        """Have a snapshot that is in another process answer all that it is asked, at once."""
        answers, seconds, target = self._answers, self._stopwatch.seconds, self._pipeline.target
        left, select = list(questions), self._select(offset)
        for model, example, _, _ in questions:
            answers[example][offset] = Shadow(model, None)
        while left := [each for each in left if each[0] == name and not self._is_stopped(each)]:
            account = left[0][3]
            self._stopwatch.attend(f"{ANSWER}{account}")
            replies = learner.lessons([Lesson(select(features)) for _, _, features, _ in left])
            try:
                while left and not self._is_stopped(left[0]):
                    reply = next(replies)
                    model, example, _, account = left.pop(0)
                    seconds()  # it gets on
                    if reply.error is None:
                        with suppress(BadAnswer):
                            said = valid_answer(reply.answer, target)
                            answers[example][offset] = Shadow(model, said)
                    if self._is_timed:
                        self._time(account, model, reply.answer_s)
            except STOPS:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever befell it there, or was said
                is_told = isinstance(error, (LearnerLost, SnapshotRefused))
                reason = str(error) if is_told else brief_error(error)
                self._quarantine(left[0][3] if left else account, reason)
            finally:
                replies.close()

    def _select(self, offset: int) -> Callable[[Mapping[str, float]], dict[str, float]]:
        """What a snapshot that is loaded is given of all features."""
        loaded = self._loaded[offset]
        assert loaded is not None, "a snapshot that cannot be opened is not asked"
        return self._pipeline.view(loaded.feature_hash).select

    def _is_stopped(self, question: _Question) -> bool:
        """Whether whoever answers for it is asked no more."""
        return question[3] in self.quarantined

    def _time(self, account: str, model: str, taken_s: float) -> None:
        """Take note of how long an answer took, and ask no more if that was too long too often.

        Args:
            account: the line, or the snapshot, that answers for it.
            model: the snapshot.
            taken_s: seconds.
        """
        budget_s = self._stopwatch.budget_s
        if taken_s <= budget_s:
            if self._slow:
                self._slow.pop(account, None)
            return
        self._slow[account] = self._slow.get(account, 0) + 1
        if self._slow[account] >= SLOW_RUNNING:
            reason = (
                f"{model} took {taken_s:.3g} s over an answer, longer than the budget of "
                f"{budget_s:g} s"
            )
            self._quarantine(account, reason)

    def _quarantine(self, account: str, reason: str) -> None:
        """Ask a line, or a snapshot, no more."""
        self._slow.pop(account, None)
        self.quarantined[account] = reason
        self._untold.append(account)
        models = [each for each in self.quarantined if "@" in each]
        for model in models[:-MODELS_MAX]:
            del self.quarantined[model]

    def stop(self, suspect: str, reason: str) -> None:
        """Ask no more who was at work at one death of the worker after another.

        Args:
            suspect: as the stopwatch has it; one that was at work elsewhere is none of ours.
            reason: why.
        """
        if suspect.startswith(SNAPSHOT):
            model = suspect.removeprefix(SNAPSHOT)
            self._quarantine(model, reason)
            self._quarantine(line_of(model), reason)
        elif suspect.startswith(ANSWER):
            self._quarantine(suspect.removeprefix(ANSWER), reason)

    @contextmanager
    def watch(self, model: str) -> Iterator[None]:
        """Watch over a snapshot that is opened within.

        Args:
            model: which.
        """
        with self._stopwatch.watch():
            self._stopwatch.attend(f"{SNAPSHOT}{model}")
            yield

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
            loaded.predict = self._pipeline.view(loaded.feature_hash).narrow(loaded.predict)
        return loaded.predict


def _account(slot: str, model: str) -> str:
    """Who answers for what an answer takes: a challenger's line, else the snapshot itself."""
    return slot if slot == line_of(model) else model


def _size(loaded: _Loaded | None) -> int:
    return 0 if loaded is None else loaded.payload_bytes
