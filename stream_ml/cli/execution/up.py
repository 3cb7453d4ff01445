"""`up`: the whole pipeline, on what others publish, until it is asked to stop.

On the embedded log that is one worker, this process. On a cluster each stage is a worker of its
own, and this process looks after them.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from stream_ml.cli.decisions import decider, reason_text
from stream_ml.cli.execution import up_tasks
from stream_ml.cli.execution.line_processes import line_processes, runner_options, stopwatch_of
from stream_ml.cli.execution.metering import listen_address, metered
from stream_ml.cli.execution.standby import taken_place, until_applied
from stream_ml.cli.execution.supervised import SupervisorMessages, repeated_command
from stream_ml.cli.logs import begin_logs, log_event
from stream_ml.cli.output import flush, write_json_line, write_line
from stream_ml.cli.tables import format_time
from stream_ml.client import open_log
from stream_ml.errors import LogChanged, LogError, UsageError
from stream_ml.shell.alerting.setup import couriers
from stream_ml.shell.embedded.follow import work_on
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.metering.runner import MeasuredRunner
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.processes.supervisor import (
    Post,
    Process,
    Relay,
    Supervisor,
    await_broker,
    hear_supervisor,
)
from stream_ml.shell.settings.keys import check_name, check_serving, working_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.views.registry import running_pipeline
from stream_ml.stages.topology import STAGES
from stream_ml.task_names import task_in

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Decision
    from stream_ml.shell.alerting.courier import Couriers
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.metering.meter import Meter
    from stream_ml.shell.settings.listening import ListenAddress
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
    if arguments.supervised:
        hear_supervisor()
    pipeline = pipeline_of(settings, "up")
    if pipeline.task_pipelines and settings.task is None:
        up_tasks.run(arguments, settings, pipeline)
    elif settings.on_kafka:
        _supervise(arguments, settings, pipeline)
    else:
        _work(arguments, settings, pipeline)


# --- on the embedded log --------------------------------------------------------------------------


def _work(arguments: Namespace, settings: Settings, pipeline: Pipeline) -> None:
    """Hold the worker's place and work, telling what serves whenever that changes."""
    _refuse_cluster_options(arguments, settings)
    begin_logs(arguments, {"pipeline": pipeline.name})
    options = runner_options(settings)
    messages = _WorkerMessages(as_json=arguments.format == "json")
    beginning = line_processes(settings, pipeline, messages.print_not_isolated)
    opening = SqliteLog.open_or_create(settings.path, task=task_in(pipeline.name))
    with Stop() as stop, beginning as processes, opening as log:
        key = working_key(settings, log)
        check_name(settings, log, pipeline.name, key)
        record_count = disturbances = 0
        stopwatch = stopwatch_of(settings)

        def work(delivery: Couriers, meter: Meter | None) -> None:
            nonlocal record_count
            make_runner = partial(
                Runner if meter is None else partial(MeasuredRunner, meter),
                log,
                pipeline,
                key,
                **options,
                **processes,
                stopwatch=stopwatch,
                exclusive=disturbances > DISTURBANCES_MAX,
            )
            with taken_place(make_runner, stop) if arguments.standby else make_runner() as runner:
                loaded_set = runner.serving.current()
                assert loaded_set is not None, "a runner that starts has something that serves"
                messages.print_start(pipeline.name, settings.path, loaded_set.champion.ref.model)
                messages.print_taken_up(runner)
                delivery.start()
                record_count += work_on(
                    runner,
                    log,
                    stop,
                    commit_s=settings.checkpoint_seconds,
                    on_decision=messages.print_decision,
                    # A task's own declaration does not say which others there are.
                    tasks=None if task_in(pipeline.name) else pipeline.task_pipelines,
                )

        address = listen_address(arguments, settings)
        metering = metered(address, settings, pipeline, key, messages.print_metrics)
        delivering = couriers(
            pipeline,
            settings,
            key,
            open_log=lambda: open_log(settings, pipeline.name),
            say=messages.print_route,
        )
        with metering as meter, ExitStack() as stack:
            if arguments.standby:  # probes are answered while it waits
                until_applied(log, pipeline, key, stop, messages.print_standby)
            if stop.is_requested:
                return
            delivery = stack.enter_context(delivering)
            while True:
                started_s = time.monotonic()
                try:
                    work(delivery, meter)
                except LogChanged as error:
                    _count_restart(meter, "all")
                    if time.monotonic() - started_s > UNDISTURBED_S:
                        disturbances = 0
                    disturbances += 1
                    messages.print_disturbance(error, exclusive=disturbances > DISTURBANCES_MAX)
                else:
                    break
        messages.print_stop(record_count)


