"""A crash around a decision changes nothing: one history, no switch lost, no command twice."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from typing import Any

import pytest

import stream_ml as sml
from stream_ml.codec import encode_command, record_hash
from stream_ml.errors import StateRefused
from stream_ml.records import Command, Output
from stream_ml.shell.log.sqlite import SqliteSession
from stream_ml.testing import CRASH, Driver
from tests.simulation.test_crash import outcome
from tests.simulation.world import pipeline, stream

KEY = b"testing"
# The log and the clock of a driver that is told nothing else.
LOG, NOW_MS = "testing", 2**42
WORLDS = 10
RUNS = 300
# So little is asked for that luck alone replaces and rolls back: decisions are what is wanted.
restless = replace(
    pipeline,
    promotion=sml.Promotion(
        refresh=20,
        first=30,
        block=4,
        slots=1,
        alpha=0.6,
        guard_block="15s",
        maturity=0,
        block_pairs_min=3,
        rollback_loss=0.03,
    ),
)


def command(number: int, kind: str, **members: Any) -> bytes:
    """A signed command."""
    given = {"ts": NOW_MS, "pipeline": "world", "log": LOG, **members}
    return encode_command(
        Command(
            command_id=f"c{number}",
            kind=kind,
            operator="local",
            actor="ada",
            reason="to see",
            **given,
        ),
        KEY,
    )


def commands(seed: int) -> list[bytes]:
    """What operators ask for at one moment: sensible, mistaken, repeated, forged and replayed."""
    rand = random.Random(seed)
    asked = [
        command(0, "promote", model="bayes", expect="logistic"),
        command(1, "promote", model="logistic", expect="bayes"),
        command(2, "promote", model="bayes", expect="nobody"),
        command(3, "promote", model="nobody", expect="logistic"),
        command(4, "rollback", expect=rand.choice(["logistic", "bayes"])),
        command(5, "pause"),
        command(6, "resume"),
        command(7, "resume").replace(b'"ada"', b'"eve"'),
        command(8, "resume", log="elsewhere"),
        command(9, "resume", ts=5),
        command(11, "restart", model=rand.choice(["logistic", "bayes"])),
        command(10, "rollback", expect=rand.choice(["logistic", "bayes"]), model="logistic@0"),
        b'{"kind":"promote"}',
    ]
    asked += rand.sample(asked, 3)
    rand.shuffle(asked)
    return asked


def history(
    world: int, seed: int | None, declared: sml.Pipeline = restless
) -> dict[str, list[Any]]:
    """What comes out of a world with commands in the middle; with a seed, the worker dies."""
    rand = random.Random(seed)
    events, labels = stream(world)
    half = len(events) // 2
    driver = Driver(declared, seed=seed, key=KEY)
    crashes = [CRASH] * (0 if seed is None else rand.randrange(1, 4))
    driver.publish("labels", labels[: len(labels) // 2])
    driver.publish("events", events[:half])
    driver.feed(crashes)
    driver.log.append([Output("commands", b"world", value) for value in commands(world)])
    driver.publish("labels", labels[len(labels) // 2 :])
    driver.publish("events", events[half:])
    driver.feed(crashes)
    result = outcome(driver)
    result["decisions"] = driver.read("registry")
    driver.close()
    return result


@functools.cache
def uninterrupted(world: int) -> dict[str, list[Any]]:
    """The history in which nobody dies."""
    return history(world, None)


@pytest.mark.parametrize("world", range(WORLDS))
def test_crashes_around_decisions_leave_one_history(world: int) -> None:
    """Decisions, answers and everything else equal those of the uninterrupted run."""
    expected = uninterrupted(world)
    for run in range(RUNS // WORLDS):
        seed = 1_000 * world + run
        assert history(world, seed) == expected, f"seed {seed}"


def test_crashes_around_questions_leave_one_history() -> None:
    """What is asked of a person, lapses or is answered is the same whatever dies."""
    asking = replace(
        restless,
        promotion=replace(
            restless.promotion, mode="ask", on_harm="ask", on_failure="restart", refusals=1
        ),
    )
    expected = history(2, None, asking)

    for seed in range(12):
        assert history(2, seed, asking) == expected, f"seed {seed}"
    kinds = {decision["kind"] for decision in expected["decisions"]}
    assert {"proposed", "lapsed", "restarted"} <= kinds


def test_these_worlds_hold_every_kind_of_decision() -> None:
    """The simulation above is about something: each kind of decision is made in it."""
    kinds = {d["kind"] for world in range(WORLDS) for d in uninterrupted(world)["decisions"]}

    assert kinds >= {
        "bootstrap",
        "refreshed",
        "replaced",
        "rolled_back",
        "refused",
        "paused",
        "resumed",
        "restarted",
    }


@pytest.mark.parametrize("world", range(WORLDS))
def test_each_command_is_answered_once_and_the_history_has_no_gap(world: int) -> None:
    """Every genuine command has one answer; numbers and hashes chain without a gap."""
    history = uninterrupted(world)

    answered = [d["command_id"] for d in history["decisions"] if d["command_id"] is not None]
    assert sorted(answered) == sorted([*(f"c{number}" for number in range(7)), "c9", "c10", "c11"])
    assert [d["number"] for d in history["decisions"]] == list(range(len(history["decisions"])))
    values = [value for _, value in history["registry"]]
    chained = ["0" * 64, *map(record_hash, values)]
    assert [d["previous"] for d in history["decisions"]] == chained[:-1]


def test_answering_a_command_before_its_decision_is_safe_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The simulation notices a worker that forgets after a crash that it has answered."""
    for world in range(WORLDS):
        uninterrupted(world)
    commit = SqliteSession.commit

    def forgetful(self: SqliteSession, positions: Any = None, state: Any = ()) -> None:
        stale = {task: places for task, places in positions.items() if task != "evaluate-0"}
        commit(self, stale, [piece for piece in state if piece[0] != "evaluate-0"])

    monkeypatch.setattr(SqliteSession, "commit", forgetful)
    caught = False
    for seed in range(20):
        try:
            caught = caught or history(seed % WORLDS, seed) != uninterrupted(seed % WORLDS)
        except (AssertionError, StateRefused):
            caught = True
    assert caught
