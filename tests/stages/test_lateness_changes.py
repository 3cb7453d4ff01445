"""A longer lateness that is declared on a running log, and events that are folded again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from stream_ml.models.envelope import decode
from stream_ml.stages.lateness import Lateness
from stream_ml.stages.predict import Predict
from stream_ml.testing import Driver
from tests.shop import START_MS, event, shop, started, stream, wider

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline

LATE_MS = 25_000
PARTS = ((0, 90), (90, 180), (180, 300))


def long(pipeline: Pipeline) -> Pipeline:
    """The declaration with a longer lateness than the shop's."""
    return replace(pipeline, events=replace(pipeline.events, lateness="60s"))


def parts() -> list[tuple[list[Any], list[Any]]]:
    """Events in three parts, each with its labels: in the first, orders that are too late."""
    events, labels = stream(count=PARTS[-1][1])
    found = []
    for first, end in PARTS:
        chunk = []
        for number in range(first, end):
            chunk.append(events[number])
            if first == 0 and number >= 60 and number % 3 == 0:
                late = {"event_id": f"late{number}", "kind": "order", "amount": 500.0}
                chunk.append(events[number] | late | {"ts": events[number]["ts"] - LATE_MS})
        ids = {each["event_id"] for each in events[first:end]}
        found.append((chunk, [label for label in labels if label["event_id"] in ids]))
    return found


def history(*declarations: Pipeline) -> tuple[dict[str, dict[str, float]], dict[str, str], int]:
    """A log whose parts were worked on under these declarations, one after the other.

    Returns:
        The features by event, the digests of snapshots by name, and how many events were too late.
    """
    with Driver(declarations[0]) as driver:
        former = declarations[0]
        for pipeline, (events, labels) in zip(declarations, parts(), strict=True):
            if pipeline != former:
                is_wider = pipeline.features != former.features
                driver.declare(pipeline, apply="more" if is_wider else None)
                driver.run()
            driver.feed(events, labels)
            former = pipeline
        features = {each["event_id"]: each["features"] for each in driver.read("predictions")}
        envelopes = [decode(each.value) for each in driver.records("models") if each.value]
        letters = [each["reason"] for each in driver.read("dead-letters")]
        digests = {f"{each.name}@{each.version}": each.digest for each in envelopes}
        return features, digests, letters.count("too_late")


@pytest.mark.parametrize("between", [shop, long(shop), long(wider)])
def test_features_made_again_do_not_hold_what_was_too_late_when_it_came(between: Pipeline) -> None:
    """As if they had been declared from the start, also where both are changed at once."""
    always = wider if between is shop else long(wider)
    features, digests, late = history(shop, between, long(wider))
    expected, expected_digests, expected_late = history(wider, always, long(wider))

    assert 10 == late == expected_late
    names = wider.feature_set.names
    begin = PARTS[1][0] if between.features == wider.features else PARTS[2][0]
    later = [name for name in features if int(name[1:]) >= begin]
    assert later
    for name in later:
        assert expected[name] == {each: features[name][each] for each in expected[name]}
        assert {*names} <= {*expected[name]}
    made = {name for name in digests if name.partition("@")[0].endswith(".2")}
    assert {name.replace(".2@", "@"): digests[name] for name in made} == {
        name.replace(".2@", "@"): expected_digests[name.replace(".2@", "@")] for name in made
    }
    assert any(name.startswith("tree.2@") for name in made)


@pytest.mark.parametrize("is_former_release", [False, True])
def test_events_in_time_before_and_after_a_longer_lateness_are_taken(
    is_former_release: bool,
) -> None:
    """The floor is that of the lateness that was declared, not the oldest id that is known."""
    serving = started(shop)[2]
    former, stage = Predict(shop, serving), Predict(long(shop), serving)
    former.replay([event(0, ts=START_MS)])
    pieces = {name: value or b"" for name, value in former.dirty()}
    if is_former_release:
        keyless = orjson.loads(pieces[""])
        del keyless["lateness"]
        pieces[""] = orjson.dumps(keyless)
    stage.former_declaration = shop.declaration()
    stage.restore(pieces.items())

    stage.replay([event(1, ts=START_MS - 20_000), event(2, ts=START_MS - 20_001)])

    assert {"events": 2, "refused": 1} == {
        name: stage.counts[name] for name in ("events", "refused")
    }


def test_a_change_is_noted_with_the_next_record_whenever_the_state_is_written() -> None:
    """Also where workers start twice before it comes, and each time with a longer one."""
    first, second, third = Lateness(20_000), Lateness(40_000), Lateness(60_000)
    second.load(orjson.loads(orjson.dumps(first.dump())), 100_000)
    third.load(orjson.loads(orjson.dumps(second.dump())), 100_000)
    third.begin(7, 100_000)
    again = Lateness(60_000)
    again.load(orjson.loads(orjson.dumps(third.dump())), 200_000)

    assert ((7, 20_000),) == third.changes == again.changes
    assert (60_000, 80_000) == (again.ms, again.floor_ms)
