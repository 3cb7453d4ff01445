"""What the monitors cost: the cards work with and without them, in turns.

    python -m benchmarks.monitors [--events N] [--rounds N]

A piece is a round of 256 records with all that follows from them, or a commit; see `turns`.
`cards` prints the same.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.in_memory import encoded, publish
from benchmarks.turns import Turns, in_turns
from stream_ml.examples.cards import cards, transactions
from stream_ml.monitoring.declaration import Monitors
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ml.records import Output

__all__ = ["CONTESTANTS", "begin_turns", "monitor_costs", "print_costs"]

US = 1e6
# Few enough that no batch is cut short for the time that passes in others' turns.
BATCH_RECORDS = 2_048
# An hour of cards has 72,000 payments, more than a run; a minute has 1,200.
CONTESTANTS = {
    "without monitors": replace(cards, monitors=None),
    "by the hour": cards,
    "by the minute": replace(cards, monitors=Monitors(block="1m")),
}


def begin_turns(count: int) -> tuple[list[Output], int, Turns, Callable[[str], None]]:
    """Take the first turn of the cards work.

    Args:
        count: of events.

    Returns:
        What is to be published; how many labels are among it; the turns; and a step for a runner,
        which ends a piece.
    """
    events, labels = transactions(count, seed=1)
    outputs = encoded(events, labels)
    gc.collect()
    gc.freeze()
    turns = Turns()

    def step(name: str) -> None:
        # After each round of events, and each commit.
        if name in {"events", "commit"}:
            turns.end_piece()

    return outputs, len(labels), turns, step


def _work(contestant: str, count: int, folder: Path) -> None:
    """The cards work on the embedded log, publishing and the last commit included."""
    outputs, label_count, turns, step = begin_turns(count)
    with SqliteLog.create(folder / "cards.sqlite") as log:
        publish(log, outputs)
        # By examples alone, for waiting takes time, too.
        with Runner(
            log, CONTESTANTS[contestant], b"benchmark", checkpoint_s=inf, step=step
        ) as runner:
            while runner.poll(BATCH_RECORDS):
                pass
        assert runner.joins[0].counts["joined"] == label_count
    turns.end_piece(is_last=True)


def monitor_costs(events: int, rounds: int) -> Iterator[dict[str, float]]:
    """CPU seconds of the cards work by what watches it, for each round."""
    module = [sys.executable, "-m", "benchmarks.monitors", "--events", f"{events}"]
    for number in range(rounds):
        commands = [[*module, "--contestant", name] for name in CONTESTANTS]
        # Another order of sets and the like in each round, and the same for all.
        costs_s = in_turns(commands, {"PYTHONHASHSEED": f"{number}"})
        yield dict(zip(CONTESTANTS, map(sum, costs_s), strict=True))


def print_costs(rounds: Sequence[dict[str, float]], events: int) -> None:
    """Print what monitors cost, from the CPU seconds of each round."""
    without, *watched = CONTESTANTS
    median_us = {
        name: US * statistics.median(costs_s[name] for costs_s in rounds) / events
        for name in CONTESTANTS
    }
    print(f"\n{'monitors: CPU, in turns':34}{'µs/event':>10}{'of that without':>32}")
    print(f"{without:34}{median_us[without]:>10.1f}")
    for name in watched:
        ratios = [costs_s[name] / costs_s[without] for costs_s in rounds]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{name:34}{median_us[name]:>10.1f}{spread:>32}")


def main() -> None:
    """Compare, or be one of those that are compared."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        with tempfile.TemporaryDirectory() as folder:
            _work(options.contestant, options.events, Path(folder))
        return
    print_costs(list(monitor_costs(options.events, options.rounds)), options.events)


if __name__ == "__main__":
    main()
