"""What a line would have done, had it run: taught and scored on the recorded examples of a log.

Theory of operation:

1. The candidate is taught the examples in their order, and frozen at the instants at which the
   lines of the log were renewed. Each recorded prediction is answered by the snapshot that would
   have been in the serving set which made it, so delays and ages are those of the lines that ran.
2. Its answers are put beside the recorded ones, and evaluate's own scores, contest, gates and
   settling go through the examples again (`reigns`). Nothing is written, and nothing on the log
   changes: the candidate is compared with the champions that really served.
3. A candidate of the name and the recipe of a line that ran is compared with what was recorded of
   it: every answer, and the scores and evidence of every evaluation. What differs is counted.
"""

from __future__ import annotations

import copy
import time
from array import array
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.errors import STOPS, BadRecord, DeclarationError, SnapshotRefused, brief_error
from stream_ml.evaluation.gates import Gates
from stream_ml.evaluation.scores import loss_of, uniform_loss
from stream_ml.evaluation.settling import Settling
from stream_ml.evaluation.slices import SliceNames
from stream_ml.models.envelope import decode
from stream_ml.models.fast import fast_learner, fast_predictor
from stream_ml.models.pickles import compress
from stream_ml.models.recipes import Recipe
from stream_ml.records import Shadow, line_of, version_of
from stream_ml.shell.log.reading import evaluations, read_all, with_answers
from stream_ml.shell.regeneration import ExampleFeatures
from stream_ml.shell.views.costs import LineCost, each
from stream_ml.shell.views.counted import counted_examples
from stream_ml.shell.views.registry import entries, running_pipeline
from stream_ml.shell.views.reigns import Reign, ReplayedContest
from stream_ml.shell.views.reproduce import ReproducedAnswer
from stream_ml.shell.views.status import DAY_MS
from stream_ml.stages.evaluate import EVALUATE_EVERY
from stream_ml.stages.learning_progress import GOLDEN_EXAMPLES
from stream_ml.stages.lessons import Lessons
from stream_ml.stages.retraining import Retrainings
from stream_ml.stages.scoreboard import SERVED_SLOT, Scoreboard
from stream_ml.stages.watermark import ExamplesWatermark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stream_ml.models.fast import Predictor
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Answer, Decision, Evaluation, Example, Prediction, Record
    from stream_ml.shell.log.port import Log

__all__ = ["CandidateView", "MonthLosses", "Recorded", "WhatIfView", "what_if"]

# So many examples are answered and taught at a time: a timing of each would cost more than it.
BATCH_EXAMPLES = 1_000
# Slots of a prediction that are no line.
NO_LINES = frozenset({"predecessor", "first"})
# How a candidate is called that has the name of a line and another recipe.
SUFFIX = "-what-if"


@dataclass(frozen=True, slots=True)
class MonthLosses:
    """Mean losses of one month of predictions (UTC), over the pairs that both answered."""

    month: str
    pairs: int
    served: float
    candidate: float


@dataclass(slots=True)
class Recorded:
    """How a line that ran compares with what was recorded of it.

    Attributes:
        answers: how many of its answers are on the log.
        answers_equal: how many came out the same, to the last bit.
        worst: the largest difference of an answer; infinite where one is missing.
        different: the first event whose answer differs.
        evaluations: how many evaluations of it are on the log; none are looked at where only a
            stretch is scored.
        evaluations_equal: how many came out with the same scores and the same evidence.
    """

    answers: int = 0
    answers_equal: int = 0
    worst: float = 0.0
    different: str | None = None
    evaluations: int = 0
    evaluations_equal: int = 0


