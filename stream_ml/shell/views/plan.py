"""The plan of a changed declaration: each difference from the one that runs on a log.

What runs is read from the markers of the tasks' checkpoints, which name the declaration that the
state was made under, sealed with the pipeline's key. Nothing is written, and a worker may be at
work meanwhile: what it has told apart since its last checkpoint is told apart again.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from stream_ml.codec import decode_example
from stream_ml.differences import (
    CLASSES_PATH,
    LineStanding,
    as_applied,
    planned_differences,
)
from stream_ml.errors import STOPS, BadRecord, SnapshotRefused, StateRefused
from stream_ml.models.recipes import learn
from stream_ml.models.retrained import Retrained
from stream_ml.models.snapshot import decode, open_snapshot
from stream_ml.records import line_of
from stream_ml.sealing import MARKER, Seals, content, marker_in
from stream_ml.shell.log.port import whole_piece
from stream_ml.shell.log.reading import last_records, offset_count
from stream_ml.shell.views.costs import learn_tasks, read_costs
from stream_ml.shell.views.registry import running_pipeline
from stream_ml.shell.views.windows_cost import windows_cost
from stream_ml.stages.commands import FOREIGN_RECIPE, FORMER_FEATURES
from stream_ml.stages.handover import is_applied
from stream_ml.stages.learn import quarantined_in
from stream_ml.stages.plans import PlannedText, plan_details
from stream_ml.stages.topology import STAGES, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_ml.differences import Difference
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Decision, ModelRef
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.windows_cost import WindowsCost

__all__ = ["ChangeCost", "PlanView", "PlannedChange", "read_plan", "running_declarations"]

# So many of the newest examples are learned to measure what one takes, for so long at most.
SAMPLE_EXAMPLES = 300
SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class ChangeCost:
    """What it takes to bring a change about, in time and in space.

    Attributes:
        examples: how many are on the log, and will be learned again.
        example_us: microseconds of CPU for each, measured here on the newest ones; None where
            nothing could be measured.
        snapshot_bytes: of a learner that has learned those.
    """

    examples: int
    example_us: float | None
    snapshot_bytes: int | None

    @property
    def seconds(self) -> float | None:
        """Of CPU, for all of them."""
        return None if self.example_us is None else self.examples * self.example_us / 1e6

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A difference, and what it costs; None: nothing that counts."""

    difference: Difference
    cost: ChangeCost | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        cost = None if self.cost is None else self.cost.as_dict()
        return {**self.difference.as_dict(), "cost": cost}


@dataclass(frozen=True, slots=True)
class PlanView:
    """What a start under a declaration would do.

    Attributes:
        changes: in the order in which they are declared; empty where nothing differs.
        has_run: whether there is a declaration to compare with.
        windows: what it takes to fill the windows of other features; None where features are as
            they were.
    """

    changes: tuple[PlannedChange, ...]
    has_run: bool
    windows: WindowsCost | None = None

    def count(self, effect: str) -> int:
        """How many changes have this effect.

        Args:
            effect: see `differences.Effect`.
        """
        return sum(each.difference.effect == effect for each in self.changes)

    def command_details(self) -> dict[str, Any]:
        """The details of a command that applies it."""
        differences = [each.difference for each in self.changes]
        return plan_details(
            PlannedText(each.path, each.old, each.new, each.effect) for each in differences
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "has_run": self.has_run,
            "changes": [each.as_dict() for each in self.changes],
            "windows": None if self.windows is None else self.windows.as_dict(),
        }


def running_declarations(
    log: Log, pipeline: Pipeline, key: bytes | None
) -> dict[str, dict[str, str]]:
    """The declaration that each task's state was made under: text by path, by task.

    Args:
        log: that they are at work on.
        pipeline: a declaration of its name.
        key: what it is sealed with; None: all is believed.

    Raises:
        StateRefused: it is not sealed with that key.
    """
    seals = None if key is None else Seals(key, pipeline.name, log.identity)
    declarations = {}
    tasks = [
        task_name(stage, partition)
        for stage, spec in STAGES.items()
        for partition in range(log.partitions[spec.inputs[0]])
    ]
    for task in dict.fromkeys([*tasks, *learn_tasks(log, pipeline.recipes)]):
        value = log.piece(task, MARKER.decode())
        if value is None:
            continue
        marker = marker_in(content(value)) if seals is None else None
        if seals is not None:
            marker = seals.state(task).opened_marker(value)
        if marker is None:
            raise StateRefused(
                f"{task}: expected its last checkpoint sealed by our key for this pipeline and "
                "log, given another; set STREAM_ML_KEY and STREAM_ML_PIPELINE as its worker has "
                "them, or, where somebody else writes there, start a worker: it tells more"
            )
        if marker.declaration:  # a former release kept none
            declarations[task] = marker.declaration
    return declarations


