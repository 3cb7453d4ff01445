"""Events too late for a prediction, which still count in windows."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import stream_ml as sml
from stream_ml.differences import differences
from stream_ml.errors import DeclarationError
from stream_ml.shell.views.status import read_status
from stream_ml.testing import Driver
from tests.shop import shop, stream, wider
from tests.stages.test_lateness_changes import history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline

LATE_MS = 25_000


def late(pipeline: Pipeline, window_lateness: str | None = "60s", **events: Any) -> Pipeline:
    """The declaration with windows that take events up to a minute late."""
    changed = replace(pipeline.events, window_lateness=window_lateness, **events)
    return replace(pipeline, events=changed)


def disorder(seed: int) -> list[dict[str, Any]]:
    """Events of which a few come late by up to 90 s, and a few twice."""
    draw = random.Random(seed)
    events, _ = stream(seed, 260)
    arrivals = [
        (each["ts"] + (draw.choice([15_000, 40_000, 90_000]) if draw.random() < 0.2 else 0), each)
        for each in events
    ]
    arrivals += [(at + draw.randrange(50_000), each) for at, each in draw.sample(arrivals, 20)]
    return [each for _, each in sorted(arrivals, key=lambda arrival: arrival[0])]


@contextmanager
def worked(pipeline: Pipeline, events: list[dict[str, Any]], *, crashes: bool) -> Iterator[Driver]:
    """A pipeline that has taken events, some at a time, whatever died in between."""
    with Driver(pipeline) as driver:
        for start in range(0, len(events), 70):
            driver.publish("events", events[start : start + 70])
            driver.run()
            if crashes:
                driver.crash()
        yield driver


def outcome(
    pipeline: Pipeline, events: list[dict[str, Any]], *, crashes: bool = False
) -> tuple[dict[str, dict[str, float]], dict[str, int], dict[str, int]]:
    """The features by event, dead letters by reason, and what `status` counts of events."""
    with worked(pipeline, events, crashes=crashes) as driver:
        features = {each["event_id"]: each["features"] for each in driver.read("predictions")}
        reasons = [each["reason"] for each in driver.read("dead-letters")]
        driver.runner.commit(checkpoint=True)
        counts = read_status(driver.log, None).events
        return features, {name: reasons.count(name) for name in set(reasons)}, counts


@pytest.mark.parametrize("seed", range(3))
def test_windows_see_late_events_that_get_no_prediction(seed: int) -> None:
    """Features are those of a lateness as long, of the events alone that were not too late."""
    events = disorder(seed)
    long = outcome(replace(shop, events=replace(shop.events, lateness="60s")), events)
    short = outcome(shop, events)
    found = outcome(late(shop), events)

    assert found[0].keys() == short[0].keys() < long[0].keys()
    assert found[0] == {name: long[0][name] for name in short[0]}
    assert found[0] != short[0]
    # What is refused is what a minute refuses: the later ones, and each that comes twice.
    assert found[1] == long[1]
    late_count = long[2]["events"] - short[2]["events"]
    assert late_count > 10
    assert (long[2]["events"], late_count) == (found[2]["events"], found[2]["late"])
    assert "late" not in long[2]
    assert found == outcome(late(shop), events, crashes=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_longer_lateness_finds_windows_as_they_were(seed: int) -> None:
    """Where late events are to be predicted from now on, their windows have been kept for them."""
    events = disorder(seed)
    long = replace(shop, events=replace(shop.events, lateness="60s"))
    expected, _, _ = outcome(long, events)
    with Driver(late(shop)) as driver:
        driver.publish("events", events[:220])
        driver.run()
        driver.declare(late(shop, lateness="60s"))
        driver.publish("events", events[220:])
        driver.run()
        features = {each["event_id"]: each["features"] for each in driver.read("predictions")}

    first = {each["event_id"] for each in events[:220]}
    assert {name for name in expected if name not in first} <= features.keys()
    assert features == {name: expected[name] for name in features}


def test_features_made_again_hold_what_was_late_when_it_came() -> None:
    """Where other features are applied later, windows have the late events, as if always there."""
    features, digests, refused = history(shop, late(shop), late(wider))
    expected, expected_digests, expected_refused = history(wider, late(wider), late(wider))

    assert refused == expected_refused
    later = [name for name in features if int(name[1:]) >= 180]
    assert later
    for name in later:
        assert expected[name] == {each: features[name][each] for each in expected[name]}
    made = {name: digest for name, digest in digests.items() if ".2@" in name}
    assert made
    for name, digest in made.items():
        assert expected_digests[name.replace(".2@", "@")] == digest


def test_changes_of_it_are_told() -> None:
    """A longer one, and a first one, is taken up at a start; a shorter one, or none, is refused."""

    def effect(old: Pipeline, new: Pipeline) -> list[tuple[str, str]]:
        found = differences(old.declaration(), new.declaration())
        return [(each.path, each.effect) for each in found]

    path = "events.window_lateness"
    assert [(path, "now")] == effect(shop, late(shop))
    assert [(path, "now")] == effect(late(shop), late(shop, "2m"))
    assert [(path, "refused")] == effect(late(shop, "2m"), late(shop))
    assert [(path, "refused")] == effect(late(shop), shop)
    longer = replace(shop, events=replace(shop.events, lateness="30s"))
    assert [("events.lateness", "now")] == effect(late(shop), late(longer))
    assert [("events.lateness", "now")] == effect(shop, longer)
    assert path not in shop.declaration()


@pytest.mark.parametrize(
    ("length", "expected"),
    [("10s", "no less than lateness='20s'"), ("soon", "a duration"), (0, "no less than lateness")],
)
def test_mistakes_are_told(length: Any, expected: str) -> None:
    """It is a duration, and not shorter than the lateness."""
    with pytest.raises(DeclarationError, match=expected):
        late(shop, length)


def test_it_is_none_by_default() -> None:
    """Who declares nothing has one lateness."""
    assert sml.Events(key="k", fields={}).window_lateness is None
    assert shop.window_lateness_ms == shop.lateness_ms
    assert late(shop).window_lateness_ms == 60_000
