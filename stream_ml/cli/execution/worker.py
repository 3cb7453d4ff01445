"""`worker`: one stage of a pipeline on a cluster, until it is asked to stop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from stream_ml.cli.execution.line_processes import isolation_of
from stream_ml.cli.execution.metering import listen_address, metered
from stream_ml.cli.logs import begin_logs, log_event
from stream_ml.cli.output import flush, write_json_line, write_line
from stream_ml.client import open_log
from stream_ml.shell.alerting.setup import couriers
from stream_ml.shell.kafka.worker import Worker
from stream_ml.shell.processes.supervisor import hear_supervisor
from stream_ml.shell.settings.loader import pipeline_of

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run", "worker_maker"]

# The stages that have learners at work, but for the champion's.
LEARNING = frozenset({"learn", "evaluate"})


def run(arguments: Namespace, settings: Settings) -> None:
    """Run one stage."""
    if arguments.supervised:
        hear_supervisor()
    pipeline = pipeline_of(settings, "worker")
    context = {"pipeline": pipeline.name, "stage": arguments.stage, "instance": arguments.instance}
    begin_logs(arguments, context)
    key = settings.signing_key(settings.path)
    say = _as_json if arguments.format == "json" else _as_text

    make_worker = worker_maker(
        settings, pipeline, arguments.stage, key, say, instance=arguments.instance
    )
    # Where `up` looks after the workers, it delivers, and tells of the whole pipeline.
    is_foremost = arguments.stage == "evaluate" and not arguments.supervised
    metering = metered(
        listen_address(arguments, settings),
        settings,
        pipeline,
        key,
        lambda address: say("metrics", address=str(address)),
        tells_pipeline=is_foremost,
    )
    delivering = couriers(
        pipeline,
        settings,
        key,
        open_log=lambda: open_log(settings, pipeline.name),
        say=lambda text: say("route", what=text),
    )
    with metering as meter, delivering as delivery:
        if is_foremost:
            delivery.start()
        asyncio.run(make_worker(meter=meter, is_standby=arguments.standby).run())


def worker_maker(
    settings: Settings,
    pipeline: Pipeline,
    stage: str,
    key: bytes,
    say: Callable[..., None],
    *,
    instance: str | None = None,
) -> Callable[..., Worker]:
    """Makes a worker as the settings say, of what else it is told.

    Args:
        settings: of the process.
        pipeline: the declaration.
        stage: that it runs.
        key: signs and verifies.
        say: told what happens, as a kind and members.
        instance: a name that outlives it.
    """

    def say_not_isolated(line: str, why: str) -> None:
        say("not_isolated", line=line, why=why)

    isolation = None
    if stage in LEARNING:
        isolation = isolation_of(settings, pipeline, say_not_isolated)
    return partial(
        Worker,
        settings.cluster(pipeline.name),
        pipeline,
        stage,
        key,
        operators=settings.operators(),
        instance=instance,
        commit_s=settings.commit_seconds,
        checkpoint_s=settings.checkpoint_seconds,
        command_age_s=settings.command_age_seconds,
        checkpoint_examples=settings.checkpoint_examples,
        restart_lines=settings.restart_lines,
        learn_budget_s=settings.learn_budget_seconds,
        isolation=isolation,
        training_s=settings.training_seconds,
        training_memory_mb=settings.training_memory_mb,
        say=say,
        accepted_topics=settings.accept_topics,
        accept_unsealed=settings.accept_unsealed,
    )


def _as_json(event: str, **members: Any) -> None:
    write_json_line({"said": event, **members})
    log_event(event, _text(event, members), members)
    flush()


def _as_text(event: str, **members: Any) -> None:
    text = _text(event, members)
    write_line(text)
    log_event(event, text, members)
    flush()


def _text(event: str, members: Mapping[str, Any]) -> str:
    details = ", ".join(f"{name.strip('_')} {value}" for name, value in members.items())
    return f"{event}: {details}"