@dataclass(frozen=True, slots=True)
class CandidateView:
    """How a candidate would have done.

    Attributes:
        name: of the line.
        recipe: as text.
        scores: its evaluation, over everything that was scored; None where it was never asked.
        months: its losses beside those of what served.
        reigns: the evidence against each champion that really served.
        cost: of answering, learning and snapshots.
        failure: after which example it learned no more, and why; None where it did not fail.
        recorded: how it compares with the line that ran; None where none did.
    """

    name: str
    recipe: str
    scores: Evaluation | None
    months: tuple[MonthLosses, ...]
    reigns: tuple[Reign, ...]
    cost: LineCost
    failure: str | None
    recorded: Recorded | None

    @property
    def promotable(self) -> int | None:
        """When it would first have been promoted (UTC ms); None if never."""
        return next((r.promotable for r in self.reigns if r.promotable is not None), None)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "scores": None if self.scores is None else asdict(self.scores),
            "months": [asdict(month) for month in self.months],
            "reigns": [reign.as_dict() for reign in self.reigns],
            "promotable": self.promotable,
            "cost": asdict(self.cost),
            "failure": self.failure,
            "recorded": None if self.recorded is None else asdict(self.recorded),
        }


@dataclass(frozen=True, slots=True)
class WhatIfView:
    """Candidates beside what served.

    Attributes:
        examples: how many were taught.
        missed: how many were not, as what is declared cannot be made again for them: see
            `ExampleFeatures`.
        scored: how many of all were scored.
        served: how what served stands over the same examples; None where nothing was scored.
        candidates: in the order in which they were given.
        seconds: how long it took.
    """

    examples: int
    missed: int
    scored: int
    served: Evaluation | None
    candidates: tuple[CandidateView, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "examples": self.examples,
            "missed": self.missed,
            "scored": self.scored,
            "seconds": self.seconds,
            "examples_per_second": self.examples / self.seconds if self.seconds else None,
            "served": None if self.served is None else asdict(self.served),
            "candidates": [candidate.as_dict() for candidate in self.candidates],
        }


def what_if(
    log: Log,
    pipeline: Pipeline,
    key: bytes | None,
    estimators: Mapping[str, Any],
    *,
    since: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_progress: Callable[[int], object] | None = None,
) -> WhatIfView:
    """Teach and score lines on the examples of a log, in order, as if they had challenged.

    Args:
        log: with examples, a registry and snapshots.
        pipeline: the declaration that it was made under.
        key: checks the decisions; without one all are believed.
        estimators: by the name of the line; untrained.
        since: only predictions from then on are scored (UTC ms), though all examples are taught.
        clock: seconds, from any start.
        on_progress: is told how many examples are done.

    Raises:
        DeclarationError: an estimator cannot be a line of this pipeline.
    """
    started_s = clock()
    pipeline = running_pipeline(log, pipeline, key)
    lines = _lines(pipeline, estimators, clock)
    decisions = [entry.decision for entry in entries(log, key)]
    run_names = [line.name for line in lines if line.has_run]
    schedule = _Schedule(log, pipeline, run_names, decisions)
    trial = _Trial(log, pipeline, lines, decisions, since)
    batch: list[_Given] = []
    count = 0
    _freeze(lines, schedule, schedule.base, trial.golden)
    pairs = with_answers(log, counted_examples(log, pipeline))
    for given in _featured(log, pipeline, key, pairs):
        batch.append(given)
        count += 1
        number = schedule.base + count
        if number in schedule.instants or len(batch) == BATCH_EXAMPLES:
            trial.work(batch, schedule, count - len(batch))
            batch = []
            if number in schedule.instants:
                trial.refresh(number)
            _freeze(lines, schedule, number, trial.golden)
            _drop_unneeded(lines, schedule, count)
            if on_progress is not None:
                on_progress(count)
    trial.work(batch, schedule, count - len(batch))
    if on_progress is not None:
        on_progress(count)
    return trial.view(count, clock() - started_s)


class _Given(NamedTuple):
    """An example, and whether it has the features that candidates know: others are missed."""

    record: Record
    example: Example
    is_known: bool = True


def _featured(
    log: Log, pipeline: Pipeline, key: bytes | None, pairs: Iterator[tuple[Record, Example]]
) -> Iterator[_Given]:
    """Examples with the features that are declared, where those were changed in flight."""
    if pipeline.generation.number == 1:
        yield from (_Given(*pair) for pair in pairs)
        return
    features = ExampleFeatures(log, pipeline, pipeline.feature_set.hash, key)
    for record, example in pairs:
        known = features.of(record)
        if known is not None:
            example.prediction = copy.copy(example.prediction)
            example.prediction.features = known
        yield _Given(record, example, known is not None)


