"""The names of the tasks of a pipeline, and of the pipelines that they are; see `tasks`."""

from __future__ import annotations

import re

__all__ = [
    "MAIN_TASK",
    "SEPARATOR",
    "SHARED_TOPICS",
    "PipelineName",
    "is_task_name",
    "pipeline_in",
    "task_in",
]

# What the pipeline's own task is called where one of several is named.
MAIN_TASK = "main"
# The topics that tasks have in common; all others each has to itself.
SHARED_TOPICS = frozenset({"events"})
# Groups and transactions of the pipeline itself begin with these on a cluster, where a right to a
# group may be one to all that begin like it.
_RESERVED = re.compile(
    r"(consumer.*|predict|join|learn|evaluate|standby|couriers|redrive|stream-ml.*)"
)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
SEPARATOR = "."


class PipelineName(str):
    """The name of the pipeline that a task is: PIPELINE.TASK, which nobody can declare himself.

    >>> PipelineName.of("shop", "purchase")
    'shop.purchase'
    """

    __slots__ = ()

    @classmethod
    def of(cls, pipeline: object, task: object) -> PipelineName:
        """The name of a task's pipeline.

        Args:
            pipeline: the name of the pipeline that declares it.
            task: its name.
        """
        return cls(f"{pipeline}{SEPARATOR}{task}")


def task_in(pipeline: str) -> str | None:
    """The task that a pipeline's name names; None for the pipeline's own.

    >>> task_in("shop.purchase"), task_in("shop")
    ('purchase', None)

    Args:
        pipeline: the name of a pipeline, or of a task's.
    """
    return pipeline.partition(SEPARATOR)[2] or None


def pipeline_in(name: str) -> str:
    """The pipeline that declares a task, by the name of either.

    >>> pipeline_in("shop.purchase"), pipeline_in("shop")
    ('shop', 'shop')

    Args:
        name: of a pipeline, or of a task's.
    """
    return name.partition(SEPARATOR)[0]


def is_task_name(text: object) -> bool:
    """Whether a text can be a task's name.

    >>> is_task_name("purchase"), is_task_name("shop.purchase"), is_task_name("consumer")
    (True, False, False)
    """
    return (
        isinstance(text, str)
        and _NAME.fullmatch(text) is not None
        and _RESERVED.fullmatch(text) is None
    )