def _refuse_cluster_options(arguments: Namespace, settings: Settings) -> None:
    for option in SCALING:
        if getattr(arguments, option) is not None:
            raise UsageError(
                f"--{option}: expected a broker kafka://HOST:PORT, given {settings.broker}; on the "
                "embedded log one process does all"
            )


class _WorkerMessages:
    """Messages of the worker to the operator, a line each."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._champion = ""

    def print_start(self, pipeline: str, path: str, champion: str) -> None:
        self._champion = champion
        self._print(
            f"{pipeline} works on {path}: {champion} serves; Ctrl-C stops it",
            {"said": "started", "pipeline": pipeline, "log": path, "champion": champion},
        )

    def print_standby(self) -> None:
        self._print(
            "waits, ready, for this declaration to be applied: `stream-ml apply`",
            {"said": "standby"},
        )

    def print_disturbance(self, error: LogChanged, *, exclusive: bool) -> None:
        text = str(error)
        if exclusive:
            text += (
                ", and keeps all others from writing while it works on a batch: publishers wait "
                "for up to a second, until the other writer has stopped"
            )
        self._print(text, {"said": "disturbed", "what": text, "exclusive": exclusive})

    def print_taken_up(self, runner: Runner) -> None:
        for change in runner.changes:
            self.print_change(change)
        for line, reason in runner.quarantine_reasons.items():
            self.print_quarantine(line, reason)

    def print_change(self, change: str) -> None:
        self._print(
            f"declared otherwise than before: {change}", {"said": "changed", "what": change}
        )

    def print_quarantine(self, line: str, reason: str) -> None:
        self._print(reason, {"said": "quarantined", "line": line, "why": reason})

    def print_not_isolated(self, line: str, reason: str) -> None:
        self._print(
            f"the line {line!r} runs in the worker's own process: {reason}",
            {"said": "not_isolated", "line": line, "why": reason},
        )

    def print_route(self, text: str) -> None:
        self._print(text, {"said": "route", "what": text})

    def print_metrics(self, address: ListenAddress) -> None:
        self._print(f"metrics and probes: http://{address}", _metrics_members(address))

    def print_decision(self, decision: Decision) -> None:
        champion = decision.serving.champion.model
        is_switch = champion != self._champion
        # An operator's command is reported whatever came of it.
        if not is_switch and decision.command_id is None:
            return
        self._champion = champion
        self._print(
            f"{_decision_time(decision)} {champion} serves: decision {decision.number}, "
            f"{decision.kind} by {decider(decision.actor, decision.signed_by)}: "
            f"{reason_text(decision)}",
            {
                "said": "serves" if is_switch else "answered",
                "champion": champion,
                "decision": decision.as_dict(),
            },
        )

    def print_stop(self, record_count: int) -> None:
        self._print(
            f"stopped: {record_count:,} records were worked on, and all is written down",
            {"said": "stopped", "records": record_count},
        )

    def _print(self, text: str, members: dict[str, Any]) -> None:
        if self._as_json:
            write_json_line(members)
        else:
            write_line(text)
        log_event(members["said"], text, members)
        flush()


def _metrics_members(address: ListenAddress) -> dict[str, Any]:
    return {"said": "metrics", "address": str(address)}


def _count_restart(meter: Meter | None, stage: str) -> None:
    if meter is not None:
        meter.restarts[stage] += 1


def _decision_time(decision: Decision) -> str:
    """In the time of events, and what a person decided by the clock."""
    if decision.given_ms is None:
        return format_time(decision.ts)
    return f"{format_time(decision.given_ms)} (at events of {format_time(decision.ts)})"


# --- on a cluster ---------------------------------------------------------------------------------


def _supervise(arguments: Namespace, settings: Settings, pipeline: Pipeline) -> None:
    """Start a worker for each stage, and look after them."""
    begin_logs(arguments, {"pipeline": pipeline.name})
    cluster = settings.cluster(pipeline.name)
    # Every worker would find this wrong; one message is better than five.
    settings.signing_key(settings.path)
    settings.operators()
    posts = _posts(arguments)
    messages = _Messages(
        posts, as_json=arguments.format == "json", has_json_logs=arguments.log_format == "json"
    )
    relay = Relay()
    address = listen_address(arguments, settings)
    addresses = _worker_addresses(posts, address)
    starts: Counter[Post] = Counter()

    def start(post: Post, meter: Meter | None) -> Process:
        starts[post] += 1
        if starts[post] > 1:
            _count_restart(meter, post.stage)
        return Process(
            _worker(post, arguments, addresses.get(post)),
            relay,
            on_out=lambda line: messages.print_output(post, line),
            on_err=lambda line: messages.print_error(post, line),
        )

    with Stop() as stop:

        def should_stop() -> bool:
            return stop.is_requested

        if await_broker(
            cluster.bootstrap, is_stopping=should_stop, wait=stop.wait, say=messages.print
        ):
            # That there are topics, and what is signed is ours, as every worker would.
            with open_log(settings, pipeline.name) as log:
                key = working_key(settings, log)
                if not arguments.standby:  # what serves then, the workers see
                    check_serving(log, key, running_pipeline(log, pipeline, key))
            messages.print(
                f"{pipeline.name} works on {settings.broker} with {len(posts)} workers; "
                "Ctrl-C stops them",
                {"said": "started", "pipeline": pipeline.name, "workers": len(posts)},
            )
            _warn_of_open_topics(cluster, messages)
            metering = metered(
                address, settings, pipeline, key, messages.print_metrics, workers=addresses
            )
            delivering = couriers(
                pipeline,
                settings,
                key,
                open_log=lambda: open_log(settings, pipeline.name),
                say=messages.print_route,
            )
            with metering as meter, delivering as delivery:
                delivery.start()
                start_worker = partial(start, meter=meter)
                supervisor = Supervisor(
                    posts,
                    start_worker,
                    say=messages.print,
                    wait=relay.pump,
                    is_last=lambda post: post.stage == "predict",
                    goes_on=lambda: _is_awaited(cluster, pipeline),
                )
                supervisor.run(should_stop)
        messages.print("stopped: no worker is left", {"said": "stopped"})


def _is_awaited(cluster: Cluster, pipeline: Pipeline) -> bool:
    """Whether others wait for the place of those who predict; our own standbys do not count."""
    # As below.
    from stream_ml.shell.kafka.standby_group import has_other_standby  # noqa: PLC0415

    return has_other_standby(cluster, pipeline)


def _warn_of_open_topics(cluster: Cluster, messages: _Messages) -> None:
    # The client is slow to load, and on the embedded log nobody needs it.
    from stream_ml.shell.kafka.admin import write_access_warning  # noqa: PLC0415

    with suppress(LogError):  # whoever needs the brokers says what is wrong with them
        if (warning := write_access_warning(cluster)) is not None:
            messages.print(f"warning: {warning}", {"said": "anyone_may_write", "warning": warning})


def _posts(arguments: Namespace) -> list[Post]:
    return [
        Post(stage, number)
        for stage in STAGES
        for number in range(1, (getattr(arguments, stage, None) or 1) + 1)
    ]


def _worker_addresses(
    posts: list[Post], address: ListenAddress | None
) -> dict[Post, ListenAddress]:
    """Where each worker answers scrapes and probes: at the ports behind ours, in their order."""
    if address is None:
        return {}
    if not address.port:
        raise UsageError(
            "--metrics: expected a port, behind which the workers' own follow, given 0; name one, "
            "such as 9464"
        )
    return {post: address.with_port(address.port + n) for n, post in enumerate(posts, 1)}


def _worker(post: Post, arguments: Namespace, address: ListenAddress | None) -> list[str]:
    """The command of the worker that fills a post, set as we are."""
    # The same name after each start: then it gets back what it had, and nobody else is disturbed.
    # Another `up` on this host has workers of other names.
    words = ["worker", post.stage, "--supervised"]
    words += ["--instance", f"{socket.gethostname()}-{os.getpid()}-{post}"]
    if address is not None:
        words += ["--metrics", str(address)]
    if arguments.standby:
        words.append("--standby")
    return repeated_command(arguments, words)


class _Messages(SupervisorMessages):
    """Output of the workers, and ours."""

    def print_route(self, text: str) -> None:
        self.print(text, {"said": "route", "what": text})

    def print_metrics(self, address: ListenAddress) -> None:
        self.print(f"metrics and probes: http://{address}", _metrics_members(address))