# --- candidates --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Line:
    """A candidate at work: its learner, its snapshots that are still needed, what it took."""

    name: str
    recipe: Recipe
    has_run: bool
    learner: Any
    clock: Callable[[], float]
    # The line's window, where it is retrained.
    retrainings: Retrainings
    frozen: dict[int, Predictor] = field(default_factory=dict)
    # The version of its newest snapshot.
    newest: int = -1
    failure: str | None = None
    recorded: Recorded = field(default_factory=Recorded)
    # Seconds and counts: of answers, of examples learned, of snapshots.
    answer_s: float = 0.0
    answer_count: int = 0
    learn_s: float = 0.0
    learn_count: int = 0
    snapshot_s: float = 0.0
    snapshot_count: int = 0
    snapshot_bytes: int | None = None

    def answers(
        self, examples: Sequence[Example], versions: Sequence[int]
    ) -> list[tuple[int, Answer] | None]:
        """What its snapshots say to examples; None where it would not have been asked."""
        started_s = self.clock()
        answers: list[tuple[int, Answer] | None] = []
        for example, version in zip(examples, versions, strict=True):
            present = self.newest if self.failure and version > self.newest else version
            predict = self.frozen.get(present) if version >= 0 else None
            if predict is None:
                answers.append(None)
                continue
            self.answer_count += 1
            try:
                answers.append((present, predict(example.prediction.features)))
            except STOPS:
                raise
            except BaseException:  # noqa: BLE001 - an estimator may raise anything; as in serving
                answers.append((present, None))
        self.answer_s += self.clock() - started_s
        return answers

    def learn(
        self,
        examples: Sequence[Example],
        watermarks_ms: Sequence[int],
        pipeline: Pipeline,
        numbers: Sequence[int],
    ) -> None:
        """Teach it examples, which have these numbers among all; a retrained line keeps them."""
        if self.failure or not examples:
            return
        started_s = self.clock()
        learned = 0
        try:
            if self.retrainings:
                learned = self._keep(examples, watermarks_ms)
                examples = ()
            teach = fast_learner(self.learner, pipeline.target)
            for example in examples:
                learned += 1
                teach(example.prediction.features, example.label)
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - an estimator may raise anything
            number = numbers[learned - 1] if learned else numbers[0] - 1
            self.fail(number, f"learning failed: {brief_error(error)}")
        self.learn_s += self.clock() - started_s
        self.learn_count += learned

    def _keep(self, examples: Sequence[Example], watermarks_ms: Sequence[int]) -> int:
        """Add examples to the window of a retrained line, and return how many."""
        for example, watermark_ms in zip(examples, watermarks_ms, strict=True):
            features, label = example.prediction.features, example.label
            self.retrainings.add([self.name], watermark_ms, features, label)
        return len(examples)

    def refresh(self, number: int, watermark_ms: int) -> None:
        """Take up the model that was trained for this instant, and begin the next training.

        Of an instant that came sooner, after a change, the log does not say so: a cadence that is
        declared is kept there.
        """
        if self.failure or not self.retrainings:
            return
        started_s = self.clock()
        models, failures = self.retrainings.publish([self.name])
        for reason in failures.values():
            self.fail(number, reason)
            return
        try:
            for data in models.values():
                self.learner = self.recipe.load(data)
        except SnapshotRefused as refusal:
            self.fail(number, str(refusal))
            return
        self.retrainings.begin([self.name], number, watermark_ms, is_sooner=False)
        self.learn_s += self.clock() - started_s

    def freeze(self, version: int, pipeline: Pipeline, golden: Sequence[dict[str, float]]) -> None:
        """Keep a snapshot of it as it is now."""
        if self.failure:
            return
        started_s = self.clock()
        try:
            data = self.recipe.dump(self.learner)
            self.frozen[version] = fast_predictor(self.recipe.load(data), pipeline.target, golden)
        except SnapshotRefused as refusal:
            self.fail(version, str(refusal))
            return
        except STOPS:
            raise
        except BaseException as error:  # noqa: BLE001 - it has to answer for the golden features
            self.fail(version, f"its snapshot failed: {brief_error(error)}")
            return
        self.snapshot_bytes = len(compress(data))
        self.snapshot_s += self.clock() - started_s
        self.snapshot_count += 1
        self.newest = version

    def fail(self, number: int, reason: str) -> None:
        """Learn and publish no more: what is frozen goes on."""
        self.failure = f"after example {number}: {reason}"
        self.learner = None

    @property
    def cost(self) -> LineCost:
        """What it took so far."""
        return LineCost(
            each(self.answer_s * 1e6, self.answer_count),
            each(self.learn_s * 1e6, self.learn_count),
            each(self.snapshot_s, self.snapshot_count),
            self.snapshot_bytes,
        )


