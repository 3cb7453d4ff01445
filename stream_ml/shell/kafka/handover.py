"""Features changed on a cluster: what a worker takes up, and what has to be so before they begin.

Theory of operation. See `stream_ml.shell.handover`, and:

1. A decision begins other features, which evaluate writes when it is started for that
   (`stream-ml apply`), in one transaction with its state: so it is made wholly or not at all, and
   by a member of the group, so by one alone. All workers are stopped then (`stages_at_work`).
2. Each task takes the change up when it is next taken over, and commits that, with its positions,
   in one transaction: whatever dies before begins it again. Predict's windows are folded from the
   first event up to where its state is valid; then it goes on as ever. What learn is given of
   examples from before is folded up to each event's own place.
3. So what comes out is a function of the log: of the offsets that the decision names.
4. Where a standby waits, predict alone is at work at (1), and at (2) it has just ended: see
   `stream_ml.shell.kafka.standby`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.differences import accepted_changes, fold_differences
from stream_ml.errors import UsageError
from stream_ml.generation import newest_generation
from stream_ml.sealing import MARKER, Seals
from stream_ml.shell.handover import Handover, handover
from stream_ml.shell.views.registry import entries
from stream_ml.stages.erasure import Erasures
from stream_ml.stages.topology import task_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.kafka.log import KafkaLog

__all__ = [
    "BEGIN_ANEW",
    "cluster_handover",
    "is_foldable",
    "latest_offsets",
    "planned_handover",
    "predicted_offsets",
]

BEGIN_ANEW = "begin anew under another name of the pipeline"
# A worker of predict sees a decision in less than a second, and ends. The decision is made once
# evaluate has joined its group (seconds) and has recovered (a minute of records, at most): until
# then predict comes no further than as many events as came in so long, or as it can fold in half a
# minute, should they come all at once. What is too much costs learn the features of so many more.
SIGHT_MS, SIGHT_EVENTS = 600_000, 100_000


def cluster_handover(
    log: KafkaLog,
    cluster: Cluster,
    pipeline: Pipeline,
    key: bytes,
    *,
    apply: str | None = None,
    offsets: Mapping[int, int] | None = None,
    latest: Mapping[int, int] | None = None,
) -> Handover:
    """What a worker takes up that starts now.

    Args:
        log: that it works on.
        cluster: the pipeline's place.
        pipeline: as it is declared.
        key: verifies decisions and state.
        apply: why other features are to be brought about; None: they are not.
        offsets: by partition of events, up to where predict has committed.
        latest: see `stream_ml.shell.handover.handover`.

    Raises:
        UsageError: other features are declared than were applied; or they cannot be.
    """
    current = newest_generation(entry.decision for entry in entries(log, key))
    if apply is None and current.number == 1:
        # Each task compares its own state.
        erasures = Erasures(key, pipeline.name, log.identity)
        return Handover(pipeline.running_as(current), erasures=erasures)
    found = planned_handover(
        log, cluster, pipeline, key, apply=apply, offsets=offsets, latest=latest
    )
    if found.generation is not None and (
        paths := fold_differences(found.former, pipeline.declaration())
    ):
        _expect_whole_states(log, Seals(key, pipeline.name, log.identity), paths)
    return found


def planned_handover(
    log: KafkaLog,
    cluster: Cluster,
    pipeline: Pipeline,
    key: bytes,
    *,
    apply: str | None,
    offsets: Mapping[int, int] | None = None,
    latest: Mapping[int, int] | None = None,
) -> Handover:
    """What a declaration begins, as far as the log says; states are not looked at.

    Args:
        log: see `cluster_handover`.
        cluster: likewise.
        pipeline: likewise.
        key: likewise.
        apply: likewise.
        offsets: likewise.
        latest: likewise.

    Raises:
        UsageError: other features are declared than were applied; or they cannot be.
    """
    origin = f"the state of evaluate-0 on {cluster.topic('evaluate-changelog')}"
    found = handover(
        log,
        pipeline,
        key,
        Seals(key, pipeline.name, log.identity),
        apply=apply,
        log_name=origin,
        restart_advice=BEGIN_ANEW,
        offsets=offsets,
        latest=latest,
    )
    if found.generation is not None:
        present = pipeline.declaration()
        accepted_changes(found.former, present, origin, BEGIN_ANEW, applied_texts=present)
    return found


def is_foldable(planned: Handover) -> bool:
    """Whether what was folded under the former declaration is the same under the one to come.

    Args:
        planned: what is to begin.
    """
    return not fold_differences(planned.former, planned.pipeline.declaration())


def predicted_offsets(log: KafkaLog) -> dict[int, int]:
    """By partition of events, up to where predict has committed.

    Args:
        log: that it works on.
    """
    return {
        p: log.committed(task_name("predict", p)).get(("events", p), 0)
        for p in range(log.partitions["events"])
    }


def latest_offsets(log: KafkaLog, now_ms: int) -> dict[int, int]:
    """By partition of events, an offset that predict does not come to before it sees a decision.

    Args:
        log: that it works on.
        now_ms: UTC milliseconds.
    """
    offsets = {}
    for partition in range(log.partitions["events"]):
        end = log.end_offset("events", partition)
        recent = end - log.offset_at("events", partition, now_ms - SIGHT_MS)
        offsets[partition] = end + max(SIGHT_EVENTS, recent)
    return offsets


def _expect_whole_states(log: KafkaLog, seals: Seals, paths: list[str]) -> None:
    """Expect states with all in them that was committed: folding it again would be otherwise.

    Raises:
        UsageError: a state lacks some of it.
    """
    for stage in ("predict", "join"):
        for partition in range(log.partitions["events" if stage == "predict" else "labels"]):
            task = task_name(stage, partition)
            value = log.piece(task, MARKER.decode())
            marker = None if value is None else seals.state(task).opened_marker(value)
            positions = {} if marker is None else marker.positions
            committed = log.committed(task)
            if any(positions.get(source, 0) < offset for source, offset in committed.items()):
                raise UsageError(
                    f"apply: expected all in the state of {task} that it has committed, for "
                    f"{', '.join(paths)} is another as well, given one that was killed: start the "
                    "workers once more as they were declared, stop them in order (Ctrl-C or "
                    "SIGTERM), and apply it then"
                )
