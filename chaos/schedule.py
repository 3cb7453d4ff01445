"""What befalls the workers when: drawn from a seed, told beforehand."""

from __future__ import annotations

import random
from typing import NamedTuple

__all__ = ["Fault", "chaos", "no_faults", "rebalance"]

STAGES = ("predict", "join", "learn", "evaluate")
# A third of the kills are for those of whom there are several.
TURNS = ("predict", "join", "learn", "evaluate", "predict", "join")


class Fault(NamedTuple):
    """Something that happens `at_s` seconds after the first event was sent.

    `kind` is kill (as `kill -9` does; it is started again), add or remove (a worker of the stage;
    removed by SIGTERM), or broker (killed and started again). `draw` chooses among several.
    """

    at_s: float
    kind: str
    stage: str = ""
    draw: int = 0

    def __str__(self) -> str:
        return f"{self.at_s:5.1f} s  {self.kind} {self.stage}".rstrip()


def chaos(seed: int, seconds: float, kills: int) -> list[Fault]:
    """Kills spread over all stages, a worker added and one removed, the broker killed once.

    >>> plan = chaos(7, 60, 12)
    >>> sorted({f.stage for f in plan if f.kind == "kill"}) == sorted(STAGES)
    True
    >>> [f.kind for f in plan if f.kind != "kill"]
    ['add', 'broker', 'remove']
    """
    rand = random.Random(seed)

    def draw_time(low: float, high: float) -> float:
        return round(seconds * rand.uniform(low, high), 1)

    stages = [TURNS[number % len(TURNS)] for number in range(kills)]
    rand.shuffle(stages)
    faults = [Fault(draw_time(0.08, 0.95), "kill", stage, rand.randrange(100)) for stage in stages]
    faults += [
        Fault(draw_time(0.2, 0.35), "add", "predict"),
        Fault(draw_time(0.4, 0.55), "broker"),
        Fault(draw_time(0.65, 0.8), "remove", "predict", rand.randrange(100)),
    ]
    return sorted(faults)


def rebalance(seconds: float) -> list[Fault]:
    """From one predict worker to three, to two.

    >>> [(f.kind, f.at_s) for f in rebalance(40)]
    [('add', 10.0), ('add', 18.0), ('remove', 28.0)]
    """
    return [
        Fault(seconds * 0.25, "add", "predict"),
        Fault(seconds * 0.45, "add", "predict"),
        Fault(seconds * 0.7, "remove", "predict", 0),
    ]


def no_faults() -> list[Fault]:
    """Nothing happens."""
    return []
