"""`up`: the whole pipeline, on what others publish, until it is asked to stop.

On the embedded log that is one worker, this process. On a cluster each stage is a worker of its
own, and this process looks after them.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stream_ml.cli.decisions import by
from stream_ml.cli.output import complain, flush, write_json_line, write_line
from stream_ml.cli.tables import moment
from stream_ml.client import open_log
from stream_ml.errors import LogChanged, LogError, UsageError
from stream_ml.shell.embedded.follow import work_on
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.processes.supervisor import Post, Process, Relay, Supervisor, await_broker
from stream_ml.shell.settings.keys import check_name, check_serving, working_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.settings.settings import SETTINGS
from stream_ml.stages.topology import STAGES

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from stream_ml.records import Decision
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run"]

# After more commits in a row that somebody's writing straight into the file has undone, others are
# kept from writing for the length of a batch; they are in a row if a worker lived no longer.
DISTURBANCES_MAX = 2
UNDISTURBED_S = 60.0

# The stages that may have several workers, each with an option that says how many.
SCALING = tuple(name for name, spec in STAGES.items() if spec.scales)


def run(arguments: Namespace, settings: Settings) -> None:
    """Run what there is to run on this kind of log."""
    if settings.on_kafka:
        _supervise(arguments, settings)
    else:
        _work(arguments, settings)


# --- on the embedded log --------------------------------------------------------------------------


def _work(arguments: Namespace, settings: Settings) -> None:
    """Hold the worker's place and work, telling what serves whenever that changes."""
    for option in SCALING:
        if getattr(arguments, option) is not None:
            raise UsageError(
                f"--{option}: expected a broker kafka://HOST:PORT, given {settings.broker}; on the "
                "embedded log one process does all"
            )
    pipeline = pipeline_of(settings, "up")
    operators = settings.operators()
    say = _Told(as_json=arguments.format == "json")
    with Stop() as stop, SqliteLog.open_or_create(settings.path) as log:
        key = working_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        done = disturbances = 0

        def work() -> None:
            nonlocal done
            runner = Runner(
                log,
                pipeline,
                key,
                operators=operators,
                checkpoint_examples=settings.checkpoint_examples,
                checkpoint_s=settings.checkpoint_seconds,
                accepted=settings.accept_topics,
                accept_unsealed=settings.accept_unsealed,
                restart_lines=settings.restart_lines,
                command_age_s=settings.command_age_seconds,
                exclusive=disturbances > DISTURBANCES_MAX,
            )
            with runner:
                loaded = runner.serving.current()
                assert loaded is not None, "a runner has something that serves, or does not start"
                say.started(pipeline.name, settings.path, loaded.champion.ref.model)
                for change in runner.changes:
                    say.changed(change)
                for line, why in runner.learn.quarantine_reasons.items():
                    say.quarantined(line, why)
                commit_s = settings.checkpoint_seconds
                done += work_on(runner, log, stop, commit_s=commit_s, decided=say.decided)

        while True:
            started = time.monotonic()
            try:
                work()
            except LogChanged as error:
                if time.monotonic() - started > UNDISTURBED_S:
                    disturbances = 0
                disturbances += 1
                say.disturbed(error, exclusive=disturbances > DISTURBANCES_MAX)
            else:
                break
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

    def disturbed(self, error: LogChanged, *, exclusive: bool) -> None:
        what = str(error)
        if exclusive:
            what += (
                ", and keeps all others from writing while it works on a batch: publishers wait "
                "for up to a second, until the other writer has stopped"
            )
        self._say(what, {"said": "disturbed", "what": what, "exclusive": exclusive})

    def changed(self, change: str) -> None:
        self._say(f"declared otherwise than before: {change}", {"said": "changed", "what": change})

    def quarantined(self, line: str, why: str) -> None:
        self._say(why, {"said": "quarantined", "line": line, "why": why})

    def decided(self, decision: Decision) -> None:
        champion = decision.serving.champion.model
        switched = champion != self._champion
        # What a person asked for is told whatever came of it.
        if not switched and decision.command_id is None:
            return
        self._champion = champion
        self._say(
            f"{_when(decision)} {champion} serves: decision {decision.number}, "
            f"{decision.kind} by {by(decision.actor, decision.signed_by)}: {decision.reason}",
            {
                "said": "serves" if switched else "answered",
                "champion": champion,
                "decision": decision.as_dict(),
            },
        )

    def stopped(self, done: int) -> None:
        self._say(
            f"stopped: {done:,} records were worked on, and all is written down",
            {"said": "stopped", "records": done},
        )

    def _say(self, text: str, members: dict[str, Any]) -> None:
        if self._as_json:
            write_json_line(members)
        else:
            write_line(text)
        flush()


