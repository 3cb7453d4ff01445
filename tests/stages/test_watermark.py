"""Watermarks: led by what several keys support, never by one, whatever it says and when."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stream_ml as sml
from stream_ml.stages.predict import Predict
from stream_ml.stages.watermark import REMEMBERED_RECORDS, ExamplesWatermark, Watermark
from tests.shop import START_MS, declare, event, started

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record

YEAR_MS = 365 * 86_400_000
ARRIVED_MS = 2**42
SEEDS = st.integers(0, 2**32)
BREADTHS = st.sampled_from([2, 3, 5, 9])

Said = tuple[str, int]


def honest(rand: random.Random, keys: int, count: int, disorder_ms: int) -> list[Said]:
    """Records in nearly the order of their time."""
    times = [START_MS + 1_000 * number for number in range(count)]
    return [(f"k{rand.randrange(keys)}", ts - rand.randrange(disorder_ms + 1)) for ts in times]


def by_definition(said: list[Said], breadth: int) -> list[int]:
    """The watermark after each record, worked out anew from all that came before."""
    remembered, reach = max(REMEMBERED_RECORDS, 8 * (2 * breadth - 1)), 2 * breadth - 1
    after, watermark, alone = [], -1, []
    for n in range(1, len(said) + 1):
        last = dict[str, tuple[int, int]]()
        for at, (key, ts) in enumerate(said[:n], 1):
            last.pop(key, None)
            last[key] = (at, ts)
        times = [ts for at, ts in list(last.values())[-reach:] if at + remembered > n]
        if said[n - 1][1] > watermark:
            alone = [*alone, said[n - 1][1]][-reach:] if len(times) == 1 else []
            led = -1
            if len(times) >= breadth:
                led = sorted(times)[-breadth]
            elif n > remembered and len(times) > 1:
                led = min(times)
            elif n > remembered and len(alone) >= breadth:
                led = sorted(alone)[-breadth]
            watermark = max(watermark, led)
        after.append(watermark)
    return after


def followed(said: list[Said], breadth: int) -> list[int]:
    """The watermark after each record."""
    watermark, after = Watermark(breadth), []
    for key, ts in said:
        before = watermark.ms
        assert watermark.advance(key, ts, ARRIVED_MS) == (watermark.ms > before)
        after.append(watermark.ms)
    return after


@given(SEEDS)
def test_with_a_breadth_of_one_it_is_the_newest_time(seed: int) -> None:
    """As it was before there was a breadth."""
    rand = random.Random(seed)
    said = [("k", rand.randrange(1_000)) for _ in range(50)]

    assert [max(ts for _, ts in said[: n + 1]) for n in range(50)] == followed(said, 1)


@settings(max_examples=60, deadline=None)
@given(SEEDS, BREADTHS, st.sampled_from([1, 2, 3, 8, 1_000]))
def test_it_is_what_its_definition_says(seed: int, breadth: int, keys: int) -> None:
    """Of few keys and many, with leaps, silences and disorder; and it never goes back."""
    rand = random.Random(seed)
    said = [
        (f"k{rand.randrange(keys)}", ts + rand.choice([0, 0, 0, 0, YEAR_MS]))
        for _, ts in honest(rand, keys, 250, 5_000)
    ]
    silent = rand.randrange(150)
    said[silent : silent + 90] = [("lone", ts) for _, ts in said[silent : silent + 90]]
    after = followed(said, breadth)

    assert by_definition(said, breadth) == after, f"seed {seed}"
    assert sorted(after) == after


@settings(max_examples=200, deadline=None)
@given(SEEDS, BREADTHS, st.sampled_from(["first", "middle", "last", "throughout"]))
def test_fewer_keys_than_the_breadth_move_nothing(seed: int, breadth: int, where: str) -> None:
    """However far ahead, once or in a burst: it stays at or below what honest records say."""
    rand = random.Random(seed)
    said = honest(rand, rand.choice([breadth + 1, 50]), 200, 3_000)
    places = {"first": [0], "middle": [100], "last": [199]}
    for number in range(breadth - 1):
        for place in places.get(where, rand.sample(range(200), 20)):
            burst = 1 if where == "throughout" else rand.choice([1, REMEMBERED_RECORDS // breadth])
            ahead = rand.choice([1, 60_000, YEAR_MS, 50 * YEAR_MS])
            said[place:place] = [(f"fast{number}", said[place][1] + ahead)] * burst
    newest = -1
    for (key, ts), watermark in zip(said, followed(said, breadth), strict=True):
        newest = newest if key.startswith("fast") else max(newest, ts)
        assert watermark <= newest, f"seed {seed}"


@pytest.mark.parametrize("breadth", [1, 2, 3, 10])
def test_it_lags_by_so_many_keys_less_one(breadth: int) -> None:
    """What it costs: of records in order, the watermark is the time of the one so many before."""
    said = [(f"k{n}", n) for n in range(100)]

    assert [n - breadth + 1 for n in range(breadth, 100)] == followed(said, breadth)[breadth:]


def test_a_time_counts_for_no_more_than_its_arrival() -> None:
    """Of many clocks that are ahead of the log's none leads it past the log's own time."""
    watermark = Watermark(3)
    for n in range(100):
        watermark.advance(f"k{n}", 5_000 + n, append_ms=1_000 + n)

    assert 1_097 == watermark.ms


def test_keys_that_fall_silent_hold_up_nothing_for_long() -> None:
    """Where one key goes on alone the watermark follows it, but for a single leap of its clock."""
    said = honest(random.Random(1), 5, 100, 0)
    alone = [("lone", START_MS + 1_000 * n) for n in range(100, 300)]
    alone[150] = ("lone", START_MS + YEAR_MS)
    after = followed(said + alone, 3)

    assert START_MS + 1_000 * 99 >= after[100 + REMEMBERED_RECORDS - 2]
    assert START_MS + 1_000 * 297 == after[-1]


@settings(max_examples=60, deadline=None)
@given(SEEDS, BREADTHS)
def test_written_down_and_taken_up_it_goes_on_alike(seed: int, breadth: int) -> None:
    """Through JSON, at any record."""
    rand = random.Random(seed)
    said = honest(rand, rand.choice([1, 2, 4, 50]), 200, 3_000)
    watermark, after = Watermark(breadth), []
    for key, ts in said:
        if rand.random() < 0.2:
            dumped = orjson.loads(orjson.dumps(watermark.dump()))
            watermark = Watermark(breadth)
            watermark.load(dumped)
        watermark.advance(key, ts, ARRIVED_MS)
        after.append(watermark.ms)

    assert followed(said, breadth) == after, f"seed {seed}"


def test_a_watermark_of_before_goes_on_from_where_it_had_come() -> None:
    """State that knew only the newest time is taken up as it is."""
    watermark, examples = Watermark(3), ExamplesWatermark(100, 3)
    watermark.load(START_MS)
    examples.load([START_MS, [[0, START_MS + 5]]])

    assert not watermark.advance("k", START_MS - 1, ARRIVED_MS)
    assert (START_MS, START_MS, START_MS + 5) == (watermark.ms, examples.ms, examples.newest_ms)


def test_one_example_moves_no_partition_of_the_truth() -> None:
    """Of examples' label times, too, as many must have come as far, in each partition."""
    examples = ExamplesWatermark(silence_ms=10_000, breadth=3)
    for n in range(100):
        ahead = YEAR_MS if n == 50 else 0
        examples.advance(n % 2, f"e{n}", START_MS + n * 1_000 + ahead, ARRIVED_MS)

    assert (START_MS + 94_000, START_MS + 95_000) == (examples.ms, examples.newest_ms)


