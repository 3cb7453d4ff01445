"""The stages and the topics between them: the one table of which stage reads and writes what.

The embedded runner, the workers on a cluster, `status`, access rules and the picture of the
dataflow take it from here. The catalogue (`topics/*.toml`) says the same of each topic, for people
who look at one; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "SHARED_OUTPUTS",
    "STAGES",
    "StageSpec",
    "TaskName",
    "input_topics",
    "parse_task",
    "readers_of",
    "task_name",
]


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage's place in the dataflow.

    Attributes:
        name: of the stage; its tasks are `NAME-PARTITION`, its changelog is `NAME-changelog`.
        inputs: the topics that its tasks read, each task the same partition of all of them; the
            first says how many tasks the stage has.
        feed: topics of which every task follows all partitions beside its inputs.
        outputs: the topics that it alone writes. (On `models`, evaluate adds tombstones for
            snapshots that never served.)
        exchanged: topics by which its tasks tell each other, where that is declared.
        rerouted_inputs: the inputs of which it writes a record again, to its key's own partition,
            where a client put it into another one.
        scales: whether several workers may share its tasks.
        remade: whether its state is a function of its inputs alone, so that a state which cannot
            be believed is made again from them.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rerouted_inputs: tuple[str, ...] = ()
    feed: tuple[str, ...] = ()
    exchanged: tuple[str, ...] = ()
    scales: bool = False
    remade: bool = True


# In the order in which the data flows.
STAGES: Mapping[str, StageSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            StageSpec(
                "predict",
                inputs=("events",),
                feed=("models", "registry"),
                outputs=("predictions", "summaries", "late-events"),
                exchanged=("entities",),
                rerouted_inputs=("events",),
                scales=True,
            ),
            StageSpec(
                "join",
                inputs=("predictions", "labels"),
                outputs=("examples",),
                rerouted_inputs=("labels",),
                scales=True,
            ),
            StageSpec("learn", inputs=("examples", "registry"), outputs=("models",), scales=True),
            StageSpec(
                "evaluate",
                inputs=("examples", "models", "commands", "registry", "summaries"),
                outputs=("registry", "evaluations", "answers"),
                remade=False,
            ),
        )
    }
)
# Every stage writes these too.
SHARED_OUTPUTS = ("dead-letters", "alerts")


class TaskName(NamedTuple):
    """What the name of a task says: its stage, the number of its partition, and of which line."""

    stage: str
    partition: int
    line: str | None


def task_name(stage: str, partition: int = 0, line: str | None = None) -> str:
    """What a task's positions and state are stored under.

    >>> task_name("predict", 3), task_name("learn", line="a-tree")
    ('predict-3', 'learn.a-tree-0')

    Args:
        stage: its stage.
        partition: its number.
        line: where lines are tasks of their own: which.
    """
    return f"{stage}-{partition}" if line is None else f"{stage}.{line}-{partition}"


def parse_task(name: str) -> TaskName:
    """What the name of a task says.

    >>> parse_task("learn.a-tree-0")
    TaskName(stage='learn', partition=0, line='a-tree')
    """
    owner, _, partition = name.rpartition("-")
    stage, dot, line = owner.partition(".")
    return TaskName(stage, int(partition), line if dot else None)


def input_topics() -> tuple[str, ...]:
    """Every topic that some stage reads as an input, in the order in which the data flows.

    >>> input_topics()
    ('events', 'predictions', 'labels', 'examples', 'registry', 'models', 'commands', 'summaries')
    """
    return tuple(dict.fromkeys(topic for spec in STAGES.values() for topic in spec.inputs))


def readers_of(topic: str) -> tuple[str, ...]:
    """The stages that read a topic, as an input or as a feed.

    >>> readers_of("models"), readers_of("alerts")
    (('predict', 'evaluate'), ())
    """
    return tuple(spec.name for spec in STAGES.values() if topic in spec.inputs + spec.feed)
