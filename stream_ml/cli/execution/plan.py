"""`plan` and `apply`: the work of the commands, and their words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_ml.cli.operator import give
from stream_ml.cli.output import write, write_json
from stream_ml.client import open_log
from stream_ml.errors import DeclarationDiffers, UsageError
from stream_ml.shell.printable import printable
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.views.plan import read_plan
from stream_ml.shell.views.registry import read_registry
from stream_ml.task_names import MAIN_TASK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.plan import ChangeCost, PlannedChange, PlanView
    from stream_ml.shell.views.windows_cost import WindowsCost

__all__ = [
    "applied_text",
    "apply",
    "lines",
    "planned",
    "run",
    "unapplied_tasks",
    "unchanged_text",
]

EFFECT_WIDTH = 9


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Compare, print, and end with the exit code that says whether anything differs.

    Raises:
        DeclarationDiffers: something does.
    """
    settings, _, view = planned(arguments, settings, "plan")
    if arguments.format == "json":
        write_json({"log": settings.path, **view.as_dict()})
    else:
        write("\n".join(lines(view, settings.path)))
    if view.changes:
        raise DeclarationDiffers(f"plan: {_summary(view, settings.path)}")


def apply(arguments: argparse.Namespace, settings: Settings, view: PlanView) -> bool:
    """Have a plan of other recipes decided on, and print the answer.

    Args:
        arguments: of the command line.
        settings: with the declaration that is planned.
        view: the plan.

    Returns:
        Whether there was anything of that kind to do: a plan of other features is none.

    Raises:
        DeclarationDiffers: something of it is refused.
        CommandRefused: the worker refuses it.
        NoAnswer: no worker has answered in time.
    """
    if view.count("apply") or not (view.count("relearn") or view.count("refused")):
        return False
    if view.count("refused"):
        raise DeclarationDiffers(
            "\n  ".join(
                [
                    f"apply: {_summary(view, settings.path)}:",
                    *(str(each.difference) for each in view.changes),
                ]
            )
        )
    give(arguments, settings, "apply", view.command_details())
    return True


def applied_text(champion: str, begun: Iterable[str], workers: str) -> str:
    """What runs from now on, where other features were applied.

    Args:
        champion: what serves.
        begun: the lines that begin anew.
        workers: what is to be started, `the worker` or `all workers`.
    """
    lines = ", ".join(begun) or "no lines"
    return (
        f"{champion} serves on, with the features that it knows; {lines} begin anew, and shadow "
        f"when they have learned what is recorded: start {workers} under this declaration"
    )


def unchanged_text(champion: str) -> str:
    """That there was nothing to apply.

    Args:
        champion: what serves.
    """
    return f"nothing to apply: what runs is declared like this; {champion} serves"


def unapplied_tasks(arguments: argparse.Namespace, settings: Settings) -> list[str]:
    """The other tasks of the pipeline that do not run with the features that are declared.

    Args:
        arguments: of the command line.
        settings: with the declaration, and the task that it was applied to.
    """
    pipeline = pipeline_of(replace(settings, task=None), "apply")
    names = [MAIN_TASK, *pipeline.task_pipelines] if pipeline.tasks else []
    found = []
    for name in names:
        if name != settings.task:
            try:
                _, _, view = planned(arguments, replace(settings, task=name), "apply")
            except UsageError:
                continue  # the log has nothing of it yet: a start makes it as it is declared
            found += [name] if view.count("apply") else []
    return found


def planned(
    arguments: argparse.Namespace, settings: Settings, command: str
) -> tuple[Settings, Pipeline, PlanView]:
    """The settings with the declaration that is meant, that declaration, and its plan.

    Args:
        arguments: of the command line: it may name one.
        settings: which log, and which declaration else.
        command: for messages.

    Raises:
        UsageError: there is no such declaration, or the log is another one's; or it has tasks,
            and none is named.
    """
    if arguments.declaration is not None:
        settings = replace(settings, pipeline=arguments.declaration)
    pipeline = pipeline_of(settings, command)
    if pipeline.tasks and settings.task is None:
        names = ", ".join([MAIN_TASK, *pipeline.task_pipelines])
        raise UsageError(
            f"{command}: expected --task, one of {names}, given none: each task of "
            f"{pipeline.name!r} is compared, and changed, by itself"
        )
    with open_log(settings, pipeline.name) as log:
        key = reading_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        newest = read_registry(log, key, recent=0).newest
        return settings, pipeline, read_plan(log, pipeline, key, newest)


def lines(view: PlanView, path: str) -> Iterator[str]:
    """A line for each change, and one for what it costs.

    Args:
        view: the plan.
        path: of the log.
    """
    if not view.has_run:
        yield f"nothing has run on {printable(path)}: a start takes the declaration up as it is"
    elif not view.changes:
        yield f"0 differences: what runs on {printable(path)} is declared like this"
    for change in view.changes:
        yield from _change(change)
    if view.windows is not None:
        yield _windows(view.windows)


def _change(change: PlannedChange) -> Iterator[str]:
    yield f"{change.difference.effect:<{EFFECT_WIDTH}}{printable(str(change.difference))}"
    if change.cost is not None:
        yield " " * EFFECT_WIDTH + _cost(change.cost)


def _windows(cost: WindowsCost) -> str:
    text = f"windows: {cost.events:,} events to fold"
    if cost.event_us is not None:
        text += f", {cost.event_us:,.1f} µs each: {cost.seconds:,.1f} s of CPU"
    if cost.window_bytes is not None:
        text += f"; about {cost.window_bytes:,} bytes of state"
    return text


def _cost(cost: ChangeCost) -> str:
    text = f"{cost.examples:,} examples to learn"
    if cost.example_us is not None:
        text += f", {cost.example_us:,.1f} µs each: {cost.seconds:,.1f} s of CPU"
    if cost.snapshot_bytes is not None:
        text += f"; a learner of about {cost.snapshot_bytes:,} bytes"
    return text


def _summary(view: PlanView, path: str) -> str:
    count = "1 difference" if len(view.changes) == 1 else f"{len(view.changes)} differences"
    refused = view.count("refused")
    applied = view.count("apply") + view.count("relearn")
    way_out = "a start takes them up"
    if refused:
        way_out = f"{refused} of them are refused, and no start takes anything up"
    elif applied:
        way_out = f"a start refuses {applied} of them; `stream-ml apply` brings all about"
    return f"{count} from the declaration that runs on {path}; {way_out}"
