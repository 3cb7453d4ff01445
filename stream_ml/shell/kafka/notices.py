"""What befell a task's inputs on a cluster, as a person is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import UsageError
from stream_ml.stages.positions import ACCEPT, Notice

if TYPE_CHECKING:
    from stream_ml.shell.log.port import PartitionId
    from stream_ml.stages.task import Positions

__all__ = ["lost_state", "set_by_hand", "state_lost"]


def state_lost(stage: str, read: Positions) -> Notice:
    """Tells a person that a state was gone, and that its loss was accepted.

    Args:
        stage: whose.
        read: up to where its inputs were read.
    """
    positions = {f"{topic}-{partition}": offset for (topic, partition), offset in read.items()}
    return Notice(
        "state_lost",
        f"the state of {stage} was gone: it goes on with an empty one from {positions}, as "
        f"{ACCEPT} says",
        {"positions": positions},
    )


def set_by_hand(group: str, source: PartitionId, offset: int, state: int) -> Notice:
    """Tells a person that somebody has set a group's offset, which is not believed.

    Args:
        group: of consumers.
        source: topic and partition.
        offset: that was set.
        state: the one that the state goes on from.
    """
    topic, partition = source
    return Notice(
        "group_reset",
        f"{topic}-{partition}: {offset} is committed for {group}, and not by a worker; what was "
        f"read is known from the state, which goes on from {state}",
        {"topic": topic, "partition": partition, "committed": offset, "position": state},
    )


def lost_state(task: str, topic: str, changelog: str, read: Positions) -> UsageError:
    """The error to end with where a task has read something, and has no state.

    Args:
        task: its name.
        topic: that its state should be on.
        changelog: the topic, as the catalogue has it.
        read: up to where it has read, by topic and partition.
    """
    positions = ", ".join(
        f"{name}-{partition} up to {offset}" for (name, partition), offset in read.items()
    )
    return UsageError(
        f"{task}: expected its state on {topic}, for it has read {positions}, given none: the "
        "topic was made anew, or lost its beginning. Put it back, or have the tasks go on from "
        f"there with an empty state, by starting once with {ACCEPT}={changelog}"
    )
