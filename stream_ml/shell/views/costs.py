"""What each line costs, as learn's last checkpoint has it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.shell.log.port import whole_piece
from stream_ml.stages.topology import task_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_ml.shell.log.port import Log

__all__ = ["LineCost", "each", "learn_tasks", "read_costs"]


@dataclass(frozen=True, slots=True)
class LineCost:
    """What a line costs on the machine that it is at work on; None: nothing was measured.

    Attributes:
        answer_us: microseconds an answer.
        example_us: microseconds an example that is learned.
        snapshot_s: seconds a snapshot.
        snapshot_bytes: of the newest snapshot.
    """

    answer_us: float | None
    example_us: float | None
    snapshot_s: float | None
    snapshot_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def learn_tasks(log: Log, lines: Iterable[str]) -> list[str]:
    """The tasks of learn: one, or one of each of these lines.

    Args:
        log: to look at; a worker may be at work on it.
        lines: that serve or shadow, or are declared.
    """
    tasks = [task_name("learn", line=line) for line in lines]
    return [task for task in tasks if log.committed(task)] or [task_name("learn")]


def read_costs(log: Log, tasks: Iterable[str]) -> Mapping[str, LineCost]:
    """By line, what it has cost lately; empty where no worker has measured it.

    Args:
        log: to look at; a worker may be at work on it.
        tasks: of learn.
    """
    costs: dict[str, LineCost] = {}
    for task in tasks:
        value = whole_piece(log, task, "")
        state: dict[str, Any] = {} if value is None else orjson.loads(value)
        costs |= _costs(state.get("efforts", {}))
    return costs


def _costs(efforts: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, LineCost]]:
    for line, sums in efforts.items():
        yield (
            line,
            LineCost(
                each(sums["answer_s"] * 1e6, sums["answers"]),
                each(sums["example_s"] * 1e6, sums["examples"]),
                each(sums["snapshot_s"], sums["snapshots"]),
                int(sums["snapshot_bytes"]) or None,
            ),
        )


def each(total: float, count: float) -> float | None:
    """The mean of so many; None of none.

    Args:
        total: their sum.
        count: how many.
    """
    return total / count if count else None
