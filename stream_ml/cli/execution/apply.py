"""`apply`: the work of the command, and its words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from stream_ml.cli.execution import plan
from stream_ml.cli.execution.line_processes import line_processes, runner_options, stopwatch_of
from stream_ml.cli.output import flush, write_json_line, write_line
from stream_ml.errors import LogLocked, UsageError
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.handover import Preparation
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.keys import check_name, working_key
from stream_ml.task_names import task_in

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run"]

POLL_S = 0.1


def run(arguments: Namespace, settings: Settings) -> None:
    """Prepare beside a worker, take its place once it is free, and write the change down.

    Raises:
        UsageError: the change cannot be brought about.
        LogLocked: the worker, or on a cluster one of them, was not stopped in time.
    """
    settings, pipeline, view = plan.planned(arguments, settings, "apply")
    if plan.apply(arguments, settings, view):
        return
    _refuse_names(arguments)
    if settings.on_kafka:
        # Its clients are loaded where they are used.
        from stream_ml.cli.execution.apply_on_cluster import apply_on_cluster  # noqa: PLC0415

        def say(text: str, members: Mapping[str, Any]) -> None:
            _say(arguments, text, members)

        apply_on_cluster(settings, pipeline, arguments.reason, arguments.wait, say)
    else:
        _apply_to_file(arguments, settings, pipeline)
    if names := plan.unapplied_tasks(arguments, settings):
        text = (
            f"not yet applied to: {', '.join(names)}; `up` refuses to start until these features "
            f"are applied there, too: stream-ml apply --task {names[0]}"
        )
        _say(arguments, text, {"said": "unapplied", "tasks": names})


def _apply_to_file(arguments: Namespace, settings: Settings, pipeline: Pipeline) -> None:
    options = runner_options(settings)
    with SqliteLog.open(settings.path, task=task_in(pipeline.name)) as log:
        key = working_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        started_s = time.monotonic()
        preparation = Preparation.beside(log, pipeline, key)
        count = preparation.advance()
        _say(
            arguments,
            f"prepared: {count:,} events folded in {time.monotonic() - started_s:.1f} s; waiting "
            f"up to {arguments.wait:g} s for the worker to be stopped, if there is one",
            {"said": "prepared", "events": count},
        )

        def say_not_isolated(line: str, reason: str) -> None:
            text = f"the line {line!r} runs in this process: {reason}"
            _say(arguments, text, {"said": "not_isolated", "line": line, "why": reason})

        # As a worker has them: a line that hangs must not hold the place here either.
        with line_processes(settings, pipeline, say_not_isolated) as processes:
            options |= {**processes, "stopwatch": stopwatch_of(settings)}

            def take_place() -> Runner:
                reason = arguments.reason
                return Runner(log, pipeline, key, apply=reason, preparation=preparation, **options)

            with _runner(take_place, preparation, arguments.wait) as runner:
                _tell(arguments, runner)


def _refuse_names(arguments: Namespace) -> None:
    """Features are changed by whoever has the worker's place: no command is signed for it."""
    names = {"--actor": arguments.actor, "--id": arguments.id}
    wrong = [option for option, name in names.items() if name is not None]
    if wrong:
        raise UsageError(
            f"apply: expected of other features neither --actor nor --id, given "
            f"{' and '.join(wrong)}: they are applied in the worker's place, by no signed command, "
            "and the audit names `evaluate`; say in --reason who asks for it"
        )


def _runner(take_place: Callable[[], Runner], preparation: Preparation, wait_s: float) -> Runner:
    """The worker's place, once it is free."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return take_place()
        except LogLocked as error:
            if time.monotonic() >= deadline_s:
                raise LogLocked(
                    f"apply: expected the worker to be stopped within {wait_s:g} s, given "
                    f"one that works on: nothing was changed; run it again, stop the worker once "
                    f"it says `prepared`, or wait longer with --wait SECONDS ({error})"
                ) from error
            preparation.advance()
            time.sleep(POLL_S)


def _tell(arguments: Namespace, runner: Runner) -> None:
    for change in runner.changes:
        _say(arguments, f"applied: {change}", {"said": "changed", "what": change})
    generation = runner.generation
    serving = runner.serving.current()
    assert serving is not None, "a runner has something that serves, or does not start"
    champion = serving.champion.ref.model
    if not runner.changes:
        text = plan.unchanged_text(champion)
    elif generation.number == 1:
        text = f"no features were changed; {champion} serves"
    else:
        text = plan.applied_text(champion, generation.begun, "the worker")
    members = {"generation": generation.number, "lines": [*runner.lines], "champion": champion}
    _say(arguments, text, {"said": "applied", **members})


def _say(arguments: Namespace, text: str, members: Mapping[str, Any]) -> None:
    if arguments.format == "json":
        write_json_line(members)
    else:
        write_line(text)
    flush()
