"""The lines that were declared on a running log, and how far they are taught what was there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.shell.log.port import whole_piece

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.shell.log.port import Log

__all__ = ["Newcomer", "read_newcomers"]


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A line that does not contend yet, as learn's last checkpoint has it.

    Attributes:
        line: its name.
        learned: how many examples it has learned.
        examples: how many the others have.
        is_level: whether it has learned all that they have.
        due_examples: it contends from the first refresh on at which there are so many examples,
        due_ms: or at which the examples watermark has come to that (UTC ms).
    """

    line: str
    learned: int
    examples: int
    is_level: bool
    due_examples: int
    due_ms: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_newcomers(log: Log, tasks: Iterable[str]) -> tuple[Newcomer, ...]:
    """Who is taught, by name.

    Args:
        log: to look at; a worker may be at work on it.
        tasks: of learn.
    """
    newcomers = []
    for task in tasks:
        value = whole_piece(log, task, "")
        state: dict[str, Any] = {} if value is None else orjson.loads(value)
        for line, latecomer in state.get("latecomers", {}).items():
            learned, is_level = latecomer["learned"], latecomer["level"]
            newcomers.append(Newcomer(line, learned, state["n"], is_level, *latecomer["due"]))
    return tuple(sorted(newcomers, key=lambda newcomer: newcomer.line))
