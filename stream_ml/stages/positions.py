"""Whether a position is one of its topic, and where to go on where it is not.

A position is a number. It means something only of the partition that it was counted in: of a topic
that was deleted and made anew under its name, or cut off behind it, it says nothing, and of what
retention removed before it was read nothing is left. So whoever takes up positions holds them
against what the log has (`find_resume_point`):

1. A topic of another identity than the one that was read, or that ends before the position:
   refused, for whatever is done some records might be passed over in silence. Whoever has seen to
   it accepts the topic by name; then it is read from its beginning.
2. A partition that begins past the position: read from there on. What is gone is gone.

What follows from 1 (accepted) and 2 is counted in the stage's state and raised as an alert, both in
the same transaction as the new position (`record_notice`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stream_ml.records import Output
    from stream_ml.stages.alarms import Alarms

__all__ = [
    "ACCEPT",
    "SKIPPED_KEY",
    "Extent",
    "Notice",
    "ResumePoint",
    "find_resume_point",
    "record_notice",
]

# The next offset to read, per topic and partition.
Positions = dict[tuple[str, int], int]
# The setting that accepts topics for what they are now.
ACCEPT = "STREAM_ML_ACCEPT_TOPICS"
# What is counted in a stage's state.
SKIPPED_KEY = "skipped"


class Extent(NamedTuple):
    """What there is of a partition: of which topic, from which offset, up to before which."""

    identity: str
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a task's inputs that no record of them says, for its state and the alerts."""

    kind: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
    skipped: int = 0

    @property
    def subject(self) -> str:
        """The partition that it is about, where it is about one."""
        topic, partition = self.details.get("topic"), self.details.get("partition")
        return "" if topic is None or partition is None else f"{topic}-{partition}"


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a task goes on.

    Attributes:
        state: where its state is valid, of what there still is.
        read: up to where its inputs were read, of what there still is; not before `state`.
        notices: what it has to tell.
    """

    state: Positions
    read: Positions
    notices: tuple[Notice, ...]


def find_resume_point(
    task: str,
    *,
    state: Positions,
    read: Positions,
    identities: Mapping[str, str],
    extents: Mapping[tuple[str, int], Extent],
    accepted_topics: Collection[str],
) -> ResumePoint:
    """Hold a task's positions against what the log has.

    Args:
        task: its name.
        state: where its state is valid; 0 where nothing is said.
        read: up to where its inputs were read, with all that followed written; as `state` where
            nothing is said.
        identities: of the topics that were read, as far as they are known.
        extents: of each of its inputs, what there is.
        accepted_topics: the topics that are taken for what they are, by name.

    Raises:
        UsageError: some position is not of its topic, which is not accepted.

    >>> there = {("events", 0): Extent("b", 40, 100)}
    >>> state = {("events", 0): 10}
    >>> find_resume_point(
    ...     "predict-0", state=state, read={}, identities={}, extents=there, accepted_topics=()
    ... ).read
    {('events', 0): 40}
    """
    problems: dict[tuple[str, int], str] = {}
    notices = []
    state, read = dict(state), {**state, **read}
    for topic_partition, extent in extents.items():
        topic = topic_partition[0]
        position, identity = read.get(topic_partition, 0), identities.get(topic, "")
        is_other = bool(position and identity and extent.identity and identity != extent.identity)
        if is_other or position > extent.end:
            if topic not in accepted_topics:
                problems[topic_partition] = _problem(
                    topic_partition, position, identity, extent, is_other=is_other
                )
                continue
            notices.append(_anew_notice(topic_partition, position, identity, extent))
            state[topic_partition] = read[topic_partition] = position = 0
        if state.get(topic_partition, 0) < extent.first:
            notices.append(
                _loss_notice(topic_partition, state.get(topic_partition, 0), position, extent.first)
            )
            state[topic_partition] = extent.first
            read[topic_partition] = max(position, extent.first)
    if problems:
        topics = ",".join(dict.fromkeys(topic for topic, _ in problems))
        raise UsageError(
            f"{task}: {'; '.join(problems.values())}. It was made anew, cut off, or is another "
            "cluster's; nothing of it was read. Put back what was there, or have the tasks begin "
            f"where it begins, by starting once with {ACCEPT}={topics}"
        )
    return ResumePoint(state, read, tuple(notices))


def _problem(
    topic_partition: tuple[str, int],
    position: int,
    identity: str,
    extent: Extent,
    *,
    is_other: bool,
) -> str:
    was = f" of the topic {identity}" if is_other else ""
    is_now = f"the topic {extent.identity}, which" if is_other else "one that"
    return (
        f"{topic_partition[0]}-{topic_partition[1]}: expected the partition{was} that was read up "
        f"to {position}, given {is_now} begins at {extent.first} and ends at {extent.end}"
    )


def _anew_notice(
    topic_partition: tuple[str, int], position: int, identity: str, extent: Extent
) -> Notice:
    topic, partition = topic_partition
    return Notice(
        "topic_made_anew",
        f"{topic}-{partition} is not what was read up to {position}: it is read from its "
        f"beginning, as {ACCEPT} says",
        {
            "topic": topic,
            "partition": partition,
            "position": position,
            "was": identity,
            "is": extent.identity,
            "end": extent.end,
        },
    )


def _loss_notice(topic_partition: tuple[str, int], state: int, read: int, first: int) -> Notice:
    topic, partition = topic_partition
    unread = max(0, first - max(state, read))
    if unread:
        consequence = f"up to {unread} records of it were never read"
    else:
        consequence = "they were read, but what they did to the state is lost with them"
    return Notice(
        "records_lost",
        f"{topic}-{partition}: the records from {state} to before {first} were removed before the "
        f"state held them; {consequence}; keep them for longer than workers may be down or behind",
        {
            "topic": topic,
            "partition": partition,
            "from": state,
            "to": first,
            "skipped": unread,
        },
        skipped=unread,
    )


def record_notice(notice: Notice, alarms: Alarms, ts: int, counts: dict[str, int]) -> Output:
    """Count in a stage's state what a notice says, and write the alert.

    Args:
        notice: what is to be told.
        alarms: of the stage that tells it.
        ts: the stage's watermark.
        counts: the stage's.
    """
    if notice.skipped:
        counts[SKIPPED_KEY] = counts.get(SKIPPED_KEY, 0) + notice.skipped
    (output,) = alarms.once(notice.kind, notice.message, ts, notice.details, notice.subject)
    return output
