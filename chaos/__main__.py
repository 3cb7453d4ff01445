"""`python -m chaos SEED`: see the package."""

from __future__ import annotations

import argparse
import random
import sys
import time
from itertools import pairwise
from pathlib import Path

from chaos import plants, positions, schedule
from chaos.run import Run, Story, figures, run

FAULTS = ("chaos", "rebalance", "positions", "forgery", "none")
# How often a second somebody without the key puts something where only stages should write.
FORGERIES = 50.0


def main() -> int:
    """Run, judge, and say so; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="of traffic and faults; drawn if absent")
    parser.add_argument("--faults", choices=FAULTS, default="chaos")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--plant", choices=plants.__all__)
    parser.add_argument("--folder", type=Path, help="keep the broker's data and all that was said")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if given.seed is None else given.seed
    print(f"SEED={seed}", flush=True)
    if given.faults == "positions":
        return _positions(seed, given.seconds, given.rate)
    faults = {
        "chaos": lambda: schedule.chaos(seed, given.seconds, given.kills),
        "forgery": lambda: schedule.chaos(seed, given.seconds, given.kills),
        "rebalance": lambda: schedule.rebalance(given.seconds),
        "none": schedule.nothing,
    }[given.faults]()
    print("planned:", *(f"  {fault}" for fault in faults), sep="\n", flush=True)
    began = time.monotonic()
    story = run(
        Run(
            seed,
            faults,
            seconds=given.seconds,
            rate=given.rate,
            partitions=given.partitions,
            predict=1 if given.faults == "rebalance" else 2,
            plant=given.plant,
            forgeries=FORGERIES if given.faults == "forgery" else 0.0,
            folder=given.folder,
            variables={"STREAM_ML_CHECKPOINT_SECONDS": "5"},
        ),
        lambda text: print(text, flush=True),
    )
    failures = story.verdict.failures
    if given.faults == "rebalance":
        failures["partitions that stay are not recovered again"] = recovered_again(story)
    story.verdict.figures |= figures(story)
    for name, gaps in story.silences.items():
        longest = [f"{gap:.1f} s at {at - story.began:.1f} s" for gap, at in gaps[:3]]
        story.verdict.figures[f"without predictions, p. {name}"] = ", ".join(longest)
    print(story.verdict.text())
    clean = story.verdict.clean
    took = time.monotonic() - began
    print(f"SEED={seed}: {'clean' if clean else 'NOT CLEAN'}, in {took:.0f} s", flush=True)
    return 0 if clean else 1


def _positions(seed: int, seconds: float, rate: int) -> int:
    found = positions.run(seed, seconds, rate, lambda text: print(text, flush=True))
    for promise, broken in found.items():
        print(f"{'BROKEN' if broken else 'kept'}: {promise}", *broken, sep="\n  ", flush=True)
    clean = not any(found.values())
    print(f"SEED={seed}: {'clean' if clean else 'NOT CLEAN'}", flush=True)
    return 0 if clean else 1


def recovered_again(story: Story) -> list[str]:
    """Partitions that a worker recovered twice in a row, with nobody else in between."""
    recoveries = sorted(
        (at, members["partition"], worker.name)
        for worker in story.workers
        if worker.stage == "predict"
        for at, members in worker.said
        if members.get("said") == "recovered"
    )
    found = []
    for partition in sorted({each[1] for each in recoveries}):
        owners = [(at, name) for at, p, name in recoveries if p == partition]
        found += [
            f"{name} recovered partition {partition} at {first - story.began:.1f} s and again at "
            f"{second - story.began:.1f} s"
            for (first, name), (second, other) in pairwise(owners)
            if name == other
        ]
    return found


if __name__ == "__main__":
    sys.exit(main())
