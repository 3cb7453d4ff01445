"""Ten minutes at 2,000 events/s: whether the memory of every worker stays flat.

    python -m benchmarks.soak [--seconds 600] [--rate 2000]

Workers on a real broker, two that predict and one of each other stage, on the traffic of the
chaos runs (see `chaos`): windows fill and close, labels are late and missing, ids are forgotten.
Printed are each worker's resident memory over time, and the slope of the line that fits it best
after the warm-up. Flat is what would grow by less than a tenth in a whole day at most: anything
that is kept per event (some 100 bytes, of 170 million) would be far beyond it.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from chaos.run import Run, figures, run

if TYPE_CHECKING:
    from collections.abc import Sequence

WARM_UP_SHARE = 0.3
ROWS = 20
SAMPLES_MIN = 30
# Pages come and go by some megabytes, which in minutes looks like a slope.
NOISE_MB = 6.0


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of y over x.

    >>> slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)])
    2.0
    """
    n = len(samples)
    mean_x = sum(x for x, _ in samples) / n
    mean_y = sum(y for _, y in samples) / n
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread


def main() -> int:
    """Soak, and print the curves; 1 where one is not flat."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=int, default=2_000)
    arguments = parser.parse_args()
    story = run(
        Run(arguments.seed, [], seconds=arguments.seconds, rate=arguments.rate, should_judge=False),
        lambda text: print(text, flush=True),
    )
    curves = {
        worker.name: [(at_s, mb) for at_s, mb in worker.memory if at_s <= arguments.seconds]
        for worker in story.workers
    }
    print("seconds " + " ".join(f"{name:>12}" for name in curves) + "   (resident MB)")
    for row in range(ROWS + 1):
        at_s = arguments.seconds * row / ROWS
        nearest = [min(c, key=lambda s: abs(s[0] - at_s))[1] for c in curves.values() if c]
        print(f"{at_s:7.0f} " + " ".join(f"{mb:12.1f}" for mb in nearest))
    flat = True
    for name, curve in curves.items():
        samples = [(at_s, mb) for at_s, mb in curve if at_s >= arguments.seconds * WARM_UP_SHARE]
        if len(samples) < SAMPLES_MIN:
            print(f"{name:<14} lived too briefly to say")
            continue
        per_s = slope(samples)
        growth_mb = per_s * (samples[-1][0] - samples[0][0])
        flat &= (fits := growth_mb <= NOISE_MB)
        print(
            f"{name:<14} {per_s * 60:+.2f} MB a minute, {growth_mb:+.1f} MB in "
            f"{samples[-1][0] - samples[0][0]:.0f} s: {'flat' if fits else 'NOT FLAT'}"
        )
    for name, value in figures(story).items():
        print(f"  {name:<28} {value}")
    left = story.verdict.failures["all worked off"]
    print(*left, sep="\n", end="\n" if left else "")
    deaths = [worker.name for worker in story.workers if worker.ending == "by itself"]
    print(f"ended by themselves: {', '.join(deaths) or 'none'}")
    return 0 if flat and not left and not deaths else 1


if __name__ == "__main__":
    sys.exit(main())
