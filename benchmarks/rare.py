"""Rare positives: learning from all, from a tenth of the negatives, and with weights.

`python -m benchmarks.rare`: events of which 1 % are positives, by a truth that is a logistic model
of five numbers; each line is asked before it is taught. Of the second half: positives against
those expected (z: in standard deviations of the sampling error), the log loss, how many of the 1 %
with the highest answers are positives, and the CPU time of an example.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass, field
from typing import Any

from river import linear_model, optim, preprocessing

import stream_ml as sml
from stream_ml.models.recipes import answer, learn

TARGET = sml.Target("binary")
WEIGHTS = (1.0, -0.8, 0.6, 0.5, 0.3)
INTERCEPT = -5.7
TOP = 0.01
CERTAIN = 1e-9


@dataclass(slots=True)
class Figures:
    """What was seen of a line."""

    answers: list[tuple[float, bool]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def z(self) -> float:
        """Positives less those expected, in standard deviations of the sampling error."""
        expected = math.fsum(p for p, _ in self.answers)
        spread = math.sqrt(math.fsum(p * (1 - p) for p, _ in self.answers))
        return (sum(y for _, y in self.answers) - expected) / spread

    @property
    def expected_share(self) -> float:
        """The mean answer."""
        return math.fsum(p for p, _ in self.answers) / len(self.answers)

    @property
    def log_loss(self) -> float:
        """Per event, in nats."""
        clipped = [(min(max(p, CERTAIN), 1 - CERTAIN), y) for p, y in self.answers]
        return -math.fsum(math.log(p if y else 1 - p) for p, y in clipped) / len(clipped)

    @property
    def top_precision(self) -> float:
        """The share of positives among the 1 % with the highest answers."""
        top = sorted(self.answers, key=lambda each: -each[0])[: int(TOP * len(self.answers))]
        return sum(y for _, y in top) / len(top)


def events(count: int, seed: int) -> list[tuple[dict[str, float], bool]]:
    """Features and labels, some 1 % of them True."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        x = [draw.gauss(0, 1) for _ in WEIGHTS]
        logit = INTERCEPT + sum(w * v for w, v in zip(WEIGHTS, x, strict=True))
        label = draw.random() < 1 / (1 + math.exp(-logit))
        made.append(({f"x{n}": v for n, v in enumerate(x)}, label))
    return made


def logistic(step: float = 0.01, **weights: float) -> Any:
    """A fresh estimator of river.

    Args:
        step: of its gradient descent; that of the intercept is five times as long.
        weights: of the loss.
    """
    loss = optim.losses.Log(**weights)
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(
        optim.SGD(step), loss=loss, intercept_lr=5 * step
    )


def lines() -> dict[str, Any]:
    """What is compared."""
    return {
        "as it comes": logistic(),
        "Balanced(negatives=0.1)": sml.Balanced(logistic(), negatives=0.1),
        "Balanced(positives=10)": sml.Balanced(logistic(), positives=10.0),
        "the same with steps of a tenth": sml.Balanced(logistic(0.001), positives=10.0),
        "river's weight_pos=10": logistic(weight_pos=10.0),
    }


def run(estimator: Any, examples: list[tuple[dict[str, float], bool]]) -> Figures:
    """Ask and teach an estimator; the figures are of the second half."""
    figures, half = Figures(), len(examples) // 2
    start = time.process_time()
    for n, (features, label) in enumerate(examples):
        given = answer(estimator, TARGET, features)
        learn(estimator, TARGET, features, label)
        if n >= half:
            figures.answers.append((0.5 if given is None else float(given), label))  # type: ignore[arg-type]
    figures.seconds = time.process_time() - start
    return figures


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print("line | seed | positives | expected | z | log loss | precision at 1 % | us an example")
    for seed in range(arguments.seeds):
        examples = events(arguments.events, seed)
        for name, estimator in lines().items():
            seen = run(estimator, examples)
            share = sum(y for _, y in seen.answers) / len(seen.answers)
            print(
                f"{name} | {seed} | {share:.4%} | {seen.expected_share:.4%} | {seen.z:+.2f} | "
                f"{seen.log_loss:.5f} | {seen.top_precision:.1%} | "
                f"{seen.seconds / len(examples) * 1e6:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
