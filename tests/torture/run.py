"""A history made to happen: once as it is, once with workers that die, once in other batches."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.codec import encode_command
from stream_ml.errors import StreamMLError
from stream_ml.records import Command, Output
from stream_ml.testing import CRASH, Driver
from tests.simulation.test_crash import outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.declarations import Declaration
    from tests.torture.histories import History, Item, Phase

__all__ = ["KEY", "Happened", "happen"]

KEY = b"testing"


@dataclass
class Happened:
    """What came of a history. The driver is open: who made this closes it."""

    driver: Driver
    declarations: list[Declaration]
    history: History
    outcome: dict[str, list[Any]] = field(default_factory=dict)
    published: dict[tuple[str, int, int], Item] = field(default_factory=dict)
    restarts: int = 0
    beyond: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def happen(declaration: Declaration, history: History, seed: int | None = None) -> Happened:
    """Let a history happen; with a seed in random batches, with redelivery, crashes and restarts.

    Raises:
        Exception: whatever came out of the loop; nothing should.
    """
    rand = None if seed is None else random.Random(seed)
    driver = Driver(declaration.pipeline(), partitions=history.partitions, seed=seed, key=KEY)
    happened = Happened(driver, [declaration], history)
    try:
        for phase in history.phases:
            _live(happened, phase, rand)
        happened.outcome = outcome(driver)
    except BaseException:
        driver.close()
        raise
    return happened


def _live(happened: Happened, phase: Phase, rand: random.Random | None) -> None:
    driver = happened.driver
    driver.now_ms = phase.now_ms
    if phase.declares is not None:
        _declare(happened, phase.declares)
    for topic in ("labels", "events"):
        items = [item for item in phase.items if item.topic == topic]
        records = driver.publish(topic, [item.value for item in items])
        for record, item in zip(records, items, strict=True):
            happened.published[topic, record.partition, record.offset] = item
    commands = [_signed(driver, command, phase.now_ms) for command in phase.commands]
    if commands:
        driver.log.append([Output("commands", b"torture", value) for value in commands])
    if rand is not None:
        crashes = rand.choice([0, 1, 1, 2, 4])
        driver.feed([CRASH] * crashes)
        happened.restarts += crashes
    driver.run()
    if rand is not None and rand.random() < 0.3:
        driver.declare(happened.declarations[-1].pipeline())
        happened.restarts += 1
    # Here, where all has been read; later some of it is gone again.
    happened.beyond += _state_faults(happened)


def _declare(happened: Happened, declaration: Declaration) -> None:
    """Start again under another declaration; where that is refused, under the former one."""
    driver = happened.driver
    driver.declare(declaration.pipeline())
    happened.restarts += 1
    try:
        _ = driver.runner
    except StreamMLError as refusal:
        happened.refused[type(refusal).__name__] += 1
        driver.declare(happened.declarations[-1].pipeline())
    else:
        happened.declarations.append(declaration)


def _signed(driver: Driver, given: dict[str, Any], now_ms: int) -> bytes:
    members = {
        "ts": now_ms,
        "operator": "local",
        "actor": "ada",
        "reason": "to see",
        "pipeline": "torture",
        "log": getattr(driver.log, "identity", None),
        **given,
    }
    known = {each.name for each in dataclasses.fields(Command)}
    command = Command(**{name: value for name, value in members.items() if name in known})
    value = encode_command(command, KEY)
    return value.replace(b'"ada"', b'"eve"') if given.get("forged") else value


# --- what is held -----------------------------------------------------------------------------


def _state_faults(happened: Happened) -> Iterator[str]:
    """What is held in memory lies within its bounds; looked at whenever all has been read."""
    limits, runner = happened.declarations[-1].limits, happened.driver.runner
    for join in runner.joins:
        for what, count in join.pending.items():
            if count > limits["pending_max"]:
                yield f"{count} {what} wait, of at most {limits['pending_max']}"
    for predict in runner.predicts:
        for scope in predict._features._buffers:
            for entity, buffers in scope.items():
                for buffer in buffers:
                    held = 0 if buffer is None else len(buffer.times) - buffer.start
                    if held > limits["window_events_max"]:
                        yield f"a window of {entity} holds {held} events"
    if len(runner.evaluate.sizes) and runner.evaluate.sizes["instants_waiting"] > 1_000:
        yield "evaluate holds more instants than may wait"