# --- predict ----------------------------------------------------------------------------------


def broad(breadth: int = 3) -> Pipeline:
    """A shop with every kind of window."""
    spans = sml.window("1m"), sml.window("10s", by="kind")
    return declare(
        events=sml.Events(
            key="shop",
            fields={"kind": sml.Enum("visit", "order"), "amount": float},
            lateness="5s",
            breadth=breadth,
        ),
        features=[
            feature
            for span in spans
            for feature in (
                span.count(),
                span.sum("amount"),
                span.variance("amount"),
                span.max("amount"),
                span.last("amount"),
                span.distinct("amount"),
                span.decayed_mean("amount", half_life="20s"),
                span.time_since_last(),
            )
        ],
    )


def visits(rand: random.Random, count: int, shops: int) -> list[dict[str, Any]]:
    """Honest events, out of order by no more than is allowed."""
    return [
        {
            "event_id": f"h{number}",
            "ts": START_MS + 700 * number - rand.choice([0, 0, 0, 2_000, 5_000]),
            "shop": f"s{rand.randrange(shops)}",
            "kind": rand.choice(["visit", "visit", "order"]),
            "amount": float(rand.randrange(100)),
        }
        for number in range(count)
    ]


def answered(pipeline: Pipeline, members: list[dict[str, Any]], rand: random.Random) -> Any:
    """The features by event, from random batches and restarts; and the ids refused."""
    serving = started(pipeline)[2]
    stage, pieces = Predict(pipeline, serving), dict[str, bytes]()
    records: list[Record] = [event(n, **each) for n, each in enumerate(members)]
    features, refused = {}, []
    while records:
        size = rand.choice([1, 5, 30])
        for output in stage.apply(records[:size]):
            said = orjson.loads(output.value or b"")
            if output.topic == "predictions":
                features[said["event_id"]] = said["features"]
            elif output.topic == "dead-letters":
                refused.append(members[said["offset"]]["event_id"])
        del records[:size]
        if rand.random() < 0.3:
            pieces |= {name: piece for name, piece in stage.dirty() if piece is not None}
            stage = Predict(pipeline, serving)
            stage.restore(pieces.items())
    return features, refused


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([1, 4, 40]))
def test_an_event_that_is_ahead_changes_no_other_answer(seed: int, shops: int) -> None:
    """Seconds or years ahead, in the very window that is asked: all features are as without it."""
    rand, pipeline = random.Random(seed), broad()
    members = visits(rand, 150, shops)
    fast = rand.choice(["fast", "s0"])
    with_fast = list(members)
    # Of a key that is alone as many as the breadth are what it supports itself.
    for number in range(rand.choice([1, 3] if shops > 1 else [1, 2])):
        place = rand.choice([0, 75, 150])
        near = with_fast[max(0, place - 1)]
        ahead = near["ts"] + rand.choice([200_000, YEAR_MS])
        with_fast.insert(place, near | {"event_id": f"f{number}", "ts": ahead, "shop": fast})
    features, refused = answered(pipeline, members, rand)
    features_with, refused_with = answered(pipeline, with_fast, rand)

    assert ([], []) == (refused, [each for each in refused_with if each.startswith("h")])
    assert features == {event_id: features_with[event_id] for event_id in features}, f"seed {seed}"


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_what_is_too_late_for_all_is_refused_as_before(seed: int) -> None:
    """The watermark goes on behind honest events: who is behind it by more is too late."""
    rand, pipeline = random.Random(seed), broad()
    members = visits(rand, 150, 20)
    late = members[100] | {"event_id": "late", "ts": members[100]["ts"] - 20_000}
    _, refused = answered(pipeline, [*members[:110], late, *members[110:]], rand)

    assert ["late"] == refused


def test_a_hot_key_is_asked_as_quickly_after_a_leap_of_its_clock() -> None:
    """One event ahead does not make each question after it a walk through the window."""
    pipeline = broad()
    stage = Predict(pipeline, started(pipeline)[2])
    stage.apply([event(n, ts=START_MS + n, shop="hot", note=None) for n in range(2_000)])
    stage.apply([event(2_000, ts=START_MS + YEAR_MS, shop="hot", note=None)])
    (first, *_) = stage._features._buffers[0]["hot"]
    assert first is not None
    stage.apply([event(2_001, ts=START_MS + 2_001, shop="hot", note=None)])

    assert START_MS + 2_001 == first.as_of_ms
    assert 2_002 == len(first.times) - first.start
