"""Whether a task's state may be gone on with under the declaration of today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stream_ml.differences import accepted_changes, fold_differences
from stream_ml.errors import UsageError
from stream_ml.shell.kafka.handover import BEGIN_ANEW
from stream_ml.stages.learn import quarantined_in
from stream_ml.stages.parts import read_piece
from stream_ml.stages.predict import Predict
from stream_ml.stages.topology import parse_task

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stream_ml.shell.handover import Handover
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.restoration import TakenUp
    from stream_ml.stages.positions import ResumePoint
    from stream_ml.stages.task import Task

__all__ = ["declared_changes"]


class _Declared(Protocol):
    """What is asked of the context of a worker's tasks."""

    @property
    def cluster(self) -> Cluster:
        """The pipeline's place."""

    @property
    def declaration(self) -> Mapping[str, str]:
        """The declaration of today, text by path."""

    @property
    def restart_lines(self) -> Collection[str]:
        """Quarantined lines that start anew."""

    @property
    def applied_lines(self) -> Collection[str]:
        """Lines whose recipes of today were applied."""

    @property
    def handover(self) -> Handover | None:
        """The declaration as it runs, and what of it begins or was begun."""


def declared_changes(
    task: Task, context: _Declared, start_state: TakenUp, resume_point: ResumePoint
) -> list[str]:
    """List what of the declaration differs from the state's, and is taken up.

    Args:
        task: that is taken over.
        context: of its worker.
        start_state: what it starts from.
        resume_point: where it goes on.

    Raises:
        UsageError: something that is not taken up; or what was committed since the state was
            written would have to be folded again, as it was declared then.
    """
    if start_state.marker is None:
        return []
    former, current = start_state.marker.declaration, context.declaration
    stage, handover = parse_task(task.name).stage, context.handover
    quarantined_lines = context.restart_lines
    if stage == "learn":
        quarantined_lines = quarantined_in(read_piece("", dict(start_state.pieces).get))
    origin = f"the state of {task.name} on {context.cluster.topic(f'{stage}-changelog')}"
    changes = accepted_changes(
        former,
        current,
        origin,
        BEGIN_ANEW,
        quarantined_lines,
        applied_texts=None if handover is None else handover.applied_texts,
        applied_lines=context.applied_lines,
    )
    if handover is not None:
        _check_handover(handover, task, former, resume_point)
    must_replay = start_state.remade is not None or resume_point.read != resume_point.state
    if must_replay and (paths := fold_differences(former, current)):
        raise UsageError(
            f"{origin}: expected, until all that was committed is in it, what it was made "
            f"under, given another {', '.join(paths)}; declare it as it was, start, stop in "
            "order (Ctrl-C or SIGTERM), and change it then"
        )
    return changes


def _check_handover(
    handover: Handover, task: Task, former: Mapping[str, str], resume_point: ResumePoint
) -> None:
    """Make sure that the state is what the change of features was planned from."""
    if isinstance(task.stage, Predict):
        partition = parse_task(task.name).partition
        offset = resume_point.read.get(("events", partition), 0)
        handover.expect_begin(task.name, former, (partition, offset))
    elif handover.generation is not None:
        handover.expect_former(former)
