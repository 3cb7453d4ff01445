"""A crash is an input: wherever the worker dies, what comes out is what would have come out."""

from __future__ import annotations

import functools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import orjson
import pytest

from stream_ml.shell.log.sqlite import SqliteSession
from stream_ml.stages import alarms, refusals
from stream_ml.testing import CRASH, Driver
from tests.simulation.world import pipeline, stream

TOPICS = (
    "predictions",
    "examples",
    "answers",
    "models",
    "registry",
    "evaluations",
    "summaries",
    "alerts",
    "dead-letters",
)
RUNS = 500
WORLDS = 20


def outcome(driver: Driver) -> dict[str, list[Any]]:
    """Everything that was written; of a snapshot what is canonical, for equal pickles differ."""
    driver.runner.commit(checkpoint=True)  # what shadows said goes with evaluate's state
    topics = {topic: [(r.key, r.value) for r in driver.records(topic)] for topic in TOPICS}
    topics["models"] = [
        (key, None if model is None else model["digest"], model and model["epoch"])
        for (key, _), model in zip(topics["models"], driver.read("models"), strict=True)
    ]
    return topics


def run(seed: int, crashes: int) -> dict[str, list[Any]]:
    """What comes out of a world with small blocks and windows, where the worker dies so often."""
    declared = replace(pipeline, window_events_max=2)
    events, labels = stream(3, 400)
    driver = Driver(declared, seed=seed)
    driver.publish("labels", labels)
    # A stretch of garbage, and good ones again.
    driver.publish("events", [*events[:100], *[b"{"] * 20, *events[100:]])
    driver.feed([CRASH] * crashes)
    result = outcome(driver)
    driver.close()
    return result


def test_crashes_raise_no_alert_twice_and_lose_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts that open and resolve are those of the uninterrupted run, byte for byte."""
    monkeypatch.setattr(refusals, "BLOCK_RECORDS", 20)
    monkeypatch.setattr(refusals, "REFUSED_MIN", 4)
    monkeypatch.setattr(refusals, "CALM_BLOCKS", 1)
    monkeypatch.setattr(alarms, "QUIET_BLOCKS", 1)
    expected = run(0, 0)
    changes = Counter(
        (alert["kind"], alert["state"])
        for alert in (orjson.loads(value) for _, value in expected["alerts"])
    )

    assert 2 <= changes["poison_rate", "resolved"] <= changes["poison_rate", "open"]
    assert 2 <= changes["window_overflow", "open"]
    for seed in range(12):
        assert expected == run(seed, 4), f"seed {seed}"


@functools.cache
def uninterrupted(world: int, partitions: int) -> dict[str, list[Any]]:
    """What comes out of a world in which nobody dies."""
    driver = Driver(pipeline, partitions=partitions)
    driver.feed(*stream(world))
    result = outcome(driver)
    driver.close()
    return result


def crashed(world: int, partitions: int, seed: int) -> dict[str, list[Any]]:
    """What comes out where the worker dies several times, between any two steps."""
    rand = random.Random(seed)
    events, labels = stream(world)
    driver = Driver(pipeline, partitions=partitions, seed=seed)
    # All inputs lie in the log first: what is read when is the worker's business alone.
    driver.publish("labels", labels)
    driver.publish("events", events)
    driver.feed([CRASH] * rand.randrange(1, 6))
    result = outcome(driver)
    driver.close()
    return result


@pytest.mark.parametrize("world", range(WORLDS))
def test_crashes_between_any_two_steps_change_nothing(world: int) -> None:
    """Outputs, digests and registry equal those of the uninterrupted run."""
    partitions = 1 + 2 * (world % 2)
    expected = uninterrupted(world, partitions)
    assert len(expected["registry"]) > 2, "the world is too small to show anything"
    for run in range(RUNS // WORLDS):
        seed = 1_000 * world + run
        assert crashed(world, partitions, seed) == expected, f"seed {seed}"


def _caught() -> bool:
    """Whether any of some runs comes out differently."""
    for seed in range(30):
        try:
            if crashed(seed % WORLDS, 1, seed) != uninterrupted(seed % WORLDS, 1):
                return True
        except AssertionError:
            return True
    return False


def test_committing_an_offset_one_too_far_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation notices a worker that skips one record after a crash."""
    for world in range(WORLDS):
        uninterrupted(world, 1)
    commit = SqliteSession.commit

    def too_far(self: SqliteSession, positions: Any = None, state: Any = ()) -> None:
        ahead = {
            task: {place: at + (place[0] == "events") for place, at in places.items()}
            for task, places in positions.items()
        }
        commit(self, ahead, state)

    monkeypatch.setattr(SqliteSession, "commit", too_far)
    assert _caught()


def test_state_ahead_of_its_offset_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation notices a worker that writes its state without its position."""
    for world in range(WORLDS):
        uninterrupted(world, 1)
    commit = SqliteSession.commit

    def behind(self: SqliteSession, positions: Any = None, state: Any = ()) -> None:
        stale = {task: places for task, places in positions.items() if task != "predict-0"}
        commit(self, stale, state)

    monkeypatch.setattr(SqliteSession, "commit", behind)
    assert _caught()
