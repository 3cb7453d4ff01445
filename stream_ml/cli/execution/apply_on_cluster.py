"""`apply` of other features on a cluster: in evaluate's place, once no worker is at work."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from stream_ml.cli.execution import plan
from stream_ml.cli.execution.worker import worker_maker
from stream_ml.cli.logs import Seldom
from stream_ml.cli.output import error_stream
from stream_ml.errors import LogLocked
from stream_ml.shell.kafka.handover import cluster_handover, is_foldable, predicted_offsets
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.metadata import stages_at_work
from stream_ml.shell.kafka.standby_group import has_standby
from stream_ml.shell.views.registry import read_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.settings.settings import Settings

__all__ = ["apply_on_cluster"]

POLL_S = 0.5
# What befalls evaluate as it takes its place, for a person to know of.
NOTICE_KINDS = frozenset({"waiting", "not_isolated", "quarantined", "group_reset", "state_lost"})


def apply_on_cluster(
    settings: Settings,
    pipeline: Pipeline,
    reason: str,
    wait_s: float,
    say: Callable[[str, Mapping[str, Any]], None],
) -> None:
    """Wait for the workers to be stopped, and have evaluate begin the change.

    Args:
        settings: which cluster, with which keys.
        pipeline: the declaration to be brought about.
        reason: why.
        wait_s: how long the workers may take to be stopped, in seconds.
        say: told what happens, as a sentence and members.

    Raises:
        UsageError: it cannot be brought about.
        LogLocked: the workers were not stopped in time.
    """
    cluster, key = settings.cluster(pipeline.name), settings.signing_key(settings.path)
    with KafkaLog(cluster) as log:
        # Up to where predict is now; evaluate asks again, when nobody is at work.
        read = predicted_offsets(log)
        planned = cluster_handover(log, cluster, pipeline, key, apply=reason, offsets=read)
        count = sum(log.end_offset("events", p) for p in read)
        champion = str(read_registry(log, key, recent=0).champion)
    unchanged = {"said": "applied", "champion": champion, "lines": []}
    if planned.generation is None:
        say(plan.unchanged_text(champion), unchanged)
        return
    may_predict = is_foldable(planned)
    is_ready = may_predict and has_standby(cluster, pipeline)
    folds = "a standby has folded" if is_ready else "predict will fold"
    when = "already" if is_ready else "again when it is started"
    others = "all workers but those of predict" if is_ready else "all workers"
    say(
        f"prepared: {folds} {count:,} events {when}; waiting up to {wait_s:g} s for {others} to be "
        "stopped",
        {"said": "prepared", "events": count, "standby": is_ready},
    )
    is_predicting = _wait(cluster, pipeline if may_predict else None, wait_s)

    kinds: set[str] = set()

    def report(kind: str, **members: Any) -> None:
        kinds.add(kind)
        if kind == "changed":
            say(f"applied: {members['message']}", {"said": kind, "what": members["message"]})
        elif kind == "applied":
            text = plan.applied_text(members["champion"], members["lines"], "all workers")
            say(text, {"said": kind, **members})
        elif kind in NOTICE_KINDS:
            text = ", ".join(f"{name.strip('_')} {value}" for name, value in members.items())
            say(f"{kind}: {text}", {"said": kind, **members})

    # Clients mend what they warn of (a broker that is gone, say), or the task ends with it.
    handler = logging.StreamHandler(error_stream())
    handler.addFilter(Seldom())
    logging.basicConfig(level=logging.ERROR, handlers=[handler], format="%(name)s: %(message)s")
    make_worker = worker_maker(settings, pipeline, "evaluate", key, report)
    asyncio.run(make_worker(apply=reason, is_predicting=is_predicting).run())
    if "recovered" not in kinds:
        raise LogLocked(
            "apply: expected to take evaluate's place, given a signal to stop before: nothing was "
            "changed; run it again"
        )
    if "applied" not in kinds:  # somebody else has applied the same meanwhile
        say(plan.unchanged_text(champion), unchanged)


def _wait(cluster: Cluster, pipeline: Pipeline | None, wait_s: float) -> bool:
    """Until no worker is a member of its group, and the brokers say so; whether predict goes on.

    Args:
        cluster: the pipeline's place.
        pipeline: the declaration, where predict need not be stopped if a standby has the same.
        wait_s: how long, in seconds.
    """
    deadline_s = time.monotonic() + wait_s
    while (stages := stages_at_work(cluster)) != frozenset():
        if (
            pipeline is not None
            and stages == frozenset({"predict"})
            and has_standby(cluster, pipeline)
        ):
            return True
        if time.monotonic() >= deadline_s:
            given = (
                "brokers that do not say who is at work (a group's coordinator moves, or this "
                "user may not describe the groups)"
                if stages is None
                else f"those of {', '.join(sorted(stages))} at work (one that was killed is "
                "thought so for a while)"
            )
            raise LogLocked(
                f"apply: expected all workers to be stopped within {wait_s:g} s, given {given}: "
                "nothing was changed; run it again, stop them once it says `prepared`, or wait "
                "longer with --wait SECONDS"
            )
        time.sleep(POLL_S)
    return False
