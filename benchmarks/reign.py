"""How soon a challenger that rightly lost for long replaces a champion that breaks.

    python -m benchmarks.reign [--seeds 20] [--blocks 365]

Two lines answer by script: neither learns, each says what an event holds for it. Labels are
independent; evidence and the guard have blocks of 50 labels. Before the break the challenger's
answers are off by so much that it wins one block in five, which is well within what the guard
bears. From the break on the champion's answers are

- *inverted*, and the guard is on: gross harm;
- *inverted*, and the guard only tells, so that evidence alone decides;
- *off*, a little more than the challenger's were, and the challenger's are right: it wins by less
  than the guard bears, and evidence alone decides.

Printed are the examples from the first one of the new world to the decision, in blocks of 50. The
stages are those that run live, in one process.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from river import compose, linear_model, optim

import stream_ml as sml
from stream_ml.evaluation.scores import loss
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.log.reading import decisions, examples
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.processes.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Example

__all__ = ["BLOCK", "BREAKS", "KEY", "OFF", "Break", "Silent", "declared", "logit", "outcome"]

KEY = b"benchmark".ljust(32, b".")
START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
BLOCK = 50
BLOCKS_AFTER = 60
DELAY = 35
# How far an answer that is off is from the chance: then 50 labels favour it one time in five.
OFF = 0.095
# Brier lost so is its square, here .018: the guard bears .02.
OFF_AFTER = 0.133


class Break(NamedTuple):
    """What happens to the champion's answers, and who is to act."""

    title: str
    is_inverted: bool
    on_harm: str


BREAKS = (
    Break("inverted, guard on", True, "switch"),
    Break("inverted, evidence alone", True, "alert"),
    Break("off within the bound, evidence alone", False, "alert"),
)


class Silent(Progress):
    """Shows nothing."""

    def __init__(self, *_: object) -> None:
        super().__init__("", None)

    def _show(self, text: str) -> None:
        del text


def _saying(name: str) -> compose.Pipeline:
    """Answers with the logit that an event holds under a name, and never learns."""
    still = optim.SGD(0.0)
    model = linear_model.LogisticRegression(
        still, intercept_lr=0.0, initializer=optim.initializers.Constant(1.0)
    )
    return compose.Select(name) | model


def declared(on_harm: str) -> Pipeline:
    """Two lines that say what they are told to, compared by blocks of labels."""
    return sml.Pipeline(
        "reign",
        events=sml.Events(key="key", fields={"champion": float, "challenger": float}),
        features=[sml.field("champion"), sml.field("challenger")],
        label=sml.Label(bool, horizon="1d"),
        champion="champion",
        models={"champion": _saying("champion"), "challenger": _saying("challenger")},
        promotion=sml.Promotion(
            refresh="7d", block=BLOCK, guard_block=BLOCK, on_harm=on_harm, on_change="alert"
        ),
        monitors=None,
    )


def records(seed: int, blocks: int, happening: Break) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events and labels in the order of their times; the break falls within a block."""
    world = random.Random(seed)
    change = blocks * BLOCK + world.randrange(BLOCK)
    waiting: list[dict[str, Any]] = []
    for number in range(change + BLOCKS_AFTER * BLOCK + DELAY):
        ts = START_MS + number * MINUTE_MS
        chance = world.uniform(0.14, 0.3)
        chance = world.choice((chance, 1 - chance))
        off = chance + world.choice((-OFF, OFF))
        champion, challenger = chance, off
        if number >= change:
            far = chance + world.choice((-OFF_AFTER, OFF_AFTER))
            champion, challenger = (1 - chance if happening.is_inverted else far), chance
        id_ = f"e{number}"
        yield (
            "events",
            {
                "event_id": id_,
                "ts": ts,
                "key": f"k{number % 7}",
                "champion": logit(champion),
                "challenger": logit(challenger),
            },
        )
        label = world.random() < chance
        waiting.append({"event_id": id_, "ts": ts + DELAY * MINUTE_MS, "label": label})
        if len(waiting) > DELAY:
            yield "labels", waiting.pop(0)


def logit(chance: float) -> float:
    """The log odds of a chance."""
    return math.log(chance / (1 - chance))


class Outcome(NamedTuple):
    """What came of a run.

    Attributes:
        won: the share of blocks before the break that the challenger won.
        after: examples from the break to the replacement; None if there was none.
        reason: of the replacement.
        early: decisions before the break that changed what serves.
    """

    won: float
    after: int | None
    reason: str
    early: int


def outcome(seed: int, blocks: int, happening: Break) -> Outcome:
    """One reign, the break, and who serves then."""
    pipeline = declared(happening.on_harm)
    outputs = (output_of(pipeline, *each) for each in records(seed, blocks, happening))
    with SqliteLog.create(MEMORY) as log:
        replay(log, pipeline, KEY, outputs, Silent)
        found = list(examples(log))
        decided = [d for d in decisions(log, KEY) if d.kind in {"replaced", "rolled_back"}]
    change = blocks * BLOCK + random.Random(seed).randrange(BLOCK)
    begin = next(i for i, each in enumerate(found) if _number(each) >= change)
    wins = [_is_won(found[i : i + BLOCK]) for i in range(0, begin - BLOCK + 1, BLOCK)]
    # A decision has the watermark of the examples, which is the newest label's.
    places = [sum(example.label_ts <= d.ts for example in found) - begin for d in decided]
    later = [(n, d.reason) for n, d in zip(places, decided, strict=True) if n > 0]
    after, reason = later[0] if later else (None, "")
    return Outcome(sum(wins) / len(wins), after, reason, len(decided) - len(later))


def _number(example: Example) -> int:
    return int(example.prediction.event_id[1:])


def _is_won(block: list[Example]) -> bool:
    gain = 0.0
    for example in block:
        own = loss("binary", example.label, example.prediction.prediction)
        other = loss("binary", example.label, example.prediction.shadows["challenger"].prediction)
        gain += (own or 0.0) - (other or 0.0)
    return gain > 0


def main() -> None:
    """Print a row for each way to break."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=365)
    options = parser.parse_args()
    for happening in BREAKS:
        outcomes = []
        for seed in range(1, options.seeds + 1):
            outcomes.append(found := outcome(seed, options.blocks, happening))
            print(f"    seed {seed}: {found}", file=sys.stderr, flush=True)
        count = len(outcomes)
        after = sorted(math.inf if each.after is None else each.after / BLOCK for each in outcomes)
        half, nine = after[(count - 1) // 2], after[math.ceil(0.9 * count) - 1]
        won = sum(each.won for each in outcomes) / count
        print(
            f"{happening.title}: after {options.blocks} blocks of which {won:.0%} were won, "
            f"replaced within {half:.1f} blocks in half of {count} runs, within {nine:.1f} in nine "
            f"of ten, within {after[-1]:.1f} in all; "
            f"{sum(each.early for each in outcomes)} decisions before the break",
            flush=True,
        )


if __name__ == "__main__":
    main()
