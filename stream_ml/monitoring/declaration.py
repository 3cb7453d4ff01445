"""How the data of a pipeline is watched, as its user declares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.errors import Problem
from stream_ml.features import duration_text, parse_duration
from stream_ml.features.durations import DAY_MS
from stream_ml.schema import short_repr

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Monitors", "monitor_problems", "monitor_texts"]

BLOCK_MS_MIN = 60_000


@dataclass(frozen=True, slots=True)
class Monitors:
    """What is watched of the data, beside how good the models are.

    Args:
        block: the unit of event time that is summed up and compared with the past: a whole part
            of a day, from a minute to a day.
    """

    block: str | int = "1h"

    @property
    def block_ms(self) -> int:
        """The length of a block in ms."""
        return parse_duration(self.block)


def monitor_problems(monitors: Any) -> Iterator[Problem]:
    """The mistakes in what may be declared as monitors."""
    if monitors is None:
        return
    if not isinstance(monitors, Monitors):
        yield Problem("monitors", 'Monitors(block="1h"), or None', short_repr(monitors))
        return
    try:
        block_ms = monitors.block_ms
    except (ValueError, TypeError):
        block_ms = 0
    if block_ms < BLOCK_MS_MIN or DAY_MS % block_ms:
        expected = 'a whole part of a day from a minute on, such as "1h"'
        yield Problem("monitors.block", expected, short_repr(monitors.block))


def monitor_texts(monitors: Monitors | None) -> Iterator[tuple[str, str]]:
    """The texts of the declaration by path."""
    yield "monitors.block", "none" if monitors is None else duration_text(monitors.block_ms)
