"""Tasks: further truths about the events of a pipeline, such as a purchase beside a click.

A pipeline with tasks is several pipelines over one topic of events: its own, and one for each task,
which has everything but the events to itself (labels, predictions, models, decisions), so all that
holds for a pipeline holds for each of them. What is declared once is shared: events, features, what
asks for a prediction, and how each is worked on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from stream_ml.errors import Problem
from stream_ml.files import Files
from stream_ml.schema import short_repr
from stream_ml.task_names import MAIN_TASK, is_task_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_ml.label import Label
    from stream_ml.routes import Alerts
    from stream_ml.slices import Slice, SliceBy

__all__ = [
    "Task",
    "task_files",
    "task_problems",
    "task_settings",
]


# The pipeline's hold for a task that has none of its own.
_INHERITED = frozenset({"promotion", "slices", "alerts"})


@dataclass(frozen=True, slots=True)
class Task:
    """One more truth about a pipeline's events, learned by lines of its own.

    Args:
        name: lower-case letters, digits, - and _; `--task NAME` chooses it on the command line.
        label: the truth, and how late it may be.
        models: name to estimator, as `Pipeline` has them.
        champion: the line that serves first.
        promotion: a `Promotion`; None: the pipeline's.
        slices: None: the pipeline's.
        alerts: None: the pipeline's.
        files: how files write its labels; None: as the pipeline's, in a column with its name.
    """

    name: str
    label: Label
    models: Mapping[str, Any]
    champion: str
    promotion: Any = None
    slices: Sequence[Slice | SliceBy] | None = None
    alerts: Alerts | None = None
    files: Files | None = None


def task_settings(task: Task) -> dict[str, Any]:
    """The members of the pipeline that a task has for itself, by name.

    Args:
        task: as declared.
    """
    members = {member.name: getattr(task, member.name) for member in fields(task)}
    return {
        name: value
        for name, value in members.items()
        if name not in {"name", "files"} and not (name in _INHERITED and value is None)
    }


def task_files(task: Task, files: Any) -> Any:
    """How files write the labels of a task.

    Args:
        task: as declared.
        files: as the pipeline declares them, which may be anything.
    """
    if task.files is not None or not isinstance(files, Files):
        return task.files or files
    return replace(files, label=task.name)


def task_problems(tasks: Any, files: Any) -> Iterator[Problem]:
    """The mistakes in the list of tasks, but for those that a pipeline may have as well.

    Args:
        tasks: whatever was declared.
        files: of the pipeline, likewise.
    """
    if not isinstance(tasks, list | tuple):
        expected = 'a list such as [Task("purchase", label=..., models=..., champion=...)]'
        yield Problem("tasks", expected, short_repr(tasks))
        return
    names: set[str] = set()
    columns = {files.label: "the pipeline's own"} if isinstance(files, Files) else {}
    for number, task in enumerate(tasks):
        path = f"tasks[{number}]"
        if not isinstance(task, Task):
            expected = 'Task("purchase", label=..., models=..., champion=...)'
            yield Problem(path, expected, short_repr(task))
            continue
        if not is_task_name(task.name) or task.name == MAIN_TASK:
            expected = (
                f"lower-case letters, digits, - and _, not {MAIN_TASK}, nor a name that groups "
                "of every pipeline have: of a stage, consumer, standby, couriers, redrive"
            )
            yield Problem(f"{path}.name", expected, short_repr(task.name))
            continue
        if task.name in names:
            yield Problem(f"{path}.name", "another name than the tasks before", repr(task.name))
            continue
        names.add(task.name)
        yield from _column_problems(f"tasks.{task.name}.files", task, files, columns)


def _column_problems(
    path: str, task: Task, files: Any, columns: dict[str, str]
) -> Iterator[Problem]:
    column = getattr(task_files(task, files), "label", None)
    if not isinstance(column, str):
        return
    if column in columns:
        expected = f"another column than {columns[column]}"
        yield Problem(f"{path}.label", expected, short_repr(column))
    columns.setdefault(column, f"that of the task {task.name!r}")
    if task.files is None and getattr(files, "label_time", None) is not None:
        expected = (
            f"Files(label={task.name!r}, label_time=...): {files.label_time!r} is when the "
            "pipeline's own label was known"
        )
        yield Problem(path, expected, "none")
