"""`up`: the worker, on what others publish, until it is asked to stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.shell.commands.command import Command, Example, no_arguments
from stream_ml.shell.commands.output import moment, write
from stream_ml.shell.loading import pipeline_of
from stream_ml.shell.runner import Runner
from stream_ml.shell.sqlite_log import SqliteLog
from stream_ml.shell.stopping import Stop
from stream_ml.shell.worker import work_on

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.records import Decision
    from stream_ml.shell.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Hold the worker's place and work, telling what serves whenever that changes."""
    pipeline = pipeline_of(settings, "up")
    operators = settings.operators()
    say = _Told(as_json=arguments.format == "json")
    with Stop() as stop, SqliteLog.open_or_create(settings.path) as log:
        runner = Runner(
            log,
            pipeline,
            settings.signing_key(settings.path),
            operators=operators,
            checkpoint_examples=settings.checkpoint_examples,
            checkpoint_s=settings.checkpoint_seconds,
        )
        with runner:
            lineup = runner.serving.lineup()
            assert lineup is not None, "a runner has something that serves, or does not start"
            say.started(pipeline.name, settings.path, lineup.champion.ref.model)
            commit_s = settings.checkpoint_seconds
            done = work_on(runner, log, stop, commit_s=commit_s, decided=say.decided)
        say.stopped(done)


class _Told:
    """What the operator is told, a line at a time."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._champion = ""

    def started(self, pipeline: str, path: str, champion: str) -> None:
        self._champion = champion
        self._say(
            f"{pipeline} works on {path}: {champion} serves; Ctrl-C stops it",
            {"said": "started", "pipeline": pipeline, "log": path, "champion": champion},
        )

    def decided(self, decision: Decision) -> None:
        champion = decision.serving.champion.model
        if champion == self._champion:
            return
        self._champion = champion
        self._say(
            f"{moment(decision.ts)} {champion} serves: decision {decision.number}, "
            f"{decision.kind} by {decision.actor}: {decision.reason}",
            {
                "said": "serves",
                "champion": champion,
                "decision": decision.number,
                "kind": decision.kind,
                "ts": decision.ts,
                "actor": decision.actor,
                "reason": decision.reason,
            },
        )

    def stopped(self, done: int) -> None:
        self._say(
            f"stopped: {done:,} records were worked on, and all is written down",
            {"said": "stopped", "records": done},
        )

    def _say(self, text: str, members: dict[str, Any]) -> None:
        write(orjson.dumps(members).decode() if self._as_json else text)
        sys.stdout.flush()


COMMAND = Command(
    name="up",
    help="run the pipeline on what is published, until stopped",
    description=(
        "Runs every stage of the pipeline on what lies on the log and on what others publish to\n"
        "it, in one process, and says whenever another model serves. Makes the log if there is\n"
        "none. Ctrl-C or SIGTERM stops it, with all it did written down; killed, it goes on from\n"
        "its last commit when it is started again. With --format json it says JSON lines."
    ),
    examples=(
        Example("stream-ml --pipeline shop:fraud up", "the pipeline `fraud` of shop.py"),
        Example(
            "stream-ml --pipeline shop:fraud --broker sqlite:shop.sqlite up --format json",
            "on a log of its own, telling a machine",
        ),
    ),
    add_arguments=no_arguments,
    run=run,
)