def _lines(
    pipeline: Pipeline, estimators: Mapping[str, Any], clock: Callable[[], float]
) -> list[_Line]:
    """The candidates; a line of the pipeline itself where name and recipe are its own."""
    lines, problems = [], []
    for name, estimator in estimators.items():
        names = pipeline.feature_set.view.names
        recipe = Recipe(name, estimator, pipeline.target, names)
        problems += recipe.check(pipeline.target, name, names)
        declared = pipeline.recipes.get(name)
        if problems:
            continue
        has_run = (
            declared is not None
            and declared.features == names
            and declared.description == recipe.description
        )
        is_free = declared is None and name not in NO_LINES
        free_name = name if has_run or is_free else f"{name}{SUFFIX}"
        recipe = replace(recipe, name=free_name)
        retrainings = Retrainings({free_name: recipe}, pipeline.target, None)
        lines.append(_Line(free_name, recipe, has_run, recipe.fresh(), clock, retrainings))
    if problems:
        raise DeclarationError("what-if", problems)
    return lines


def _freeze(
    lines: Sequence[_Line], schedule: _Schedule, number: int, golden: Sequence[dict[str, float]]
) -> None:
    for line in lines:
        if number in schedule.last_use(line):
            line.freeze(number, schedule.pipeline, golden)


def _drop_unneeded(lines: Sequence[_Line], schedule: _Schedule, count: int) -> None:
    """Let go of the snapshots that no later example was predicted by."""
    for line in lines:
        last_use = schedule.last_use(line)
        for version in [v for v in line.frozen if last_use[v] < count and v != line.newest]:
            del line.frozen[version]


# --- the log -----------------------------------------------------------------------------------


class _Schedule:
    """Which snapshot answers which example, as it was on the log.

    Args:
        log: with the examples.
        pipeline: the declaration.
        run_names: the candidates that are lines of the log.
        decisions: all of them.

    Attributes:
        base: how many examples were learned before the first one that is still on the log.
        instants: the numbers of examples at which lines were renewed, and a candidate is frozen if
            it is asked later on.
    """

    def __init__(
        self,
        log: Log,
        pipeline: Pipeline,
        run_names: Sequence[str],
        decisions: Sequence[Decision],
    ) -> None:
        self.pipeline = pipeline
        self.base = 0
        has_base = False
        offsets: array[int] = array("q")
        self._versions: dict[str | None, array[int]] = {
            name: array("q") for name in (None, *run_names)
        }
        self._last_uses: dict[str | None, dict[int, int]] = {name: {} for name in self._versions}
        for index, (record, example) in enumerate(counted_examples(log, pipeline)):
            offsets.append(record.offset)
            prediction = example.prediction
            if not has_base and prediction.example >= offsets[0]:
                # A prediction names the version of its model, and the newest example inside it.
                has_base, learned = True, sum(offset <= prediction.example for offset in offsets)
                self.base = version_of(prediction.model) - learned
            models = _models(prediction)
            for name, versions in self._versions.items():
                asked = models.values() if name is None else filter(None, [models.get(name)])
                version = max(map(version_of, asked), default=-1)
                versions.append(version)
                if version >= 0:
                    self._last_uses[name][version] = index
        self.instants = {version for uses in self._last_uses.values() for version in uses}
        for decision in decisions:
            self.instants.update(version_of(ref.model) for ref in decision.serving.lines.values())

    def last_use(self, line: _Line) -> Mapping[int, int]:
        """By version, the index of the last example that was predicted by it."""
        return self._last_uses[line.name if line.has_run else None]

    def versions(self, line: _Line, first: int, end: int) -> Sequence[int]:
        """The version of the line that answers each example of a range; -1: none."""
        return self._versions[line.name if line.has_run else None][first:end]


