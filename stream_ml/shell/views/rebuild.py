"""A version learned again from the recorded examples, and compared with what was published of it.

Theory of operation:

1. A snapshot says what is inside: how many examples, the offsets of the first and of the last one.
   Its line is taught these again, in their order, from nothing: as learn does it, so to the same
   learner. The digest and the golden predictions of the two must be equal.
2. A line that went on from an older snapshot (`on_failure="restore"`) has learned what that one
   had, and then what came after its new beginning: as many of the last examples as it says.
3. A snapshot says behind which examples the batches of its line were changed since it began; there
   what waits is fitted, as learn did it. One that says no more how often that was is refused.
4. A retrained line's snapshot says on how many examples it was trained, and which was the last: it
   is trained on these again, and no others are looked at.
5. Of what cannot be there (retention has taken it, the declaration is another) nothing is learned:
   that is said at once.
6. Where the recorded snapshot cannot be opened, as under another release of river, the comparison
   is made all the same: a digest is a text, and golden predictions are numbers.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.errors import (
    STOPS,
    BadRecord,
    SnapshotRefused,
    StreamMLError,
    UsageError,
    brief_error,
)
from stream_ml.features.sparse import expand
from stream_ml.models.fast import fast_learner
from stream_ml.models.recipes import Recipe
from stream_ml.models.retrained import Retrained, TrainingJob, encode_row
from stream_ml.models.snapshot import decode, open_snapshot, take
from stream_ml.records import is_forgotten
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.unsealing import unsealing_of
from stream_ml.shell.regeneration import ExampleFeatures
from stream_ml.shell.views.counted import counted_examples
from stream_ml.shell.views.registry import entries, running_pipeline
from stream_ml.shell.views.reproduce import ReproducedAnswer
from stream_ml.stages.batches import CHANGES_MAX
from stream_ml.stages.lessons import Lessons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_ml.features.feature_view import FeatureView
    from stream_ml.models.snapshot import Snapshot
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import LabelValue, Record
    from stream_ml.shell.log.port import Log

__all__ = ["RebuildView", "rebuild"]

PROGRESS_EXAMPLES = 1_000


@dataclass(slots=True)
class RebuildView:
    """How a version that was learned again compares with the recorded one.

    Attributes:
        model: `name@version`.
        recipe: of its line, as text.
        examples: how many were learned.
        digest: as it was recorded.
        digest_again: of what was learned again; None where it could not be.
        golden: its golden predictions.
        refused: why the recorded snapshot is not opened here; None where it is.
        failure: why nothing came of it; None where something did.
        notes: what may explain a difference.
        seconds: how long it took.
    """

    model: str
    recipe: str
    digest: str
    examples: int = 0
    digest_again: str | None = None
    golden: tuple[ReproducedAnswer, ...] = ()
    refused: str | None = None
    failure: str | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether it is the same learner, and gives the same answers."""
        return self.digest == self.digest_again and all(each.equal for each in self.golden)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "recipe": self.recipe,
            "equal": self.equal,
            "examples": self.examples,
            "digest": {"recorded": self.digest, "again": self.digest_again},
            "golden": [
                {"recorded": each.logged_answer, "again": each.new_answer, "equal": each.equal}
                for each in self.golden
            ],
            "refused": self.refused,
            "failure": self.failure,
            "notes": self.notes,
            "seconds": self.seconds,
        }


