"""How often a challenger that is no better replaces the champion, through the system.

    python -m benchmarks.equal [--seeds 100] [--days 121]

Two lines answer by script, see `reign`: at any time the one says the chance, the other is off by a
little. Which one, is a fair coin that is tossed

- for each *label*;
- for each *day*, so that all labels of a day share its luck, with blocks of a day;
- for each day that begins at noon, with blocks of three days: what a block should be where the
  luck's day is not the calendar's (blocks of one day break the assumption, see docs/promotion.md).

Printed are the replacements, and the most that the promise allows.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.reign import KEY, OFF, Silent, declared, logit
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.log.reading import decisions
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["WORLDS", "main", "replaced"]

DAY_MS = 86_400_000
START_MS = 1_699_920_000_000  # midnight
EVENTS_A_DAY = 60
LABEL_DELAY_MS = 3 * 3_600_000
SLOTS, ALPHA, RENEWAL = 3, 0.05, 600


class World(NamedTuple):
    """What shares a toss of the coin: a label (None), or a day that begins at some time."""

    title: str
    day_begins_ms: int | None
    block_days: int


WORLDS = (
    World("luck of each label", None, 1),
    World("luck shared by day", 0, 1),
    World("luck shared by day from noon, blocks of three", DAY_MS // 2, 3),
)


def _records(seed: int, days: int, world: World) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events and labels, by time as far as each topic goes."""
    luck = random.Random(seed)
    tosses: dict[int, bool] = {}
    labels = []
    for number in range(days * EVENTS_A_DAY):
        ts = START_MS + number * DAY_MS // EVENTS_A_DAY
        toss = luck.random() < 0.5
        if world.day_begins_ms is not None:
            toss = tosses.setdefault((ts - world.day_begins_ms) // DAY_MS, toss)
        chance = luck.uniform(0.14, 0.3)
        chance = luck.choice((chance, 1 - chance))
        off = chance + luck.choice((-OFF, OFF))
        champion, challenger = (chance, off) if toss else (off, chance)
        answers = {"champion": logit(champion), "challenger": logit(challenger)}
        id_ = f"e{number}"
        yield "events", {"event_id": id_, "ts": ts, "key": f"k{number % 7}", **answers}
        labels.append({"event_id": id_, "ts": ts + LABEL_DELAY_MS, "label": luck.random() < chance})
    for label in labels:
        yield "labels", label


def replaced(seed: int, days: int, world: World) -> tuple[bool, int]:
    """Whether the equal challenger replaced the champion by evidence; and other switches."""
    pipeline = declared("switch")
    promotion = dataclasses.replace(
        pipeline.promotion, refresh="7d", block=f"{world.block_days}d", guard_block="1d"
    )
    pipeline = dataclasses.replace(pipeline, promotion=promotion)
    outputs = (output_of(pipeline, *each) for each in _records(seed, days, world))
    with SqliteLog.create(MEMORY) as log:
        replay(log, pipeline, KEY, outputs, Silent)
        switches = [d for d in decisions(log, KEY) if d.kind in {"replaced", "rolled_back"}]
    first = switches[0].reason if switches else ""
    return first.startswith("the evidence"), sum(d.reason.startswith("guard") for d in switches)


def main() -> None:
    """Print a row for each world."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--days", type=int, default=121)
    options = parser.parse_args()
    for world in WORLDS:
        found = [replaced(seed, options.days, world) for seed in range(1, options.seeds + 1)]
        votes = options.days // world.block_days
        bound = (1 + (votes - 1) / RENEWAL) * ALPHA / SLOTS
        print(
            f"{world.title}: {sum(each for each, _ in found)} of {options.seeds} replaced within "
            f"{votes} votes, {bound * options.seeds:.1f} expected at most; "
            f"{sum(guarded for _, guarded in found)} switches by the guard",
            flush=True,
        )


if __name__ == "__main__":
    main()
