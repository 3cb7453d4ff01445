"""Makes worlds until the time is up, or something is wrong: then it says what, and exits with 1."""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from tests.torture.worlds import Tally, World, make, report, shrunk, torture


def main() -> int:
    """Exit code 0 if all held, 1 if something did not."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long worlds are made")
    parser.add_argument("--seed", type=int, help="make this one world only")
    given = parser.parse_args()
    tally, until = Tally(), time.monotonic() + 60 * given.minutes
    first = secrets.randbelow(10**9) if given.seed is None else given.seed
    print(f"worlds from seed {first}", flush=True)
    seed = first
    while True:
        world = make(seed, tally)
        wrong = torture(world, tally)
        if wrong:
            print(tally)
            print(report(world, wrong, events=False))
            smallest = _smallest(world)
            print("smaller, and wrong as well:")
            print(report(smallest, torture(smallest, Tally()) or wrong))
            return 1
        seed += 1
        if given.seed is not None or time.monotonic() >= until:
            break
    print(tally)
    print(f"all held, for seeds {first} to {seed - 1}")
    return 0


def _smallest(world: World) -> World:
    until = time.monotonic() + 60
    return shrunk(
        world, lambda smaller: time.monotonic() < until and bool(torture(smaller, Tally()))
    )


if __name__ == "__main__":
    sys.exit(main())