def rebuild(
    log: Log,
    pipeline: Pipeline,
    key: bytes | None,
    model: str,
    *,
    clock: Callable[[], float] = time.perf_counter,
    on_progress: Callable[[int], object] | None = None,
) -> RebuildView:
    """Learn a version again, and compare it with what was recorded of it.

    Args:
        log: with the snapshot and the examples.
        pipeline: the declaration that it was learned under.
        key: checks signatures and seals; without one all is believed.
        model: `name@version`.
        clock: seconds, from any start.
        on_progress: is told how many examples are done.

    Raises:
        UsageError: the line is not declared as it was when the version was published.
        StreamMLError: there is no such snapshot, or not all of its examples.
    """
    started_s = clock()
    line = _recorded_line(log, key, model)
    snapshot = line.snapshot
    pipeline = running_pipeline(log, pipeline, key)
    recipe = _declared(pipeline, snapshot)
    view = RebuildView(model, recipe.description, snapshot.digest)
    view.notes += _restart_notes(log, key, line)
    try:
        open_snapshot(
            snapshot,
            recipe,
            pipeline.target,
            key,
            snapshot.features,
            allow_unsigned=key is None,
        )
    except SnapshotRefused as refusal:
        view.refused = str(refusal)
    features = ExampleFeatures(log, pipeline, snapshot.features, key)
    examples = _Examples(log, pipeline, key, features, on_progress)
    try:
        if isinstance(recipe.estimator, Retrained):
            learner = _trained(line, recipe, examples)
        else:
            learner = _taught(line, recipe, examples)
        _compare(view, learner, recipe, pipeline, snapshot)
    except SnapshotRefused as refusal:
        view.failure = str(refusal)
    except _LearningError as failure:
        view.failure = str(failure)
    view.examples = examples.learned
    view.seconds = clock() - started_s
    return view


def _compare(
    view: RebuildView, learner: Any, recipe: Recipe, pipeline: Pipeline, snapshot: Snapshot
) -> None:
    """Compare what was learned again with the snapshot, as one is taken and read back.

    Raises:
        SnapshotRefused: no snapshot can be taken of it.
    """
    again = take(
        learner,
        recipe,
        pipeline.target,
        version=snapshot.version,
        feature_hash=snapshot.features,
        key=None,
        golden_features=[golden.features for golden in snapshot.golden],
    )
    data = recipe.dump(learner)
    view.digest_again = recipe.digest(recipe.load(data), data, like=snapshot.digest)
    view.golden = tuple(
        ReproducedAnswer("", snapshot.name, snapshot.model, before.answer, after.answer)
        for before, after in zip(snapshot.golden, again.golden, strict=True)
    )


# --- what was recorded -------------------------------------------------------------------------


@dataclass(slots=True)
class _Line:
    """A snapshot, where it lies, and the others of its line that are still there."""

    snapshot: Snapshot
    offset: int
    others: dict[str, Snapshot]

    @property
    def restarts(self) -> list[Snapshot]:
        """The snapshots up to this one that say that the line was started anew before them."""
        return [
            each
            for each in sorted(self.others.values(), key=lambda each: each.version)
            if "restarted" in each.epoch and each.version <= self.snapshot.version
        ]

    @property
    def batches(self) -> tuple[tuple[int, int], ...]:
        """Behind which example each change of its batches came, and how many they have since.

        Raises:
            StreamMLError: it does not say where they were changed.
        """
        epoch = self.snapshot.epoch
        if "batch" in epoch and "batches" not in epoch:
            raise StreamMLError(
                f"rebuild {self.snapshot.model}: expected in its snapshot where the batches of "
                "its line were changed, given only how many examples they have now "
                f"({epoch['batch']}): more than {CHANGES_MAX} changes are not kept; way out: none "
                "for this version, but later ones of a line that was restarted since (`stream-ml "
                "restart LINE`) say it again"
            )
        return tuple((offset, size) for offset, size in epoch.get("batches", ()))

    def ancestor(self, model: str) -> _Line:
        """The line as of a snapshot that this one goes on from.

        Raises:
            StreamMLError: it is not there any more.
        """
        snapshot = self.others.get(model)
        if snapshot is None:
            raise StreamMLError(
                f"rebuild {self.snapshot.model}: expected the snapshot {model}, which it goes on "
                "from, on `models`, given none: it was removed there, and only an archive may "
                "have it"
            )
        return _Line(snapshot, self.offset, self.others)


