"""`python -m chaos SEED`: see the package."""

from __future__ import annotations

import argparse
import random
import sys
import time
from itertools import pairwise
from pathlib import Path

from chaos import planted_bugs, positions, schedule
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
    parser.add_argument("--plant", choices=planted_bugs.__all__)
    parser.add_argument("--folder", type=Path, help="keep the broker's data and all that was said")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if arguments.seed is None else arguments.seed
    print(f"SEED={seed}", flush=True)
    if arguments.faults == "positions":
        return _positions(seed, arguments.seconds, arguments.rate)
    faults = {
        "chaos": lambda: schedule.chaos(seed, arguments.seconds, arguments.kills),
        "forgery": lambda: schedule.chaos(seed, arguments.seconds, arguments.kills),
        "rebalance": lambda: schedule.rebalance(arguments.seconds),
        "none": schedule.no_faults,
    }[arguments.faults]()
    print("planned:", *(f"  {fault}" for fault in faults), sep="\n", flush=True)
    began_s = time.monotonic()
    story = run(
        Run(
            seed,
            faults,
            seconds=arguments.seconds,
            rate=arguments.rate,
            partitions=arguments.partitions,
            predict=1 if arguments.faults == "rebalance" else 2,
            plant=arguments.plant,
            forgeries=FORGERIES if arguments.faults == "forgery" else 0.0,
            folder=arguments.folder,
            variables={"STREAM_ML_CHECKPOINT_SECONDS": "5"},
        ),
        lambda text: print(text, flush=True),
    )
    failures = story.verdict.failures
    if arguments.faults == "rebalance":
        failures["partitions that stay are not recovered again"] = repeated_recoveries(story)
    story.verdict.figures |= figures(story)
    for name, gaps in story.silences.items():
        longest = [f"{gap_s:.1f} s at {start_s - story.began:.1f} s" for gap_s, start_s in gaps[:3]]
        story.verdict.figures[f"without predictions, p. {name}"] = ", ".join(longest)
    print(story.verdict.text())
    clean = story.verdict.clean
    took = time.monotonic() - began_s
    print(f"SEED={seed}: {'clean' if clean else 'NOT CLEAN'}, in {took:.0f} s", flush=True)
    return 0 if clean else 1


def _positions(seed: int, seconds: float, rate: int) -> int:
    failures = positions.run(seed, seconds, rate, lambda text: print(text, flush=True))
    for promise, problems in failures.items():
        print(f"{'BROKEN' if problems else 'kept'}: {promise}", *problems, sep="\n  ", flush=True)
    clean = not any(failures.values())
    print(f"SEED={seed}: {'clean' if clean else 'NOT CLEAN'}", flush=True)
    return 0 if clean else 1


def repeated_recoveries(story: Story) -> list[str]:
    """Partitions that a worker recovered twice in a row, with nobody else in between."""
    recoveries = sorted(
        (at_s, members["partition"], worker.name)
        for worker in story.workers
        if worker.stage == "predict"
        for at_s, members in worker.messages
        if members.get("said") == "recovered"
    )
    failures = []
    for partition in sorted({recovery[1] for recovery in recoveries}):
        owners = [(at_s, name) for at_s, number, name in recoveries if number == partition]
        failures += [
            f"{name} recovered partition {partition} at {first - story.began:.1f} s and again at "
            f"{second - story.began:.1f} s"
            for (first, name), (second, other) in pairwise(owners)
            if name == other
        ]
    return failures


if __name__ == "__main__":
    sys.exit(main())
