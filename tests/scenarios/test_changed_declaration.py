"""A log whose declaration was changed meanwhile: what is taken up is taken up rightly."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import naive_bayes

from stream_ml.errors import StateRefused, UsageError
from stream_ml.sealing import MARKER, content
from stream_ml.shell.views.plan import read_plan
from stream_ml.testing import Driver
from tests.shop import START_MS, declare, stream
from tests.stages.test_promotion import DAY, contest, kinds, run
from tests.test_differences import CHANGES

KEY = b"testing"


def written(driver: Driver, task: str) -> dict[str, bytes]:
    """The state of a task, as it was written down last."""
    driver.run()
    state = driver.log.state(task)
    return {name: content(value) for name, value in state if name != MARKER.decode()}


@pytest.mark.parametrize(("was", "now"), [("1h", "1d"), ("1d", "1h"), (100, "6h"), ("6h", 100)])
def test_another_cadence_of_refreshes_holds_from_then_on(was: Any, now: Any) -> None:
    """Whatever the cadence was, models are renewed at the new one: neither never nor at once."""
    driver = Driver(replace(contest, promotion=replace(contest.promotion, refresh=was)))
    run(driver, 0, 2 * DAY)
    before = len(driver.read("registry"))

    driver.declare(replace(contest, promotion=replace(contest.promotion, refresh=now)))
    run(driver, 2 * DAY, 4 * DAY)

    refreshes = sum(each["kind"] == "refreshed" for each in driver.read("registry")[before:])
    expected = {"1d": 2, "1h": 48, "6h": 8, 100: 2 * DAY // 100}[now]
    assert abs(refreshes - expected) <= 1
    driver.close()


def test_a_line_that_was_taken_out_begins_anew_under_its_name() -> None:
    """Neither its learner nor what spoke for it goes on as those of another model of its name."""
    driver = Driver(contest)
    run(driver, 0, DAY)
    assert written(driver, "learn-0").keys() >= {"lbetter"}

    driver.declare(replace(contest, models={"plain": contest.models["plain"]}))
    run(driver, DAY, DAY + 10)
    driver.declare(replace(contest, models={**contest.models, "better": naive_bayes.GaussianNB()}))
    run(driver, DAY + 10, DAY + 20)

    contested = orjson.loads(written(driver, "evaluate-0")[""])["contest"]
    assert {} == contested["evidence"]
    run(driver, DAY + 20, 5 * DAY)

    newest = [each for each in driver.read("models") if each and each["model"] == "better"][-1]
    assert "naive_bayes.GaussianNB()" == newest["recipe"]
    assert "replaced" in kinds(driver)
    driver.close()


def test_a_line_that_was_taken_out_leaves_no_learner_behind() -> None:
    """The state does not hold for ever what nobody declares any more."""
    driver = Driver(contest)
    run(driver, 0, DAY)

    driver.declare(replace(contest, models={"plain": contest.models["plain"]}))
    run(driver, DAY, 2 * DAY)

    assert {"", "lplain"} == set(written(driver, "learn-0"))
    driver.close()


def test_fewer_may_wait_than_did() -> None:
    """With a lower `pending_max` what is too much goes at once, the oldest first, counted."""
    driver = Driver(declare())
    events = [
        {"event_id": f"e{n}", "ts": START_MS + n, "shop": "a", "kind": "visit", "amount": 1.0}
        for n in range(31)
    ]
    driver.feed(events[:30], [])

    driver.declare(declare(pending_max=10))
    driver.feed(events[30:], [])

    assert {"predictions": 10, "labels": 0} == driver.runner.joins[0].pending
    assert 21 == driver.runner.joins[0].counts["dropped"]
    driver.close()


def fed(pipeline: Any) -> Driver:
    """A log on which a pipeline has seen some events and labels."""
    driver = Driver(pipeline)
    driver.feed(*stream(count=60))
    return driver


def everything(driver: Driver) -> Any:
    """All that lies on the log, state and positions included."""
    topics = {topic: driver.records(topic) for topic in driver.log.partitions}
    tasks = ("predict-0", "join-0", "learn-0", "evaluate-0")
    return topics, [(driver.log.state(task), driver.log.committed(task)) for task in tasks]


IDS = [", ".join(path for path, _ in expected) for _, _, expected in CHANGES]


@pytest.mark.parametrize(("was", "now", "expected"), CHANGES, ids=IDS)
def test_nothing_is_changed_in_silence(
    was: dict[str, Any], now: dict[str, Any], expected: list[tuple[str, bool]]
) -> None:
    """Each part of a declaration is taken up and told, or refused with nothing touched."""
    driver = fed(declare(**was))
    driver.declare(declare(**now))
    before = everything(driver)
    words = planned(driver, declare(**now), expected)
    assert before == everything(driver)
    if all(taken for _, taken in expected):
        driver.run()
        assert [path for path, _ in expected] == [
            each.partition(": was ")[0] for each in driver.runner.changes
        ]
        [alert] = [each for each in driver.read("alerts") if each["kind"] == "declaration_changed"]
        assert driver.runner.changes == alert["details"]["changes"] == words
        driver.feed(*later(declare(**now)))
        driver.declare(declare(**now))
        driver.run()
        assert [] == driver.runner.changes
    else:
        with pytest.raises(UsageError) as refused:
            driver.run()
        for path, taken in expected:
            assert taken or path == "name" or f"\n  {path}: expected " in str(refused.value)
        assert [each for each in words if ": expected " in each] == [
            each.strip() for each in str(refused.value).splitlines()[1:-1]
        ]
        assert before == everything(driver)
        driver.declare(declare(**was))
        driver.run()
        assert [] == driver.runner.changes
    driver.close()


def planned(driver: Driver, pipeline: Any, expected: list[tuple[str, bool]]) -> list[str]:
    """The words of the plan, which finds what is expected; a file of another name has none."""
    if ("name", False) in expected:
        with pytest.raises(StateRefused, match="sealed by our key for this pipeline"):
            read_plan(driver.log, pipeline, KEY)
        return []
    view = read_plan(driver.log, pipeline, KEY)
    differences = [each.difference for each in view.changes]
    assert expected == [(each.path, each.is_accepted) for each in differences]
    return list(map(str, differences))


def later(pipeline: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """More events and labels, as they are declared now."""
    events, labels = stream(seed=2, count=60)
    time, id_ = pipeline.events.time, pipeline.events.id
    moved = [
        {**each, "event_id": f"f{number}", id_: f"f{number}", time: each["ts"] + 60_000}
        for number, each in enumerate(events)
    ]
    return moved, [
        {**each, "event_id": f"f{each['event_id'][1:]}", "ts": each["ts"] + 60_000}
        for each in labels
    ]


def test_what_differs_is_said_with_the_way_out() -> None:
    """Whoever starts a worker is told what the log was made with, what is declared, what to do."""
    driver = fed(declare())
    driver.declare(declare(events=replace(declare().events, key="note_id", lateness=0)))

    with pytest.raises(UsageError) as refused:
        driver.run()

    assert (
        ":memory: was made under another declaration, in 2 parts:\n"
        "  events.key: expected shop, given note_id; windows are kept, and partitions chosen, by "
        "key\n  events.lateness: expected 20s, given 0; what waits and the ids that are known were "
        "kept by it\n"
        "Declare it as it was, or begin anew in another file (--broker sqlite:PATH)."
    ) == str(refused.value)
    driver.close()


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_longer_horizon_holds_for_what_waits(seed: int | None) -> None:
    """What waits is joined later than it could be; what had waited its time does not come back."""

    def event(number: int, second: int) -> dict[str, Any]:
        ts = START_MS + 1_000 * second
        members = {"shop": "a", "kind": "visit", "amount": 1.0}
        return {"event_id": f"e{number}", "ts": ts, **members}

    def label(number: int, second: int) -> dict[str, Any]:
        return {"event_id": f"e{number}", "ts": START_MS + 1_000 * second, "label": True}

    driver = Driver(declare(), seed=seed)
    driver.feed([event(0, 0), event(1, 30), event(2, 50)], [label(2, 51)])
    driver.declare(declare(label=replace(declare().label, horizon="100s")))
    driver.feed([event(3, 90)], [label(1, 95), label(0, 96), label(3, 97), label(1, 98)])
    driver.run()

    joined = [each["event_id"] for each in driver.read("examples")]
    refused = [(each["reason"], each["message"]) for each in driver.read("dead-letters")]
    assert ["e2", "e1", "e3"] == joined
    assert [reason for reason, _ in refused] == ["late", "duplicate_label"]
    assert "as long as the horizon was then" in refused[0][1]
    # The ids that are known were kept by spans of the former horizon.
    driver.feed([event(9, 200)], [label(1, 130), label(9, 201)])
    assert [each["reason"] for each in driver.read("dead-letters")][2:] == ["duplicate_label"]
    driver.close()


def test_more_lateness_holds_for_what_comes() -> None:
    """What was too late already still is; an id that was let go of is not taken for a new one."""

    def visit(number: int, second: float) -> dict[str, Any]:
        ts = START_MS + round(1_000 * second)
        members = {"shop": "a", "kind": "visit", "amount": float(number)}
        return {"event_id": f"e{number}", "ts": ts, **members}

    driver = Driver(declare())
    driver.feed([visit(0, 0), visit(1, 30), visit(2, 100), visit(3, 79.9)], [])
    driver.declare(declare(events=replace(declare().events, lateness="60s")))
    late = [visit(4, 80), visit(3, 79.9), visit(1, 30), visit(5, 85)]
    driver.feed([*late, visit(6, 130), visit(7, 81), visit(7, 81)], [])
    driver.declare(declare(events=replace(declare().events, lateness="70s")))
    driver.feed([visit(8, 79.9), visit(9, 90), visit(10, 141), visit(11, 81), visit(12, 70.9)], [])

    predicted = [each["event_id"] for each in driver.read("predictions")]
    assert predicted == ["e0", "e1", "e2", "e4", "e5", "e6", "e7", "e9", "e10", "e11"]
    letters = [(each["reason"], each["offset"]) for each in driver.read("dead-letters")]
    assert letters == [
        ("too_late", 3),
        ("too_late", 5),
        ("too_late", 6),
        ("duplicate", 10),
        ("too_late", 11),
        ("too_late", 15),
    ]
    driver.close()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_more_lateness_leaves_features_as_if_it_had_always_been(seed: int) -> None:
    """Late events that are taken after the change meet windows that go back far enough."""
    rand, count = random.Random(seed), 60
    wider = declare(events=replace(declare().events, lateness="60s"))
    events: list[dict[str, Any]] = []
    newest = floor = 0
    for number in range(count):
        reach = 20_000
        if number >= count // 2:
            floor, reach = floor or newest - reach, 60_000
        ts = newest + rand.choice([0, 700, 4_000, 9_000])
        if rand.random() < 0.5:
            ts = rand.randint(max(newest - reach, floor, 0), newest)
        newest = max(newest, ts)
        kind = rand.choice(["visit", "order"])
        members = {"shop": "a", "kind": kind, "amount": number / 2}
        events.append({"event_id": f"e{number}", "ts": START_MS + ts, **members})
    changed, always = Driver(declare()), Driver(wider)

    changed.feed(events[: count // 2], [])
    changed.declare(wider)
    changed.feed(events[count // 2 :], [])
    always.feed(events, [])

    assert [] == always.read("dead-letters") == changed.read("dead-letters")
    expected = {each["event_id"]: each["features"] for each in always.read("predictions")}
    actual = {each["event_id"]: each["features"] for each in changed.read("predictions")}
    assert expected == actual
    changed.close()
    always.close()


def evaluated(driver: Driver) -> Any:
    """The state of evaluate, as it is now."""
    driver.runner.commit(checkpoint=True)
    return orjson.loads(written(driver, "evaluate-0")[""])


def test_evidence_starts_anew_in_other_blocks() -> None:
    """Votes of one length of block are none of another, and what is better wins all the same."""
    driver = Driver(contest)
    run(driver, 0, DAY)
    before = evaluated(driver)["contest"]["evidence"]["better"]
    assert sum(before["votes"]) == 2

    driver.declare(replace(contest, promotion=replace(contest.promotion, block="3h")))
    run(driver, DAY, DAY + 230)
    after = evaluated(driver)["contest"]["evidence"]["better"]

    assert sum(after["votes"]) == 1
    run(driver, DAY + 230, 3 * DAY)
    assert "replaced" in kinds(driver)
    driver.close()


def test_the_guard_begins_anew_in_other_blocks() -> None:
    """A block that was begun by one length is not judged by another."""
    driver = Driver(contest)
    run(driver, 0, DAY)
    before = evaluated(driver)["guard"]["standing"]
    assert before["runs"]

    driver.declare(replace(contest, promotion=replace(contest.promotion, guard_block=70)))
    run(driver, DAY, DAY + 30)
    after = evaluated(driver)["guard"]["standing"]

    assert (after["block"], after["runs"], after["closed_before"]) == ([None, 70], {}, 0)
    assert {number for number, *_ in after["blocks"]} == {0}
    driver.close()