def _recorded_line(log: Log, key: bytes | None, model: str) -> _Line:
    """The snapshot, as the registry names it where it does, else as it was published first."""
    name, _, version = model.rpartition("@")
    if not name or not version.isdigit():
        raise UsageError(f"rebuild: expected MODEL@VERSION, as in adagrad@5000, given {model!r}")
    refs = {
        ref.model: ref.digest
        for entry in entries(log, key)
        for ref in [*entry.decision.serving.lines.values(), entry.decision.serving.first]
        if ref is not None
    }
    found: tuple[int, Snapshot] | None = None
    others: dict[str, Snapshot] = {}
    refusal = ""
    for record in read_all(log, "models"):
        snapshot = _snapshot_in(record, name)
        if snapshot is None or snapshot.log not in {None, log.identity}:
            continue
        try:
            snapshot.verify(key, allow_unsigned=key is None)
        except SnapshotRefused as error:
            refusal = f"; one that is there is none of ours: {error}"
            continue
        if refs.get(snapshot.model) not in {None, snapshot.digest}:
            continue
        others.setdefault(snapshot.model, snapshot)
        if snapshot.model == model and found is None:
            found = record.offset, snapshot
    if found is not None:
        return _Line(found[1], found[0], others)
    versions = ", ".join(sorted(others, key=lambda each: others[each].version)[-5:])
    raise StreamMLError(
        f"rebuild: expected the snapshot {model} on `models`, given none{refusal}; "
        f"{f'the newest of its line are {versions}' if versions else 'its line has none at all'} "
        "(those that never served are removed in time; an archive keeps them)"
    )


def _snapshot_in(record: Record, line: str) -> Snapshot | None:
    """The snapshot in a record of `models`, if it is one of this line."""
    if record.value is None or (record.key or b"").rpartition(b"@")[0] != line.encode():
        return None
    try:
        snapshot = decode(record.value)
    except BadRecord:
        return None
    return snapshot if snapshot.name == line else None


def _declared(pipeline: Pipeline, snapshot: Snapshot) -> Recipe:
    """The recipe of the line, as it was when the snapshot was taken.

    Raises:
        UsageError: it is declared otherwise now, or not at all.
    """
    recipe, view = pipeline.reader(snapshot.name, snapshot.features)
    way_out = "name with --pipeline the declaration that it was learned under"
    if recipe is None:
        recipe = _former(pipeline, snapshot.name, view)
    if recipe is None:
        raise UsageError(
            f"rebuild {snapshot.model}: expected a declared line {snapshot.name!r}, given "
            f"{', '.join(pipeline.models)}; {way_out}"
        )
    if recipe.description != snapshot.recipe:
        raise UsageError(
            f"rebuild {snapshot.model}: expected the recipe that it was learned by, "
            f"{snapshot.recipe}, given {recipe.description}; {way_out}"
        )
    if snapshot.features != view.hash:
        raise UsageError(
            f"rebuild {snapshot.model}: expected the features that it was learned on "
            f"({snapshot.features}), given others ({pipeline.feature_set.hash}); {way_out}"
        )
    return recipe


def _former(pipeline: Pipeline, name: str, view: FeatureView) -> Recipe | None:
    """The recipe of a line that learns no more, by what is declared of its name; None: nothing.

    Args:
        pipeline: the declaration, as it runs, which calls its lines `tree.2` where they are others.
        name: of the line, as it ran.
        view: the features that it knows.
    """
    line, _, _ = name.partition(".")
    if line not in pipeline.models:
        return None
    return Recipe(name, pipeline.models[line], pipeline.target, view.names)