def read_plan(
    log: Log, pipeline: Pipeline, key: bytes | None, newest: Decision | None = None
) -> PlanView:
    """What a start under a declaration would do on a log.

    Args:
        log: with what runs; it is only read.
        pipeline: the declaration, its lines called as they are declared.
        key: what the state is sealed with; None: all is believed.
        newest: the newest decision; None: nothing serves yet.

    Raises:
        StateRefused: the state is not sealed with that key.
    """
    pipeline = running_pipeline(log, pipeline, key)
    present, generation = pipeline.declaration(), pipeline.generation
    quarantined = [
        generation.declared(line)
        for task in learn_tasks(log, pipeline.recipes)
        for line in quarantined_in(whole_piece(log, task, ""))
    ]
    serving = None if newest is None else line_of(newest.serving.champion.model)
    standing = LineStanding(
        quarantined,
        generation.applied_lines(present),
        None if serving is None else generation.declared(serving),
    )
    declarations = running_declarations(log, pipeline, key)
    by_path: dict[str, Difference] = {}
    # On a cluster tasks that have not been started since take up what evaluate has begun.
    judged = declarations.get("evaluate-0", {})
    applied_texts = judged if is_applied(judged, pipeline) else {}
    for declaration in declarations.values():
        # All tasks run under one, but where a start was cut short.
        found = planned_differences(declaration, present, standing)
        for change in as_applied(found, applied_texts) if applied_texts else found:
            by_path.setdefault(change.path, change)
    if newest is not None:
        _refuse_orphan(log, pipeline, newest.serving.champion, by_path)
    costs = dict(_costs(log, pipeline, by_path))
    changes = tuple(PlannedChange(each, costs.get(each.path)) for each in by_path.values())
    is_refilled = any(each.effect == "apply" for each in by_path.values())
    windows = windows_cost(log, pipeline) if is_refilled else None
    return PlanView(changes, bool(declarations), windows)


def _refuse_orphan(
    log: Log, pipeline: Pipeline, champion: ModelRef, changes: dict[str, Difference]
) -> None:
    """Refuse another recipe of the line that serves where what serves could not go on doing so."""
    generation, running = pipeline.generation, line_of(champion.model)
    former = {line.name for line in generation.former}
    line = generation.declared(running)
    for path in (f"models.{line}", f"libraries.{line}", f"{CLASSES_PATH}{line}"):
        if path not in changes or changes[path].effect != "relearn":
            continue
        reason = None
        if running in former:
            reason = FORMER_FEATURES.format(line=line)
        elif running != generation.names.get(line, line):
            continue  # a former version serves, and goes on as it is
        elif not (path.startswith(CLASSES_PATH) or _opens_without_recipe(log, pipeline, champion)):
            reason = FOREIGN_RECIPE.format(line="it")
        elif len(pipeline.recipes) > pipeline.promotion.slots:
            reason = (
                f"what serves is no more one of the lines, which need promotion.slots of at least "
                f"{len(pipeline.recipes)}"
            )
        if reason is not None:
            changes[path] = replace(changes[path], effect="refused", reason=reason)


def _opens_without_recipe(log: Log, pipeline: Pipeline, ref: ModelRef) -> bool:
    """Whether a snapshot answers without the recipe that its line had."""
    for record in log.read("models", 0, ref.offset, 1):
        try:
            snapshot = decode(record.value or b"")
            open_snapshot(
                snapshot, None, pipeline.target, None, snapshot.features, allow_unsigned=True
            )
        except (BadRecord, SnapshotRefused):
            return False
    return True


def _costs(
    log: Log, pipeline: Pipeline, changes: Mapping[str, Difference]
) -> Iterator[tuple[str, ChangeCost]]:
    """The costs of the lines that learn the recorded examples."""
    examples = offset_count(log, "examples")
    recorded = read_costs(log, learn_tasks(log, pipeline.recipes))
    for path, change in changes.items():
        part, _, line = path.partition(".")
        is_learned = part == "models" or (part == "classes" and f"models.{line}" not in changes)
        is_learned &= change.effect != "refused"
        if not (is_learned and line in pipeline.models):
            continue
        line = pipeline.generation.names.get(line, line)
        if isinstance(pipeline.recipes[line].estimator, Retrained):
            continue  # its window begins empty
        example_us, size = _measured(log, pipeline, line)
        if line in recorded:
            size = recorded[line].snapshot_bytes or size
        yield path, ChangeCost(examples, example_us, size)


def _measured(log: Log, pipeline: Pipeline, line: str) -> tuple[float | None, int | None]:
    """Microseconds an example, and bytes of the learner, over the newest examples."""
    recipe = pipeline.recipes[line]
    rows = []
    for record in last_records(log, "examples", SAMPLE_EXAMPLES):
        try:
            example = decode_example(record.value)
        except BadRecord:
            continue
        rows.append((example.prediction.features, example.label))
    count, start_s = 0, time.process_time()
    try:
        learner = recipe.fresh()
        for features, label in rows:
            learn(learner, pipeline.target, features, label)
            count += 1
            if time.process_time() - start_s > SAMPLE_S:
                break
        seconds = time.process_time() - start_s
        size = len(recipe.dump(learner))
    except STOPS:
        raise
    except BaseException:  # noqa: BLE001 - a learner may raise anything, and nothing is known then
        return None, None
    return (seconds / count * 1e6, size) if count else (None, None)
