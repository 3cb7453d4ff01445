"""`apply`: the work of the command, and its words."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream_ml.cli.execution import plan
from stream_ml.cli.execution.line_processes import line_processes, stopwatch_of
from stream_ml.cli.output import flush, write_json_line, write_line
from stream_ml.errors import LogLocked, UsageError
from stream_ml.shell.embedded.handover import Preparation
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.keys import check_name, working_key
from stream_ml.shell.settings.loader import pipeline_of

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run"]

POLL_S = 0.1


def run(arguments: Namespace, settings: Settings) -> None:
    """Prepare beside a worker, take its place once it is free, and write the change down.

    Raises:
        UsageError: the log is on a cluster, or the change cannot be brought about.
        LogLocked: the worker was not stopped in time.
    """
    if plan.apply(arguments, settings):
        return
    _refuse_names(arguments)
    if arguments.declaration is not None:
        settings = replace(settings, pipeline=arguments.declaration)
    pipeline = pipeline_of(settings, "apply")
    if settings.on_kafka:
        raise UsageError(
            f"apply: expected the embedded log, given {settings.broker}: on a cluster declare the "
            "pipeline under another name, and publish to both while the new one learns"
        )
    with SqliteLog.open(settings.path) as log:
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
            way = {**processes, "stopwatch": stopwatch_of(settings), "preparation": preparation}
            with _runner(log, pipeline, key, arguments, settings, way) as runner:
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


def _runner(  # noqa: PLR0917 - what a runner is made of
    log: SqliteLog,
    pipeline: Pipeline,
    key: bytes,
    arguments: Namespace,
    settings: Settings,
    way: Mapping[str, Any],
) -> Runner:
    """The worker's place, once it is free."""
    preparation: Preparation = way["preparation"]
    deadline_s = time.monotonic() + arguments.wait
    while True:
        try:
            return Runner(
                log,
                pipeline,
                key,
                operators=settings.operators(),
                accepted_topics=settings.accept_topics,
                accept_unsealed=settings.accept_unsealed,
                restart_lines=settings.restart_lines,
                command_age_s=settings.command_age_seconds,
                apply=arguments.reason,
                **way,
            )
        except LogLocked as error:
            if time.monotonic() >= deadline_s:
                raise LogLocked(
                    f"apply: expected the worker to be stopped within {arguments.wait:g} s, given "
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
        text = f"nothing to apply: what runs is declared like this; {champion} serves"
    elif generation.number == 1:
        text = f"no features were changed; {champion} serves"
    else:
        begun = ", ".join(
            name for name in generation.names.values() if name.endswith(f".{generation.number}")
        )
        begun = begun or "no lines"
        text = (
            f"{champion} serves on, with the features that it knows; {begun} begin anew, and "
            "shadow when they have learned what is recorded: start the worker under this "
            "declaration"
        )
    members = {"generation": generation.number, "lines": [*runner.lines], "champion": champion}
    _say(arguments, text, {"said": "applied", **members})


def _say(arguments: Namespace, text: str, members: Mapping[str, Any]) -> None:
    if arguments.format == "json":
        write_json_line(members)
    else:
        write_line(text)
    flush()