def _restart_notes(log: Log, key: bytes | None, line: _Line) -> Iterator[str]:
    """What is known of times at which the line was started anew, for where that explains it."""
    snapshot = line.snapshot
    named = {each.epoch["restarted"]: each for each in line.restarts}
    for entry in entries(log, key):
        decision = entry.decision
        evidence = decision.evidence or {}
        if decision.kind != "restarted" or evidence.get("line") != snapshot.name:
            continue
        first = named.get(decision.number)
        later = any(
            each.epoch.get("restarted") == decision.number and each.version > snapshot.version
            for each in line.others.values()
        )
        if first is None and not later and decision.inputs.get("models", 0) <= line.offset:
            yield (
                f"decision {decision.number} has started the line anew, and no snapshot that is "
                "still there says whether that was before this one"
            )
        elif first is not None and first.parent is None and first.examples["first"] <= 0:
            yield (
                f"decision {decision.number} has started the line anew; a former release did not "
                "write after which example, so all are learned here"
            )


# --- learning ----------------------------------------------------------------------------------


class _LearningError(Exception):
    """The learner, or the trainer, has raised."""


class _Span(NamedTuple):
    """Examples in a row: the offsets of the first and the last one, and how many.

    `batches` are the changes of the line's batches among them.
    """

    first: int
    last: int
    examples: int
    batches: tuple[tuple[int, int], ...]


class _Examples:
    """The counted examples of a log, gone through once each time.

    Attributes:
        learned: how many were handed out to be learned.
        passed_over: how many of the last time had no features that the model knows.
    """

    def __init__(
        self,
        log: Log,
        pipeline: Pipeline,
        key: bytes | None,
        features: ExampleFeatures,
        on_progress: Callable[[int], object] | None,
    ) -> None:
        self._log, self.pipeline, self._key = log, pipeline, key
        self._features = features
        self._on_progress = on_progress
        self.learned = self.passed_over = 0

    def until(self, last: int) -> Iterator[tuple[int, Mapping[str, float], LabelValue | None]]:
        """Offset, features and label of each example up to the one at this offset.

        The label is None where an example counts, and was not learned (`lessons`).
        """
        pipeline = self.pipeline
        unsealing = unsealing_of(self._key, pipeline.name, self._log.identity, "examples")
        count = self.passed_over = 0
        lessons = Lessons()
        if last >= 0:
            for record, example in counted_examples(self._log, pipeline, unsealing, last):
                count += 1
                if self._on_progress is not None and count % PROGRESS_EXAMPLES == 0:
                    self._on_progress(count)
                is_lesson = lessons.takes(example, pipeline.label)
                features = self._features.of(record)
                if features is None:
                    self.passed_over += 1
                else:
                    yield record.offset, features, example.label if is_lesson else None
        if self._on_progress is not None:
            self._on_progress(count)

    def require(self, model: str, first: int) -> None:
        """Make sure that retention has not taken the first one.

        Args:
            model: that it is needed for.
            first: its offset; -1: none is needed.

        Raises:
            StreamMLError: it has.
        """
        begin = self._log.first_offset("examples", 0)
        if 0 <= first < begin:
            raise self._removed(model, f"the first of them lies at offset {first}, before {begin}")

    def missing(self, model: str, given: str) -> StreamMLError:
        """What to say where examples of a version are not there.

        Args:
            model: `name@version`.
            given: what is there instead.
        """
        count = sum(map(is_forgotten, read_all(self._log, "examples")))
        if count:
            return StreamMLError(
                f"rebuild {model}: expected all examples inside it on the log, given fewer: "
                f"{given}, where {count:,} records were forgotten (`stream-ml forget --records`), "
                "which nobody can learn again; way out: none for this version, but later ones of "
                "a line that was restarted since (`stream-ml restart LINE`) have none of them"
            )
        if self.passed_over:
            return StreamMLError(
                f"rebuild {model}: expected all examples inside it with their features, given "
                f"fewer: {given}; of {self.passed_over:,} the features that were declared since "
                "cannot be made again, as retention has removed events; way out: an archive that "
                "has them (--archive ADDRESS)"
            )
        return self._removed(model, given)

    @staticmethod
    def _removed(model: str, given: str) -> StreamMLError:
        return StreamMLError(
            f"rebuild {model}: expected all examples inside it on the log, given fewer: {given}, "
            "where the log begins since retention has removed the rest; way out: an archive that "
            "has them (--archive ADDRESS)"
        )


