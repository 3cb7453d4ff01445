"""`up` of a pipeline with tasks: an `up` for each of them, in a process of its own, looked after.

So each task works as a pipeline alone would, on whatever log, and none waits for another.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.cli.execution.metering import listen_address
from stream_ml.cli.execution.supervised import SupervisorMessages, repeated_command
from stream_ml.cli.logs import begin_logs
from stream_ml.errors import UsageError
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.processes.supervisor import (
    GOES_ON_S,
    STOP_S,
    Post,
    Process,
    Relay,
    Supervisor,
)
from stream_ml.stages.topology import STAGES
from stream_ml.task_names import MAIN_TASK

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.listening import ListenAddress
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run"]

# On a cluster each of them waits for its own workers to stop first, of which predict goes on while
# a standby is about to take over.
NESTED_STOP_S = GOES_ON_S + STOP_S + 5.0


def run(arguments: Namespace, settings: Settings, pipeline: Pipeline) -> None:
    """Work on all tasks until asked to stop.

    Args:
        arguments: of the command line.
        settings: which log.
        pipeline: the declaration, with its tasks.

    Raises:
        UsageError: it is to stand by, which each task does by itself.
    """
    if arguments.standby:
        raise UsageError(
            "--standby: expected one of the tasks "
            f"{', '.join((MAIN_TASK, *pipeline.task_pipelines))} by --task, given all of them: "
            "features are applied task by task"
        )
    begin_logs(arguments, {"pipeline": pipeline.name})
    posts = [Post(name, 0) for name in (MAIN_TASK, *pipeline.task_pipelines)]
    if not settings.on_kafka:
        # Whoever publishes labels of a task need not wait for its worker.
        for task in (None, *pipeline.task_pipelines):
            SqliteLog.open_or_create(settings.path, task=task).close()
    messages = _Messages(posts, as_json=arguments.format == "json", has_json_logs=True)
    relay = Relay()
    addresses = _addresses(posts, arguments, settings)

    def start(post: Post) -> Process:
        return Process(
            _command(post, arguments, addresses.get(post)),
            relay,
            on_out=partial(messages.print_output, post),
            on_err=partial(messages.print_error, post),
        )

    with Stop() as stop:
        names = ", ".join(map(str, posts))
        messages.print(
            f"{pipeline.name} works on {settings.path}, on the tasks {names}; Ctrl-C stops them",
            {"said": "started", "pipeline": pipeline.name, "tasks": [str(post) for post in posts]},
        )
        supervisor = Supervisor(
            posts, start, say=messages.print, wait=relay.pump, stop_s=NESTED_STOP_S
        )
        supervisor.run(lambda: stop.is_requested)
        messages.print("stopped: no task is worked on", {"said": "stopped"})


def _addresses(
    posts: list[Post], arguments: Namespace, settings: Settings
) -> dict[Post, ListenAddress]:
    """Where each answers scrapes and probes: one after the other, with room for its workers."""
    address = listen_address(arguments, settings)
    if address is None:
        return {}
    workers = sum(getattr(arguments, stage, None) or 1 for stage in STAGES)
    width = 1 + (workers if settings.on_kafka else 0)
    return {
        post: address.with_port(address.port + n * width if address.port else 0)
        for n, post in enumerate(posts)
    }


def _command(post: Post, arguments: Namespace, address: ListenAddress | None) -> list[str]:
    """The command of the process that works on a task, set as we are."""
    words = ["up", "--supervised"]
    if address is not None:
        words += ["--metrics", str(address)]
    for stage in STAGES:
        if (count := getattr(arguments, stage, None)) is not None:
            words += [f"--{stage}", str(count)]
    return repeated_command(arguments, words, task=str(post))


class _Messages(SupervisorMessages):
    """Output of the processes, and ours: for machines with the task as a member."""

    def _record(self, post: Post, line: str) -> Any:
        try:
            return {**orjson.loads(line), "task": str(post)}
        except (orjson.JSONDecodeError, TypeError):
            return super()._record(post, line)
