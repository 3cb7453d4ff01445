"""A log whose declaration was changed meanwhile: what is taken up is taken up rightly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from river import naive_bayes

from stream_ml.sealing import MARKER, content
from stream_ml.testing import Driver
from tests.shop import START_MS, declare
from tests.stages.test_promotion import DAY, contest, kinds, run


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