def _spans(line: _Line, examples: _Examples) -> list[_Span]:
    """Which examples a version has learned, in their order."""
    snapshot = line.snapshot
    inside = snapshot.examples
    restored = [each for each in line.restarts if each.parent is not None]
    if not restored or (line.restarts and line.restarts[-1].parent is None):
        return [_Span(inside["first"], inside["last"], inside["count"], line.batches)]
    base = line.ancestor(restored[-1].parent or "")
    count = inside["count"] - base.snapshot.examples["count"]
    # Those since its new beginning are the last ones, up to its own last.
    offsets: deque[int] = deque(maxlen=max(count, 1))
    for offset, _, _ in examples.until(inside["last"]):
        offsets.append(offset)
    first = offsets[0] if count > 0 else inside["last"] + 1
    return [*_spans(base, examples), _Span(first, inside["last"], count, line.batches)]


def _taught(line: _Line, recipe: Recipe, examples: _Examples) -> Any:
    """A learner that has learned what the version has.

    Raises:
        StreamMLError: not all examples are there.
        _LearningError: the learner raised.
    """
    snapshot, learner = line.snapshot, recipe.fresh()
    examples.require(snapshot.model, snapshot.examples["first"])
    for span in _spans(line, examples):
        teach = fast_learner(learner, examples.pipeline.target)
        learned, batches = 0, deque(span.batches)
        for offset, features, label in examples.until(span.last):
            if offset < span.first:
                continue
            while batches and batches[0][0] < offset:
                recipe.set_batch(learner, batches.popleft()[1])
            try:
                if label is not None:
                    teach(dict(features), label)
            except STOPS:
                raise
            except BaseException as error:
                raise _LearningError(
                    f"learning failed at the example at offset {offset}: {brief_error(error)}"
                ) from error
            learned += 1
        for _, size in batches:
            recipe.set_batch(learner, size)
        examples.learned += learned
        if learned != span.examples:
            raise examples.missing(
                snapshot.model,
                f"{learned:,} of {span.examples:,} from offset {span.first} to {span.last}",
            )
    return learner


def _trained(line: _Line, recipe: Recipe, examples: _Examples) -> Any:
    """A learner with the model of the training that the version names.

    Raises:
        StreamMLError: not all examples of its window are there.
        _LearningError: the trainer raised.
    """
    snapshot, learner = line.snapshot, recipe.fresh()
    trained = snapshot.epoch.get("trained")
    while trained is None and line.snapshot.parent is not None and line.restarts:
        # It may have gone on from an older one, whose model it still has.
        line = line.ancestor(line.snapshot.parent)
        trained = line.snapshot.epoch.get("trained")
    if trained is None:
        return learner
    rows, behind = int(trained["rows"]), line.snapshot.version - int(trained["n"])
    target, names = examples.pipeline.target, expand(recipe.features)
    window: deque[bytes] = deque(maxlen=rows + behind)
    # Of those that came since, whether each is in the window.
    since: deque[bool] = deque(maxlen=behind)
    for _, features, label in examples.until(line.snapshot.examples["last"]):
        since.append(label is not None)
        if label is None:
            continue
        # At which watermark each came says when it leaves the window; that is over.
        row = encode_row(0, label, features, target, names)
        window.append(array("d", row).tobytes())
    needed = rows + behind - since.count(False)
    if len(window) < needed:
        raise examples.missing(snapshot.model, f"{len(window):,} of its {needed:,}")
    examples.learned = rows
    first = len(window) - needed
    data = b"".join([window[index] for index in range(first, first + rows)])
    try:
        model = TrainingJob(snapshot.name, learner, int(trained["n"]), data).run()
    except SnapshotRefused:
        raise
    except STOPS:
        raise
    except BaseException as error:
        raise _LearningError(f"training failed: {brief_error(error)}") from error
    return recipe.load(model)