def _when(decision: Decision) -> str:
    """In the time of events, and what a person decided by the clock."""
    if decision.given_ms is None:
        return moment(decision.ts)
    return f"{moment(decision.given_ms)} (at events of {moment(decision.ts)})"


# --- on a cluster ---------------------------------------------------------------------------------


def _supervise(arguments: Namespace, settings: Settings) -> None:
    """Start a worker for each stage, and look after them."""
    pipeline = pipeline_of(settings, "up")
    cluster = settings.cluster(pipeline.name)
    # Every worker would find this wrong; one message is better than five.
    settings.signing_key(settings.path)
    settings.operators()
    posts = _posts(arguments)
    said = _Relayed(posts, as_json=arguments.format == "json")
    relay = Relay()

    def start(post: Post) -> Process:
        return Process(
            _worker(post, arguments),
            relay,
            out=lambda line: said.out(post, line),
            err=lambda line: said.err(post, line),
        )

    with Stop() as stop:

        def asked() -> bool:
            return stop.asked

        if await_broker(cluster.bootstrap, asked=asked, wait=stop.wait, say=said.own):
            # That there are topics, and what is signed is ours, as every worker would.
            with open_log(settings, pipeline.name) as log:
                check_serving(log, working_key(settings, log), pipeline.recipes)
            said.own(
                f"{pipeline.name} works on {settings.broker} with {len(posts)} workers; "
                "Ctrl-C stops them",
                {"said": "started", "pipeline": pipeline.name, "workers": len(posts)},
            )
            _say_who_may_write(cluster, said)
            Supervisor(posts, start, say=said.own, wait=relay.pump).run(asked)
        said.own("stopped: no worker is left", {"said": "stopped"})


def _say_who_may_write(cluster: Cluster, said: _Relayed) -> None:
    # The client is slow to load, and on the embedded log nobody needs it.
    from stream_ml.shell.kafka.admin import write_access_warning  # noqa: PLC0415

    with suppress(LogError):  # whoever needs the brokers says what is wrong with them
        if (warning := write_access_warning(cluster)) is not None:
            said.own(f"warning: {warning}", {"said": "anyone_may_write", "warning": warning})


def _posts(arguments: Namespace) -> list[Post]:
    return [
        Post(stage, number)
        for stage in STAGES
        for number in range(1, (getattr(arguments, stage, None) or 1) + 1)
    ]


def _worker(post: Post, arguments: Namespace) -> list[str]:
    """The command of the worker that fills a post, set as we are.

    What the environment sets it inherits; what options set it is given again.
    """
    options = [
        word
        for name, setting in SETTINGS.items()
        if setting.option is not None and (given := getattr(arguments, name, None)) is not None
        for word in (setting.option, given)
    ]
    # -P: the folder where we stand is searched for the declaration only, as `stream-ml` does.
    python = [sys.executable, "-P", "-m", "stream_ml.cli.main"]
    # The same name after each start: then it gets back what it had, and nobody else is disturbed.
    # Another `up` on this host has workers of other names.
    own = ["--supervised", "--instance", f"{socket.gethostname()}-{os.getpid()}-{post}"]
    return [*python, "worker", post.stage, *own, "--format", arguments.format, *options]


class _Relayed:
    """What the workers say, and we of them: for people with who it is, for machines as it is."""

    def __init__(self, posts: list[Post], *, as_json: bool) -> None:
        self._as_json = as_json
        self._width = max(len(str(post)) for post in posts)

    def own(self, text: str, members: Mapping[str, Any]) -> None:
        if self._as_json:
            write_json_line(members)
        else:
            write_line(text)
        flush()

    def out(self, post: Post, line: str) -> None:
        if self._as_json:
            write_json_line(line.encode())
        else:
            write_line(self._of(post, line))
        flush()

    def err(self, post: Post, line: str) -> None:
        complain(printable(self._of(post, line)))

    def _of(self, post: Post, line: str) -> str:
        return f"{post!s:<{self._width}} | {line}"