def _models(prediction: Prediction) -> dict[str, str]:
    """By line, the model that was asked."""
    models = {
        slot: shadow.model for slot, shadow in prediction.shadows.items() if slot not in NO_LINES
    }
    models[line_of(prediction.model)] = prediction.model
    return models


def _restarts(log: Log) -> dict[str, list[int]]:
    """By line, where on `models` it started anew from nothing, after its first beginning."""
    restarts: dict[str, list[int]] = {}
    known: set[str] = set()
    for record in read_all(log, "models"):
        if record.value is None:
            continue
        try:
            snapshot = decode(record.value)
        except BadRecord:
            continue
        if snapshot.parent is None and snapshot.name in known:
            restarts.setdefault(snapshot.name, []).append(record.offset)
        known.add(snapshot.name)
    return restarts


# --- scores and evidence -----------------------------------------------------------------------


class _Trial:
    """Evaluate's figures over the examples of a log, with the candidates among those who answer."""

    def __init__(
        self,
        log: Log,
        pipeline: Pipeline,
        lines: Sequence[_Line],
        decisions: Sequence[Decision],
        since: int | None,
    ) -> None:
        self._pipeline = pipeline
        self._lines = lines
        self._since = since
        names = [line.name for line in lines]
        target = pipeline.target
        self._contest = ReplayedContest(pipeline.rules, names, restarts=_restarts(log))
        slicing = pipeline.slicing
        slices = SliceNames(slicing.names, slicing.tops)
        self._scoreboard = Scoreboard(target, pipeline.horizon_ms, slices)
        self._settling = Settling(target.kind, target.classes, pipeline.settle_labels)
        self._settling.begin(names)
        self._gates = Gates(pipeline.promotion.coverage_min)
        self._uniform_loss = uniform_loss(target.kind, len(target.classes))
        self._loss = loss_of(target.kind)
        self._watermark = ExamplesWatermark(pipeline.horizon_ms, pipeline.events.breadth)
        self._watermarks_ms: list[int] = []
        self._lessons = Lessons()
        self.golden: deque[dict[str, float]] = deque(maxlen=GOLDEN_EXAMPLES)
        self._decisions = deque(decisions)
        self._n = self._missed = self._scored = 0
        self._day: int | None = None
        # By line and month: pairs, and the sums of what was lost by what served, and by the line.
        self._months: dict[str, dict[str, list[float]]] = {name: {} for name in names}
        self._evaluations = _recorded_evaluations(log, lines) if since is None else {}
        for line in lines:
            line.recorded.evaluations = sum(
                len(same) for key, same in self._evaluations.items() if key[0] == line.name
            )

    def work(self, batch: Sequence[_Given], schedule: _Schedule, first: int) -> None:
        """Let the lines answer a batch, score it, and teach it.

        Args:
            batch: examples with their records.
            schedule: which snapshot answers.
            first: how many examples came before.
        """
        examples = [given.example for given in batch]
        answers = []
        for line in self._lines:
            versions = schedule.versions(line, first, first + len(batch))
            pairs = zip(versions, batch, strict=True)
            asked = [version if given.is_known else -1 for version, given in pairs]
            answers.append(line.answers(examples, asked))
        for i, (record, example, _) in enumerate(batch):
            self._follow(record.offset)
            self._example(record, example, [of_line[i] for of_line in answers])
        known = [i for i, given in enumerate(batch) if given.is_known]
        self._missed += len(batch) - len(known)
        label = self._pipeline.label
        are_lessons = [self._lessons.takes(example, label) for example in examples]
        known = [i for i in known if are_lessons[i]]
        taught = [examples[i] for i in known]
        watermarks_ms = [self._watermarks_ms[i] for i in known]
        numbers = [schedule.base + first + 1 + i for i in known]
        for line in self._lines:
            line.learn(taught, watermarks_ms, self._pipeline, numbers)
        self._watermarks_ms = []
        self.golden.extend(example.prediction.features for example in taught[-GOLDEN_EXAMPLES:])

    def refresh(self, number: int) -> None:
        """Renew the lines that are retrained.

        Args:
            number: how many examples there were.
        """
        for line in self._lines:
            line.refresh(number, self._watermark.ms)

    def _follow(self, offset: int) -> None:
        """Follow the decisions that were made before an example."""
        while self._decisions and self._decisions[0].inputs.get("examples", 0) <= offset:
            decision = self._decisions.popleft()
            stays = [f"{line.name}@{line.newest}" for line in self._lines if line.failure]
            if self._contest.decide(decision, self._watermark.ms, stays):
                self._evaluate()

    def _example(
        self, record: Record, example: Example, answers: Sequence[tuple[int, Answer] | None]
    ) -> None:
        prediction = example.prediction
        self._n += 1
        watermark_ms = self._watermark.advance(
            example.label_source.partition,
            prediction.event_id,
            example.label_ts,
            record.append_ms,
        )
        self._watermarks_ms.append(self._watermark.ms)
        if example.correction is not None:
            return  # candidates are held against each other by the first word
        self._settling.learn(example.label, self._n)
        if self._since is not None and prediction.ts < self._since:
            return
        self._scored += 1
        for line, answer in zip(self._lines, answers, strict=True):
            self._put(line, example, answer)
        baselines = self._scoreboard.add(example, self._watermark.newest_ms)
        if self._n % EVALUATE_EVERY == 0 or self._has_day_ended():
            self._evaluate()
        prior = baselines.get("prior", baselines.get("mean"))
        for line, answer in zip(self._lines, answers, strict=True):
            if answer is not None:
                version, said = answer
                self._settling.compare(line.name, version, example.label, said, prior)
        self._judge(example, watermark_ms)

    def _put(self, line: _Line, example: Example, answer: tuple[int, Answer] | None) -> None:
        """Put a candidate's answer where a challenger's is, and compare it with a recorded one."""
        prediction = example.prediction
        if answer is None:
            return
        version, said = answer
        model = f"{line.name}@{version}"
        is_champion = line_of(prediction.model) == line.name
        if line.has_run:
            logged = prediction.own_answer
            if not is_champion:
                logged = prediction.shadows[line.name].prediction
            again = ReproducedAnswer(prediction.event_id, line.name, model, logged, said)
            line.recorded.answers += 1
            line.recorded.answers_equal += logged == said
            line.recorded.worst = max(line.recorded.worst, again.difference)
            if logged != said and line.recorded.different is None:
                line.recorded.different = prediction.event_id
        if not is_champion or line.name in prediction.shadows:
            prediction.shadows[line.name] = Shadow(model, said)
        served = None if prediction.fallback else prediction.prediction
        losses = self._loss(example.label, served), self._loss(example.label, said)
        if None not in losses:
            sums = self._months[line.name].setdefault(_month(prediction.ts // DAY_MS), [0.0] * 3)
            for i, value in enumerate((1.0, *losses)):
                sums[i] += value or 0.0

    def _has_day_ended(self) -> bool:
        """As evaluate tells it: evaluations are written daily, too."""
        if self._watermark.ms < 0:
            return False
        day = self._watermark.ms // DAY_MS
        if self._day is None:
            self._day = day
        return day > self._day

    def _judge(self, example: Example, watermark_ms: int) -> None:
        comparison = self._contest.add(example, watermark_ms, self._scoreboard.slices)
        if comparison is None:
            return
        losses = self._scoreboard.baseline_losses
        if self._uniform_loss is not None:
            losses = {**losses, "uniform": self._uniform_loss}
        for line in self._lines:
            if line.name not in self._contest.lines:
                continue
            shadow = example.prediction.shadows.get(line.name)
            loss = comparison.losses.get(line.name)
            if loss is not None or (shadow is not None and shadow.prediction is None):
                self._gates.add(line.name, loss, losses)
        if self._contest.has_new_vote and not self._contest.is_stopped:
            for line in self._lines:
                if self._is_promotable(line):
                    self._contest.note_promotable(line.name, self._watermark.ms)

    def _is_promotable(self, line: _Line) -> bool:
        return (
            line.failure is None
            and self._contest.suffices(line.name)
            and line.name not in self._settling
            and self._gates.rejection(line.name) is None
            and not self._contest.is_doubted(line.name)
        )

    def _evaluate(self) -> None:
        """Compare the evaluations that were written here with those that follow now."""
        if self._watermark.ms >= 0:
            self._day = self._watermark.ms // DAY_MS
        if not self._evaluations:
            return
        by_name = {line.name: line for line in self._lines}
        for evaluation in self._scoreboard.evaluations(self._watermark.ms, self._contest.report):
            recorded = self._evaluations.pop(_identity(evaluation), None)
            for former in recorded or ():
                is_equal = _figures(former) == _figures(evaluation)
                by_name[evaluation.model].recorded.evaluations_equal += is_equal

    def view(self, examples: int, seconds: float) -> WhatIfView:
        """The outcome.

        Args:
            examples: how many there were.
            seconds: how long it took.
        """
        while self._decisions:
            self._follow(self._decisions[0].inputs.get("examples", 0))
        self._contest.close(None)
        standing = {
            evaluation.model: evaluation
            for evaluation in self._scoreboard.evaluations(self._watermark.ms, self._contest.report)
        }
        candidates = tuple(
            CandidateView(
                line.name,
                line.recipe.description,
                standing.get(line.name),
                tuple(_months(self._months[line.name])),
                self._contest.reigns(line.name),
                line.cost,
                line.failure,
                line.recorded if line.has_run else None,
            )
            for line in self._lines
        )
        served = standing.get(SERVED_SLOT)
        taught = examples - self._missed
        return WhatIfView(taught, self._missed, self._scored, served, candidates, seconds)


@lru_cache(maxsize=64)
def _month(day: int) -> str:
    return f"{datetime.fromtimestamp(day * DAY_MS / 1000, UTC):%Y-%m}"


def _months(sums: Mapping[str, Sequence[float]]) -> Iterator[MonthLosses]:
    for month, (pairs, served, candidate) in sorted(sums.items()):
        yield MonthLosses(month, int(pairs), served / pairs, candidate / pairs)


_Identity = tuple[str, str, int, int]


def _recorded_evaluations(log: Log, lines: Sequence[_Line]) -> dict[_Identity, list[Evaluation]]:
    """What was recorded of the candidates that ran; some are written twice at one instant."""
    names = {line.name for line in lines if line.has_run}
    recorded: dict[_Identity, list[Evaluation]] = {}
    for evaluation in evaluations(log) if names else ():
        if evaluation.model in names:
            recorded.setdefault(_identity(evaluation), []).append(evaluation)
    return recorded


def _identity(evaluation: Evaluation) -> _Identity:
    return evaluation.model, evaluation.version, evaluation.ts, evaluation.n


def _figures(evaluation: Evaluation) -> Any:
    """All that can be computed again: the verdict hangs on what else went on then, as well."""
    evidence = {
        name: value
        for name, value in (evaluation.evidence or {}).items()
        if not name.startswith("verdict")
    }
    slices = evaluation.slices or {}
    return evaluation.scores, evaluation.coverage, evaluation.delay_ms, evidence, slices
